"""Packets into the order of their sequence numbers, with delay only where one is missing.

A model has no playout clock that a packet could miss, so nothing waits without need: what comes in
order goes on at once. Behind a gap at most `MAX_HELD` packets wait, and none longer than the hold
time; then the missing ones are given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

__all__ = ["MAX_HELD", "RESTART", "Reorder"]

MAX_HELD: Final = 2

RESTART: Final = -1
"""In place of a count of lost packets: what follows has nothing to do with what was before."""

_MAX_DROPOUT: Final = 3000  # RFC 3550 appendix A.1
_MAX_MISORDER: Final = 100  # the same
_REMEMBERED: Final = 128  # given-up packets that are known again when they come late

T = TypeVar("T")
Delivery = Sequence[tuple[int, T]]


class Reorder(Generic[T]):
    """One source's sequence. Times in seconds of one monotonic clock.

    Deliveries are items in order, each with the number of packets given up just before it. A caller
    in a hurry may do by itself what `push` does for `expected` while `held` is empty: `advance`.
    """

    __slots__ = (
        "_missing",
        "_probe",
        "base",
        "duplicated",
        "expected",
        "held",
        "highest",
        "hold_s",
        "hold_until",
        "late",
        "lost",
        "reordered",
    )

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.held: dict[int, T] = {}  # by extended sequence number
        self.hold_until = 0.0
        self.base = 0  # extended number of the source's first packet
        self.highest = -1  # extended by the count of wraps, of the last item delivered
        self.expected = 0  # sequence number, 16 bits, of the next
        self.lost = self.late = self.duplicated = self.reordered = 0
        self._missing: dict[int, None] = {}
        self._probe: tuple[int, T] | None = None

    def begin(self, sequence: int) -> None:
        """A new source: its first packet has number `sequence`, and is still to be pushed."""
        self.held.clear()
        self._missing.clear()
        self._probe = None
        self.base = sequence + 0x10000  # in the second round, so that nothing becomes negative
        self.highest = self.base - 1
        self.expected = sequence

    def advance(self) -> None:
        """The packet `expected` has come."""
        self.highest += 1
        self.expected = self.highest + 1 & 0xFFFF

    def push(self, sequence: int, item: T, now: float) -> Delivery[T]:
        """Take a packet; returns what can be delivered now."""
        delta = (sequence - self.expected + 0x8000 & 0xFFFF) - 0x8000
        if delta == 0:
            self.advance()
            return [(0, item), *self._run(now)] if self.held else ((0, item),)
        if not -_MAX_MISORDER <= delta <= _MAX_DROPOUT:
            return self._restart(sequence, item, now)
        number = self.highest + 1 + delta
        if delta < 0:
            if number in self._missing:
                del self._missing[number]
                self.late += 1
            else:
                self.duplicated += 1
            return ()
        if number in self.held:
            self.duplicated += 1
            return ()
        if not self.held:
            self.hold_until = now + self.hold_s
        self.held[number] = item
        if len(self.held) <= MAX_HELD and now < self.hold_until:
            return ()
        return self._give_up(now)

    def due(self, now: float) -> Delivery[T]:
        """What has waited long enough."""
        return self._give_up(now) if self.held and now >= self.hold_until else ()

    def flush(self) -> Delivery[T]:
        """Everything that waits: the source has ended."""
        delivery: list[tuple[int, T]] = []
        while self.held:
            delivery += self._give_up(0.0)
        return delivery

    def _give_up(self, now: float) -> Delivery[T]:
        """Wait no longer for what is missing before the first held packet."""
        first = min(self.held)
        gone = first - self.highest - 1
        self.lost += gone
        for number in range(max(self.highest + 1, first - _REMEMBERED), first):
            self._missing[number] = None
        while len(self._missing) > _REMEMBERED:
            del self._missing[next(iter(self._missing))]
        self.highest = first - 1
        run = self._run(now, reordered=False)
        return [(gone, run[0][1]), *run[1:]]

    def _run(self, now: float, *, reordered: bool = True) -> list[tuple[int, T]]:
        """What is held and follows without a gap."""
        delivery: list[tuple[int, T]] = []
        while (number := self.highest + 1) in self.held:
            delivery.append((0, self.held.pop(number)))
            self.highest = number
        self.expected = self.highest + 1 & 0xFFFF
        if self.held:
            self.hold_until = now + self.hold_s
        if reordered:  # the packet that closed the gap was overtaken
            self.reordered += 1
        return delivery

    def _restart(self, sequence: int, item: T, now: float) -> Delivery[T]:
        """A jump that no loss explains: believed when a second packet follows the first."""
        if self._probe is None or self._probe[0] != sequence:
            self._probe = (sequence + 1 & 0xFFFF, item)
            return ()
        first = self._probe[1]
        delivery = [*self.flush(), (RESTART, first)]
        self.begin(sequence)
        self.advance()
        return [*delivery, (0, item)]
