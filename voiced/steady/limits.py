"""What an account allows: so many sessions at a time, so many answers a minute. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, final

__all__ = ["WINDOW_S", "Slots", "Window"]

WINDOW_S: Final = 60.0


@final
class Slots:
    """Sessions at a time; None: any number."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.taken = 0

    @property
    def free(self) -> bool:
        """Whether `take` may be called. A limit lowered by a reload may be exceeded for a while."""
        return self.limit is None or self.taken < self.limit

    def take(self) -> None:
        """Take one that is free."""
        assert self.free
        self.taken += 1

    def give_back(self) -> None:
        """Give one back."""
        assert self.taken > 0
        self.taken -= 1


@final
class Window:
    """Answers in the last minute, sliding; None: any number."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        # Bounded by what is asked for in a minute; without a limit nothing is kept.
        self._times: deque[float] = deque()

    def used(self, now: float) -> int:
        """Answers in the minute before `now`."""
        while self._times and self._times[0] <= now - WINDOW_S:
            self._times.popleft()
        return len(self._times)

    def take(self, now: float) -> bool:
        """Count an answer if there is room for it."""
        if self.limit is None:
            return True
        if self.used(now) >= self.limit:
            return False
        self._times.append(now)
        return True

    def record(self, now: float) -> None:
        """Count an answer that nobody asked us for: servers answer turns by themselves."""
        if self.limit is not None:
            self.used(now)
            self._times.append(now)

    def wait_s(self, now: float) -> float:
        """Seconds until `take` succeeds, if nobody else is quicker."""
        if self.limit is None or self.used(now) < self.limit:
            return 0.0
        # As many as exceed the limit have to leave the window first.
        leaving = self._times[len(self._times) - self.limit]
        return max(0.0, leaving + WINDOW_S - now)
