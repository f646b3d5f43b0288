"""The conversation: an ordered list of items, and what they cost in tokens."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from voiced.emulator.errors import Refused, invalid_value, unknown_item
from voiced.formats import AudioFormat

__all__ = ["Conversation", "Item", "Tokens", "text_tokens"]

# The newest items keep their audio for `retrieve` and for the echo; 32 s of G.711 in a daemon that
# emulates a hundred sessions are 25 MiB. Older ones are retrieved without.
AUDIO_BYTES: Final = 256 * 1024
ITEMS: Final = 1000  # far more than an hour's call makes; the oldest go first, as context does
USER_MS_PER_TOKEN: Final = 100
ASSISTANT_MS_PER_TOKEN: Final = 50


def text_tokens(text: str) -> int:
    """Estimate: a token per four characters."""
    return -(-len(text) // 4)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A count by kind."""

    text: int = 0
    audio: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.text + other.text, self.audio + other.audio)


@dataclass(slots=True)
class Item:
    """An item; `body` is what the protocol shows of it, without audio."""

    body: dict[str, Any]
    audio: bytearray = field(default_factory=bytearray)
    audio_ms: int = 0  # how much it had, also when `audio` has been dropped
    format: AudioFormat | None = None
    clip: str | None = None  # the registered clip that was recognised in it
    heard_speech: bool = False
    sealed: bool = field(default=True)  # False while a response still writes it

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.body["id"])

    @property
    def role(self) -> str | None:
        """Of a message: user, system, assistant."""
        return self.body.get("role")

    @property
    def text(self) -> str:
        """All text that is written in it, not what is only spoken."""
        parts = self.body.get("content", ())
        return " ".join(part["text"] for part in parts if part.get("text"))

    def with_audio(self) -> dict[str, Any]:
        """Return the body with its audio, as far as that is kept."""
        if not self.audio:
            return self.body
        parts = [dict(part) for part in self.body["content"]]
        for part in parts:
            if part["type"] in ("input_audio", "output_audio"):
                part["audio"] = base64.b64encode(self.audio).decode()
                break
        return {**self.body, "content": parts}

    def tokens(self) -> Tokens:
        """What it adds to the context."""
        extra = self.body.get("arguments", "") + self.body.get("output", "")
        rate = ASSISTANT_MS_PER_TOKEN if self.role == "assistant" else USER_MS_PER_TOKEN
        return Tokens(text_tokens(self.text + extra), -(-self.audio_ms // rate))


class Conversation:
    """The items in their order. `changed` tells whether a cached prefix has become useless."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self.changed = False

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return self._items[-1].id if self._items else None

    def find(self, item_id: str) -> Item | None:
        """Return the item of that id, if it is there."""
        return next((item for item in reversed(self._items) if item.id == item_id), None)

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item at the end, or behind `after` ("root": first); returns its predecessor's id.

        Raises Refused where `after` or the item's own id do not fit.
        """
        if self.find(item.id) is not None:
            raise Refused(
                "item_create_duplicate_item_id",
                f"Error adding item: the item with id '{item.id}' already exists.",
                "item.id",
            )
        if after is None:
            index = len(self._items)
        elif after == "root":
            index = 0
        else:
            before = self.find(after)
            if before is None:
                raise Refused(
                    "item_create_invalid_previous_item_id",
                    f"Error adding item: the previous item with id '{after}' does not exist.",
                    "previous_item_id",
                )
            index = self._items.index(before) + 1
        self.changed = self.changed or index < len(self._items)
        self._items.insert(index, item)
        previous = self._items[index - 1].id if index else None
        if len(self._items) > ITEMS:
            oldest = next(i for i, item in enumerate(self._items) if item.sealed)
            del self._items[oldest]
            self.changed = True
        self.drop_old_audio()
        return previous

    def before(self, item: Item) -> str | None:
        """Return the id of the item before this one."""
        index = self._items.index(item)
        return self._items[index - 1].id if index else None

    def get(self, item_id: str, action: str) -> Item:
        """Return the item, or raise Refused as `action` (retrieve, delete, truncate) does."""
        item = self.find(item_id)
        if item is None:
            raise unknown_item(action, item_id)
        return item

    def delete(self, item_id: str) -> None:
        """Take an item out; raises Refused where there is none."""
        self._items.remove(self.get(item_id, "delete"))
        self.changed = True

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut an assistant's audio; its transcript goes. Raises Refused where that cannot be."""
        item = self.get(item_id, "truncate")
        content = item.body.get("content", [])
        if item.role != "assistant":
            raise invalid_value("Only model output audio messages can be truncated.", "item_id")
        if content_index >= len(content) or content[content_index]["type"] != "output_audio":
            raise invalid_value(
                f"Content at index {content_index} is not an audio content.", "content_index"
            )
        if audio_end_ms > item.audio_ms:
            raise already_shorter(item.audio_ms, audio_end_ms)
        item.audio_ms = audio_end_ms
        if item.format is not None:
            del item.audio[audio_end_ms * item.format.bytes_per_ms :]
        content[content_index].pop("transcript", None)
        self.changed = True

    def tokens(self) -> Tokens:
        """Return what all items together take of the context."""
        return sum((item.tokens() for item in self._items), Tokens())

    def drop_old_audio(self) -> None:
        """Keep within AUDIO_BYTES, the newest first."""
        left = AUDIO_BYTES
        for item in reversed(self._items):
            left -= len(item.audio)
            if left < 0:
                item.audio.clear()


def already_shorter(audio_ms: int, audio_end_ms: int) -> Refused:
    """Truncation beyond the end: the error behind most reports from the field."""
    return invalid_value(
        f"Audio content of {audio_ms}ms is already shorter than {audio_end_ms}ms", "audio_end_ms"
    )
