"""Client events on their way out, and what they were about in case the server refuses them.

An `error` repeats the `event_id` of the event that caused it: the only correlation there is.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar, final

from msgspec import UNSET

from voiced.realtime import events
from voiced.realtime.events import ClientEvent, encode

__all__ = ["Outbox"]

# Cancels and truncations that an error may still name: a few per barge-in, and a round trip is
# shorter than the time between two of those.
MAX_PENDING: Final = 16

_ITEM_PARAMS: Final = frozenset({"item_id", "content_index", "audio_end_ms"})
_ITEM_TEXT: Final = re.compile(r"truncat|deleting item|audio content of", re.I)

_What = TypeVar("_What")


def _remember(pending: dict[str, _What], event_id: str, what: _What) -> None:
    pending[event_id] = what
    if len(pending) > MAX_PENDING:
        del pending[next(iter(pending))]


@final
class Outbox:
    """Numbers and encodes client events; `take` hands the messages over.

    Bounded by its owner: the client empties it after every command and every server event.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._messages: list[bytes] = []
        self._cancels: dict[str, str] = {}
        self._truncations: dict[str, tuple[str, int, int]] = {}
        self._items: dict[str, str] = {}

    def take(self) -> list[bytes]:
        """Hand over the text messages to be sent, in their order."""
        taken, self._messages = self._messages, []
        return taken

    def clear(self) -> None:
        """Forget what was not taken: there is nobody to send it to."""
        self._messages.clear()

    def next_id(self) -> str:
        """Return a fresh `event_id`."""
        self._sequence += 1
        return f"voiced_{self._sequence}"

    def send(self, event: ClientEvent) -> None:
        """Queue any event."""
        self._messages.append(encode(event))

    def create(self, instructions: str | None) -> str:
        """Queue a `response.create`; returns its `event_id`."""
        event_id = self.next_id()
        wanted = UNSET if instructions is None else events.ResponseParams(instructions)
        self.send(events.ResponseCreate(event_id, wanted))
        return event_id

    def cancel(self, response_id: str) -> None:
        """Queue a `response.cancel`."""
        event_id = self.next_id()
        self.send(events.ResponseCancel(event_id, response_id))
        _remember(self._cancels, event_id, response_id)

    def cancelled(self, event_id: str | None) -> str | None:
        """Return the response that the cancel `event_id` was to stop, once."""
        return self._cancels.pop(event_id, None) if event_id else None

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Queue a `conversation.item.truncate`."""
        event_id = self.next_id()
        self.send(events.ItemTruncate(event_id, item_id, content_index, audio_end_ms))
        _remember(self._truncations, event_id, (item_id, content_index, audio_end_ms))

        _remember(self._items, event_id, item_id)

    def delete(self, item_id: str) -> None:
        """Queue a `conversation.item.delete`."""
        event_id = self.next_id()
        self.send(events.ItemDelete(event_id, item_id))
        _remember(self._items, event_id, item_id)

    def about_item(self, event_id: str | None, param: str | None, message: str) -> bool:
        """Whether a refusal is about a truncation or a deletion, by its text where it names none.

        Such a one must not be taken for the refusal of a response.
        """
        if event_id is not None:
            return event_id in self._items
        return bool(self._items) and (
            param in _ITEM_PARAMS or _ITEM_TEXT.search(message) is not None
        )

    def truncate_again(self, event_id: str | None, length_ms: int | None) -> bool:
        """Repeat a refused truncation with the length that the server counts.

        Once only, and only downwards. An error without `event_id` (clones) is about the newest.
        Returns whether it was done.
        """
        if event_id is None:
            event_id = next(reversed(self._truncations), None)
        asked = self._truncations.pop(event_id, None) if event_id else None
        if asked is None or length_ms is None or length_ms >= asked[2]:
            return False
        again = self.next_id()
        self.send(events.ItemTruncate(again, asked[0], asked[1], length_ms))
        _remember(self._items, again, asked[0])
        return True
