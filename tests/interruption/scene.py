"""A piece of a call in closed loop: the agent speaks, the line echoes, the caller makes a sound, a
detector of speech reports it, playback pauses, and goes on as the verdict says.

What `confirming`, `speaker` and `heard` of `voiced.talk` do, in steps of 20 ms: audio is told
when it is sent, up to `lead_ms` before it is heard; a pause tells that the rest is not; after it
playback goes on where the caller stopped hearing; and as long as the detector hears speech the
judge goes on listening.
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
PIECE = 20 * FRAME  # what goes out at a time where there is a lead
GRACE_MS = 400  # who has spoken waits that long for the agent to stop


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens. `caller` is heard from `caller_at_ms` on, at `caller_db` beside the agent.

    `reported_ms`: the way of the detector's report, on top of what it needs to hear. `outward_ms`:
    the way of played audio, and of a pause, to the caller's end. `restart_ms`: how much later than
    told playback may begin, each time anew. `lead_ms`: how far ahead of being heard audio is sent.
    """

    agent: Signal
    line: Line
    caller: Signal | None = None
    caller_at_ms: int = 1000
    caller_db: float = 0.0
    confirm_ms: int = 400
    reported_ms: int = 80
    outward_ms: int = 0
    restart_ms: int = 0
    lead_ms: int = 20
    most_ms: int = 4000
    leg_format: AudioFormat = PCMU_8K


@dataclass(slots=True)
class Outcome:
    """What was decided: (ms at which it began, ms at which it was decided, verdict), in order."""

    verdicts: list[tuple[int, int, Verdict]] = field(default_factory=list)
    onset_ms: int = 0
    over_ms: int = 0  # when the caller's sound ends
    near: list[Signal] = field(default_factory=list)  # what came back, to look at failures

    @property
    def interrupted_ms(self) -> int | None:
        """When an interruption was confirmed."""
        return next((at for _, at, what in self.verdicts if what == "interruption"), None)

    @property
    def in_time(self) -> bool:
        """Whether the first window that began after the caller did, or one before, confirmed it."""
        due = next((at for began, at, _ in self.verdicts if began >= self.onset_ms), math.inf)
        stopped = self.interrupted_ms
        return stopped is not None and self.onset_ms < stopped <= due

    @property
    def heeded(self) -> bool:
        """Whether the agent had stopped `GRACE_MS` after the caller's last sound."""
        stopped = self.interrupted_ms
        return stopped is not None and stopped <= self.over_ms + GRACE_MS


class _Agent:
    """Sends the agent's audio, tells the judge, and knows what the caller's end plays when."""

    def __init__(self, scene: Scene, judge: Confirmation) -> None:
        self._scene = scene
        self._judge = judge
        self._convert = audio.converter(PCMU_8K, scene.leg_format)
        self._draw = np.random.default_rng(scene.line.seed)
        self._sent = 0
        self._told_to = -1.0  # until when the caller has something to hear
        self._late = 0.0
        self._air = np.zeros(scene.most_ms * 8 + len(scene.agent))
        self.paused = False

    def sounds(self, now: float) -> bool:
        return self._sent < len(self._scene.agent) or self._told_to > now

    def send(self, now: float) -> None:
        """All that there is room for."""
        size = PIECE if self._scene.lead_ms >= 800 else FRAME
        while (
            not self.paused
            and self._sent < len(self._scene.agent)
            and max(self._told_to, now) + size / 8000 <= now + self._scene.lead_ms / 1000 + 1e-6
        ):
            if self._told_to < now - 1e-3:
                self._told_to = now
                self._late = self._draw.uniform(0, self._scene.restart_ms / 1000)
            coded = ulaw(self._scene.agent[self._sent : self._sent + size])
            self._judge.played(
                self._convert.convert(coded) if self._convert else coded, self._told_to
            )
            real = self._index(self._told_to + self._late)
            self._air[real : real + len(coded)] = np.frombuffer(audio.ulaw_to_pcm(coded), "<i2")[
                : max(0, len(self._air) - real)
            ]
            self._sent += len(coded)
            self._told_to += len(coded) / 8000

    def pause(self, now: float) -> None:
        self.paused = True
        self._sent -= max(0, round((self._told_to - now) * 8000))
        self._told_to = min(self._told_to, now - 2e-3)
        self._air[self._index(now) :] = 0
        self._judge.cleared(now)

    def heard(self, tick: int) -> Signal:
        return self._air[tick * FRAME : (tick + 1) * FRAME]

    def _index(self, told: float) -> int:
        return round(told * 8000) + self._scene.outward_ms * 8


def play(scene: Scene) -> Outcome:
    """Run it until an interruption is confirmed or the time is over."""
    judge = Confirmation(scene.leg_format, scene.confirm_ms)
    convert = audio.converter(PCMU_8K, scene.leg_format)
    vad = Vad()
    agent = _Agent(scene, judge)
    near = np.zeros(scene.most_ms * 8)
    outcome = Outcome()
    if scene.caller is not None:
        at = scene.caller_at_ms * 8
        said = scene.caller[: len(near) - at] * 10 ** (scene.caller_db / 20)
        near[at : at + len(said)] = said
        outcome.onset_ms = scene.caller_at_ms
        outcome.over_ms = scene.caller_at_ms + len(said) // 8
    in_speech = False
    began: int | None = None
    reports: list[tuple[int, bool]] = []

    def decide(now: float, ms: int) -> bool:
        """Whether it was an interruption, and all is over."""
        nonlocal began
        decided = judge.verdict(now) if began is not None else None
        if decided is not None:
            assert began is not None
            outcome.verdicts.append((began, ms, decided))
            began = None
            agent.paused = False
            if in_speech and decided != "interruption" and agent.sounds(now):
                judge.begin(now)
                began = ms
        return decided == "interruption"

    for tick in range(scene.most_ms // 20):
        agent.send(tick / 50)
        coded = ulaw(scene.line.back(agent.heard(tick)) + near[tick * FRAME : (tick + 1) * FRAME])
        pcm = audio.ulaw_to_pcm(coded)
        outcome.near.append(np.frombuffer(pcm, "<i2").astype(np.float64))
        now = (tick + 1) / 50
        ms = round(now * 1000)
        judge.caller(convert.convert(coded) if convert else coded, now)
        reports += [(ms + scene.reported_ms, isinstance(e, VadStarted)) for e in vad.feed(pcm)]
        if decide(now, ms):
            return outcome
        while reports and reports[0][0] <= ms:
            _, in_speech = reports.pop(0)
            if not in_speech:
                judge.speech_stopped(now)
                if decide(now, ms):
                    return outcome
            elif agent.sounds(now):
                agent.pause(now)
                judge.begin(now)
                began = ms
    return outcome
