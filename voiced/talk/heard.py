"""When audio was said and heard, for whoever listens in: recordings, and the judge of echoes.

Pure, on Trio's clock by argument. Costs nothing where nobody listens: then it does not exist.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["CallerClock", "Ears", "Overheard", "Reference"]

SNAP_S: Final = 0.015
"""Pieces that follow each other so closely are one sound: carrier clocks are read in steps."""

WINDOW_S: Final = 2.0
"""How long a carrier's clock is watched before a shift is believed: bursts after a stall are not
one."""

SHIFT_S: Final = 0.02  # one frame; less is the rounding of packets

OVERHEARD_S: Final = 0.1
"""Whoever listens in gets the caller's audio ten times a second, not fifty: in a call among many,
what a frame touches costs more than what is done with it."""


class Reference(Protocol):
    """Who wants to know what the caller is going to hear."""

    def played(self, payload: bytes, at_s: float) -> None:
        """`payload` will be heard from `at_s` on, which may lie in the future."""

    def cleared(self, at_s: float) -> None:
        """What was to be heard after `at_s` will not be."""


class Ears:
    """Hears what the caller hears: `deliver` gets each piece once it has been heard."""

    def __init__(
        self,
        bytes_per_s: int,
        sample_bytes: int,
        deliver: Callable[[bytes, float], None] | None = None,
        reference: Reference | None = None,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._sample_bytes = sample_bytes
        self._deliver = deliver
        self._reference = reference
        # (position in the generation, when it is heard, audio); bounded by the carrier's lead.
        self._pieces: deque[tuple[int, float, bytes]] = deque()
        self._position = 0
        self._end = 0.0

    def sent(self, payload: bytes, at_s: float) -> None:
        """Audio has gone to the carrier and will be heard from `at_s` on."""
        if abs(at_s - self._end) < SNAP_S:
            at_s = self._end
        self._pieces.append((self._position, at_s, payload))
        self._position += len(payload)
        self._end = at_s + len(payload) / self._bytes_per_s
        if self._reference is not None:
            self._reference.played(payload, at_s)

    def settle(self, now: float) -> None:
        """Deliver what has been heard by now."""
        while self._pieces:
            _, at_s, payload = self._pieces[0]
            if at_s + len(payload) / self._bytes_per_s > now:
                return
            self._pieces.popleft()
            if self._deliver is not None:
                self._deliver(payload, at_s)

    def cleared(self, heard: int, now: float) -> None:
        """The carrier's buffer was emptied when `heard` bytes of the generation had been played."""
        until = now
        for start, at_s, payload in self._pieces:
            part = max(0, min(heard - start, len(payload)))
            part -= part % self._sample_bytes
            if part:
                until = at_s + part / self._bytes_per_s
                if self._deliver is not None:
                    self._deliver(payload[:part], at_s)
        self._pieces.clear()
        self._position, self._end = 0, 0.0
        if self._reference is not None:
            self._reference.cleared(until)


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
