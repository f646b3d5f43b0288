"""What was received of each assistant item, and what may be truncated of it. Sans-I/O.

Source: OpenAI's Realtime guide, "Interruption and truncation", and its users' reports: a truncate
beyond what the server counts is refused as a whole, so every figure is rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

from voiced.realtime.recent import Recent

__all__ = ["GUARD_MS", "Items"]

GUARD_MS: Final = 1  # the server's count may round where ours does not
# Items that can still be heard: a few at a time. Older ones are history and never truncated.
REMEMBERED: Final = 64


@dataclass(slots=True)
class _Item:
    response_id: str
    received: dict[int, int] = field(default_factory=dict)  # content_index to bytes
    cut_ms: dict[int, int] = field(default_factory=dict)  # content_index to last truncation
    complete: bool = False


@final
class Items:
    """The assistant items of one session."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._gone = Recent(REMEMBERED)

    def received(self, response_id: str, item_id: str, content_index: int, size: int) -> None:
        """`size` bytes of audio came."""
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = _Item(response_id)
            if len(self._items) > REMEMBERED:
                del self._items[next(iter(self._items))]
        item.received[content_index] = item.received.get(content_index, 0) + size

    def complete(self, item_id: str) -> None:
        """No more audio of this item will come."""
        item = self._items.get(item_id)
        if item is not None:
            item.complete = True

    def complete_response(self, response_id: str) -> None:
        """No more audio of any item of this response will come."""
        for item in self._items.values():
            if item.response_id == response_id:
                item.complete = True

    def sounded(self, item_id: str) -> bool:
        """Whether audio of the item was delivered, and it has not been deleted."""
        return item_id in self._items

    def gone(self, item_id: str) -> bool:
        """Whether the item was truncated or deleted: late audio of it is dropped."""
        return item_id in self._gone

    def received_ms(self, item_id: str, content_index: int, bytes_per_ms: int) -> int:
        """Whole milliseconds received."""
        item = self._items.get(item_id)
        return item.received.get(content_index, 0) // bytes_per_ms if item else 0

    def truncate(
        self, item_id: str, content_index: int, audio_end_ms: int, bytes_per_ms: int
    ) -> int | None:
        """Return the `audio_end_ms` to send; None where there is nothing to cut off.

        Never more than was received, never more than an earlier truncation left.
        """
        item = self._items.get(item_id)
        received = self.received_ms(item_id, content_index, bytes_per_ms)
        if item is None or received == 0:
            return None
        if audio_end_ms >= received and item.complete:
            return None  # all of it was heard
        end = max(0, min(audio_end_ms, received - GUARD_MS))
        before = item.cut_ms.get(content_index)
        if before is not None and end >= before:
            return None
        item.cut_ms[content_index] = end
        self._gone.add(item_id)
        return end

    def delete(self, item_id: str) -> bool:
        """Forget the item; False where that has been done before."""
        fresh = item_id in self._items or item_id not in self._gone
        self._items.pop(item_id, None)
        self._gone.add(item_id)
        return fresh
