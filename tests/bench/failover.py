"""How long a caller waits when the model is lost: to the first sound, and to the next answer.

    python -m tests.bench failover --losses 30 --outage-ms 0 1500

The daemon whole, the offline model behind a wire that is cut at random moments of the call, callers
over both carriers, in this process and in real time. For each carrier and outage:

- `known`: the wire is cut → the daemon knows.
- `session`: cut → a session talks again, told the conversation.
- `sound`: the caller waits → hears anything, a filler or what was still on its way.
- `answer`: the server is there again (cut, plus the outage) → the answer that was owed goes on to
  be heard; what was still being heard of it does not count against it.
- `onward`: the caller waits → the same.
- `silence`: the longest silence of both sides between the cut and that answer.

A caller waits from the cut on, or from the end of their own words where they spoke then; they do
where an answer was owed. The filler is a tone here, as long as the bundled one, so that an answer
is told from it though it follows without a pause.

`late` is the worst that this process itself was late in any of these calls: it is part of each.
Calls in which it was later than `LATE_MS` are left out.
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trio

from tests.e2e.ears import samples
from tests.e2e.failing import CARRIERS, Line, Outcome, Plot, Stage, stage
from voiced import clips, wav
from voiced.emulator.options import EmulatorOptions
from voiced.formats import PCM16_8K
from voiced.simulate.script import HangUp, Say, Step, WaitForAgentSilence, WaitForAgentSpeech
from voiced.simulate.speech import Ear

__all__ = ["main"]

TURNS: tuple[Step, ...] = tuple(
    step
    for clip in ("interrupt", "thanks")
    for step in (Say(clip), WaitForAgentSpeech(300), WaitForAgentSilence(2200))
)
LEAST_S, MOST_S = 0.5, 11.0
"""When the wire is cut, counted from the beginning of media."""
AT_ONCE = 4
LOOK_S = 0.005
LATE_MS = 250
"""A call in which this process was later than this tells of the machine, and is left out."""

FILLER_HZ = 3000
"""Of the filler: above what is strong in a voice, and a whole number of cycles in a frame."""
PURE = 0.3
"""The share of a frame's power at that frequency from which on it is the tone: of one whole frame
all, of one half of which is silent a half. Speech has as much in single frames only."""
FRAME = 160

SPEAKS = ("caller_speaking", "committing", "thinking", "speaking", "greeting")


@dataclass
class Figures:
    """In ms, one for each loss to which it applies."""

    known: list[float] = field(default_factory=list)
    session: list[float] = field(default_factory=list)
    sound: list[float] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)
    onward: list[float] = field(default_factory=list)
    silence: list[float] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    late_ms: float = 0.0
    left_out: int = 0


@dataclass
class Times:
    """When the log said so, Trio's clock."""

    lost: float | None = None
    back: float | None = None
    state: str = ""


async def watch(line: Line, there: Stage, times: Times) -> None:
    """Note when the call's log lines appear."""
    seen = len(there.here.logs)
    while True:
        logs = there.here.logs
        while seen < len(logs):
            each: Mapping[str, Any] = logs[seen]
            seen += 1
            if each.get("call") not in line.calls:
                continue
            if each["event"] == "model state" and each["state"] == "reconnecting":
                times.lost = times.lost or trio.current_time()
            elif each["event"] == "model state" and times.lost is not None:
                times.back = times.back or trio.current_time()
            elif each["event"] == "call state" and times.lost is None:
                times.state = each["state"]
        await trio.sleep(LOOK_S)


async def lose(line: Line, there: Stage, outage_s: float, figures: Figures) -> None:
    """Hold one call, lose its model once, and note what that was like."""
    times = Times()
    cut_after = random.uniform(LEAST_S, MOST_S)

    async def act() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, line, there, times)
            while line.media_at is None:
                await trio.sleep(LOOK_S)
            await trio.sleep_until(line.media_at + cut_after)
            line.wire.down()
            await trio.sleep(outage_s)
            line.wire.up()
            await trio.sleep_forever()

    line.beside(act, to_the_end=True)
    outcome = await line.call(*TURNS, HangUp())
    note(outcome, times, outage_s, cut_after, line.media_at or 0.0, figures)


def note(
    outcome: Outcome, times: Times, outage_s: float, cut_s: float, media_at: float, to: Figures
) -> None:
    """Add the figures of one call."""
    result = outcome.result
    if result.lag_ms > LATE_MS:
        to.left_out += 1
        return
    to.late_ms = max(to.late_ms, result.lag_ms)
    if result.failure is not None or times.lost is None or times.back is None:
        if not outcome.losses_ms or result.duration_ms / 1000 <= cut_s + outage_s:
            return  # it was over before
        to.failed.append(f"{times.state} at {cut_s:.2f} s: {result.failure or 'not resumed'}")
        return
    cut_ms = outcome.losses_ms[0]
    to.states.append(times.state)
    to.known.append(1000 * (times.lost - media_at) - cut_ms)
    to.session.append(1000 * (times.back - media_at) - cut_ms)
    agent = [(said.start_ms, said.end_ms) for said in result.agent]
    # What the caller waits for: they have said all, or hear an answer that breaks off.
    speech = [said for said in result.caller if said.start_ms <= cut_ms]
    waits_from = max([cut_ms, *(said.end_ms for said in speech)])
    sounding = next((end for start, end in agent if start <= cut_ms < end), None)
    owed = times.state in SPEAKS
    after = [start for start, _ in agent if start > cut_ms]
    if not owed or not after:
        return
    following = next((s.start_ms for s in result.caller if s.start_ms > waits_from), math.inf)
    if after[0] > following:  # nothing was owed any more: all of the answer had come
        return
    if sounding is None:
        to.sound.append(max(0.0, after[0] - waits_from))
    else:
        to.sound.append(0.0)
    spoken = words(outcome)
    heard_out = next((end for start, end in spoken if start <= cut_ms < end), 0.0)
    resumed_ms = 1000 * (times.back - media_at)
    answer = next((start for start, _ in spoken if start >= max(resumed_ms, heard_out)), math.inf)
    if answer < following:
        waits_from = max(waits_from, heard_out)
        to.answer.append(max(0.0, answer - max(waits_from, cut_ms + 1000 * outage_s)))
        to.onward.append(max(0.0, answer - waits_from))
        to.silence.append(longest_silence(outcome, cut_ms, answer))


