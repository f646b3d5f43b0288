"""When packets leave: every stream on a grid of its own, laid down once (design section 2).

A due time is the start plus a whole number of periods, never the last departure plus one: a late
packet does not make the next one late, and an hour has 180,000 packet times to the sample. Streams
begin in different slots of 20 ms, so that they do not all leave at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from heapq import heappush, heapreplace
from typing import Final

from voiced.rtp.media import Paced

__all__ = ["BOUNDS_MS", "CATCH_UP_S", "EARLY_S", "SLOTS", "SLOT_S", "Grid", "Lateness", "Pacer"]

CATCH_UP_S: Final = 0.04
"""A stream this far behind sends what it missed: two packets at most, which any receiver's buffer
takes. One further behind has been missed already; what it had to say goes on where it stopped, and
the timestamps tell of the pause."""

SLOT_S: Final = 0.002
SLOTS: Final = 10
"""20 ms in slots of 2: 500 wake-ups a second however many streams there are, and at 200 streams no
packet waits for more than the 19 others of its slot, 0.2 ms."""

EARLY_S: Final = 0.0005
"""The system's timer goes by whole milliseconds, rounded up; waking half of one early centres the
error. Nothing leaves earlier than this."""

BOUNDS_MS: Final = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, float("inf"))


class Lateness:
    """A histogram of how late packets left."""

    __slots__ = ("_bounds", "counts")

    def __init__(self) -> None:
        self._bounds = tuple(bound / 1000 for bound in BOUNDS_MS)
        self.counts = [0] * len(BOUNDS_MS)

    def add(self, late_s: float) -> None:
        """Count one."""
        self.counts[bisect_left(self._bounds, late_s)] += 1

    def merge(self, other: Lateness) -> None:
        """Count all of `other`."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]

    def histogram(self) -> tuple[tuple[float, int], ...]:
        """(upper bound in ms, count of those within it and above the one before)."""
        return tuple(zip(BOUNDS_MS, self.counts, strict=True))


class Grid:
    """The due times of one stream."""

    __slots__ = ("_count", "_start", "period")

    def __init__(self, start: float, period: float) -> None:
        self.period = period
        self._start = start
        self._count = 0

    @property
    def due(self) -> float:
        """When the next packet is due."""
        return self._start + self._count * self.period

    def pass_over(self, now: float) -> int:
        """How many packet times are missed for good at `now`; they are passed over."""
        late = now - self.due
        if late <= CATCH_UP_S:
            return 0
        missed = int(late / self.period)
        self._count += missed
        return missed

    def advance(self) -> float:
        """One packet time is done; returns when the next is due."""
        self._count += 1
        return self._start + self._count * self.period


class Pacer:
    """All streams of the process in one heap, by due time."""

    def __init__(self, now: Callable[[], float], failed: Callable[[Paced], None]) -> None:
        """`now`: seconds, monotonic; `failed` is told of what raised, and is paced no more."""
        self._now = now
        self._failed = failed
        self._heap: list[tuple[float, int, Paced]] = []
        self._slots = [0] * SLOTS
        self._members: dict[Paced, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._members)

    def use_clock(self, now: Callable[[], float]) -> None:
        """Ask another function for the same clock."""
        self._now = now

    def next_due(self) -> float | None:
        """The earliest due time."""
        return self._heap[0][0] if self._heap else None

    def add(self, paced: Paced) -> float:
        """Tick it from the next slot on that has no more streams than others; returns the due time.

        At most 20 ms away. Every stream's tick says itself when the next is due.
        """
        first = int(self._now() / SLOT_S) + 1
        fair = len(self._members) // SLOTS
        slot = next(s for s in range(first, first + SLOTS) if self._slots[s % SLOTS] <= fair)
        self._slots[slot % SLOTS] += 1
        self._members[paced] = slot % SLOTS
        self._serial += 1
        heappush(self._heap, (slot * SLOT_S, self._serial, paced))
        return slot * SLOT_S

    def remove(self, paced: Paced) -> None:
        """Tick it no more."""
        slot = self._members.pop(paced, None)
        if slot is not None:
            self._slots[slot] -= 1
            # In place, and rare: a call's end. `run` may be in the middle of its loop.
            self._heap[:] = sorted(entry for entry in self._heap if entry[2] is not paced)

    def run(self) -> None:
        """Tick whatever is due."""
        heap, now = self._heap, self._now
        at = now()
        while heap and heap[0][0] <= at + EARLY_S:
            due, serial, paced = heap[0]
            try:
                following = paced.tick(due, at)
            except Exception:
                self.remove(paced)
                self._failed(paced)
                continue
            if heap and heap[0][1] == serial:  # it has not left meanwhile
                heapreplace(heap, (following, serial, paced))
            at = now()
