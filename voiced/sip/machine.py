"""What runs a transaction's table: the state, and the timers that live in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from voiced.sip.model import Message
from voiced.sip.timers import Timer, Timers
from voiced.sip.transaction import (
    LIVES_IN,
    Action,
    Event,
    State,
    Table,
    TimerName,
    Timing,
    duration,
)

__all__ = ["Machine"]

_RETRANSMISSIONS: Final = frozenset({TimerName.A, TimerName.E, TimerName.G})


class Machine:
    """One transaction: walks its table, keeps its timers. Made by the transaction layer alone."""

    __slots__ = (
        "_armed",
        "_repeats",
        "_sending",
        "_table",
        "_timers",
        "_timing",
        "_why",
        "reliable",
        "state",
    )

    invite: bool

    def __init__(self, table: Table, timers: Timers, timing: Timing, *, reliable: bool) -> None:
        self._table = table
        self._timers = timers
        self._timing = timing
        self._armed: dict[TimerName, Timer] = {}
        self._repeats = 0  # firings of the one timer that retransmits
        self._sending = False
        self._why = ""
        self.reliable = reliable
        self.state = State.INITIAL

    @property
    def ended(self) -> bool:
        """Whether it is terminated, and forgotten by its layer."""
        return self.state is State.TERMINATED

    def step(self, event: Event | TimerName, message: Message | None = None) -> bool:
        """Let `event` happen; False if the table has nothing for it in this state."""
        rule = self._table.get((self.state, event))
        if rule is None:
            return False
        state, actions = rule
        if state is not self.state:
            self._enter(state)
        for action in actions:
            if isinstance(action, TimerName):
                self._start(action)
            else:
                self._do(action, message)
        return True

    def _enter(self, state: State) -> None:
        self.state = state
        armed = self._armed
        if armed:
            for name in [name for name in armed if state not in LIVES_IN[name]]:
                armed.pop(name).cancel()
        if state is State.TERMINATED:
            self._terminated()

    def _start(self, name: TimerName) -> None:
        seconds = duration(
            name,
            self._timing,
            reliable=self.reliable,
            invite=self.invite,
            state=self.state,
            fired=self._repeats,
        )
        if seconds is None:
            return
        if seconds == 0:
            self.step(name)
            return
        self._stop(name)
        self._armed[name] = self._timers.call_later(seconds, partial(self._fire, name))

    def _stop(self, name: TimerName) -> None:
        timer = self._armed.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _fire(self, name: TimerName) -> None:
        del self._armed[name]
        if name in _RETRANSMISSIONS:
            self._repeats += 1
        self.step(name)

    def _sent(self, send: Callable[[Callable[[str], None]], None]) -> None:
        """Send, and have what the transport says about it become an event."""
        self._sending = True
        try:
            send(self._failed)
        finally:
            self._sending = False

    def _failed(self, why: str) -> None:
        if self._sending:
            # From within `send`, which the transport should not do: the actions after this one
            # are still to come, so the event waits for the next turn.
            self._timers.call_later(0, partial(self._unsent, why))
        else:
            self._unsent(why)

    def _unsent(self, why: str) -> None:
        self._why = why
        self.step(Event.TRANSPORT_ERROR)

    def _do(self, action: Action, message: Message | None) -> None:
        raise NotImplementedError

    def _terminated(self) -> None:
        raise NotImplementedError
