"""A set that remembers only so much."""

from __future__ import annotations

from typing import final

__all__ = ["Recent"]


@final
class Recent:
    """The newest `limit` names added. What is older is forgotten, oldest first."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[str, None] = {}

    def __contains__(self, name: str | None) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Remember `name`."""
        self._names[name] = None
        if len(self._names) > self._limit:
            del self._names[next(iter(self._names))]
