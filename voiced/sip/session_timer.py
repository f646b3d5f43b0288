"""Session timers (RFC 4028): how long a session lives unrefreshed, and who refreshes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from voiced.sip.errors import SipError

if TYPE_CHECKING:
    from voiced.sip.message import Request, Response
    from voiced.sip.timers import Timer, Timers

__all__ = [
    "LEAST_MIN_SE",
    "IntervalTooSmall",
    "SessionInterval",
    "SessionTimer",
    "request_headers",
    "response_headers",
    "serve",
    "taken",
]

LEAST_MIN_SE: Final = 90
"""Seconds; what Min-SE means where it is absent (RFC 4028 5)."""

LEAST_REFRESHED: Final = 30
"""Seconds; the shortest interval for which we refresh, at its half."""


@dataclass(frozen=True, slots=True)
class SessionInterval:
    """What two ends agreed on: seconds between refreshes, and whose task they are."""

    seconds: int
    refresher: Literal["local", "remote"]


class IntervalTooSmall(SipError):
    """Answer 422 with `Min-SE: min_se`."""

    def __init__(self, min_se: int) -> None:
        super().__init__(f"session interval below {min_se} s")
        self.min_se = min_se


def serve(request: Request, *, wanted: int, min_se: int) -> SessionInterval | None:
    """The interval with which a UAS accepts an INVITE or UPDATE (RFC 4028 9).

    `wanted`: our own longest interval in seconds; 0 keeps session timers off. A peer that knows
    timers but asks for none gets one from us, and we refresh. Raises IntervalTooSmall.
    """
    if not wanted:
        return None
    supported = "timer" in request.supported or "timer" in request.require
    # The peer's floor binds us when we lower its interval.
    floor = max(request.min_se or LEAST_MIN_SE, min_se)
    asked = request.session_expires
    if asked is None:
        return SessionInterval(max(wanted, floor), "local") if supported else None
    if asked.seconds < min_se:
        if supported:
            raise IntervalTooSmall(min_se)
        # Put there by a proxy for a peer that could make nothing of a 422: ours to bear.
        return SessionInterval(floor, "local")
    seconds = min(asked.seconds, max(wanted, floor))
    # Table 2 of RFC 4028: the peer's choice holds; a peer without timers cannot refresh.
    local = not supported or asked.refresher == "uas"
    return SessionInterval(seconds, "local" if local else "remote")


def response_headers(interval: SessionInterval | None) -> list[tuple[str, str]]:
    """For the 2xx of a UAS. `Require: timer` obliges the peer that has to refresh."""
    if interval is None:
        return []
    if interval.refresher == "local":
        return [("Session-Expires", f"{interval.seconds};refresher=uas")]
    return [("Session-Expires", f"{interval.seconds};refresher=uac"), ("Require", "timer")]


def request_headers(
    wanted: int, min_se: int, current: SessionInterval | None = None
) -> list[tuple[str, str]]:
    """For an INVITE or UPDATE of ours; `current`: what a session under way agreed on (7.4).

    A first INVITE names no refresher, so that the peer may choose.
    """
    if not wanted:
        return []
    if current is None:
        value = str(max(wanted, min_se))
    else:
        refresher = "uac" if current.refresher == "local" else "uas"
        value = f"{max(current.seconds, min_se)};refresher={refresher}"
    headers = [("Session-Expires", value)]
    if min_se > LEAST_MIN_SE:
        headers.append(("Min-SE", str(min_se)))
    return headers


def taken(response: Response) -> SessionInterval | None:
    """What a 2xx to our INVITE or UPDATE agreed to; None: the session never expires (7.2).

    A peer that grants less than it may (section 4) is waited for as for the least. Where we are to
    refresh it is believed, since it may end the call sooner; but we do not refresh without end.
    """
    granted = response.session_expires
    if granted is None or granted.seconds == 0:
        return None
    if granted.refresher == "uas":
        return SessionInterval(max(granted.seconds, LEAST_MIN_SE), "remote")
    return SessionInterval(max(granted.seconds, LEAST_REFRESHED), "local")


class SessionTimer:
    """Calls `refresh` at half the interval if that is our task, and `expire` before it ends.

    Where nothing has come of the refresh by half of the time left, it is called once more.

    The end is min(32 s, a third of the interval) early (RFC 4028 10), and strikes a refresher
    whose refreshes came to nothing too.
    """

    __slots__ = ("_due", "_expire", "_refresh", "_timers", "interval")

    def __init__(
        self, timers: Timers, refresh: Callable[[], None], expire: Callable[[], None]
    ) -> None:
        self._timers = timers
        self._refresh = refresh
        self._expire = expire
        self._due: list[Timer] = []
        self.interval: SessionInterval | None = None

    def start(self, interval: SessionInterval | None) -> None:
        """Begin anew, at each INVITE or UPDATE that succeeded; None turns the timer off."""
        self.stop()
        self.interval = interval
        if interval is None:
            return
        seconds = interval.seconds
        end = seconds - min(32.0, seconds / 3)
        self._due.append(self._timers.call_later(end, self._expire))
        if interval.refresher == "local":
            # Twice: one refusal, of a proxy that is busy for a moment, must not cost the call.
            for at in (seconds / 2, (seconds / 2 + end) / 2):
                self._due.append(self._timers.call_later(at, self._refresh))

    def stop(self) -> None:
        """No more calls; the session is over."""
        for timer in self._due:
            timer.cancel()
        self._due.clear()
