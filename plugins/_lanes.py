"""What is served next, and how long what failed waits. Pure; times are seconds of any clock."""

from __future__ import annotations

import heapq
from typing import Final

__all__ = ["FIRST_S", "LONGEST_ASKED_S", "LONGEST_S", "Lanes", "delay_s"]

FIRST_S: Final = 1.0
LONGEST_S: Final = 600.0
LONGEST_ASKED_S: Final = 3600.0


def delay_s(tries: int, after_s: float | None, jitter: float) -> float:
    """How long to wait after `tries` failures (from 1 on); `jitter` is from 0 to 1.

    Doubles from a second to ten minutes, of which a random half: servers that come back should not
    find all of their clients at once. What the other side asks for is kept to, up to an hour.
    """
    wait = min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 20)) * (0.5 + 0.5 * jitter)
    if after_s is None:
        return wait
    return min(max(after_s, 0.0), LONGEST_ASKED_S) + jitter


class Lanes:
    """Which lane is served next.

    A lane is there once, waiting or taken. Those that are due longest are first.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._taken: set[str] = set()
        self._more: set[str] = set()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._due) + len(self._taken)

    @property
    def taken(self) -> int:
        """How many are being served."""
        return len(self._taken)

    def add(self, lane: str, due: float) -> None:
        """There is something in the lane; it was empty, or its order stays what it is."""
        if lane in self._taken:
            self._more.add(lane)
        elif lane not in self._due:
            self._wait(lane, due)

    def take(self, now: float) -> str | None:
        """A lane to be served now."""
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, lane = heapq.heappop(self._heap)
        del self._due[lane]
        self._taken.add(lane)
        return lane

    def put_back(self, lane: str, due: float) -> None:
        """It was served, and there may be more in it."""
        self._taken.discard(lane)
        self._more.discard(lane)
        self._wait(lane, due)

    def empty(self, lane: str, now: float) -> None:
        """Nothing was found in it; what was added meanwhile is looked for again."""
        self._taken.discard(lane)
        if lane in self._more:
            self._more.discard(lane)
            self._wait(lane, now)

    def put_all_back(self, now: float) -> None:
        """Nobody serves any more."""
        for lane in sorted(self._taken):
            self.put_back(lane, now)

    def next_due(self) -> float | None:
        """When `take` has something."""
        return self._heap[0][0] if self._heap else None

    def _wait(self, lane: str, due: float) -> None:
        self._turn += 1
        self._due[lane] = due
        heapq.heappush(self._heap, (due, self._turn, lane))
