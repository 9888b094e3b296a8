#!/usr/bin/env python3
"""How many decoding steps a rollout of 256 responses takes, by simulation: with slots for the longest response allowed, and
with slots that grow. No model and no GPU.

    python rollout_steps.py

Lengths are drawn from a lognormal distribution, about those of a reasoning model on competition problems; sequences at a time
and tokens of keys and values are those that `serve train --dry-run` gave for the memory. The last line is a time for an H200
at 1.5B, from the measurements in gpu-results.md: 3.9 ms a step, 7 µs a sequence, 28,672 bytes a token at 2.5 TB/s.
"""

import random
from collections import deque

PROMPT, FIRST_LEVEL, LONGEST, SEQUENCES = 200, 1024, 32_512, 256


def fixed(lengths: list[int], slots: int) -> int:
    waiting, active, steps = deque(lengths), [], 0
    while waiting or active:
        while waiting and len(active) < slots:
            active.append(waiting.popleft())
        active = [left - 1 for left in active if left > 1]
        steps += 1
    return steps


def growing(lengths: list[int], tokens: int) -> int:
    """As training/src/rollout/device/levels.rs."""
    def slots_of(level: int, sequences: int) -> int:
        return min(max(1, min(tokens // level, SEQUENCES)), sequences)

    waiting, active, aside, steps = deque([length, PROMPT] for length in lengths), [], [], 0
    level = min(LONGEST, PROMPT + FIRST_LEVEL)
    slots = slots_of(level, len(lengths))
    while waiting or active or aside:
        if aside or any(length > level for _, length in active):
            everyone = len(active) + len(waiting) + len(aside)
            above = slots_of(min(2 * level, LONGEST), everyone)
            if above >= min(everyone, SEQUENCES) or (not waiting and len(active) <= above):
                level = min(2 * level, LONGEST)
                waiting.extend(aside)
                aside = []
                slots = slots_of(level, len(active) + len(waiting))
            else:
                aside += [sequence for sequence in active if sequence[1] > level]
                active = [sequence for sequence in active if sequence[1] <= level]
        while waiting and len(active) < slots:
            active.append(waiting.popleft())
        for sequence in active:
            sequence[0] -= 1
            sequence[1] += 1
        active = [sequence for sequence in active if sequence[0] > 0]
        steps += 1
    return steps


def main() -> None:
    random.seed(1)
    lengths = [min(32_000, max(50, int(random.lognormvariate(7.95, 0.85)))) for _ in range(SEQUENCES)]
    print(f"median {sorted(lengths)[SEQUENCES // 2]:,}, mean {sum(lengths) / SEQUENCES:,.0f}, longest {max(lengths):,}")
    for name, slots, tokens in [("1.5B, 139 GiB", 141, 4_444_319), ("1.5B, 78 GiB", 77, 2_415_144),
                                ("1.5B, 23 GiB", 19, 585_560), ("7B, 78 GiB", 31, 985_540)]:
        print(f"{name}: {fixed(lengths, slots):,} steps with {slots} slots, {growing(lengths, tokens):,} growing")
    seconds, few = 0.0, 0
    for step in range(max(lengths)):
        left = sum(length > step for length in lengths)
        few += left < 16
        seconds += 0.0039 + 7e-6 * left + left * (PROMPT + step) * 28_672 / 2.5e12
    print(f"fewer than 16 sequences in {few:,} of {max(lengths):,} steps; {seconds:.0f} s")


if __name__ == "__main__":
    main()
