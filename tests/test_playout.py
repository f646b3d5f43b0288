"""The playback ledger: order, verdicts, bounds, and its invariants whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from voiced.playout import Chunk, Cut, ItemSnapshot, Origin, Playout

MS = 8  # bytes, G.711


def send(playout: Playout, size: int = 10**9, most: int = 160) -> list[Chunk]:
    """Send up to `size` bytes; what the carrier was given."""
    chunks: list[Chunk] = []
    while size > 0 and (chunk := playout.next_chunk(min(most, size))) is not None:
        assert playout.sent(chunk)
        size -= len(chunk.payload)
        chunks.append(chunk)
    return chunks


def test_the_first_audio_goes_out_without_waiting_for_more() -> None:
    playout = Playout(MS)
    assert playout.idle
    playout.add("a", b"12345")
    chunk = playout.next_chunk(160)
    assert chunk == playout.next_chunk(160)  # until it is sent it is offered again
    assert chunk is not None
    assert (chunk.item_id, chunk.payload, chunk.offset) == ("a", b"12345", 0)
    assert playout.sent(chunk)
    assert playout.next_chunk(160) is None
    assert not playout.idle


def test_no_room_in_the_carrier_means_no_chunk() -> None:
    playout = Playout(MS)
    playout.add("a", b"1")
    assert playout.next_chunk(0) is None
    assert playout.next_chunk(-5) is None


def test_an_item_waits_for_the_end_of_the_one_before() -> None:
    playout = Playout(MS)
    playout.add("answer", b"a" * 10)
    playout.add("prompt", b"p" * 10, origin="local")
    assert [chunk.item_id for chunk in send(playout)] == ["answer"]
    playout.add("answer", b"a" * 10)
    playout.finish("answer")
    playout.finish("prompt")
    assert [chunk.item_id for chunk in send(playout)] == ["answer", "prompt"]
    playout.heard_to(30)
    assert playout.idle


def test_a_later_item_of_the_same_origin_ends_the_one_before() -> None:
    playout = Playout(MS)
    playout.add("a", b"a" * 10)
    playout.add("b", b"b" * 10)
    assert [chunk.payload for chunk in send(playout)] == [b"a" * 10, b"b" * 10]
    assert not playout.add("a", b"late")
    assert playout.statistics().refused == 4


def test_finish_all_lets_a_farewell_out() -> None:
    playout = Playout(MS)
    playout.add("answer", b"a" * 10)  # and then the model is lost
    playout.add("farewell", b"f" * 10, origin="local")
    send(playout)
    playout.finish_all()
    assert [chunk.item_id for chunk in send(playout)] == ["farewell"]
    playout.heard_to(20)
    assert playout.idle


def test_parts_of_one_item_play_in_order() -> None:
    playout = Playout(MS)
    playout.add("a", b"0" * 80, content_index=0)
    playout.add("a", b"1" * 80, content_index=1)
    playout.finish("a")
    assert [(c.content_index, len(c.payload)) for c in send(playout)] == [(0, 80), (1, 80)]
    playout.heard_to(100)
    assert (playout.heard_ms("a"), playout.heard_ms("a", 1)) == (10, 2)


def test_cut_truncates_what_is_playing_and_deletes_what_waits() -> None:
    playout = Playout(MS)
    for item, ms in (("heard", 100), ("playing", 1000), ("queued", 500)):
        playout.add(item, bytes(ms * MS))
        playout.finish(item)
    send(playout, 1500 * MS)
    playout.heard_to(100 * MS + 333 * MS + 7)
    assert playout.cut() == [
        Cut("playing", 0, 333, 1000, "truncate"),
        Cut("queued", 0, 0, 500, "delete"),
    ]
    assert playout.idle
    assert playout.unheard == 0
    assert playout.heard_ms("playing") == 333
    assert playout.heard_ms("heard") == 100
    assert not playout.add("playing", b"late")
    assert not playout.add("queued", b"late", content_index=1)
    assert playout.statistics().refused_pieces == 2
    assert playout.cut() == []


def test_an_open_item_is_truncated_though_all_that_came_was_heard() -> None:
    playout = Playout(MS)
    playout.add("a", bytes(100 * MS + 3))
    send(playout)
    playout.heard_to(10**9)
    assert not playout.idle
    assert playout.cut() == [Cut("a", 0, 100, 100, "truncate")]


def test_a_missing_fraction_of_a_millisecond_is_not_worth_a_word() -> None:
    playout = Playout(MS)
    playout.add("a", bytes(100 * MS + 3))
    playout.finish("a")
    send(playout)
    playout.heard_to(100 * MS)
    assert playout.cut() == [Cut("a", 0, 100, 100, "none")]


def test_an_item_is_deleted_once_and_never_when_a_part_was_heard() -> None:
    playout = Playout(MS)
    for item in ("a", "b"):
        for part in (0, 1):
            playout.add(item, bytes(100 * MS), content_index=part)
    send(playout)
    playout.heard_to(100 * MS)
    assert [(cut.item_id, cut.content_index, cut.action) for cut in playout.cut()] == [
        ("a", 1, "truncate"),
        ("b", 0, "delete"),
        ("b", 1, "none"),
    ]


def test_local_items_are_dropped_without_a_verdict() -> None:
    playout = Playout(MS)
    playout.add("greeting", bytes(1000), origin="local")
    send(playout)
    playout.heard_to(400)
    assert playout.cut() == []
    assert playout.heard_ms("greeting") == 50
    assert not playout.add("greeting", b"more", origin="local")


def test_a_chunk_that_was_on_its_way_at_the_cut_counts_for_nothing() -> None:
    playout = Playout(MS)
    playout.add("a", bytes(1000))
    chunk = playout.next_chunk(160)
    assert chunk is not None
    playout.cut()
    assert not playout.sent(chunk)
    assert playout.statistics().sent == 0


def test_a_chunk_is_sent_once() -> None:
    playout = Playout(MS)
    playout.add("a", bytes(1000))
    chunk = playout.next_chunk(160)
    assert chunk is not None
    playout.sent(chunk)
    with pytest.raises(ValueError, match="not the next to be sent"):
        playout.sent(chunk)
    with pytest.raises(ValueError, match="item nobody"):
        playout.sent(replace(chunk, item_id="nobody"))


def test_rewind_offers_what_was_not_heard_again() -> None:
    playout = Playout(MS)
    audio = bytes(range(200))
    playout.add("a", audio)
    playout.finish("a")
    playout.add("b", b"b" * 50)
    send(playout, most=30)
    playout.heard_to(77)
    playout.rewind()
    assert playout.unsent == playout.unheard == 173
    again = send(playout, most=1000)
    assert [chunk.payload for chunk in again] == [audio[77:], b"b" * 50]
    playout.heard_to(123)  # of the new generation
    assert playout.statistics().heard == 200
    assert playout.cut() == [Cut("b", 0, 0, 6, "delete")]


def test_room_shrinks_with_what_is_unheard() -> None:
    playout = Playout(MS, max_unheard_ms=1000)
    assert playout.room == 8000
    playout.add("a", bytes(6000))
    assert playout.room == 2000
    playout.add("a", bytes(6000))  # had been read already: kept all the same
    assert (playout.room, playout.unheard) == (0, 12000)
    send(playout)
    assert playout.room == 0
    playout.heard_to(10000)
    assert playout.room == 6000


def test_heard_audio_is_not_kept() -> None:
    playout = Playout(MS)
    playout.add("a", bytes(8_000_000))
    send(playout, most=16_000)
    playout.heard_to(7_990_000)
    held = sum(len(item.audio) for item in playout._queue)
    assert held == playout.unheard == 10_000


def test_items_without_end_are_forgotten() -> None:
    playout = Playout(MS)
    for number in range(3000):
        playout.add(f"item{number}", b"12345678")
        send(playout)
        playout.heard_to(10**9)
    assert len(playout.snapshot()) == 1024
    assert playout.heard_ms("item2999") == 1
    assert playout.heard_ms("item0") == 0
    assert playout.statistics().items == 3000


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=50))), st.data())
def test_every_item_comes_out_as_it_went_in(
    pieces: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    playout = Playout(MS)
    added: dict[str, bytes] = {}
    out: dict[str, bytes] = {}
    order: list[str] = []
    for number, payload in pieces:
        name = f"item{number}"
        if playout.add(name, payload):
            added[name] = added.get(name, b"") + payload
        for chunk in send(playout, data.draw(st.integers(0, 60)), data.draw(st.integers(1, 60))):
            out[chunk.item_id] = out.get(chunk.item_id, b"") + chunk.payload
            order.append(chunk.item_id)
    for chunk in send(playout):
        out[chunk.item_id] = out.get(chunk.item_id, b"") + chunk.payload
        order.append(chunk.item_id)
    assert out == added
    first_seen = list(added)
    assert [first_seen.index(name) for name in order] == sorted(map(first_seen.index, order))


def test_the_rest_of_a_filler_is_dropped_and_what_follows_goes_on() -> None:
    playout = Playout(MS)
    playout.add("filler", b"f" * 20, origin="local")
    playout.finish("filler")
    send(playout, 10)
    playout.heard_to(5)
    playout.add("answer", b"a" * 10)
    assert playout.unheard == 25
    with pytest.raises(ValueError, match="filler"):
        playout.drop("filler")
    playout.rewind()
    assert playout.drop("filler")
    assert playout.was_cut("filler")
    assert not playout.drop("filler")
    assert not playout.drop("answer"), "the model's are cut, and it is told"
    assert not playout.drop("another")
    assert playout.unheard == 10
    assert [chunk.payload for chunk in send(playout)] == [b"a" * 10]


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside the plainest book-keeping one can think of."""

    def __init__(self) -> None:
        super().__init__()
        self.playout = Playout(MS, max_unheard_ms=10)
        self.last: dict[tuple[str, int], ItemSnapshot] = {}
        self.stream: list[tuple[str, int]] = []  # owner of each byte sent in this generation
        self.heard = 0
        self.frozen: dict[tuple[str, int], ItemSnapshot] = {}
        self.chunk: Chunk | None = None

    @rule(
        item=st.sampled_from("abcdef"),
        part=st.integers(0, 1),
        size=st.integers(0, 40),
        origin=st.sampled_from(["model", "local"]),
    )
    def add(self, item: str, part: int, size: int, origin: Origin) -> None:
        before = self.playout.unheard
        accepted = self.playout.add(item, bytes(size), content_index=part, origin=origin)
        assert self.playout.unheard == before + (size if accepted else 0)
        if any(snapshot.item_id == item for snapshot in self.frozen.values()):
            assert not accepted or not size

    @rule(item=st.sampled_from("ghij"), size=st.integers(0, 40))
    def add_ahead(self, item: str, size: int) -> None:
        dry, before = self.playout.dry, self.playout.unheard
        assert dry == (not self.playout.idle and before == 0)
        accepted = self.playout.add_ahead(item, bytes(size))
        assert not accepted or (dry and size)
        assert self.playout.unheard == before + (size if accepted else 0)
        if accepted:
            self.chunk = self.playout.next_chunk(100)
            assert self.chunk is not None
            assert self.chunk.item_id == item

    @rule(item=st.sampled_from("abcdef"))
    def finish(self, item: str) -> None:
        self.playout.finish(item)

    @rule()
    def finish_all(self) -> None:
        self.playout.finish_all()
        assert self.playout.idle == (self.playout.unheard == 0)

    @rule(most=st.integers(1, 40))
    def offer(self, most: int) -> None:
        self.chunk = self.playout.next_chunk(most)
        assert self.chunk is None or 0 < len(self.chunk.payload) <= most

    @precondition(lambda self: self.chunk is not None)
    @rule()
    def sent(self) -> None:
        chunk, self.chunk = self.chunk, None
        assert chunk is not None
        if self.playout.sent(chunk):
            self.stream += [(chunk.item_id, chunk.content_index)] * len(chunk.payload)
        else:
            assert chunk.generation < self.playout.generation

    @rule(position=st.integers(-5, 200))
    def hear(self, position: int) -> None:
        self.playout.heard_to(position)
        after = max(self.heard, min(position, len(self.stream)))
        gained = self.stream[self.heard : after]
        self.heard = after
        for key, snapshot in self._items().items():
            before = self.last[key].heard if key in self.last else 0
            assert snapshot.heard - before == gained.count(key)

    @rule()
    def cut(self) -> None:
        before = self._items()
        cuts = self.playout.cut()
        told = {(cut.item_id, cut.content_index): cut for cut in cuts}
        for key, item in before.items():
            over = item.cut or (item.finished and item.heard == item.received)
            assert (key in told) == (item.origin == "model" and not over)
            if not item.cut and not over:
                self.frozen[key] = replace(item, cut=True)
        for key, cut in told.items():
            item = before[key]
            assert cut.heard_ms == item.heard // MS <= cut.received_ms == item.received // MS
            heard_any = any(
                other.heard >= MS for other in before.values() if other.item_id == item.item_id
            )
            if cut.action == "delete":
                assert not heard_any
            if cut.action == "truncate":
                assert heard_any
        deleted = [cut.item_id for cut in cuts if cut.action == "delete"]
        assert len(deleted) == len(set(deleted))
        self._new_generation()
        assert self.playout.idle
        assert self.playout.unheard == 0

    @rule()
    def rewind(self) -> None:
        unheard = self.playout.unheard
        self.playout.rewind()
        self._new_generation()
        assert self.playout.unsent == self.playout.unheard == unheard

    @rule(item=st.sampled_from("abcdefghij"))
    def drop(self, item: str) -> None:
        self.playout.rewind()
        self._new_generation()
        before, unheard = self._items().get((item, 0)), self.playout.unheard
        dropped = self.playout.drop(item)
        over = before is None or (before.finished and before.heard == before.received)
        assert dropped == (
            before is not None and before.origin == "local" and not over and not before.cut
        )
        if dropped:
            assert before is not None
            assert self.playout.unheard == unheard - (before.received - before.heard)
            self.frozen[item, 0] = replace(before, cut=True)

    def _new_generation(self) -> None:
        self.stream.clear()
        self.heard = 0

    def _items(self) -> dict[tuple[str, int], ItemSnapshot]:
        return {(item.item_id, item.content_index): item for item in self.playout.snapshot()}

    @invariant()
    def ledger(self) -> None:
        items = self._items()
        for key, item in items.items():
            assert 0 <= item.heard <= item.sent <= item.received
            if key in self.last:
                assert item.heard >= self.last[key].heard
        for key, item in self.frozen.items():
            assert items[key] == item
        total = self.playout.statistics()
        assert total.heard == sum(item.heard for item in items.values())
        assert total.sent == sum(item.sent for item in items.values())
        assert total.received == sum(item.received for item in items.values())
        assert 0 <= total.heard <= total.sent <= total.received
        assert total.received == total.heard + total.unheard + total.dropped
        assert 0 <= total.unsent <= total.unheard
        assert self.playout.room == max(0, 10 * MS - total.unheard)
        assert sum(len(item.audio) for item in self.playout._queue) == total.unheard
        if self.playout.idle:
            assert total.unheard == 0
        self.last = items


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6), st.data())
def test_what_was_sent_and_is_unheard_can_be_had_again(
    sounds: list[bytes], data: st.DataObject
) -> None:
    playout = Playout(8)
    for number, sound in enumerate(sounds):
        playout.add(f"{number}", sound)
    sent = b""
    for _ in range(data.draw(st.integers(0, 8))):
        chunk = playout.next_chunk(data.draw(st.integers(1, 200)))
        if chunk is not None and playout.sent(chunk):
            sent += chunk.payload
    heard = data.draw(st.integers(0, len(sent)))
    playout.heard_to(heard)
    position = data.draw(st.integers(0, len(sent)))
    assert playout.again(position) == sent[max(heard, position) :]
    playout.rewind()
    assert playout.again(0) == b""
