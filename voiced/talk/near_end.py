"""The near end: what the caller says, and when each piece of it was said.

Pure, on Trio's clock by argument. Costs nothing where nobody listens: then it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["OVERHEARD_S", "SHIFT_S", "WINDOW_S", "CallerClock", "Overheard"]

WINDOW_S: Final = 2.0
"""How long a carrier's clock is watched before a shift is believed: bursts after a stall are not
one."""

SHIFT_S: Final = 0.02  # one frame; less is the rounding of packets

OVERHEARD_S: Final = 0.1
"""Whoever listens in gets the caller's audio ten times a second, not fifty: in a call among many,
what a frame touches costs more than what is done with it."""


class CallerClock:
    """Tells when each piece of the caller's audio was said.

    A carrier's frames come late and in bursts, but their number is exact, so that counting says
    more than arrival; only where its clock and ours drift apart, or it left something out, is the
    count put right, at most every two seconds.
    """

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._base: float | None = None  # when byte 0 was said
        self._bytes = 0
        self._least = 0.0
        self._watched_since = 0.0

    def said(self, size: int, now: float) -> float:
        """Take `size` bytes that came now; returns when their first was said."""
        before = self._bytes / self._bytes_per_s
        self._bytes += size
        base = now - self._bytes / self._bytes_per_s  # had it come without delay
        if self._base is None:
            self._base = self._least = base
            self._watched_since = now
        self._least = min(self._least, base)
        if now - self._watched_since >= WINDOW_S:
            if abs(self._least - self._base) > SHIFT_S:
                self._base = self._least
            self._least, self._watched_since = base, now
        return self._base + before

    def reset(self) -> None:
        """Audio has paused, on hold: what comes next begins anew."""
        self._base, self._bytes = None, 0


class Overheard:
    """The caller's audio for whoever listens in, a few frames at a time."""

    def __init__(
        self, bytes_per_s: int, clock: CallerClock, deliver: Callable[[bytes, float], None]
    ) -> None:
        self._least = int(OVERHEARD_S * bytes_per_s)
        self._clock = clock
        self._deliver = deliver
        self._pieces: list[bytes] = []  # of less than `OVERHEARD_S`
        self._size = 0

    def add(self, payload: bytes, now: float) -> None:
        """A piece that has come now, and follows the last one."""
        self._pieces.append(payload)
        self._size += len(payload)
        if self._size >= self._least:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Deliver what there is: something else happens."""
        if self._pieces:
            payload = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._deliver(payload, self._clock.said(len(payload), now))
