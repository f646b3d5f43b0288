"""Whatever a client sends, in whatever order: the session's rules hold."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.emulator.peer import Peer
from voiced import clips
from voiced.emulator.options import Faults
from voiced.emulator.response import Response

LOUD = clips.load("hello").pcm[:16000]
TEXT = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


class Session(RuleBasedStateMachine):
    """Client events, and the steps of the task that answers, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer(Faults(late_deltas=0))
        self.waiting: list[Response] = []
        self.running: dict[str, str] = {}  # response id -> "created" or "done"
        self.items: list[str] = []
        self.event_ids: set[str] = set()

    def collect(self, events: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        events = (events or []) + self.peer.read()
        for event in events:
            assert event["event_id"] not in self.event_ids
            self.event_ids.add(event["event_id"])
            self.judge(event)
        self.waiting += self.peer.dialogue.responses.due()
        self.peer.dialogue.heard()
        return events

    def judge(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "response.created":
            assert event["response"]["id"] not in self.running
            self.running[event["response"]["id"]] = "created"
        elif kind == "response.done":
            assert self.running[event["response"]["id"]] == "created"
            assert event["response"]["status"] != "in_progress"
            self.running[event["response"]["id"]] = "done"
        elif kind.startswith("response."):
            assert self.running[event["response_id"]] == "created"
        elif kind == "conversation.item.added":
            previous, new = event["previous_item_id"], event["item"]["id"]
            assert new not in self.items
            at = 0 if previous is None else self.items.index(previous) + 1
            self.items.insert(at, new)
        elif kind == "conversation.item.deleted":
            self.items.remove(event["item_id"])

    @rule(ms=st.integers(1, 900), loud=st.booleans())
    def append(self, ms: int, loud: bool) -> None:
        data = (LOUD * 3)[: 48 * ms] if loud else bytes(48 * ms)
        encoded = base64.b64encode(data).decode()
        self.collect(self.peer.send("input_audio_buffer.append", audio=encoded))

    @rule(
        kind=st.sampled_from(
            [
                "input_audio_buffer.commit",
                "input_audio_buffer.clear",
                "response.create",
                "response.cancel",
            ]
        )
    )
    def plain(self, kind: str) -> None:
        self.collect(self.peer.send(kind))

    @rule()
    def create_beside(self) -> None:
        self.collect(self.peer.send("response.create", response={"conversation": "none"}))

    @rule(
        detection=st.sampled_from(
            [None, {"type": "server_vad"}, {"type": "semantic_vad"}, {"type": "nonsense"}]
        )
    )
    def update(self, detection: dict[str, Any] | None) -> None:
        before = self.peer.dialogue.session
        audio = {"input": {"turn_detection": detection}}
        events = self.collect(self.peer.update(audio=audio))
        if events[0]["type"] == "error":
            assert self.peer.dialogue.session == before

    @rule(place=st.integers(0, 5))
    def create_item(self, place: int) -> None:
        after = {"previous_item_id": self.items[place]} if place < len(self.items) else {}
        self.collect(self.peer.send("conversation.item.create", item=TEXT, **after))

    @rule(place=st.integers(0, 5), end_ms=st.integers(0, 500))
    def truncate(self, place: int, end_ms: int) -> None:
        item_id = self.items[place] if place < len(self.items) else "item_none"
        item = self.peer.dialogue.conversation.find(item_id)
        before = item.audio_ms if item else None
        events = self.collect(
            self.peer.send(
                "conversation.item.truncate",
                item_id=item_id,
                content_index=0,
                audio_end_ms=end_ms,
            )
        )
        if item is not None and events[0]["type"] == "error":
            assert item.audio_ms == before
        elif item is not None:
            assert item.audio_ms == end_ms <= (before or 0)

    @rule(place=st.integers(0, 5))
    def delete(self, place: int) -> None:
        item_id = self.items[place] if place < len(self.items) else "item_none"
        self.collect(self.peer.send("conversation.item.delete", item_id=item_id))

    @rule(step=st.sampled_from(["begin", "open", "speak", "finish", "fail"]), which=st.booleans())
    def perform(self, step: str, which: bool) -> None:
        self.waiting = [r for r in self.waiting if not r.done]
        if not self.waiting:
            return
        response = self.waiting[0 if which else -1]
        response.begin()
        if step in ("open", "speak"):
            response.open_message()
        if step == "speak":
            response.speak(bytes(48 * 200), "word ")
        if step in ("finish", "fail"):
            response.finish("completed" if step == "finish" else "failed", "server_error")
            self.peer.dialogue.responses.released(response)
        self.collect()

    @invariant()
    def the_conversation_is_what_was_told(self) -> None:
        assert [item.id for item in self.peer.dialogue.conversation] == self.items

    @invariant()
    def at_most_one_response_writes_to_it(self) -> None:
        live = [r for r in self.waiting if not r.done and not r.settings.detached]
        assert len(live) <= 1
        assert (self.peer.dialogue.responses.active is not None) == bool(live)


def test_the_rules_of_a_session_hold_in_any_order() -> None:
    run_state_machine_as_test(
        Session, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KINDS = ["session.update", "conversation.item.create", "response.create", "response.cancel"]
FIELDS = ["session", "item", "response", "item_id", "audio", "event_id", "previous_item_id"]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS) | st.text(max_size=5),
    fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), json_values, max_size=3),
)
def test_any_json_gets_an_answer_and_nothing_breaks(kind: str, fields: dict[str, Any]) -> None:
    peer = Peer()
    fields.pop("type", None)
    fields.pop("kind", None)
    fields.pop("self", None)
    before = peer.dialogue.session
    events = peer.send(kind, **fields)
    if events and events[0]["type"] == "error":
        assert peer.dialogue.session == before
    peer.dialogue.responses.active = None
    assert peer.update(instructions="still alive")[0]["type"] == "session.updated"


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_message_is_survived(message: bytes | str) -> None:
    peer = Peer()
    peer.dialogue.receive(message)
    assert [event["type"] for event in peer.read()] == ["error"]
