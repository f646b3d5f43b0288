"""Error of the heard position at barge-in, by scenario: `python -m tests.bench.playclock [CALLS]`.

Each line is CALLS simulated calls of ten seconds (default 200) on a virtual clock: random answers,
chunk sizes and moments of interruption. Reported minus really played, in ms.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace

from tests.simulated_carrier import World, random_scenario

SCENARIOS: dict[str, dict[str, int]] = {
    "no delay": {"forward": 0, "backward": 0},
    "40 ms each way": {},
    "80 ms each way": {"forward": 80, "backward": 80},
    "10 ms there, 150 back": {"forward": 10, "backward": 150},
    "150 ms there, 10 back": {"forward": 150, "backward": 10},
    "40 ms, jitter 30 there": {"forward_jitter": 30},
    "40 ms, jitter 30 back": {"backward_jitter": 30},
    "40 ms, jitter 30 both": {"forward_jitter": 30, "backward_jitter": 30},
    "40 ms, jitter 100 both": {"forward_jitter": 100, "backward_jitter": 100},
    "40 ms, plays 20 ms frames": {"frame": 20},
    "40 ms, starts 150 ms late": {"start_delay": 150},
    "no lead, 40 ms": {"lead": 20, "chunk": 20},
    "40 ms, stalls of 100 to 1500": {"stalls": 1},
}


def draw_stalls(seed: int) -> tuple[tuple[int, int], ...]:
    rng = random.Random(seed)
    return tuple((rng.randrange(500, 9000), rng.randrange(100, 1500)) for _ in range(2))


def errors(settings: dict[str, int], calls: int) -> list[float]:
    """The errors of every barge-in that cut something."""
    out: list[float] = []
    for seed in range(calls):
        scenario = random_scenario(
            seed, **{key: value for key, value in settings.items() if key != "stalls"}
        )
        if "stalls" in settings:
            scenario = replace(scenario, stalls=draw_stalls(seed))
        outcome = World(scenario).run()
        out += [
            error
            for error, final in zip(outcome.clear_errors, outcome.finals, strict=True)
            if error or final
        ]
    return out


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Print the table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(
        f"{'heard-position error, ms':32} {'n':>6} {'p50':>7} {'p99':>7} {'low':>7} {'high':>7}"
        f" {'over 20':>8}"
    )
    for name, settings in SCENARIOS.items():
        found = errors(settings, calls)
        sizes = [abs(error) for error in found]
        over = sum(size > 20 for size in sizes) / len(sizes)
        print(
            f"{name:32} {len(found):6} {percentile(sizes, 0.5):7.1f} {percentile(sizes, 0.99):7.1f}"
            f" {min(found):7.1f} {max(found):7.1f} {over:8.1%}"
        )


if __name__ == "__main__":
    main()
