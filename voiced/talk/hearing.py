"""What follows from what the caller hears: an answer begins, runs dry, is over."""

from __future__ import annotations

from typing import Final

import trio

from voiced.record import CallRecord
from voiced.states import CallState
from voiced.talk.clipboard import Clipboard
from voiced.talk.floor import Floor
from voiced.talk.greeting import CLIP, GREETING, LOCAL
from voiced.talk.patience import Patience
from voiced.talk.truth import Truth
from voiced.talk.turns import Turns

__all__ = ["Hearing"]

_S: Final = CallState


class Hearing:
    """One call's (`voiced.talk.speaker.Listener`)."""

    def __init__(
        self,
        record: CallRecord,
        clipboard: Clipboard,
        floor: Floor,
        patience: Patience,
        truth: Truth,
        turns: Turns,
    ) -> None:
        self._record = record
        self._clipboard = clipboard
        self._floor = floor
        self._patience = patience
        self._truth = truth
        self._turns = turns
        self._greeted = False
        self._announced = False  # a clip of a plugin's is being heard

    def audio_started(self, item_id: str, in_s: float) -> None:
        """The first audio of an item has gone out and will be heard in `in_s` seconds."""
        heard_at = trio.current_time() + in_s
        self._clipboard.settle()
        if item_id.startswith(LOCAL):
            self._announced = self._announced or item_id.startswith(CLIP)
            if item_id.startswith(GREETING):
                self._record.greeting_heard(heard_at)
                self._greeted = True
            self._truth.seed_started(item_id)
            return
        self._patience.settled()
        if self._floor.closing:
            return
        if not self._greeted and self._turns.spoken_at is None:
            self._record.greeting_heard(heard_at)
        self._greeted = True
        self._turns.answer_heard(heard_at)
        if self._record.state is not _S.GREETING:
            self._floor.enter(_S.SPEAKING)

    def ran_dry(self) -> None:
        """The model is slower than speech, or has stalled."""
        self._patience.ran_dry()

    def turn_over(self) -> None:
        """All that was to be said has been heard."""
        self._truth.settle()
        announced, self._announced = self._announced, False
        if self._patience.owed:
            if self._record.state is _S.SPEAKING:
                self._floor.enter(_S.THINKING)
        elif self._record.state in (_S.GREETING, _S.SPEAKING, _S.COMMITTING, _S.THINKING):
            self._floor.listen()
        elif announced:
            self._patience.listening()  # the caller could not be expected to talk over it
