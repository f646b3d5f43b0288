"""Who may be heard: the model, a plugin in its place, nobody on hold, the last words at the end.

The call's state follows from it, but for hold, transfer and the end, which have words of their own.
"""

from __future__ import annotations

from typing import Final

from voiced.playout import Playout
from voiced.record import CallRecord
from voiced.states import CallState
from voiced.talk.patience import Patience

__all__ = ["Floor"]

_S: Final = CallState


class Floor:
    """One call's. What is read for every frame is a plain attribute."""

    def __init__(self, record: CallRecord, patience: Patience, playout: Playout) -> None:
        self._record = record
        self._patience = patience
        self._playout = playout
        self.closing = False
        """The call is winding down: no more turns."""
        self.held = False
        """Nobody listens: the state stays what it is."""
        self.plugins = 0
        """How many have taken the call over."""
        self.taken = False
        """A plugin has the call to itself; the last words are the call's again."""
        self.deaf = False
        """The model hears silence in the caller's place: a plugin has the call, or the other side
        holds it. Music on hold is no turn of the caller's; nor is what is said to somebody else
        while a transfer rings."""

    def close(self) -> None:
        """The call is winding down."""
        self.closing = True
        self.taken = False
        self.deaf = self.held

    def take(self, taken: bool) -> None:
        """A plugin has the call to itself, or gives it back."""
        self.plugins += 1 if taken else -1
        self.taken = self.plugins > 0 and not self.closing
        self.deaf = self.taken or self.held

    def rest(self) -> None:
        """Nobody is impatient while nobody listens, or a plugin has the call."""
        self._patience.hold(self.held or self.plugins > 0)

    def hold(self, held: bool) -> None:
        """The other side holds the call, or is back; a transfer counts as hold."""
        self.held = held
        self.deaf = self.taken or held
        self.rest()
        if held or self.closing:
            return
        self._record.to(_S.LISTENING)
        if self._patience.owed:
            self._record.to(_S.THINKING)
        elif not self._playout.idle:
            self._record.to(_S.SPEAKING)

    def enter(self, state: CallState) -> None:
        """Enter a state, unless nobody listens."""
        if not self.held:
            self._record.to(state)

    def listen(self) -> None:
        """The caller's turn begins."""
        self._patience.listening()
        self.enter(_S.LISTENING)

    def settle(self) -> None:
        """Nothing is owed and nobody speaks: the state says so."""
        waiting = (_S.CALLER_SPEAKING, _S.COMMITTING, _S.THINKING)
        if self._record.state in waiting and self._playout.idle:
            self.listen()
