"""The conversation as it was heard: both sides, in order, pure.

The model's transcript of an item that the caller cut off says more than was heard. It is kept in
proportion to the audio heard (openai-realtime section 9: the server gives no text of what was
heard), back to a whole word where the script has spaces.

Servers write an answer down ahead of its audio: what comes of its words after it was cut is of
audio that nobody got, and no part of this. Only where the words follow the audio do they count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from voiced.engine import Said

__all__ = ["Entry", "Transcript", "heard_text"]

# A call of an hour has some hundreds of items; a server that makes thousands is not conversing.
MAX_ENTRIES: Final = 4000
_ROLES: Final[dict[str, Literal["user", "assistant"]]] = {"caller": "user", "agent": "assistant"}
MAX_TEXT: Final = 32_000  # characters of one item; a 4,096-token answer has about 16,000


@dataclass(slots=True)
class Entry:
    """One item of the conversation."""

    role: Literal["caller", "agent", "note"]
    item_id: str
    text: str = ""
    cut: bool = False  # the caller interrupted: `text` is what was heard of it
    final: bool = False
    given_as: Literal["system", "user"] = "system"  # a note: in whose name
    follows: bool = False  # its words come after its audio
    share: tuple[int, int] | None = None  # cut, and words to come: ms heard, of ms received
    whole: str = ""  # of these words, what has come


class Transcript:
    """Collects the words of a call, keyed by the conversation's items."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._notes = 0

    def open(self, role: Literal["caller", "agent"], item_id: str) -> None:
        """Give an item its place; a caller's words may come long after the answer to them."""
        self._entry(role, item_id)

    def add(
        self, role: Literal["caller", "agent"], item_id: str, text: str, *, final: bool
    ) -> bool:
        """More of an item's words, or with `final` all of them; False if they count no more."""
        entry = self._entry(role, item_id)
        if entry is None or (entry.cut and entry.share is None):
            return False
        if entry.share is None:
            entry.text = (text if final else entry.text + text)[:MAX_TEXT]
        else:
            entry.whole = (text if final else entry.whole + text)[:MAX_TEXT]
            entry.text = heard_text(entry.whole, *entry.share)
        entry.final = entry.final or final
        return True

    def cut(self, item_id: str, heard_ms: int, received_ms: int) -> None:
        """The caller heard only `heard_ms` of the item's `received_ms`.

        Of words that are still to come as much will be kept, where they come after their audio.
        """
        entry = self._entries.get(item_id)
        if entry is not None and not entry.cut:
            if heard_ms > 0 and not entry.final and (entry.follows or not entry.text):
                entry.share, entry.whole = (heard_ms, received_ms), entry.text
            entry.text = heard_text(entry.text, heard_ms, received_ms)
            entry.cut = True

    def note(self, text: str, role: Literal["system", "user"] = "system") -> None:
        """Keep a text that the model was given: part of the history, not of what was said.

        `role`: in whose name it was given.
        """
        self._notes += 1
        entry = self._entry("note", f"note:{self._notes}")
        if entry is not None:
            entry.text, entry.final, entry.given_as = text[:MAX_TEXT], True, role

    def drop(self, item_id: str) -> None:
        """Forget an item: it was no speech."""
        self._entries.pop(item_id, None)

    def get(self, item_id: str) -> Entry | None:
        """The item of that id, if it has a place."""
        return self._entries.get(item_id)

    def entries(self) -> list[Entry]:
        """The items that have words, in the conversation's order."""
        return [entry for entry in self._entries.values() if entry.text and entry.role != "note"]

    def history(self) -> list[Said]:
        """The conversation as a model would be told it, notes to it included.

        A caller's words that are not whole are left out: the model hears them again.
        """
        return [
            Said(_ROLES.get(entry.role, entry.given_as), entry.text)
            for entry in self._entries.values()
            if entry.text and (entry.final or entry.role != "caller")
        ]

    def __str__(self) -> str:
        return "\n".join(
            f"{entry.role}: {entry.text}{' —' if entry.cut else ''}" for entry in self.entries()
        )

    def _entry(self, role: Literal["caller", "agent", "note"], item_id: str) -> Entry | None:
        entry = self._entries.get(item_id)
        if entry is None and len(self._entries) < MAX_ENTRIES:
            entry = self._entries[item_id] = Entry(role, item_id)
        return entry


def heard_text(text: str, heard_ms: int, received_ms: int) -> str:
    """The part of `text` that `heard_ms` of its `received_ms` of audio spoke.

    Cut back to the last whole word; a script without spaces is cut at a character.
    """
    if received_ms <= 0 or heard_ms <= 0:
        return ""
    if heard_ms >= received_ms:
        return text
    end = len(text) * heard_ms // received_ms
    if end < len(text) and not text[end].isspace() and " " in text:
        end = text.rfind(" ", 0, end) + 1
    return text[:end].rstrip()
