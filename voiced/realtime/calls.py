"""The functions that the model calls: which calls are whole, which were told. Sans-I/O.

Source: OpenAI's Realtime guide, "Function calling". Three events may bring the arguments, and each
of them comes for a call that was cut as well. Arguments that are a JSON object are whole, since no
beginning of one is another; others are believed once the server says that the item is completed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import msgspec

from voiced.engine import ToolCall
from voiced.realtime.events import OutputItem
from voiced.realtime.recent import Recent

__all__ = ["NOT_RUN", "Calls", "output_items"]

# A response calls a few functions, and a call is answered within seconds.
REMEMBERED: Final = 64

NOT_RUN: Final = '{"error": "The caller interrupted before this was run."}'
"""What the model is told of a call that came whole after its response had been cancelled."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[OutputItem] | None)


@dataclass(slots=True)
class _Call:
    call_id: str | None = None
    name: str | None = None


def _is_object(text: str) -> bool:
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    return True


@final
class Calls:
    """The function calls of one session."""

    def __init__(self) -> None:
        self._open: dict[str, _Call] = {}  # by item id
        self._told = Recent(2 * REMEMBERED)  # item ids and call ids
        self._unanswered: dict[str, None] = {}  # call ids

    def _known(self, item_id: str, call_id: str | None, name: str | None) -> _Call:
        call = self._open.setdefault(item_id, _Call())
        call.call_id, call.name = call_id or call.call_id, name or call.name
        if len(self._open) > REMEMBERED:
            del self._open[next(iter(self._open))]
        return call

    def added(self, item: OutputItem) -> None:
        """An item has begun; later events may leave out what this one says."""
        if item.type == "function_call" and item.id and item.id not in self._told:
            self._known(item.id, item.call_id, item.name)

    def arguments(
        self, item_id: str, call_id: str | None, name: str | None, arguments: str | None
    ) -> ToolCall | None:
        """Return the call if these arguments are whole beyond doubt, and nobody was told of it."""
        if not item_id:
            item_id = call_id or ""  # clones
        if not item_id or item_id in self._told or call_id in self._told:
            return None
        call = self._known(item_id, call_id, name)
        if arguments is None or not _is_object(arguments):
            return None
        return self._tell(item_id, call, arguments)

    def done(self, item: OutputItem, status: str | None) -> ToolCall | None:
        """Return the call of an item that is over; None where it was cut, or told before.

        `status` is the item's, or that of its response where the item has none.
        """
        item_id = item.id or item.call_id
        if item.type != "function_call" or not item_id:
            return None
        if item_id in self._told or item.call_id in self._told:
            return None
        call = self._known(item_id, item.call_id, item.name)
        if status != "completed":
            return None
        return self._tell(item_id, call, item.arguments or "{}")

    def _tell(self, item_id: str, call: _Call, arguments: str) -> ToolCall | None:
        if call.name is None:
            return None  # `response.output_item.done` brings it
        del self._open[item_id]
        call_id = call.call_id or item_id
        if call_id in self._told:  # another item's: one result answers both
            return None
        self._told.add(item_id)
        self._told.add(call_id)
        self._unanswered[call_id] = None
        if len(self._unanswered) > REMEMBERED:
            del self._unanswered[next(iter(self._unanswered))]
        return ToolCall(call_id, item_id, call.name, arguments)

    def answered(self, call_id: str) -> bool:
        """Whether a result for this call may be sent: the server refuses one that it has none of.

        True once for each call.
        """
        if call_id not in self._unanswered:
            return False
        del self._unanswered[call_id]
        return True


def output_items(raw: msgspec.Raw) -> list[OutputItem]:
    """The items of a `response.done`; none where they cannot be read."""
    try:
        return _ITEMS.decode(raw) or []
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return []
