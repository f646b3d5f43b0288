"""The playback ledger: audio that waits to be played, and what of it the caller has heard.

Pure and without a clock. Every figure is bytes of the leg's format unless its name ends in `_ms`.
The owner feeds it with audio (`add`, `finish`), takes chunks for the leg (`next_chunk`, `sent`),
passes on how far the carrier has played (`heard_to`), and asks for a verdict on every item when the
caller interrupts (`cut`).

Order: items play in the order in which they were first seen, each in one piece. A later item waits
while an earlier one is open, that is, while more of its audio may come. An item is closed by
`finish`, by the first audio of a later item of the same origin (a model makes its items one after
the other, so a `done` that never comes blocks nothing), or by `finish_all`, for when whoever made
the audio is gone. A prompt of ours waits behind an open item of the model: put in between, it would
tear a sentence apart. Only where that item has run dry, because whoever makes it has stalled, a
prompt is put before the rest of it (`add_ahead`).

For every item, and in sum: 0 <= heard <= sent <= received. Heard never goes back. Positions count
from the last `cut` or `rewind`; what lies before it (an older *generation*) never changes again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Chunk", "Cut", "ItemSnapshot", "Origin", "Playout", "PlayoutStatistics"]

Origin = Literal["model", "local"]
"""Who made the audio: the model, or we (greeting file, tone, prompt)."""

# Items of which nothing is unheard are remembered without their audio, so that late audio is
# refused and `heard_ms` still answers. A call has a few hundred at most; the bound is against a
# model that makes items without end.
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio to be sent next; `offset` is its first byte's place in the item."""

    item_id: str
    content_index: int
    payload: bytes
    offset: int
    generation: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What the model must be told of an item that was interrupted.

    truncate: `heard_ms` of it were heard (0 only if another part of the same item was heard).
    delete: nothing of the whole item was heard; one per item, whatever its number of parts.
    none: nothing to tell, because less than a millisecond of a finished item is missing, or because
    another part's `delete` covers it.
    """

    item_id: str
    content_index: int
    heard_ms: int  # rounded down, never more than received_ms
    received_ms: int  # rounded down
    action: Literal["truncate", "delete", "none"]


@dataclass(frozen=True, slots=True)
class ItemSnapshot:
    """One item as the ledger has it."""

    item_id: str
    content_index: int
    origin: Origin
    received: int
    sent: int
    heard: int
    finished: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class PlayoutStatistics:
    """Totals of the whole call: received == heard + unheard + dropped."""

    generation: int
    items: int
    received: int
    sent: int  # what `rewind` put back no longer counts as sent
    heard: int
    unsent: int
    unheard: int
    dropped: int  # accepted, then cut before it was heard
    refused: int  # late audio of cut or finished items
    refused_pieces: int


@dataclass(slots=True)
class _Item:
    item_id: str
    content_index: int
    origin: Origin
    received: int = 0
    sent: int = 0
    heard: int = 0
    finished: bool = False
    cut: bool = False
    # Bytes heard..received. Deleting at the front of a bytearray moves its start, not its content.
    audio: bytearray = field(default_factory=bytearray)


class Playout:
    """The ledger of one call, in a format of `bytes_per_ms`.

    `max_unheard_ms` is what `room` counts down from. `add` itself refuses nothing for lack of room:
    the owner stops reading from the model while `room` is 0, and what had been read by then fits.
    The default is longer than any answer of 4,096 tokens (205 s at 50 ms a token): a model that is
    not read cannot say that the caller interrupts, so only one that never ends is held back.
    """

    def __init__(self, bytes_per_ms: int, *, max_unheard_ms: int = 240_000) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._max_unheard = max_unheard_ms * bytes_per_ms
        self._parts: dict[str, dict[int, _Item]] = {}  # by item_id, content_index; oldest first
        self._queue: deque[_Item] = deque()  # open, or not wholly heard; bounded by `room`
        self.generation = 0
        self._sent_to = 0  # position in this generation
        self._heard_to = 0
        self._items = self._received = self._sent = self._heard = 0
        self._dropped = self._refused = self._refused_pieces = 0

    # Audio in

    def add(
        self, item_id: str, payload: bytes, *, content_index: int = 0, origin: Origin = "model"
    ) -> bool:
        """Append audio to the item's end; False if it came too late and was passed over.

        Too late is: the item was finished, or any part of it was cut. An id is therefore good for
        one playing; a prompt that is played twice needs two. Empty audio changes nothing.
        """
        if not payload:
            return True
        parts = self._parts.get(item_id, {})
        item = parts.get(content_index)
        if item is None and not any(part.cut for part in parts.values()):
            item = self._open(item_id, content_index, origin)
        if item is None or item.finished or item.cut:
            self._refused += len(payload)
            self._refused_pieces += 1
            return False
        item.audio += payload
        item.received += len(payload)
        self._received += len(payload)
        return True

    def add_ahead(self, item_id: str, payload: bytes) -> bool:
        """Have a whole clip of ours heard before the rest of an item that has run dry.

        False, and nothing changes, where no item has.
        """
        if not (payload and self.dry) or item_id in self._parts:
            return False
        item = _Item(item_id, 0, "local", finished=True)
        item.audio += payload
        item.received = len(payload)
        self._received += len(payload)
        self._items += 1
        self._parts[item_id] = {0: item}
        self._queue.appendleft(item)
        return True

    def finish(self, item_id: str) -> None:
        """No more audio of this item will come. Unknown, finished and cut ids are passed over."""
        for item in self._parts.get(item_id, {}).values():
            if not item.cut:
                item.finished = True
        self._settle()

    def finish_all(self) -> None:
        """No more audio of any item seen so far will come: the model is gone, or was told off."""
        for item in self._queue:
            item.finished = True
        self._settle()

    # Audio out

    def next_chunk(self, max_bytes: int) -> Chunk | None:
        """Offer the next audio to send, of one item, at most `max_bytes`; None if there is none.

        Changes nothing: until `sent` is told, the same audio is offered again.
        """
        if max_bytes <= 0:
            return None
        for item in self._queue:
            if item.sent < item.received:
                start = item.sent - item.heard
                payload = bytes(memoryview(item.audio)[start : start + max_bytes])
                return Chunk(item.item_id, item.content_index, payload, item.sent, self.generation)
            if not item.finished:
                return None
        return None

    def sent(self, chunk: Chunk) -> bool:
        """Count `chunk` as being with the carrier; False if its generation has ended meanwhile.

        Raises ValueError for a chunk that is not the one `next_chunk` offers.
        """
        if chunk.generation != self.generation:
            return False
        item = self._parts.get(chunk.item_id, {}).get(chunk.content_index)
        size = len(chunk.payload)
        if item is None or item.sent != chunk.offset or item.sent + size > item.received:
            raise ValueError(f"this chunk of item {chunk.item_id} is not the next to be sent")
        item.sent += size
        self._sent += size
        self._sent_to += size
        return True

    def heard_to(self, position: int) -> None:
        """Note that the carrier has played `position` bytes of this generation; drop the audio.

        A position before the last one changes nothing, one beyond what was sent counts as that.
        """
        left = min(position, self._sent_to) - self._heard_to
        if left <= 0:
            return
        self._heard_to += left
        self._heard += left
        for item in self._queue:
            step = min(left, item.sent - item.heard)
            del item.audio[:step]
            item.heard += step
            left -= step
            if not left:
                break
        self._settle()

    def again(self, position: int) -> bytes:
        """What was sent of this generation from `position` on, and is not known to be heard."""
        sent = b"".join(
            bytes(memoryview(item.audio)[: item.sent - item.heard]) for item in self._queue
        )
        return sent[max(0, position - self._heard_to) :]

    # Interruption

    def cut(self) -> list[Cut]:
        """Drop all that is unheard (barge-in), and return what the model must be told of it.

        `heard_to` has been given the final position before. A new generation begins. Verdicts stand
        in order of playing.
        An open item is truncated even if all that came of it was heard: there is more of it at the
        model. Items of ours are dropped without a verdict.
        """
        cuts: list[Cut] = []
        deleted: set[str] = set()
        for item in self._queue:
            self._dropped += item.received - item.heard
            if item.origin == "model":
                cuts.append(self._verdict(item, deleted))
        for item in self._queue:
            item.cut = True
            item.audio = bytearray()
        self._queue.clear()
        self._begin_generation()
        return cuts

    def drop(self, item_id: str) -> bool:
        """Drop the rest of an item of ours, and go on with what comes behind it.

        Nothing of it may be with the carrier, as after `rewind`. False where there is nothing to
        drop.
        """
        item = self._parts.get(item_id, {}).get(0)
        if item is None or item.origin != "local" or item not in self._queue:
            return False
        if item.sent != item.heard:
            raise ValueError(f"item {item_id} is still being heard")
        self._dropped += item.received - item.heard
        item.cut = True
        item.audio = bytearray()
        self._queue.remove(item)
        self._settle()
        return True

    def rewind(self) -> None:
        """Begin a new generation that goes on where the caller stopped hearing.

        The carrier was cleared and `heard_to` given the final position; what was sent and not heard
        is offered again.
        """
        for item in self._queue:
            self._sent -= item.sent - item.heard
            item.sent = item.heard
        self._begin_generation()

    # Questions

    @property
    def unsent(self) -> int:
        """Bytes that are still to be sent."""
        return self.unheard - (self._sent_to - self._heard_to)

    @property
    def unheard(self) -> int:
        """Bytes that are still to be heard, sent or not."""
        return self._received - self._heard - self._dropped

    @property
    def room(self) -> int:
        """Bytes that may still be added before the source should be held back; never negative."""
        return max(0, self._max_unheard - self.unheard)

    @property
    def dry(self) -> bool:
        """All that came has been heard, and an open item owes more."""
        return bool(self._queue) and self.unheard == 0

    @property
    def idle(self) -> bool:
        """Nothing is unheard and no open item may bring more."""
        return not self._queue

    def received_ms(self, item_id: str, content_index: int = 0) -> int:
        """Milliseconds received of an item, rounded down; 0 if it is unknown."""
        item = self._parts.get(item_id, {}).get(content_index)
        return 0 if item is None else item.received // self._bytes_per_ms

    def heard_ms(self, item_id: str, content_index: int = 0) -> int:
        """Milliseconds heard of an item, rounded down; 0 if it is unknown."""
        item = self._parts.get(item_id, {}).get(content_index)
        return 0 if item is None else item.heard // self._bytes_per_ms

    def was_cut(self, item_id: str) -> bool:
        """Whether the item was dropped before its end."""
        return any(part.cut for part in self._parts.get(item_id, {}).values())

    def end_of(self, item_id: str) -> int | None:
        """The position at which all that came of an item will have been heard; None if it has.

        Of this generation, if nothing is dropped before.
        """
        end = self._heard_to
        found = None
        for item in self._queue:
            end += item.received - item.heard
            if item.item_id == item_id and item.heard < item.received:
                found = end
        return found

    def on_its_way(self, item_id: str) -> bool:
        """Whether the carrier has audio of the item that is not known to be heard."""
        return any(part.sent > part.heard for part in self._parts.get(item_id, {}).values())

    def snapshot(self) -> tuple[ItemSnapshot, ...]:
        """Every item that the ledger remembers, in order of their ids' first appearance."""
        return tuple(
            ItemSnapshot(
                item_id=item.item_id,
                content_index=item.content_index,
                origin=item.origin,
                received=item.received,
                sent=item.sent,
                heard=item.heard,
                finished=item.finished,
                cut=item.cut,
            )
            for parts in self._parts.values()
            for item in parts.values()
        )

    def statistics(self) -> PlayoutStatistics:
        """Totals of the call."""
        return PlayoutStatistics(
            generation=self.generation,
            items=self._items,
            received=self._received,
            sent=self._sent,
            heard=self._heard,
            unsent=self.unsent,
            unheard=self.unheard,
            dropped=self._dropped,
            refused=self._refused,
            refused_pieces=self._refused_pieces,
        )

    def _open(self, item_id: str, content_index: int, origin: Origin) -> _Item:
        for earlier in self._queue:
            if earlier.origin == origin:
                earlier.finished = True
        self._settle()
        item = _Item(item_id, content_index, origin)
        self._parts.setdefault(item_id, {})[content_index] = item
        self._queue.append(item)
        self._items += 1
        if len(self._parts) > _REMEMBERED:
            self._forget()
        return item

    def _settle(self) -> None:
        """Take the items off the queue of which nothing is unheard and nothing will come."""
        queue = self._queue
        while queue and queue[0].finished and queue[0].heard == queue[0].received:
            queue.popleft().audio = bytearray()

    def _verdict(self, item: _Item, deleted: set[str]) -> Cut:
        heard_ms = item.heard // self._bytes_per_ms
        received_ms = item.received // self._bytes_per_ms
        action: Literal["truncate", "delete", "none"] = "truncate"
        parts = self._parts[item.item_id].values()
        if item.finished and heard_ms == received_ms:
            action = "none"
        elif all(part.heard < self._bytes_per_ms for part in parts):
            action = "none" if item.item_id in deleted else "delete"
            deleted.add(item.item_id)
        return Cut(item.item_id, item.content_index, heard_ms, received_ms, action)

    def _begin_generation(self) -> None:
        self.generation += 1
        self._sent_to = self._heard_to = 0

    def _forget(self) -> None:
        """Drop the oldest item of which nothing is queued."""
        queued = {item.item_id for item in self._queue}
        oldest = next((key for key in self._parts if key not in queued), None)
        if oldest is not None:
            del self._parts[oldest]
