"""What the openai package makes of the server, with strict validation of every response and chunk.

Usage: python openai_strict.py http://127.0.0.1:8080/v1

Prints a line a check and exits with 1 when one fails. The server must serve the bundled family without keys.
"""

import sys
import traceback

import openai
from openai import OpenAI

QUESTION = [{"role": "user", "content": "What is 58 + 68?"}]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def models_are_listed_and_found(client):
    models = client.models.list().data
    assert models[0].id == "brevity-mini", models[0].id
    assert any(model.id == "brevity-mini:alpha-0.2" for model in models), [model.id for model in models]
    for model in models:
        assert client.models.retrieve(model.id).id == model.id
    try:
        client.models.retrieve("no-such-model")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.code
    else:
        raise AssertionError("an unknown model was found")


@check
def a_completion_has_thoughts_answer_and_usage(client):
    completion = client.chat.completions.create(model="brevity-mini", messages=QUESTION, seed=1, temperature=0)
    choice = completion.choices[0]
    assert choice.finish_reason == "stop", choice.finish_reason
    assert "126" in choice.message.content, choice.message.content
    assert "</think>" not in choice.message.content
    thoughts = choice.message.model_extra["reasoning_content"]
    assert thoughts and thoughts == choice.message.model_extra["reasoning"]
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


@check
def the_dial_reaches_its_tiers(client):
    seen = set()
    for effort in ["none", "minimal", "low", "medium", "high", "xhigh", "max"]:
        raw = client.chat.completions.with_raw_response.create(
            model="brevity-mini", messages=QUESTION, seed=1, reasoning_effort=effort
        )
        completion = raw.parse()
        assert raw.headers["x-brevity-tier"] == completion.model_extra["brevity"]["tier"]
        seen.add(raw.headers["x-brevity-tier"])
        if effort == "none":
            assert completion.usage.completion_tokens_details.reasoning_tokens == 0
    assert len(seen) >= 4, seen


@check
def a_stream_is_the_completion_in_pieces(client):
    ask = dict(model="brevity-mini", messages=QUESTION, seed=3, reasoning_effort="medium")
    whole = client.chat.completions.create(**ask)
    content, thoughts, usage, finish, roles = "", "", None, None, 0
    identities = set()
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        identities.add(chunk.id)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            roles += choice.delta.role is not None
            content += choice.delta.content or ""
            thoughts += (choice.delta.model_extra or {}).get("reasoning_content") or ""
            finish = choice.finish_reason or finish
    assert (content, finish) == (whole.choices[0].message.content, whole.choices[0].finish_reason)
    assert thoughts == whole.choices[0].message.model_extra["reasoning_content"]
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert roles == 1 and len(identities) == 1


@check
def choices_differ_and_repeat_with_their_seed(client):
    ask = dict(model="brevity-mini", messages=QUESTION, seed=11, n=5, temperature=1.0, reasoning_effort="max")
    texts = [[choice.message.model_extra.get("reasoning_content") for choice in client.chat.completions.create(**ask).choices]
             for _ in range(2)]
    assert len(texts[0]) == 5 and texts[0] == texts[1]
    assert len(set(texts[0])) > 1


@check
def stop_strings_end_the_answer_unseen(client):
    completion = client.chat.completions.create(model="brevity-mini", messages=QUESTION, seed=1, stop=["boxed"])
    assert "boxed" not in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"


@check
def a_budget_closes_the_thoughts_and_leaves_an_answer(client):
    completion = client.chat.completions.create(
        model="brevity-mini", messages=QUESTION, seed=1, reasoning_effort="max", extra_body={"max_reasoning_tokens": 5}
    )
    assert completion.choices[0].message.content
    assert completion.usage.completion_tokens_details.reasoning_tokens <= 6
    assert completion.model_extra["brevity"]["forced_close"] is True


@check
def log_probabilities_are_at_most_zero_and_the_likeliest_first(client):
    completion = client.chat.completions.create(
        model="brevity-mini", messages=QUESTION, seed=1, temperature=0, logprobs=True, top_logprobs=3
    )
    tokens = completion.choices[0].logprobs.content
    assert tokens and all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)
    # At temperature 0 every token is the likeliest.
    assert all(token.logprob >= token.top_logprobs[0].logprob - 1e-6 for token in tokens)


@check
def json_is_json(client):
    import json

    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
              "additionalProperties": False}
    completion = client.chat.completions.create(
        model="brevity-mini", messages=QUESTION, seed=1, max_completion_tokens=400,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
    )
    assert isinstance(json.loads(completion.choices[0].message.content)["answer"], int)


@check
def mistakes_are_refused_with_their_field(client):
    for wrong, param in [
        (dict(reasoning_effort="turbo"), "reasoning_effort"),
        (dict(temperature=3), "temperature"),
        (dict(n=0), "n"),
        (dict(top_logprobs=2), "top_logprobs"),
        (dict(max_completion_tokens=0), "max_completion_tokens"),
        (dict(messages=[]), "messages"),
    ]:
        try:
            client.chat.completions.create(**{"model": "brevity-mini", "messages": QUESTION, **wrong})
        except openai.BadRequestError as error:
            assert error.param and error.param.startswith(param), (wrong, error.param)
        else:
            raise AssertionError(f"{wrong} was accepted")


