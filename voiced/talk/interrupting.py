"""Barge-in: stop, empty the carrier, tell the model what was heard: one step, no checkpoint."""

from __future__ import annotations

import trio

from voiced.hooks.calls import CallHooks
from voiced.playout import Cut
from voiced.record import CallRecord
from voiced.talk.answers import Answers
from voiced.talk.intake import Intake
from voiced.talk.truth import Truth
from voiced.talk.voice import Voice

__all__ = ["Interruption"]


class Interruption:
    """How the agent of one call is silenced."""

    def __init__(
        self,
        record: CallRecord,
        hooks: CallHooks,
        voice: Voice,
        intake: Intake,
        answers: Answers,
        truth: Truth,
    ) -> None:
        self._record = record
        self._hooks = hooks
        self._voice = voice
        self._intake = intake
        self._answers = answers
        self._truth = truth

    def barge_in(self, received: float) -> None:
        """Somebody interrupts; that it was so came to be known at `received`, on Trio's clock."""
        had_audio = self._voice.playout.unheard > 0
        cuts = self._voice.interrupt()
        if had_audio:
            self._record.barged_in(trio.current_time() - received)
        self._answers.cancel()
        self._tell(cuts)
        if had_audio:
            self._hooks.emit("on_barge_in", cuts[0].heard_ms if cuts else 0)

    def cut_off(self) -> None:
        """Stop the speaker for words of ours; the model is told what was heard."""
        self._tell(self._voice.interrupt())

    def _tell(self, cuts: list[Cut]) -> None:
        self._intake.cut()
        self._truth.cut(cuts)
