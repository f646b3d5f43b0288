"""A piece of a call in closed loop: the agent speaks, the line echoes, the caller makes a sound, a
detector of speech reports it, playback pauses, and goes on as the verdict says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tests.interruption.lines import Line, ulaw
from tests.interruption.recordings import Signal
from voiced import audio
from voiced.formats import PCMU_8K, AudioFormat
from voiced.interruption import Confirmation, Verdict
from voiced.vad import Vad, VadStarted

__all__ = ["Outcome", "Scene", "play"]

FRAME = 160
TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens. `caller` is heard from `caller_at_ms` on, at `caller_db` beside the agent.

    `reported_ms`: the way of the detector's report, on top of what it needs to hear. `outward_ms`:
    the way of played audio, and of a pause, to the caller's end.
    """

    agent: Signal
    line: Line
    caller: Signal | None = None
    caller_at_ms: int = 1000
    caller_db: float = 0.0
    confirm_ms: int = 400
    reported_ms: int = 80
    outward_ms: int = 0
    most_ms: int = 4000
    leg_format: AudioFormat = PCMU_8K


@dataclass(slots=True)
class Outcome:
    """What was decided: (ms at which it began, ms at which it was decided, verdict), in order."""

    verdicts: list[tuple[int, int, Verdict]] = field(default_factory=list)
    onset_ms: int = 0
    near: list[Signal] = field(default_factory=list)  # what came back, to look at failures

    @property
    def interrupted_ms(self) -> int | None:
        """When an interruption was confirmed."""
        return next((at for _, at, what in self.verdicts if what == "interruption"), None)

    @property
    def reported(self) -> bool:
        """Whether the detector of speech had anything to ask."""
        return bool(self.verdicts)

    @property
    def in_time(self) -> bool:
        """Whether the first window that began after the caller did, or one before, confirmed it."""
        due = next((at for began, at, _ in self.verdicts if began >= self.onset_ms), math.inf)
        stopped = self.interrupted_ms
        return stopped is not None and self.onset_ms < stopped <= due


def play(scene: Scene) -> Outcome:
    """Run it until an interruption is confirmed or the time is over."""
    judge = Confirmation(scene.leg_format, scene.confirm_ms)
    convert = audio.converter(PCMU_8K, scene.leg_format)
    vad = Vad()
    outcome = Outcome(onset_ms=scene.caller_at_ms if scene.caller is not None else 0)
    quiet = np.zeros(FRAME)
    agent = scene.agent[: len(scene.agent) // FRAME * FRAME].reshape(-1, FRAME)
    near = np.zeros(scene.most_ms * 8)
    if scene.caller is not None:
        at = scene.caller_at_ms * 8
        said = scene.caller[: len(near) - at] * 10 ** (scene.caller_db / 20)
        near[at : at + len(said)] = said
    outward = [quiet] * (scene.outward_ms // 20)
    played = 0
    paused = in_speech = False
    began: int | None = None
    reports: list[tuple[int, bool]] = []
    for tick in range(scene.most_ms // 20):
        now = tick * TICK_S
        if not paused and played < len(agent):
            coded = ulaw(agent[played])
            payload = convert.convert(coded) if convert else coded
            judge.played(payload, now + scene.outward_ms / 1000)
            outward.append(np.frombuffer(audio.ulaw_to_pcm(coded), "<i2").astype(np.float64))
            played += 1
        else:
            outward.append(quiet)
        back = scene.line.back(outward.pop(0)) + near[tick * FRAME : (tick + 1) * FRAME]
        coded = ulaw(back)
        pcm = audio.ulaw_to_pcm(coded)
        outcome.near.append(np.frombuffer(pcm, "<i2").astype(np.float64))
        now += TICK_S
        ms = round(now * 1000)
        judge.caller(convert.convert(coded) if convert else coded, now)
        reports += [(ms + scene.reported_ms, isinstance(e, VadStarted)) for e in vad.feed(pcm)]
        decided = judge.verdict(now) if began is not None else None
        if decided is not None:
            assert began is not None
            outcome.verdicts.append((began, ms, decided))
            if decided == "interruption":
                return outcome
            began, paused = None, False
            if in_speech and played < len(agent):
                judge.begin(now)
                began = ms
        while reports and reports[0][0] <= ms:
            _, in_speech = reports.pop(0)
            if not in_speech:
                judge.speech_stopped(now)
            elif began is None:
                judge.begin(now)
                judge.cleared(now + scene.outward_ms / 1000)
                began, paused = ms, True
    return outcome
