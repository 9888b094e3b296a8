#!/usr/bin/env python3
"""Measure one server with `serve load-test` and with tools that others wrote, and show the figures side by side.

    serve --family models/mini --port 8080 &
    python load_test.py --url http://127.0.0.1:8080/v1 --tokenizer models/mini/base

Streams are measured by `serve load-test` and AIPerf, whole answers by `serve load-test --no-stream` and oha. All tools
send the same prompts with the same fields at temperature 0, so that the server does the same work for each. The tools
take turns, `--rounds` times, so that a machine that slows down slows all of them; the figure of a tool is its median
over the rounds, and beside it stand its least and its greatest, which is the noise to judge a difference by.

What differs: AIPerf writes its requests from Python processes on the same machine, so what they cost the server's cores
is part of its figures. oha picks prompts from the list at random, the others send each one equally often. oha counts no
tokens.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# What is compared, with its unit.
FIGURES = {
    "first token, mean": "ms",
    "first token, p50": "ms",
    "first token, p90": "ms",
    "end to end, mean": "ms",
    "end to end, p50": "ms",
    "end to end, p90": "ms",
    "tokens, mean": "",
    "requests/s": "",
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1", help="where the server's API begins")
    parser.add_argument("--model", default="brevity-mini")
    parser.add_argument("--effort", default="high")
    parser.add_argument("--tokenizer", type=Path, default=REPOSITORY / "models/mini/base", help="folder, for AIPerf")
    parser.add_argument("--serve", default=str(REPOSITORY / "target/release/serve"))
    parser.add_argument("--aiperf", default="aiperf")
    parser.add_argument("--oha", default="oha")
    parser.add_argument("--prompts", type=int, default=200, help="different prompts, each sent once a round")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def questions(count: int) -> list[str]:
    """Sums and products like those of the mini suite, the same in every run."""
    draw = random.Random(0)
    number = draw.randint
    forms = [
        lambda: f"What is {number(10, 99)} + {number(10, 99)} - {number(2, 9)}?",
        lambda: f"Compute {number(10, 99)} * {number(2, 9)} - {number(10, 99)}.",
        lambda: f"What is {number(10, 99)} * {number(2, 9)} + {number(10, 99)} * {number(2, 9)}?",
    ]
    return [forms[index % len(forms)]() for index in range(count)]


def run(command: list[str], **more: object) -> str:
    """The standard output of `command`; ends this program where it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, **more)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: ended with status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def ours(arguments: argparse.Namespace, folder: Path, streamed: bool) -> dict[str, float]:
    """What `serve load-test` measures."""
    out = folder / "ours"
    command = [arguments.serve, "load-test", "--url", arguments.url, "--model", arguments.model]
    command += ["--efforts", arguments.effort, "--prompts", str(folder / "ours.jsonl"), "--temperature", "0"]
    command += ["--concurrency", str(arguments.concurrency), "--out", str(out)]
    run(command if streamed else [*command, "--no-stream"])
    whole = json.loads((out / "summary.json").read_text())
    summary = whole["efforts"][0]
    # Over the whole time, as the others count it: the report itself leaves the tail out, where users are missing.
    figures = {"requests/s": summary["succeeded"] / whole["seconds"]}
    names = {"first token": "time_to_first_token", "end to end": "end_to_end", "tokens": "tokens"}
    for shown, name in names.items():
        for statistic in ("mean", "p50", "p90"):
            value = (summary["metrics"].get(name) or {}).get(statistic)
            if value is not None:
                figures[f"{shown}, {statistic}"] = value * (1 if shown == "tokens" else 1000)
    return figures


def aiperf(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """What AIPerf measures of streams."""
    out = folder / "aiperf"
    command = [arguments.aiperf, "profile", "--model", arguments.model, "--url", arguments.url.removesuffix("/v1")]
    command += ["--endpoint-type", "chat", "--streaming", "--use-server-token-count", "--ui", "none"]
    command += ["--tokenizer", str(arguments.tokenizer.resolve()), "--custom-dataset-type", "single_turn"]
    command += ["--input-file", str(folder / "aiperf.jsonl"), "--request-count", str(arguments.prompts)]
    command += ["--extra-inputs", f"reasoning_effort:{arguments.effort}", "--extra-inputs", "temperature:0"]
    command += ["--concurrency", str(arguments.concurrency), "--output-artifact-dir", str(out)]
    run(command, cwd=folder)
    found = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text())
    figures = {"requests/s": found["request_throughput"]["avg"]}
    if "output_sequence_length" in found:
        figures["tokens, mean"] = found["output_sequence_length"]["avg"]
    for shown, name in (("first token", "time_to_first_token"), ("end to end", "request_latency")):
        for statistic, key in (("mean", "avg"), ("p50", "p50"), ("p90", "p90")):
            figures[f"{shown}, {statistic}"] = found[name][key]
    return figures


def oha(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """What oha measures of whole answers."""
    command = [arguments.oha, "--no-tui", "--output-format", "json", "-n", str(arguments.prompts)]
    command += ["-c", str(arguments.concurrency), "-m", "POST", "-T", "application/json"]
    command += ["-Z", str(folder / "oha.jsonl"), f"{arguments.url}/chat/completions"]
    found = json.loads(run(command))
    if set(found["statusCodeDistribution"]) != {"200"}:
        sys.exit(f"oha: {found['statusCodeDistribution']}")
    latency = found["latencyPercentiles"]
    return {
        "end to end, mean": found["summary"]["average"] * 1000,
        "end to end, p50": latency["p50"] * 1000,
        "end to end, p90": latency["p90"] * 1000,
        "requests/s": found["summary"]["requestsPerSec"],
    }


def shown(rounds: list[dict[str, float]], name: str) -> str:
    """The median of a figure over `rounds`, with its range."""
    values = [figures[name] for figures in rounds if name in figures]
    if not values:
        return "–"
    digits = 1 if max(values) >= 10 else 2
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main() -> None:
    arguments = parse_arguments()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.pop(name, None)  # with either set, even to 0, AIPerf does not take a local folder for a tokenizer
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = questions(arguments.prompts)
        fields = {"model": arguments.model, "reasoning_effort": arguments.effort, "temperature": 0}
        body = lambda text: fields | {"messages": [{"role": "user", "content": text}]}
        for name, line in (
            ("ours", lambda text: {"prompt": text}),
            ("aiperf", lambda text: {"text": text}),
            ("oha", body),
        ):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(line(text)) + "\n" for text in texts))
        tools = {
            "serve load-test, streamed": lambda: ours(arguments, folder, True),
            "AIPerf, streamed": lambda: aiperf(arguments, folder),
            "serve load-test, whole": lambda: ours(arguments, folder, False),
            "oha, whole": lambda: oha(arguments, folder),
        }
        collected: dict[str, list[dict[str, float]]] = {name: [] for name in tools}
        for number in range(arguments.rounds):
            for name, measure in tools.items():
                print(f"round {number + 1}: {name}", file=sys.stderr)
                collected[name].append(measure())
    print(f"{arguments.prompts} prompts at effort {arguments.effort}, {arguments.concurrency} at a time,", end=" ")
    print(f"median (least–greatest) of {arguments.rounds} rounds\n")
    print("| | " + " | ".join(tools) + " |")
    print("|---" * (len(tools) + 1) + "|")
    for name, unit in FIGURES.items():
        label = f"{name}, {unit}" if unit else name
        print(f"| {label} | " + " | ".join(shown(collected[tool], name) for tool in tools) + " |")


if __name__ == "__main__":
    main()
