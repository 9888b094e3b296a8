#!/usr/bin/env python3
"""Compare the time of an RL step with TRL's on this machine, with equal numbers of threads, in one run.

    cargo build --release
    target/release/serve eval --family models/mini --tier base --problems 64 --out runs/problems
    python compare.py models/mini/base --prompts runs/problems/responses-base.jsonl --rounds 2 -- --alpha 0.2 --steps 3

Runs `$SERVE train --recipe training/recipes/mini.toml --bench` (SERVE: default target/release/serve) and
`trl_rloo.py` one after the other, `--rounds` times in turn, so that a machine that slows down slows both, on the
problems of one file (each line with `question` and `answer`, as `serve eval` writes them). Both are
bound to the same CPUs, as many as `--threads`, and told that number in the environment (RAYON_NUM_THREADS,
OMP_NUM_THREADS). Arguments after `--` go to trl_rloo.py: give it the numbers of the recipe. What is equal in the two
and what is not stands at the head of trl_rloo.py.

Both print one JSON line a step with `step_time` in seconds and, better, `rollout_tokens`; lines without `step_time`
are passed over. Of each run the first `--warmup` steps are left out. The one line on stdout is the result as JSON:

    serve, trl               {"steps": counted, "step_time": median, "tokens_per_second": median of
                             rollout_tokens / step_time}
    step_time_ratio          TRL's median step time / ours: above 1, ours is faster
    tokens_per_second_ratio  our median / TRL's: the fairer figure where rollout lengths differ
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def parse_arguments() -> argparse.Namespace:
    own, peer = split_at(sys.argv[1:], "--")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="Hugging Face folder of the base model, for TRL")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL with `question` and `answer`")
    parser.add_argument("--recipe", type=Path, default=REPOSITORY / "training/recipes/mini.toml")
    parser.add_argument("--serve-args", default="", help="further arguments of `serve train`, as one string")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has requirements.txt installed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="how often the pair of runs is repeated")
    parser.add_argument("--warmup", type=int, default=1, help="first steps of each run that are not counted")
    arguments = parser.parse_args(own)
    arguments.peer = peer
    return arguments


def split_at(items: list[str], mark: str) -> tuple[list[str], list[str]]:
    """`items` before and after the first `mark`."""
    at = items.index(mark) if mark in items else len(items)
    return items[:at], items[at + 1 :]


def bound_to(threads: int) -> set[int]:
    """The first `threads` CPUs that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        sys.exit(f"--threads {threads}: this process may use {len(allowed)} CPUs")
    return set(allowed[:threads])


def steps_of(name: str, command: list[str], threads: int, warmup: int) -> list[dict]:
    """Run `command` and return its step lines after the warm-up."""
    print(f"{name}: {shlex.join(command)}", file=sys.stderr)
    count = str(threads)
    environment = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    cpus = os.sched_getaffinity(0)
    # Children inherit the binding of their parent.
    os.sched_setaffinity(0, bound_to(threads))
    try:
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        sys.exit(f"{name}: cannot start {command[0]}: {error}")
    finally:
        os.sched_setaffinity(0, cpus)
    if run.returncode != 0:
        sys.exit(f"{name}: ended with status {run.returncode}")
    steps = []
    for line in run.stdout.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and "step_time" in record:
            print(f"{name}: {line}", file=sys.stderr)
            steps.append(record)
    if len(steps) <= warmup:
        sys.exit(f"{name}: {len(steps)} steps printed, more than --warmup {warmup} are needed")
    return steps[warmup:]


def summary(steps: list[dict]) -> dict:
    """Medians over the counted steps."""
    result = {"steps": len(steps), "step_time": statistics.median(step["step_time"] for step in steps)}
    speeds = [step["rollout_tokens"] / step["step_time"] for step in steps if "rollout_tokens" in step]
    if speeds:
        result["tokens_per_second"] = statistics.median(speeds)
    return result


def main() -> None:
    arguments = parse_arguments()
    serve = os.environ.get("SERVE", str(REPOSITORY / "target/release/serve"))
    data = {"source": "file", "path": arguments.prompts, "question_column": "question", "answer_column": "answer"}
    ours = [serve, "train", "--recipe", str(arguments.recipe), "--bench", *shlex.split(arguments.serve_args)]
    ours += [word for key, value in data.items() for word in ("--set", f"data.{key}={value}")]
    peer = [
        arguments.python,
        str(Path(__file__).with_name("trl_rloo.py")),
        str(arguments.checkpoint),
        *("--prompts", str(arguments.prompts)),
        *("--threads", str(arguments.threads)),
        *arguments.peer,
    ]
    collected: dict[str, list[dict]] = {"serve": [], "trl": []}
    for _ in range(arguments.rounds):
        for name, command in (("serve", ours), ("trl", peer)):
            collected[name] += steps_of(name, command, arguments.threads, arguments.warmup)

    result = {name: summary(steps) for name, steps in collected.items()}
    report = {"threads": arguments.threads, **result}
    report["step_time_ratio"] = result["trl"]["step_time"] / result["serve"]["step_time"]
    if all("tokens_per_second" in part for part in result.values()):
        report["tokens_per_second_ratio"] = result["serve"]["tokens_per_second"] / result["trl"]["tokens_per_second"]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
