"""Asks the session that talks for the answers that are owed, within what its engine allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, final

import trio

from voiced.engine import Lost, Session
from voiced.steady.director import LOOK_S
from voiced.steady.held import Held
from voiced.steady.ledger import NEVER, Ledger
from voiced.steady.owed import Ask

__all__ = ["LIMITED", "Asking"]

LIMITED: Final = "rate_limit_exceeded"
"""The server has answered as often as it will for now; it takes sessions all the same."""

LIMITED_S: Final = 1.5  # until an answer refused by a server's rate limit is asked for again
MAX_TRIES: Final = 2  # of one answer that fails, with one session

BROKE_OFF: Final = (
    'Your last answer was cut off by a fault of the line. The caller hears it up to: "{begun}" '
    "Go on from exactly there, without a greeting, an apology or a repetition."
)


class Lose(Protocol):
    """Ends the session that talks."""

    def __call__(self, active: Held, loss: Lost, *, leave: bool) -> None:
        """`leave`: it works, but the call leaves it."""


@final
class Asking:
    """One call's.

    `wake` is called when `due` has changed; `elsewhere` tells whether another engine than that of
    a session would take the call.
    """

    def __init__(
        self,
        ledger: Ledger,
        lose: Lose,
        elsewhere: Callable[[Held], bool],
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._lose = lose
        self._elsewhere = elsewhere
        self._wake = wake
        self._not_before = 0.0
        self._hears_out = False  # an answer, before the other engine is asked for the next

    @property
    def due(self) -> float:
        """When `ask` has something to do that it had to put off."""
        return self._not_before if self._ledger.owed.waiting else NEVER

    def anew(self) -> None:
        """Another session is to talk, or may be asked to: nothing is put off any more."""
        self._not_before = 0.0
        self._hears_out = False

    def ask(self, active: Held, live: Session) -> None:
        """Ask for what is wanted."""
        owed = self._ledger.owed
        if self._hears_out and not owed.running:
            self.anew()
        while owed.waiting:
            if trio.current_time() < self._not_before:
                return
            if not active.guarded.guard.request():
                self._starve(active)
                return
            _tell(live, owed.next())

    def failed(self, active: Held, live: Session, code: str, ask: Ask) -> None:
        """An answer has failed, and its session does nothing about it."""
        limited = code == LIMITED
        enough = ask.tries + 1 >= MAX_TRIES
        elsewhere = (limited or enough) and self._elsewhere(active)
        if elsewhere or enough:
            loss = Lost(code, "the server does not answer", retryable=True)
            self._lose(active, loss, leave=elsewhere)
            return
        self._ledger.failed = None
        self._ledger.owed.again(ask)
        if limited:
            self._put_off(LIMITED_S)
        self.ask(active, live)

    def _starve(self, active: Held) -> None:
        """The engine has given its answers for this minute: the other one gives ours, or it waits.

        An answer that is being given is heard out first.
        """
        guard = active.guarded.guard
        guard.count("no_request", guard.name)
        elsewhere = self._elsewhere(active)
        if elsewhere and not self._ledger.owed.running:
            loss = Lost("requests_per_minute", "the engine is at its limit", retryable=True)
            self._lose(active, loss, leave=True)
            return
        self._hears_out = elsewhere
        self._put_off(max(guard.request_wait_s(), LOOK_S))

    def _put_off(self, seconds: float) -> None:
        self._not_before = trio.current_time() + seconds
        self._wake()


def _tell(live: Session, ask: Ask) -> None:
    if ask.begun is None:
        live.respond(ask.instructions)
        return
    note = BROKE_OFF.format(begun=ask.begun)
    if ask.instructions is None:
        live.add_message("system", note)
        live.respond(None)
    else:  # they stand in place of the session's, so the note belongs with them
        live.respond(f"{ask.instructions}\n{note}")
