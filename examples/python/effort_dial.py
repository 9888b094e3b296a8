"""Turn the effort dial with the openai package and watch the thoughts arrive.

Usage: python effort_dial.py [http://127.0.0.1:8080/v1]
"""

import os
import sys

from openai import OpenAI

QUESTION = "What is 37 * 9 - 88?"


def ask(client: OpenAI, effort: str) -> int:
    """Streams one answer and returns its completion tokens."""
    stream = client.chat.completions.create(
        model="brevity-mini",
        messages=[{"role": "user", "content": QUESTION}],
        reasoning_effort=effort,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
    )
    print(f"== {effort}")
    thinking, usage = False, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            # Not a field of OpenAI's own API, so it is found among the extra ones.
            thought = (choice.delta.model_extra or {}).get("reasoning_content")
            if thought:
                print(thought if thinking else f"(thinking) {thought}", end="", flush=True)
                thinking = True
            if choice.delta.content:
                print(f"\n(answer) {choice.delta.content}" if thinking else choice.delta.content, end="", flush=True)
                thinking = False
    if usage is None:
        raise SystemExit("the stream ended without usage")
    thought_tokens = usage.completion_tokens_details.reasoning_tokens
    print(f"\n{usage.completion_tokens} tokens, {thought_tokens} of them thoughts\n")
    return usage.completion_tokens


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BREVITY_URL", "http://127.0.0.1:8080/v1")
    # Strict validation raises on any response that does not have the shape OpenAI documents.
    client = OpenAI(
        base_url=url,
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        _strict_response_validation=True,
    )
    for model in client.models.list():
        print(model.id)
    print()
    tokens = {effort: ask(client, effort) for effort in ("low", "high")}
    print(f"low effort took {tokens['low']} tokens, high effort {tokens['high']}")


if __name__ == "__main__":
    main()
