"""The requirement as it is worded: `python -m tests.interruption.clause [--scenes 200]`.

Recorded human speech with an added echo: a copy of what was played, 20 to 500 ms later and -20 to
-6 dB beside it, to which nothing else is done but the line's noise and mu-law. Synthesised coughs.
People who interrupt for 200 ms and longer, as loud as the agent or 6 dB softer. An interruption
that nobody made is a false cut: at -12 dB and below there is to be none. One is missed where the
agent has not stopped 400 ms after the caller's last sound: there is to be none at all.

Rooms, hybrids, loudspeakers that distort, delays that change, softer callers: see measure.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Final

import numpy as np

from tests.interruption import sounds
from tests.interruption.measure import ECHO_DB, Bench, Tally
from tests.interruption.recordings import CALLERS, Half, Signal, prompts
from tests.interruption.scene import Scene, play

__all__ = ["Clause"]

LENGTHS: Final = {"200-600 ms": (200, 600), "longer": (600, 8000)}
LEVELS: Final = (0, -6)  # dB, of callers beside the agent


@dataclasses.dataclass(frozen=True, slots=True)
class Clause:
    """The cells of the table; equal seeds, equal scenes."""

    half: Half = "held out"
    seed: int = 1

    def _play(
        self, draw: np.random.Generator, echo_db: float, caller: Signal | None, caller_db: float
    ) -> Scene:
        scene = Bench(self.half).scene(draw, "flat", echo_db, caller, caller_db)
        line = dataclasses.replace(scene.line, distortion=0.0, clip=100.0)
        return dataclasses.replace(scene, line=line)

    def echo(self, echo_db: float, scenes: int) -> Tally:
        """Nobody speaks."""
        draw = np.random.default_rng([self.seed, 1, -round(echo_db)])
        return Tally.of([play(self._play(draw, echo_db, None, 0)) for _ in range(scenes)])

    def coughs(self, echo_db: float, scenes: int) -> Tally:
        """All kinds in turn, as loud as the agent, and softer."""
        draw = np.random.default_rng([self.seed, 2, -round(echo_db)])
        kinds = list(sounds.COUGHS.values())
        outcomes = []
        for i in range(scenes):
            cough = kinds[i % len(kinds)](draw)
            outcomes.append(play(self._play(draw, echo_db, cough, float(draw.choice(LEVELS)))))
        return Tally.of(outcomes)

    def interruptions(self, echo_db: float, caller_db: float, length: str, scenes: int) -> Tally:
        """Somebody speaks while the agent does."""
        least, most = LENGTHS[length]
        said = [p for who in CALLERS[self.half] for p in prompts(who, self.half, least, most)]
        draw = np.random.default_rng([self.seed, 3, -round(echo_db), -round(caller_db), least])
        outcomes = []
        for _ in range(scenes):
            caller = said[draw.integers(len(said))]
            outcomes.append(play(self._play(draw, echo_db, caller, caller_db)))
        return Tally.of(outcomes)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--half", choices=["tuning", "held out"], default="held out")
    parser.add_argument("--scenes", type=int, default=200, help="in each cell")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    clause = Clause(options.half, options.seed)
    print(f"{options.half} recordings, a copy as echo; of scenes in which speech was reported:\n")
    print(f"{'':34}" + "".join(f"{f'{db} dB':>10}" for db in ECHO_DB))

    def row(name: str, counts: list[str]) -> None:
        print(f"{name:34}" + "".join(f"{count:>10}" for count in counts), flush=True)

    tallies = [clause.echo(db, options.scenes) for db in ECHO_DB]
    row("echo alone: cut", [f"{t.cut}/{t.asked}" for t in tallies])
    tallies = [clause.coughs(db, options.scenes) for db in ECHO_DB]
    row("coughs: cut", [f"{t.cut}/{t.asked}" for t in tallies])
    for length in LENGTHS:
        for caller_db in LEVELS:
            tallies = [
                clause.interruptions(db, caller_db, length, options.scenes) for db in ECHO_DB
            ]
            counts = [f"{t.ignored}/{t.asked}" for t in tallies]
            row(f"{length}, {caller_db} dB: missed", counts)
            if any(t.early for t in tallies):
                row("   cut before", [str(t.early) for t in tallies])
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
