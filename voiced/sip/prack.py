"""Reliable provisional responses (RFC 3262): sent, and received."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from voiced.sip.message import Request, Response
    from voiced.sip.timers import Timer, Timers

__all__ = ["ProvisionalOrder", "ReliableProvisionals"]

# A callee rings, says so again with media, is queued: more than a few 18x waiting for the PRACK of
# the one before them means a peer that sends none, and then the INVITE fails anyway.
_MOST_WAITING: Final = 8


class ReliableProvisionals:
    """UAS: sends one provisional at a time again and again until its PRACK comes (RFC 3262 3).

    `send` puts a response on the wire; `lost` is called when 64*T1 have passed without a PRACK.
    """

    def __init__(
        self,
        timers: Timers,
        t1: float,
        send: Callable[[Response], object],
        lost: Callable[[], None],
        first_rseq: int,
    ) -> None:
        self._timers = timers
        self._t1 = t1
        self._send = send
        self._lost = lost
        self._rseq = first_rseq
        self._current: Response | None = None
        self._waiting: deque[Response] = deque()
        self._timer: Timer | None = None
        self._interval = t1
        self._elapsed = 0.0

    @property
    def pending(self) -> bool:
        """Whether a PRACK is still to come: the 2xx must wait for it."""
        return self._current is not None

    def send(self, response: Response) -> None:
        """Send a provisional (not 100) with the next RSeq, after the PRACK to the one before."""
        if self._current is not None:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(response)
            return
        response.headers.set("RSeq", str(self._rseq))
        self._rseq += 1
        self._current = response
        self._interval = self._t1
        self._elapsed = 0.0
        self._transmit()

    def _transmit(self) -> None:
        assert self._current is not None
        self._send(self._current)
        self._timer = self._timers.call_later(self._interval, self._unacknowledged)

    def _unacknowledged(self) -> None:
        self._elapsed += self._interval
        # RFC 3262 3: T1, doubling without an upper bound, given up after 64*T1: the sixth
        # repetition would come at 63*T1.
        if self._elapsed >= 63 * self._t1:
            self.stop()
            self._lost()
            return
        self._interval *= 2
        self._transmit()

    def acknowledge(self, prack: Request) -> Response | None:
        """The response that a PRACK acknowledges, None if there is none (481).

        The next one waiting is not sent before `proceed`, as the answer to the PRACK goes first.
        """
        rack = prack.rack
        current = self._current
        if rack is None or current is None:
            return None
        cseq = current.cseq
        if (rack.rseq, rack.cseq, rack.method) != (current.rseq, cseq.number, cseq.method):
            return None
        self._clear()
        return current

    def proceed(self) -> None:
        """Send what waited for the PRACK."""
        if self._waiting and self._current is None:
            self.send(self._waiting.popleft())

    def stop(self) -> None:
        """The INVITE is answered or over."""
        self._waiting.clear()
        self._clear()

    def _clear(self) -> None:
        self._current = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ProvisionalOrder:
    """UAC: which reliable provisionals of one early dialog are new and in order (RFC 3262 4)."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: int | None = None

    def accept(self, rseq: int) -> bool:
        """Whether to process and PRACK it: the first may have any number, the next is one more.

        Anything else is a repetition, or came too early and will be repeated: ignore it.
        """
        if self._last is not None and rseq != self._last + 1:
            return False
        self._last = rseq
        return True
