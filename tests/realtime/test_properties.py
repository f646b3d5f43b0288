"""Random sequences, legal or not: nothing raises, and what must never happen does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.realtime.script import ACTIVE, Script
from voiced.config.types import Agent, OwnVad, RealtimeEngine, ServerVad
from voiced.engine import AgentAudio, AgentAudioDone, Lost, Ready, ResponseDone, ResponseStarted
from voiced.formats import PCMU_8K

IDS = [f"resp_{n}" for n in range(4)]
ITEMS = [f"item_{n}" for n in range(4)]
RESPONSE = st.sampled_from(IDS)
ITEM = st.sampled_from(ITEMS)
MS = st.integers(-10, 3000)
LOUD = bytes([0x10] * 8 + [0x90] * 8) * 10

ERROR_CODES = st.sampled_from(
    [
        "conversation_already_has_active_response",
        "response_cancel_not_active",
        "invalid_value",
        "unknown_parameter",
        "server_error",
        "rate_limit_exceeded",
        "never_seen",
        None,
    ]
)
MESSAGES = st.sampled_from(
    [
        "",
        "Audio content of 700ms is already shorter than 800ms",
        ACTIVE.format("resp_1"),
        "Unknown parameter: 'session.audio.output.voice'.",
    ]
)

STEP = st.one_of(
    st.tuples(st.just("created"), RESPONSE, st.sampled_from(["conv_1", "conv_1", None])),
    st.tuples(st.just("delta"), RESPONSE, ITEM, st.integers(0, 4000)),
    st.tuples(st.just("delta"), RESPONSE, ITEM, st.integers(0, 4000)),
    st.tuples(st.just("audio_done"), RESPONSE, ITEM),
    st.tuples(
        st.just("done"), RESPONSE, st.sampled_from(["completed", "cancelled", "failed", "odd"])
    ),
    st.tuples(st.just("error"), ERROR_CODES, MESSAGES, st.integers(0, 12)),
    st.tuples(st.just("committed"), ITEM),
    st.tuples(st.just("updated")),
    st.tuples(st.just("respond"), st.sampled_from([None, "Say hello."])),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("truncate"), ITEM, MS),
    st.tuples(st.just("delete"), ITEM),
    st.tuples(st.just("audio"), st.sampled_from([LOUD, PCMU_8K.silence(20)]), st.integers(1, 20)),
    st.tuples(st.just("message")),
    st.tuples(st.just("malformed")),
)

AGENTS = [
    Agent(turn_detection=ServerVad()),
    Agent(turn_detection=OwnVad(silence_ms=100)),
    Agent(barge_in="off"),
    Agent(barge_in="confirm"),
    Agent(barge_in="confirm", turn_detection=OwnVad(silence_ms=100)),
]

NAMES = ["server", "own", "no barge-in", "confirm", "own confirm"]


class Watch:
    """Checks the invariants after every step."""

    def __init__(self, agent: Agent, server: Any) -> None:
        self.script = Script(RealtimeEngine(server=server), agent)
        self.ready = False
        self.lost = False
        self.outstanding: str | None = None  # event_id of our create
        self.cancelled: set[str] = set()  # responses that we sent a cancel for
        self.over: set[str] = set()
        self.received: dict[str, int] = {}
        self.gone: set[str] = set()
        self.begun: list[str] = []
        self.uncommitted = 0

    def step(self, step: tuple[Any, ...]) -> None:
        script, machine = self.script, self.script.machine
        match step:
            case ("created", response, conversation):
                if conversation is not None and response not in self.over:
                    self.outstanding = None  # whichever it was, it has been answered
                script.created(response, conversation_id=conversation)
            case ("delta", response, item, size):
                if size:  # the machine may take an unannounced response for the awaited one
                    self.outstanding = None
                script.delta(bytes(size), response, item)
            case ("audio_done", response, item):
                script.audio_done(response, item)
            case ("done", response, status):
                error = {"code": "server_error"} if status == "failed" else None
                script.done(response, status, status_details={"error": error})
            case ("error", code, message, number):
                self.outstanding = None if self.refuses(number) else self.outstanding
                script.error(code, message, f"voiced_{number}" if number else None)
            case ("committed", item):
                script.says("input_audio_buffer.committed", item_id=item)
            case ("updated",):
                script.says("session.created", session={}).says("session.updated", session={})
            case ("respond", instructions):
                machine.respond(instructions)
            case ("cancel",):
                machine.cancel()
            case ("truncate", item, ms):
                machine.truncate(item, 0, ms)
            case ("delete", item):
                machine.delete(item)
            case ("audio", payload, times):
                for _ in range(times):
                    machine.send_audio(payload)
            case ("message",):
                machine.add_message("user", "hello")
            case ("malformed",):
                machine.receive_malformed("x")
        self.check()

    def refuses(self, number: int) -> bool:
        return number == 0 or f"voiced_{number}" == self.outstanding

    def check(self) -> None:
        for event in self.script.heard():
            assert not self.lost
            match event:
                case Ready():
                    self.ready = True
                case Lost():
                    self.lost = True
                case ResponseStarted(response):
                    assert response not in self.begun
                    self.begun.append(response)
                case AgentAudio(response, item, _, payload):
                    assert self.ready
                    assert response in self.begun
                    assert response not in self.cancelled
                    assert response not in self.over
                    assert item not in self.gone
                    self.received[item] = self.received.get(item, 0) + len(payload)
                case AgentAudioDone(response, item):
                    assert response not in self.cancelled
                    assert item not in self.gone
                case ResponseDone(response):
                    assert response not in self.over
                    self.over.add(response)
                case _:
                    pass
        for message in self.script.sent():
            self.check_message(message)

    def check_message(self, message: dict[str, Any]) -> None:
        assert not self.lost
        json.dumps(message)
        kind = message["type"]
        assert self.ready or kind == "session.update"
        match kind:
            case "response.create":
                assert self.outstanding is None
                self.outstanding = message["event_id"]
            case "response.cancel":
                assert message["response_id"] not in self.over
                self.cancelled.add(message["response_id"])
            case "conversation.item.truncate":
                item, end = message["item_id"], message["audio_end_ms"]
                assert 0 <= end <= self.received[item] // 8
                self.gone.add(item)
            case "conversation.item.delete":
                self.gone.add(message["item_id"])
            case "input_audio_buffer.append":
                self.uncommitted += len(message["audio"]) * 3 // 4
            case "input_audio_buffer.commit":
                assert self.uncommitted >= 800
                self.uncommitted = 0
            case _:
                pass


@pytest.mark.parametrize(
    "agent", AGENTS, ids=["server", "own", "no barge-in", "confirm", "own confirm"]
)
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, max_size=40), early=st.booleans())
def test_invariants(agent: Agent, steps: list[tuple[Any, ...]], early: bool) -> None:
    watch = Watch(agent, "openai")
    if not early:
        watch.step(("updated",))
    for step in steps:
        watch.step(step)
