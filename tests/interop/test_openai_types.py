"""Every client event that voiced sends, parsed strictly into the official SDK's own types.

That it is every one is checked against the structs that voiced encodes: what is added there and
sent by no test here makes the last of them fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec
import pydantic
import pytest
from openai.types.realtime import RealtimeClientEvent

from tests.realtime.script import Script
from tests.realtime.test_turns import tone
from voiced.config.types import Agent, OwnVad, RealtimeEngine, SemanticVad
from voiced.engine import ToolSpec
from voiced.formats import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.realtime import events

pytestmark = pytest.mark.interop

ADAPTER: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RealtimeClientEvent)


def extras(value: Any, path: str = "") -> list[str]:
    """Name the fields that the SDK does not know; its models let them through."""
    if isinstance(value, pydantic.BaseModel):
        found = [f"{path}.{name}" for name in value.model_extra or {}]
        for name in type(value).model_fields:
            found += extras(getattr(value, name), f"{path}.{name}")
        return found
    if isinstance(value, list):
        return [name for part in value for name in extras(part, f"{path}[]")]
    return []


parsed: set[str] = set()
"""Types of the events that were parsed, and of the items within them."""


def parse(message: bytes) -> str:
    event = ADAPTER.validate_json(message, strict=True)
    assert extras(event) == []
    # What the SDK makes of it is what was sent: no value was changed, nothing left out.
    assert msgspec.json.decode(event.model_dump_json(exclude_unset=True)) == (
        msgspec.json.decode(message)
    )
    parsed.add(event.type)
    if item := getattr(event, "item", None):
        parsed.add(item.type)
    return str(event.type)


def messages(script: Script) -> list[str]:
    return [parse(message) for message in script.machine.take_messages()]


@pytest.mark.parametrize(
    "agent",
    [
        Agent(),
        Agent(language="tr", noise_reduction="far_field", voice="voice_1"),
        Agent(transcription_model="gpt-transcribe", language="ja"),
        Agent(transcription_model=None, turn_detection=SemanticVad(eagerness="low")),
        Agent(turn_detection=OwnVad()),
        Agent(barge_in="off"),
    ],
)
@pytest.mark.parametrize("leg", [PCMU_8K, PCMA_8K, PCM16_24K])
def test_session_update(agent: Agent, leg: AudioFormat) -> None:
    script = Script(RealtimeEngine(), agent, leg).says("session.created", session={})
    assert messages(script) == ["session.update"]


TOOLS = [
    ToolSpec("transfer", "Hand the caller over.", {"type": "object", "properties": {}}),
    ToolSpec("hang_up", "End the call.", {"type": "object"}),
]


def test_functions() -> None:
    """Before and within a session, what one returned, and none any more."""
    script = Script()
    script.machine.set_tools(TOOLS)
    script.says("session.created", session={})
    (update,) = script.machine.take_messages()
    assert parse(update) == "session.update"
    script.says("session.updated", session=msgspec.json.decode(update)["session"])
    script.created().says(
        "response.function_call_arguments.done",
        response_id="resp_1",
        item_id="fc_1",
        call_id="call_1",
        name="transfer",
        arguments="{}",
    )
    script.machine.tool_result("call_1", '{"done": true}')
    script.machine.set_tools(TOOLS[:1])
    script.machine.set_tools([])
    assert messages(script) == ["conversation.item.create", "session.update", "session.update"]


def test_what_is_repeated_after_a_refusal() -> None:
    """A session without the field that was objected to, a truncation with another length."""
    script = Script().says("session.created", session={})
    messages(script)
    script.error("unknown_parameter", param="session.audio.input.noise_reduction")
    (update,) = script.machine.take_messages()
    parse(update)
    script.says("session.updated", session=msgspec.json.decode(update)["session"])
    script.created().delta(bytes(8000)).done()
    script.machine.truncate("item_1", 0, 900)
    (truncate,) = script.machine.take_messages()
    script.error(
        "invalid_value",
        "Audio content of 700ms is already shorter than 900ms",
        msgspec.json.decode(truncate)["event_id"],
    )
    assert messages(script) == ["conversation.item.truncate"]


def test_everything_else() -> None:
    agent = Agent(turn_detection=OwnVad(prefix_padding_ms=0, silence_ms=100))
    script = Script(agent=agent).ready()
    script.machine.add_message("system", "The caller pressed 3.")
    script.machine.add_message("user", "Hello")
    script.machine.add_message("assistant", "Good morning")
    script.machine.respond("Greet.")
    script.created().delta(bytes(8000)).delta(bytes(8000), item="item_2")
    script.machine.cancel()
    script.machine.truncate("item_1", 0, 500)
    script.machine.delete("item_2")
    script.done()
    script.machine.send_audio(tone(300) + PCMU_8K.silence(300))
    assert messages(script) == [
        "conversation.item.create",
        "conversation.item.create",
        "conversation.item.create",
        "response.create",
        "response.cancel",
        "conversation.item.truncate",
        "conversation.item.delete",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "response.create",
    ]


def test_the_check_finds_what_the_sdk_does_not_know() -> None:
    with pytest.raises(AssertionError):
        parse(b'{"type": "input_audio_buffer.commit", "colour": "red"}')
    with pytest.raises(pydantic.ValidationError):
        parse(b'{"type": "input_audio_buffer.append", "audio": 7}')


def tags(kind: type[msgspec.Struct]) -> Iterator[str]:
    """The types of all events that derive from `kind`, and of the items that they carry."""
    for each in kind.__subclasses__():
        yield str(each.__struct_config__.tag)
        if item := get_type_hints(each).get("item"):
            yield from (str(one.__struct_config__.tag) for one in get_args(item))
        yield from tags(each)


def test_none_was_forgotten() -> None:
    parsed.clear()
    test_functions()
    test_everything_else()
    assert parsed == set(tags(events.ClientEvent))
