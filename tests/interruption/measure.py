"""How well interruptions are told from echo, coughs and digit tones: `python -m
tests.interruption.measure [--half tuning] [--scenes 20] [--confirm-ms 400]`.

Every figure is a count of scenes (see scene.py): real recorded speech, a line drawn at random with
the seed that the row names. `--half tuning` uses the recordings that the constants were chosen on.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.interruption import sounds
from tests.interruption.lines import PATHS, Line, path_of, ulaw
from tests.interruption.recordings import AGENT, CALLERS, Half, Signal, music, prompts
from tests.interruption.scene import Outcome, Scene, play
from voiced import audio
from voiced.formats import PCM16_16K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.interruption import Confirmation

__all__ = ["ECHO_DB", "Bench", "Tally"]

ECHO_DB: Final = (-20, -15, -12, -9, -6)
CALLER_DB: Final = (0, -6, -12)
NO_ECHO_DB: Final = -90.0
HOLES: Final = ((20, 0), (40, 0), (60, 0), (100, 0), (20, 500), (40, 500))  # ms; every so many
Sound = Callable[[np.random.Generator], Signal]


@dataclass(frozen=True, slots=True)
class Tally:
    """Of `scenes`, in how many the detector of speech asked, and what came of it."""

    scenes: int
    asked: int
    cut: int  # an interruption was confirmed, wherever
    early: int  # before the caller made any sound
    missed: int  # no interruption within confirm_ms of the report of speech
    ignored: int  # not by the time the caller had spoken, and 400 ms
    delays_ms: tuple[int, ...]  # from the caller's first sound to the interruption
    verdicts: Counter[str]

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> Tally:
        """Count them."""
        asked = [o for o in outcomes if any(at > o.onset_ms for _, at, _ in o.verdicts)]
        stopped = [(o, at) for o in outcomes if (at := o.interrupted_ms) is not None]
        return cls(
            scenes=len(outcomes),
            asked=len(asked),
            cut=len(stopped),
            early=sum(at <= o.onset_ms for o, at in stopped),
            missed=sum(not o.in_time for o in asked),
            ignored=sum(not o.heeded for o in asked),
            delays_ms=tuple(at - o.onset_ms for o, at in stopped if at > o.onset_ms),
            verdicts=Counter(
                what for o in outcomes for _, at, what in o.verdicts if at > o.onset_ms
            ),
        )

    def percentile(self, percent: float) -> int:
        """Of the delays; 0 where there are none."""
        return round(float(np.percentile(self.delays_ms, percent))) if self.delays_ms else 0


@dataclass(frozen=True, slots=True)
class Bench:
    """Scenes drawn at random from one half of the recordings; equal seeds, equal scenes."""

    half: Half = "held out"
    confirm_ms: int = 400
    leg_format: AudioFormat = PCMU_8K

    def scene(
        self,
        draw: np.random.Generator,
        path: str,
        echo_db: float,
        caller: Signal | None = None,
        caller_db: float = 0.0,
    ) -> Scene:
        said = prompts(AGENT, self.half, 2500, 60_000)
        agent = said[draw.integers(len(said))][:40_000]
        line = Line(
            path_of(path, draw, agent, echo_db),
            delay_ms=int(draw.integers(20, 501)),
            distortion=float(draw.choice([0, 0.05, 0.1])),
            clip=float(draw.choice([100, 2.5])),
            noise_dbfs=float(draw.uniform(-70, -50)),
            seed=int(draw.integers(1_000_000)),
        )
        return Scene(
            agent,
            line,
            caller,
            caller_at_ms=20 * int(draw.integers(25, 100)),
            caller_db=caller_db,
            confirm_ms=self.confirm_ms,
            reported_ms=20 * int(draw.integers(0, 8)),
            outward_ms=int(draw.choice([0, 60])),
            restart_ms=int(draw.choice([0, 40])),
            lead_ms=int(draw.choice([20, 2000])),
            most_ms=6000,
            leg_format=self.leg_format,
        )

    def echo(self, path: str, echo_db: float, scenes: int, seed: int = 1) -> Tally:
        """The caller is silent: any interruption is a false cut."""
        draw = np.random.default_rng([seed, -round(echo_db), list(PATHS).index(path)])
        return Tally.of([play(self.scene(draw, path, echo_db)) for _ in range(scenes)])

    def moving(
        self, hole_ms: int, every_ms: int, echo_db: float, scenes: int, seed: int = 5
    ) -> Tally:
        """As `echo`, on all paths in turn, with what is heard breaking off for `hole_ms`: once,
        while the agent speaks, or every `every_ms`."""
        draw = np.random.default_rng([seed, -round(echo_db), hole_ms, every_ms])
        paths = list(PATHS)
        outcomes = []
        for i in range(scenes):
            scene = self.scene(draw, paths[i % len(paths)], echo_db)
            first = int(draw.integers(300, 3500))
            at = range(first % every_ms, scene.most_ms, every_ms) if every_ms else [first]
            line = dataclasses.replace(scene.line, holes=tuple((ms, hole_ms) for ms in at))
            outcomes.append(play(dataclasses.replace(scene, line=line)))
        return Tally.of(outcomes)

    def speech(
        self, echo_db: float, caller_db: float, scenes: int, *, short: bool, seed: int = 2
    ) -> Tally:
        """A caller speaks, a word of 200 to 600 ms or longer, while the agent does."""
        least, most = (200, 600) if short else (700, 8000)
        said = [p for who in CALLERS[self.half] for p in prompts(who, self.half, least, most)]
        draw = np.random.default_rng([seed, -round(echo_db), -round(caller_db), short])
        paths = list(PATHS)
        outcomes = []
        for i in range(scenes):
            caller = said[draw.integers(len(said))]
            scene = self.scene(draw, paths[i % len(paths)], echo_db, caller, caller_db)
            outcomes.append(play(scene))
        return Tally.of(outcomes)

    def sound(self, make: Sound, echo_db: float, scenes: int, seed: int = 3) -> Tally:
        """The caller makes a sound that is no speech: an interruption is a false cut."""
        draw = np.random.default_rng([seed, -round(echo_db)])
        paths = list(PATHS)
        outcomes = []
        for i in range(scenes):
            level = float(draw.choice([0, -6, -12]))
            scene = self.scene(draw, paths[i % len(paths)], echo_db, make(draw), level)
            outcomes.append(play(scene))
        return Tally.of(outcomes)

    def digits(self, echo_db: float, twist_db: float, seed: int = 4) -> Tally:
        """All 16 keys as tones of 80 to 300 ms."""
        draw = np.random.default_rng([seed, -round(echo_db), round(twist_db) + 20])
        outcomes = []
        for digit in range(16):
            tone = sounds.dtmf(digit, twist_db, int(draw.integers(80, 300)))
            level = float(draw.choice([0, -6, -12]))
            outcomes.append(play(self.scene(draw, "flat", echo_db, tone, level)))
        return Tally.of(outcomes)


def _rows(bench: Bench, scenes: int) -> Iterator[str]:
    yield "echo alone: false cuts of scenes in which speech was reported, by echo below the agent"
    yield "  " + "".join(f"{f'{db} dB':>12}" for db in ECHO_DB)
    for path in PATHS:
        tallies = [bench.echo(path, db, scenes) for db in ECHO_DB]
        yield f"  {path:10}" + "".join(f"{f'{t.cut}/{t.asked}':>12}" for t in tallies)
    yield ""
    yield "the same, where what is heard breaks off, and its echo is later from then on"
    for hole_ms, every_ms in HOLES:
        tallies = [bench.moving(hole_ms, every_ms, db, scenes) for db in ECHO_DB]
        how = f"{hole_ms} ms" + (f" in {every_ms}" if every_ms else "")
        yield f"  {how:12}" + "".join(f"{f'{t.cut}/{t.asked}':>12}" for t in tallies)
    for short in (False, True):
        yield ""
        yield f"{'a word of 200 to 600 ms' if short else 'longer speech'}: of scenes in which"
        yield "it was reported: missed / ignored; ms from its onset, p50 and p95; cut before it"
        for echo_db in (NO_ECHO_DB, -20, -12, -9, -6):
            for caller_db in CALLER_DB:
                t = bench.speech(echo_db, caller_db, 2 * scenes, short=short)
                name = "no echo" if echo_db == NO_ECHO_DB else f"echo {echo_db:.0f} dB"
                yield (
                    f"  {name:12} caller {caller_db:3} dB  {t.missed:3} / {t.ignored:<3}"
                    f" of {t.asked:4}  {t.percentile(50):5} {t.percentile(95):5}  {t.early:3}"
                )
    yield ""
    yield "other sounds: false cuts, and verdicts"
    kinds: dict[str, Sound] = {**sounds.COUGHS, **sounds.OTHERS}
    for name, make in kinds.items():
        for echo_db in (NO_ECHO_DB, -12):
            t = bench.sound(make, echo_db, scenes)
            where = "no echo" if echo_db == NO_ECHO_DB else "echo -12 dB"
            yield f"  {name:18} {where:12} {t.cut:3} of {t.asked:4}  {dict(t.verdicts)}"
    for twist_db in (-6, 0, 6):
        for echo_db in (NO_ECHO_DB, -12):
            t = bench.digits(echo_db, twist_db)
            where = "no echo" if echo_db == NO_ECHO_DB else "echo -12 dB"
            yield (
                f"  digits, twist {twist_db:2} dB {where:12} {t.cut:3} of {t.asked:4}"
                f"  {dict(t.verdicts)}"
            )
    songs = music()
    if songs:
        t = bench.sound(lambda draw: songs[draw.integers(len(songs))][:16_000], NO_ECHO_DB, scenes)
        yield f"  {'music':18} {'no echo':12} {t.cut:3} of {t.asked:4}  {dict(t.verdicts)}"


def _cost(leg_format: AudioFormat) -> str:
    """What one look costs of a core: echoes in all paths, playback that stops and begins anew."""
    convert = audio.converter(PCMU_8K, leg_format)
    draw = np.random.default_rng(1)
    times = []
    for path in PATHS:
        judge = Confirmation(leg_format, 400)
        agent = prompts(AGENT, "held out", 2500, 60_000)[0]
        line = Line(path_of(path, draw, agent, -12), delay_ms=200, distortion=0.1, clip=2.5)
        for tick in range(120):
            frame = agent[tick % 100 * 160 : (tick % 100 + 1) * 160] * (tick % 40 > 10)
            coded = ulaw(frame)
            if tick % 40 > 10:
                judge.played(convert.convert(coded) if convert else coded, tick / 50)
            coded = ulaw(line.back(frame))
            judge.caller(convert.convert(coded) if convert else coded, tick / 50)
            if tick > 40:
                judge.begin(tick / 50)
                began = time.thread_time()
                judge.verdict(tick / 50)
                times.append((time.thread_time() - began) * 1000)
    p50, p99 = np.percentile(times, (50, 99))
    return f"cost of verdict(), {leg_format}: {p50:.2f} ms, p99 {p99:.2f} ms, most {max(times):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--half", choices=["tuning", "held out"], default="held out")
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--confirm-ms", type=int, default=400)
    parser.add_argument("--cost", action="store_true", help="only what a look costs")
    options = parser.parse_args()
    began = time.monotonic()
    if not options.cost:
        bench = Bench(options.half, options.confirm_ms)
        print(f"{options.half} recordings, confirm_ms = {options.confirm_ms}\n")
        for row in _rows(bench, options.scenes):
            print(row, flush=True)
        print()
    for leg_format in (PCMU_8K, PCMA_8K, PCM16_16K):
        print(_cost(leg_format))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
