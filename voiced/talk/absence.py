"""The caller does not listen: the other side holds the call, or it is being transferred.

What the agent has to say waits meanwhile. So may the call's end, which is not for nobody to hear.
"""

from __future__ import annotations

from collections.abc import Callable

from voiced.record import CallRecord
from voiced.states import CallState
from voiced.talk.dialogue import Dialogue
from voiced.talk.voice import Voice

__all__ = ["Absence"]


class Absence:
    """One call's: holds, and transfers as long as they are under way."""

    def __init__(self, record: CallRecord, voice: Voice, dialogue: Dialogue) -> None:
        self._record = record
        self._voice = voice
        self._dialogue = dialogue
        self.held = False
        """The other side holds the call."""
        self.transferring = False
        """The caller is on the way to somebody else."""
        self._over = False
        self._awaiting: Callable[[], None] | None = None

    @property
    def away(self) -> bool:
        """Whether nobody listens."""
        return self.held or self.transferring

    def wait_to(self, end: Callable[[], None]) -> None:
        """Have the caller's return be the call's end; who asked first has the say."""
        self._awaiting = self._awaiting or end

    def stop(self) -> None:
        """The call ends: holds change nothing any more."""
        self._over = True

    def hold(self, held: bool) -> None:
        """The other side holds the call, or is back."""
        self.held = held
        if self.transferring or self._over:
            return  # the transfer's end, or the call's, sees to it
        if held:
            self._quieten(CallState.ON_HOLD)
        else:
            self._return()

    def transfer(self, under_way: bool) -> None:
        """A transfer has begun, or failed."""
        self.transferring = under_way
        if under_way:
            self._quieten(CallState.TRANSFERRING)
        else:
            self._return()

    def _quieten(self, state: CallState) -> None:
        self._voice.pause()
        self._record.to(state)
        self._dialogue.hold(True)

    def _return(self) -> None:
        """The caller listens again: go on, or end where that was only waiting for this."""
        if self.held:  # a transfer failed while the other side still holds
            self._dialogue.hold(False)
            self._quieten(CallState.ON_HOLD)
        if self._awaiting is not None:
            self._awaiting()
        elif not self.held:
            self._voice.resume()
            self._dialogue.hold(False)
