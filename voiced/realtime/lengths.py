"""How long the caller's turns were, for a server that writes them down and tells no usage. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, final

from voiced.cost import CHARACTERS_PER_S

__all__ = ["Lengths"]

# Turns that are over and not yet items: they become that in a round trip, one after the other.
MAX_UNNAMED: Final = 4
# Turns that are not yet written down. A server that writes down none of them forgets nothing else.
MAX_UNWRITTEN: Final = 64


@final
class Lengths:
    """Those of one session; times are of the audio, in ms."""

    def __init__(self) -> None:
        self._began_ms: float | None = None
        self._unnamed: deque[float] = deque(maxlen=MAX_UNNAMED)  # seconds
        self._by_item: dict[str, float] = {}

    def started(self, at_ms: float) -> None:
        """A turn begins."""
        self._began_ms = at_ms

    def stopped(self, at_ms: float) -> None:
        """It is over."""
        if self._began_ms is not None:
            self._unnamed.append(max(0.0, at_ms - self._began_ms) / 1000)
        self._began_ms = None

    def committed(self, item_id: str) -> None:
        """It is an item."""
        if self._unnamed:
            self._by_item[item_id] = self._unnamed.popleft()
            if len(self._by_item) > MAX_UNWRITTEN:
                del self._by_item[next(iter(self._by_item))]

    def written(self, item_id: str, text: str) -> float:
        """It has been written down: its seconds, or those of its words where nobody told more."""
        return self._by_item.pop(item_id, None) or len(text) / CHARACTERS_PER_S
