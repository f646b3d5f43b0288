"""Reversible barge-in: playback pauses at once, and goes on if it was no interruption.

While the judge listens the state stays as it was. After a verdict of echo or cough the model's
turn detection may hear speech still: as long as it does, the judge goes on listening in windows of
`confirm_ms` without a pause, so that a caller who talks over the echo, or right behind it, is heard
all the same.

An echo may be reported when the answer is over. Nothing pauses then, and nobody is interrupted: the
question is only whether the turn deserves an answer, and any doubt is the caller's.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import trio

from voiced import metrics
from voiced.interruption.confirmation import Confirmation

__all__ = ["Confirming", "ConfirmingHost"]

UNEXPLAINED_MS: Final = 60
"""Of sound that no echo explains are a caller's turn where nothing plays. Of 589 words, 12 dB
softer than the agent's, over and behind echoes of -25 to -6 dB, one had less; of 586 echoes alone
33 had as much, 20 of them at -6 dB: the model answers these, as it would have answered all."""


class ConfirmingHost(Protocol):
    """What follows from a verdict."""

    def pause_speaker(self) -> None:
        """Stop playing and keep what is unheard."""

    def resume_speaker(self) -> None:
        """Go on where the caller stopped hearing."""

    def interrupted(self, began: float) -> None:
        """It was the caller: speech_started came at `began`, on Trio's clock."""

    def judged(self, verdict: str, began: float, *, paused: bool) -> None:
        """Speech reported at `began` was this, by the judge; for the log."""

    @property
    def agent_sounds(self) -> bool:
        """Whether anything is being said or waits to be."""


class Confirming:
    """One call's. `turn_is_speech` says whether the caller's turn deserves an answer."""

    def __init__(self, host: ConfirmingHost, judge: Confirmation, confirm_ms: int) -> None:
        self._host = host
        self.judge = judge
        self._limit_s = confirm_ms / 1000
        self._began: float | None = None  # a judgement is under way
        self._paused = False
        self._in_speech = False  # the model's turn detection hears the caller
        self._deadline = math.inf
        self._wake = trio.Event()
        self._after = False  # what is judged came when nothing played any more
        self.turn_is_speech = True

    @property
    def pending(self) -> bool:
        """Playback is paused and nothing is decided."""
        return self._paused

    def speech_started(self, now: float) -> bool:
        """Judge speech that may be an echo, and pause what plays. False if it can be none."""
        self._in_speech = True
        sounds = self._host.agent_sounds
        if not sounds and not self.judge.may_echo(now):
            self.turn_is_speech = True
            return False
        self.turn_is_speech = False
        self._after = not sounds
        if sounds:
            self._host.pause_speaker()
            self._paused = True
        self._begin(now)
        return True

    def speech_stopped(self, now: float) -> None:
        """The turn is over as far as the model's turn detection goes."""
        self._in_speech = False
        if self._began is not None:
            self.judge.speech_stopped(now)
            self._decide(now)

    def committed(self, now: float) -> None:
        """The turn becomes an item: what is undecided by now is decided."""
        self._in_speech = False
        if self._began is not None:
            self._decide(max(now, self._deadline))
        if self._began is not None:  # the judge had nothing to say
            self._conclude("interruption", now)

    def caller(self, payload: bytes, at_s: float) -> None:
        """More of the caller's audio."""
        self.judge.caller(payload, at_s)
        if self._began is not None:
            self._decide(trio.current_time())

    def digit(self, now: float) -> None:
        """The caller pressed a key."""
        self.judge.digit(now)
        if self._began is not None:
            self._decide(now)

    def stop(self) -> None:
        """Playback belongs to somebody else now: hold, the end, a plugin."""
        self._began = None
        self._paused = self._in_speech = False
        self.turn_is_speech = True  # where nobody can say, it deserves an answer
        self._deadline = math.inf

    async def watch(self) -> None:
        """Decide at the latest when the time is over; ends by cancellation."""
        while True:
            self._wake = trio.Event()
            with trio.move_on_at(self._deadline):
                await self._wake.wait()
                continue
            if self._began is not None:
                now = trio.current_time()
                self._decide(now)
                if self._began is not None and now >= self._deadline:
                    self._conclude("interruption", now)

    def _begin(self, now: float) -> None:
        self._began = now
        self._deadline = now + self._limit_s
        self.judge.begin(now)
        self._wake.set()

    def _decide(self, now: float) -> None:
        verdict = self.judge.verdict(now)
        if verdict is not None:
            self._conclude(verdict, now)

    def _conclude(self, verdict: str, now: float) -> None:
        assert self._began is not None
        began, paused, found = self._began, self._paused, self.judge.findings
        self._began, self._deadline, self._paused = None, math.inf, False
        if self._after:
            if found is not None and found.rest_ms >= UNEXPLAINED_MS:
                verdict = "interruption"
        elif paused or verdict == "interruption":
            metrics.CONFIRMATIONS.labels(verdict).inc()
        self._host.judged(verdict, began, paused=paused)
        if verdict == "interruption":
            self.turn_is_speech = True
            self._host.interrupted(began)
            return
        if paused:
            self._host.resume_speaker()
        if self._in_speech:  # the end of the answer does not end the turn: the caller may go on
            self._after = self._after and not self._host.agent_sounds
            self._begin(now)