def words(outcome: Outcome) -> list[tuple[float, float]]:
    """When the agent was heard to speak, the filler left out, in ms since media began."""
    heard, ulaw = samples(outcome.result), outcome.result.agent_ulaw
    wave = np.exp(2j * np.pi * FILLER_HZ / 8000 * np.arange(FRAME))
    ear, spoken = Ear(), []
    for at in range(0, len(heard) - FRAME + 1, FRAME):
        frame = heard[at : at + FRAME]
        tone = abs(frame @ wave) ** 2 / (FRAME / 2 * (frame @ frame) + 1)
        spoken.append(ear.hear(ulaw[at : at + FRAME] if tone < PURE else None))
    spoken.append(ear.end())
    return [(20.0 * each[0], 20.0 * each[1]) for each in spoken if each is not None]


def filler(folder: Path) -> Path:
    """Write the tone."""
    size = 8 * clips.load("one_moment").duration_ms
    wave = 8000 * np.sin(2 * np.pi * FILLER_HZ / 8000 * np.arange(size))
    pcm = struct.pack(f"<{size}h", *map(int, wave))
    path = folder / "filler.wav"
    path.write_bytes(wav.header(PCM16_8K, 1, len(pcm)) + pcm)
    return path


def longest_silence(outcome: Outcome, since_ms: float, until_ms: float) -> float:
    """The longest time without a sound of either side."""
    longest, at = 0.0, since_ms
    both = (*outcome.result.agent, *outcome.result.caller)
    for start, end in sorted((said.start_ms, said.end_ms) for said in both):
        if end <= since_ms:
            continue
        longest = max(longest, min(start, until_ms) - at)
        at = max(at, end)
        if at >= until_ms:
            break
    return longest


def quantiles(values: Sequence[float]) -> str:
    """Least, median, 90 %, 99 %, most."""
    if not values:
        return f"{'—':>30}"
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0, 0.5, 0.9, 0.99)]
    return " ".join(f"{each:6.0f}" for each in (*at, ordered[-1]))


async def measure(
    losses: int, outages_ms: Sequence[int], think_ms: int, carriers: Sequence[str]
) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        agent = f'greeting = ""\nsilence_prompt_s = 0\none_moment_file = "{filler(Path(folder))}"\n'
        plots = {
            f"number{place}": Plot(EmulatorOptions(speech="clips", think_ms=think_ms), agent)
            for place in range(AT_ONCE)
        }
        async with stage(Path(folder), plots) as there:
            for carrier in carriers:
                for outage_ms in outages_ms:
                    figures = Figures()
                    left = [losses]
                    async with trio.open_nursery() as nursery:
                        for place in range(AT_ONCE):
                            line = there.lines[f"number{place}", carrier]
                            nursery.start_soon(caller, line, there, outage_ms, figures, left)
                    show(carrier, outage_ms, figures)
            bugs = there.here.tracebacks()
            print(f"\ntracebacks: {len(bugs)}")


async def caller(
    line: Line, there: Stage, outage_ms: int, figures: Figures, left: list[int]
) -> None:
    """Call after call, until there were enough."""
    await trio.sleep(random.random())
    while left[0] > 0:
        left[0] -= 1
        try:
            await lose(line, there, outage_ms / 1000, figures)
        except* AssertionError as error:  # a machine that stands still loses calls as well
            figures.failed.append(str(error.exceptions[0]))


def show(carrier: str, outage_ms: int, figures: Figures) -> None:
    """Print one carrier's figures."""
    states = {state: figures.states.count(state) for state in sorted(set(figures.states))}
    print(f"\n{carrier}, outage {outage_ms} ms: {len(figures.known)} losses, while {states}")
    print(f"  {'ms':10} {'least':>6} {'50 %':>6} {'90 %':>6} {'99 %':>6} {'most':>6}    n")
    for name in ("known", "session", "sound", "answer", "onward", "silence"):
        values = getattr(figures, name)
        print(f"  {name:10} {quantiles(values)} {len(values):4}")
    print(f"  late {figures.late_ms:.0f}; left out for {LATE_MS} and more: {figures.left_out}")
    for failed in figures.failed:
        print(f"  ! {failed}")


def main() -> int:
    """Read the command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m tests.bench failover", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--losses", type=int, default=30, help="for each carrier and outage")
    parser.add_argument("--outage-ms", type=int, nargs="+", default=[0, 1500])
    parser.add_argument("--think-ms", type=int, default=300, help="the model's own time")
    parser.add_argument("--carrier", choices=CARRIERS, nargs="+", default=CARRIERS)
    given = parser.parse_args()
    trio.run(measure, given.losses, given.outage_ms, given.think_ms, given.carrier)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
