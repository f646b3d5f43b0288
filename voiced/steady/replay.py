"""The caller's turn that the next session hears again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from voiced.engine import Committed, EngineEvent, SpeechStarted, SpeechStopped

__all__ = ["Replay"]


@final
class Replay:
    """Leaves out what the call was told long ago: that the turn began, perhaps that it was over.

    It would pass for an interruption, of what covers for the loss.
    """

    def __init__(self, *, interrupts: bool) -> None:
        """`interrupts`: that the caller begins to speak does, whatever is said."""
        self._interrupts: Final = interrupts
        self._begun = self._ended = False  # told, and to come again

    @property
    def awaited(self) -> bool:
        """Whether anything may have to be left out."""
        return self._begun or self._ended

    def begin(self, *, open_turn: bool, finished: bool) -> None:
        """A session hears the turn again, if there is one, `finished` or not."""
        self._begun = self._interrupts and open_turn
        self._ended = self._begun and finished

    def over(self) -> None:
        """Whatever comes from now on is news."""
        self._begun = self._ended = False

    def news(self, events: Sequence[EngineEvent]) -> list[EngineEvent]:
        """What the call is to be told of these."""
        told: list[EngineEvent] = []
        for event in events:
            if type(event) is SpeechStarted and self._begun:
                self._begun = False
            elif type(event) is SpeechStopped and self._ended:
                self._ended = False
            else:
                told.append(event)
            if type(event) is Committed:
                self.over()
        return told