@check
def a_long_prompt_is_refused(client):
    try:
        client.chat.completions.create(model="brevity-mini", messages=[{"role": "user", "content": "What is 1 + 1? " * 2000}])
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error.code
    else:
        raise AssertionError("a prompt longer than the context was accepted")


@check
def a_response_has_thoughts_answer_and_usage(client):
    response = client.responses.create(
        model="brevity-mini", input=QUESTION, temperature=0, metadata={"a": "b"}, reasoning={"effort": "medium"},
        extra_body={"seed": 1},
    )
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    reasoning, message = response.output
    assert (reasoning.type, message.type, message.role) == ("reasoning", "message", "assistant")
    assert "126" in response.output_text and "</think>" not in response.output_text
    assert reasoning.content[0].type == "reasoning_text" and reasoning.content[0].text
    assert (response.metadata, response.reasoning.effort, response.store) == ({"a": "b"}, "medium", False)
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens_details.reasoning_tokens < usage.output_tokens
    # The same tier, seed and question give the same text by way of chat completions.
    completion = client.chat.completions.create(
        model="brevity-mini", messages=QUESTION, seed=1, temperature=0, reasoning_effort="medium"
    )
    assert completion.choices[0].message.content == response.output_text
    assert response.model_extra["brevity"]["tier"] == completion.model_extra["brevity"]["tier"]


@check
def a_streamed_response_is_the_response_in_pieces(client):
    ask = dict(model="brevity-mini", input="What is 58 + 68?", reasoning={"effort": "medium"}, extra_body={"seed": 3})
    whole = client.responses.create(**ask)
    texts, types = {}, []
    for number, event in enumerate(client.responses.create(**ask, stream=True)):
        assert event.sequence_number == number
        types.append(event.type)
        if event.type.endswith("_text.delta"):
            texts[event.item_id] = texts.get(event.item_id, "") + event.delta
        last = event
    assert types[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"], types
    assert types[-1] == "response.completed" and types.count("response.output_item.done") == 2
    assert [texts[item.id] for item in last.response.output] == [item.content[0].text for item in whole.output]
    assert last.response.usage.output_tokens == whole.usage.output_tokens
    # The client's own reader puts the same response together.
    with client.responses.stream(**ask) as stream:
        assert stream.get_final_response().output_text == whole.output_text


@check
def a_response_that_is_cut_is_incomplete(client):
    ask = dict(model="brevity-mini", input=QUESTION, max_output_tokens=4, reasoning={"effort": "max"})
    response = client.responses.create(**ask)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.output_tokens == 4 and response.output[-1].status == "incomplete"
    assert [event.type for event in client.responses.create(**ask, stream=True)][-1] == "response.incomplete"
    response = client.responses.create(
        model="brevity-mini", input=QUESTION, reasoning={"effort": "max", "max_tokens": 5}, extra_body={"seed": 1}
    )
    assert response.output_text and response.model_extra["brevity"]["forced_close"] is True
    assert response.usage.output_tokens_details.reasoning_tokens <= 6


@check
def a_response_goes_back_as_input(client):
    history = [{"role": "user", "content": "What is 58 + 68?"}]
    first = client.responses.create(model="brevity-mini", input=history, extra_body={"seed": 1})
    history += [*first.output, {"role": "user", "content": "What is 7 + 8?"}]
    raw = client.responses.with_raw_response.create(model="brevity-mini", input=history, extra_body={"seed": 1})
    assert raw.parse().usage.input_tokens > first.usage.input_tokens
    assert "x-brevity-ignored" not in raw.headers, raw.headers


@check
def a_response_has_json_and_log_probabilities(client):
    import json

    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
              "additionalProperties": False}
    response = client.responses.create(
        model="brevity-mini", input=QUESTION, max_output_tokens=400, top_logprobs=2,
        include=["message.output_text.logprobs"], extra_body={"seed": 1},
        text={"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}},
    )
    assert isinstance(json.loads(response.output_text)["answer"], int)
    tokens = response.output[-1].content[0].logprobs
    assert tokens and all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


@check
def what_needs_a_store_and_other_mistakes_are_refused(client):
    for wrong, param in [
        (dict(reasoning={"effort": "turbo"}), "reasoning.effort"),
        (dict(previous_response_id="resp_1"), "previous_response_id"),
        (dict(background=True), "background"),
        (dict(tools=[{"type": "web_search"}]), "tools[0].type"),
        (dict(input=[]), "input"),
        (dict(input="What is 1 + 1? " * 2000), "input"),
    ]:
        try:
            client.responses.create(**{"model": "brevity-mini", "input": QUESTION, **wrong})
        except openai.BadRequestError as error:
            assert error.param == param, (wrong, error.param)
        else:
            raise AssertionError(f"{wrong} was accepted")
    try:
        client.responses.retrieve("resp_1")
    except openai.NotFoundError as error:
        assert "stored" in error.message, error.message
    else:
        raise AssertionError("a response was found")


def main() -> int:
    client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120, _strict_response_validation=True)
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function(client)
            print(f"ok      {name}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc()
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
