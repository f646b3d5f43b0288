"""A 2xx to an INVITE, sent until its ACK comes (RFC 3261 13.3.1.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voiced.sip.message import Response
    from voiced.sip.timers import Timer, Timers
    from voiced.sip.transaction import Timing
    from voiced.sip.transactions import ServerTransaction

__all__ = ["Acceptance"]


class Acceptance:
    """Sends `response` now, again after T1 doubling up to T2, and calls `given_up` at 64*T1.

    On reliable transports too: the ACK is end to end, and a hop further on may lose either.
    """

    __slots__ = (
        "_elapsed",
        "_given_up",
        "_interval",
        "_response",
        "_timer",
        "_timers",
        "_timing",
        "_tx",
    )

    def __init__(
        self,
        timers: Timers,
        timing: Timing,
        tx: ServerTransaction,
        response: Response,
        given_up: Callable[[], None],
    ) -> None:
        self._timers = timers
        self._timing = timing
        self._tx = tx
        self._response = response
        self._given_up = given_up
        self._interval = timing.t1
        self._elapsed = 0.0
        self._timer: Timer | None = None
        tx.respond(response)
        self._arm()

    def _arm(self) -> None:
        left = 64 * self._timing.t1 - self._elapsed
        if self._interval < left:
            self._timer = self._timers.call_later(self._interval, self._again)
        else:
            self._timer = self._timers.call_later(left, self._given_up)

    def _again(self) -> None:
        self._elapsed += self._interval
        self._interval = min(2 * self._interval, self._timing.t2)
        self._tx.respond(self._response)
        self._arm()

    def stop(self) -> None:
        """The ACK has come, or nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
