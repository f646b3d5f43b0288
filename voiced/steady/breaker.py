"""A circuit breaker: calls need not all find out for themselves that a server is down.

Pure; times are handed in, seconds on any clock that does not go back.

    closed ──failures──► open ──a pause──► half-open ──one attempt──► closed, or open for longer

The one attempt is that of a real call, since nothing else shows that conversations work.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final, final

__all__ = ["Breaker", "BreakerState"]

FAILURES: Final = 5  # in a row ...
SPAN_S: Final = 2.0  # ... over at least so long: a server that restarts is not down
FIRST_PAUSE_S: Final = 1.0
TERMINAL_PAUSE_S: Final = 15.0  # a key or a quota does not mend itself in a second
LONGEST_PAUSE_S: Final = 30.0
DESPERATE_PAUSE_S: Final = 1.5
"""For calls that have no other engine: all of them together try so often, whatever the pause."""


class BreakerState(Enum):
    """As health shows it."""

    CLOSED = "closed"  # all is well: everybody may try
    OPEN = "open"  # nobody need try
    HALF_OPEN = "half_open"  # one call tries


@final
class Breaker:
    """Ask `wait_s`, then `try_now`, then report with exactly one of the other three."""

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.failures = 0  # in a row
        self._first_failure = 0.0
        self._opened_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    def wait_s(self, now: float, *, alternative: bool) -> float:
        """Seconds until an attempt is admitted; infinite while another call's is under way.

        `alternative`: the call has another engine, so that there is no need to hurry.
        """
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self.state is BreakerState.HALF_OPEN:
            return math.inf
        pause_s = self._pause_s if alternative else min(self._pause_s, DESPERATE_PAUSE_S)
        return max(0.0, self._opened_at + pause_s - now)

    def try_now(self) -> None:
        """An attempt begins that `wait_s` has admitted."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """A session was made."""
        self.state = BreakerState.CLOSED
        self.failures = 0
        self._pause_s = FIRST_PAUSE_S

    def failed(self, now: float, *, terminal: bool) -> None:
        """An attempt failed; `terminal`: so will the next, until somebody changes something."""
        if self.failures == 0:
            self._first_failure = now
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._open(now)
        elif terminal or (self.failures >= FAILURES and now - self._first_failure >= SPAN_S):
            self._open(now)
        if terminal:
            self._pause_s = max(self._pause_s, TERMINAL_PAUSE_S)

    def abandoned(self) -> None:
        """An attempt ended before it came to anything: the next call may try in its place."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._opened_at = now
