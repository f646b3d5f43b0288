"""Reversible barge-in: playback pauses at once, and goes on if it was no interruption.

While the judge listens the state stays as it was. After a verdict of echo or cough the model's
turn detection may hear speech still: as long as it does, the judge goes on listening in windows of
`confirm_ms` without a pause, so that a caller who talks over the echo, or right behind it, is heard
all the same.

An echo may be reported when the answer is over. Nothing pauses then, and nobody is interrupted: the
question is only whether the turn deserves an answer, and any doubt is the caller's.

A turn becomes an item when it is over, and the next may have begun by then: each keeps its verdict.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from voiced import metrics
from voiced.interruption.confirmation import Confirmation

__all__ = ["Confirming", "ConfirmingHost"]

UNEXPLAINED_MS: Final = 60
"""Of sound that no echo explains are a caller's turn where nothing plays. Of 589 words, 12 dB
softer than the agent's, over and behind echoes of -25 to -6 dB, one had less; of 586 echoes alone
33 had as much, 20 of them at -6 dB: the model answers these, as it would have answered all."""


COMMITTED_S: Final = 5.0
"""After its end a turn is an item so soon, or never: the news takes a round trip."""

MAX_ENDED: Final = 16  # turns that wait for that; none is shorter than a word and a silence


@dataclass(slots=True, eq=False)
class _Turn:
    """One of the caller's, as the model's turn detection has it."""

    item_id: str  # empty where that is known only when it is an item
    speech: bool  # it deserves an answer
    over_at: float = math.inf


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
    """One call's."""

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
        self._turn: _Turn | None = None  # that the caller is in the midst of
        self._ended: deque[_Turn] = deque(maxlen=MAX_ENDED)  # and that are no items yet
        self._unreported = False  # what is judged nobody has reported: no session listens
        self.said_meanwhile = False
        """The caller has spoken while no session listened."""

    @property
    def pending(self) -> bool:
        """Playback is paused and nothing is decided."""
        return self._paused

    @property
    def open(self) -> bool:
        """There is a turn, no item yet, that is not known to be none."""
        undecided = self._began is not None and self._turn is not None
        return undecided or any(turn.speech for turn in (*self._ended, self._turn) if turn)

    def speech_started(self, item_id: str, now: float, *, again: bool = False) -> bool:
        """Judge speech that may be an echo, and pause what plays. False if it can be none.

        `again`: the turn, or its beginning, was heard before by a session that is gone. What is
        heard now says whether it interrupts, and nothing of what was said then: it stays a turn.
        """
        sounds = self._host.agent_sounds
        judged = sounds or self.judge.may_echo(now)
        if self._turn is not None and self._turn.item_id != item_id:  # its end was not told
            self._turn.speech = self._turn.speech or self._began is not None
            self._end_turn(now)
        again = again or (self._turn is not None and self._turn.speech)
        self._in_speech = True
        self._turn = _Turn(item_id, speech=again or not judged)
        if not judged:
            return False
        self._after = not sounds
        if sounds:
            self._host.pause_speaker()
            self._paused = True
        self._begin(now)
        return True

    def speech_stopped(self, now: float) -> bool:
        """The turn is over as far as the model's turn detection goes; whether it was speech."""
        self._in_speech = False
        if self._began is not None:
            self.judge.speech_stopped(now)
            self._decide(now)
        turn = self._turn
        self._end_turn(now)
        return turn is None or turn.speech

    def _end_turn(self, now: float) -> None:
        if self._turn is not None:
            self._turn.over_at = now
            self._ended.append(self._turn)
            self._turn = None

    def committed(self, item_id: str, now: float) -> bool:
        """A turn becomes an item: what is undecided of it by now is decided.

        Returns whether it deserves an answer. Where nobody can say, it does.
        """
        turn = self._become_item(item_id, now)
        if turn is None:
            return True
        if turn is self._turn:  # its end was not told
            self._in_speech = False
            if self._began is not None:
                self._decide(max(now, self._deadline))
            if self._began is not None:  # the judge had nothing to say
                self._conclude("interruption", now)
            self._turn = None
        return turn.speech

    def _become_item(self, item_id: str, now: float) -> _Turn | None:
        """The turn that is meant: of that name, or of none that fits the first that waits.

        Of several that wait nobody can say which is meant, as one may never become an item: if one
        of them was speech, this is taken for it.
        """
        while self._ended and self._ended[0].over_at + COMMITTED_S < now:
            self._ended.popleft()
        turns = [*self._ended, *([self._turn] if self._turn is not None else ())]
        named = [turn for turn in turns if turn.item_id == item_id]
        meant = named or turns
        found = next(iter(meant), None)
        if found is not None and found is not self._turn:
            found.speech = any(turn.speech for turn in meant if turn is not self._turn)
            self._ended.remove(found)
        return found

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
        self._turn = None
        self._ended.clear()
        self._unreported = False
        self._deadline = math.inf

    def listen_on(self, now: float) -> None:
        """No session listens until another has taken over, which gets as audio what was said.

        It will report speech then. Whether it was any can only be told now.
        """
        self.stop()
        self._unreported, self.said_meanwhile = True, False
        self._begin(now)

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
        if self._unreported:
            self.said_meanwhile = verdict == "interruption"
            if not self.said_meanwhile:
                self._begin(now)
            return
        if self._after:
            if found is not None and found.rest_ms >= UNEXPLAINED_MS:
                verdict = "interruption"
        elif paused or verdict == "interruption":
            metrics.CONFIRMATIONS.labels(verdict).inc()
        self._host.judged(verdict, began, paused=paused)
        if verdict == "interruption":
            if self._turn is not None:
                self._turn.speech = True
            self._host.interrupted(began)
            return
        if paused:
            self._host.resume_speaker()
        if self._in_speech:  # the end of the answer does not end the turn: the caller may go on
            self._after = self._after and not self._host.agent_sounds
            self._begin(now)
