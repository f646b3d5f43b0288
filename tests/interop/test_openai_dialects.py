"""Both dialects against the official SDK's types, which it has kept for the beta interface too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pydantic
import pytest
import structlog
from openai.types.beta import realtime as beta
from openai.types.realtime import RealtimeServerEvent

from tests.interop.test_openai_types import extras
from tests.realtime.script import Script
from tests.realtime.test_turns import tone
from voiced.config.types import Agent, OwnVad, RealtimeEngine, SemanticVad
from voiced.engine import ToolSpec
from voiced.formats import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.realtime.dialect import Reader
from voiced.realtime.events import PASSED_OVER, MalformedEvent
from voiced.realtime.servers import Dialect

pytestmark = pytest.mark.interop

NEVER_ASKED_FOR = {"transcription_session.updated"}  # answers an event that voiced does not send
BETA: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(beta.RealtimeClientEvent)


def types(union: Any) -> Iterator[str]:
    """The `type`s of all events of an annotated union."""
    for model in get_args(get_args(union)[0]):
        yield from set(get_args(model.model_fields["type"].annotation)) - NEVER_ASKED_FOR


@pytest.mark.parametrize(
    ("dialect", "union"),
    [("ga", RealtimeServerEvent), ("beta", beta.RealtimeServerEvent)],
    ids=["ga", "beta"],
)
def test_every_server_event_is_known(dialect: Dialect, union: Any) -> None:
    """None of those that the SDK has a type for is logged as unknown, or passed over unmeant."""
    reader = Reader(dialect)
    read = set()
    with structlog.testing.capture_logs() as logs:
        for kind in types(union):
            try:
                if reader.read(json.dumps({"type": kind}).encode()) is not None:
                    read.add(kind)
            except MalformedEvent:  # fields are missing, so the type is one that is read
                read.add(kind)
    assert logs == []
    assert read.isdisjoint(PASSED_OVER)
    assert set(types(union)) <= read | PASSED_OVER


def parse(message: bytes) -> str:
    event = BETA.validate_json(message, strict=True)
    assert extras(event) == []
    assert json.loads(event.model_dump_json(exclude_unset=True)) == json.loads(message)
    return str(event.type)


@pytest.mark.parametrize(
    "agent",
    [
        Agent(),
        Agent(language="tr", noise_reduction="far_field"),
        Agent(transcription_model=None, turn_detection=SemanticVad(eagerness="low")),
        Agent(barge_in="off"),
    ],
)
@pytest.mark.parametrize("leg", [PCMU_8K, PCMA_8K, PCM16_24K])
def test_the_beta_session(agent: Agent, leg: AudioFormat) -> None:
    script = Script(RealtimeEngine(dialect="beta"), agent, leg)
    script.says("session.created", session={})
    (message,) = script.machine.take_messages()
    assert parse(message) == "session.update"


def test_every_other_beta_event() -> None:
    agent = Agent(turn_detection=OwnVad(prefix_padding_ms=0, silence_ms=100))
    script = Script(RealtimeEngine(dialect="beta"), agent).ready()
    script.machine.set_tools([ToolSpec("transfer", "Hand over.", {"type": "object"})])
    script.machine.add_message("system", "The caller pressed 3.")
    script.machine.add_message("user", "Hello")
    script.machine.add_message("assistant", "Good morning")
    script.machine.respond("Greet.")
    script.created().says(
        "response.function_call_arguments.done",
        response_id="resp_1",
        item_id="fc_1",
        call_id="call_1",
        name="transfer",
        arguments="{}",
    )
    script.machine.tool_result("call_1", "{}")
    script.delta(bytes(8000)).delta(bytes(8000), item="item_2")
    script.machine.cancel()
    script.machine.truncate("item_1", 0, 500)
    script.machine.delete("item_2")
    script.done()
    script.machine.send_audio(tone(300) + PCMU_8K.silence(300))
    assert [parse(message) for message in script.machine.take_messages()] == [
        "session.update",
        "conversation.item.create",
        "conversation.item.create",
        "conversation.item.create",
        "response.create",
        "conversation.item.create",
        "response.cancel",
        "conversation.item.truncate",
        "conversation.item.delete",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "response.create",
    ]
