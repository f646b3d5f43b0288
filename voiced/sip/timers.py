"""Timers for machines that own no clock: a heap that a shell runs when it is due.

Every SIP machine (transactions, dialogs, registrations) arms its timers here and is called back by
`run_due`. The shell sleeps until `next_deadline`, and re-arms when `changed` says that the earliest
deadline has moved forward. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

__all__ = ["Timer", "Timers"]


def _nothing() -> None:
    """What `changed` calls until a shell has set it."""


class Timer:
    """One call to come; made by `Timers`."""

    __slots__ = ("_fn", "_timers", "when")

    def __init__(self, timers: Timers, when: float, fn: Callable[[], None]) -> None:
        self._timers = timers
        self._fn: Callable[[], None] | None = fn
        self.when = when

    @property
    def armed(self) -> bool:
        """Whether the call is still to come: neither made nor cancelled."""
        return self._fn is not None

    def cancel(self) -> None:
        """Forget the call; harmless when it was made or cancelled before."""
        if self._fn is not None:
            self._fn = None
            self._timers._cancelled()

    def _take(self) -> Callable[[], None] | None:
        fn, self._fn = self._fn, None
        return fn


class Timers:
    """All timers of one clock, `now` in seconds. `len()` counts the armed ones.

    Unbounded by itself: every machine holds a fixed small number of timers, and the number of
    machines is bounded where they are made.
    """

    __slots__ = ("_armed", "_heap", "_order", "changed", "now")

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.changed: Callable[[], None] = _nothing
        # Equal deadlines run in the order in which they were armed.
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._armed = 0

    def __len__(self) -> int:
        return self._armed

    def call_at(self, when: float, fn: Callable[[], None]) -> Timer:
        """Have `fn` called by the first `run_due` at or after `when`."""
        timer = Timer(self, when, fn)
        heap = self._heap
        earliest = heap[0][0] if heap else None
        self._order += 1
        heappush(heap, (when, self._order, timer))
        self._armed += 1
        if earliest is None or when < earliest:
            self.changed()
        return timer

    def call_later(self, seconds: float, fn: Callable[[], None]) -> Timer:
        """Have `fn` called `seconds` from now."""
        return self.call_at(self.now() + seconds, fn)

    def next_deadline(self) -> float | None:
        """When `run_due` has something to do next; None: nothing is armed."""
        heap = self._heap
        while heap and not heap[0][2].armed:
            heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self) -> int:
        """Call what is due; returns how many calls were made.

        A timer armed by one of these calls waits for the next `run_due`, even if it is due at once:
        a machine that re-arms itself with 0 s must not keep the shell from its sockets. What `fn`
        raises passes through, and the timers after it stay armed.
        """
        heap = self._heap
        now = self.now()
        last = self._order
        later: list[tuple[float, int, Timer]] = []
        made = 0
        try:
            while heap and heap[0][0] <= now:
                entry = heappop(heap)
                if entry[1] > last:
                    later.append(entry)
                    continue
                fn = entry[2]._take()
                if fn is not None:
                    self._armed -= 1
                    made += 1
                    fn()
        finally:
            for entry in later:
                heappush(heap, entry)
        return made

    def _cancelled(self) -> None:
        self._armed -= 1
        # Most SIP timers are cancelled and some lie 32 s or an hour ahead: without this the heap
        # would hold thousands of dead ones. Rebuilding when half are dead costs O(1) per timer.
        heap = self._heap
        if len(heap) > 64 and self._armed * 2 < len(heap):
            # In place: `run_due` may be walking this very list.
            heap[:] = [entry for entry in heap if entry[2].armed]
            heapify(heap)
