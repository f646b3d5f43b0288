"""What all calls share about one engine: whether it works, and how much of it is in use.

One `Guard` per `[engine.NAME]`, for as long as the daemon lives; a reload changes its limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import structlog
import trio

from voiced.engine import Engine
from voiced.steady.breaker import Breaker, BreakerState
from voiced.steady.limits import Slots, Window

__all__ = ["Attempt", "Guard", "Guarded", "Lease"]

log = structlog.get_logger("voiced.steady")


def _count_nothing(_what: str, _why: str) -> None:
    pass


@final
class Lease:
    """A session's place among `max_sessions`. Giving it back twice is giving it back once."""

    def __init__(self, guard: Guard) -> None:
        self._guard: Guard | None = guard

    def release(self) -> None:
        """Give it back."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard._released()


@final
class Attempt:
    """One attempt to make a session; the first of its outcomes counts."""

    def __init__(self, guard: Guard) -> None:
        self._guard: Guard | None = guard

    def succeeded(self) -> None:
        """A session was made."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard._succeeded()

    def failed(self, code: str, *, terminal: bool) -> None:
        """None was made."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.failed(code, terminal=terminal)

    def abandon(self) -> None:
        """Nobody waits for the outcome any more."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard._abandoned()


@final
class Guard:
    """The breaker and the limits of one engine, on Trio's clock.

    Args:
        name: the `[engine.NAME]`.
        max_sessions: sessions at a time; None: any number.
        requests_per_minute: answers in a minute; None: any number.
        count: told what happened, and to which engine: `breaker_open`, `no_session`, `no_request`.
    """

    def __init__(
        self,
        name: str,
        *,
        max_sessions: int | None = None,
        requests_per_minute: int | None = None,
        count: Callable[[str, str], None] = _count_nothing,
    ) -> None:
        self.name = name
        self.count = count
        self._breaker = Breaker()
        self._slots = Slots(max_sessions)
        self._window = Window(requests_per_minute)
        self._last_error: str | None = None
        self._answered = False
        self._waiting: set[trio.Event] = set()  # one per call that waits for this engine

    def configure(self, *, max_sessions: int | None, requests_per_minute: int | None) -> None:
        """Follow a reload: the engine is another one, of which it is not known whether it works."""
        self._slots.limit = max_sessions
        self._window.limit = requests_per_minute
        self._breaker = Breaker()
        self._last_error = None
        self._answered = False
        self._tell()

    # ---- sessions

    def lease(self) -> Lease | None:
        """Take a place for a session; None where there is none."""
        if not self._slots.free:
            self.count("no_session", self.name)
            return None
        self._slots.take()
        return Lease(self)

    def wait_s(self, *, alternative: bool, leased: bool) -> float:
        """Seconds until an attempt is admitted; infinite: when something changes, see `tell`.

        `alternative`: the call has another engine; `leased`: it has its place already.
        """
        if not leased and not self._slots.free:
            return math.inf
        return self._breaker.wait_s(trio.current_time(), alternative=alternative)

    def attempt(self) -> Attempt:
        """Begin an attempt that `wait_s` has admitted."""
        self._breaker.try_now()
        return Attempt(self)

    def failed(self, code: str, *, terminal: bool) -> None:
        """An attempt failed, or a session ended in a way that says something of the next."""
        self._last_error = code
        before = self._breaker.state
        self._breaker.failed(trio.current_time(), terminal=terminal)
        if self._breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            self._tell()
            if before is BreakerState.CLOSED:
                self.count("breaker_open", self.name)
                log.warning("engine taken for down", engine=self.name, code=code)

    def tell(self, event: trio.Event) -> None:
        """Set `event` when a place is free or the breaker has changed, once."""
        self._waiting.add(event)

    def forget(self, event: trio.Event) -> None:
        """Do not set `event` any more."""
        self._waiting.discard(event)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for event in waiting:
            event.set()

    def _released(self) -> None:
        self._slots.give_back()
        self._tell()

    def _succeeded(self) -> None:
        if self._breaker.state is not BreakerState.CLOSED:
            log.info("engine works again", engine=self.name)
        self._breaker.succeeded()
        self._last_error = None
        self._answered = True
        self._tell()

    def _abandoned(self) -> None:
        self._breaker.abandoned()
        self._tell()

    # ---- answers

    def request(self) -> bool:
        """Count an answer about to be asked for; False where there have been enough."""
        return self._window.take(trio.current_time())

    def record(self) -> None:
        """Count an answer that the server began by itself."""
        self._window.record(trio.current_time())

    def request_wait_s(self) -> float:
        """Seconds until `request` may succeed."""
        return self._window.wait_s(trio.current_time())

    # ---- for the operator

    def health(self) -> dict[str, str | int | float | None]:
        """How the engine does, for the health page."""
        now = trio.current_time()
        state = self._breaker.state
        retry_s = self._breaker.wait_s(now, alternative=True)
        return {
            "state": state.value,
            "answered": self._answered,
            "failures": self._breaker.failures,
            "last_error": self._last_error,
            "retry_in_s": round(retry_s, 1) if state is BreakerState.OPEN else None,
            "sessions": self._slots.taken,
            "max_sessions": self._slots.limit,
            "requests": self._window.used(now) if self._window.limit is not None else None,
            "requests_per_minute": self._window.limit,
        }


@dataclass(frozen=True, slots=True)
class Guarded:
    """An engine with its guard."""

    engine: Engine
    guard: Guard
