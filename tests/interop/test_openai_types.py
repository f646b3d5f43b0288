"""Every client event that voiced sends, parsed strictly into the official SDK's own types."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from openai.types.realtime import RealtimeClientEvent

from tests.realtime.script import Script
from tests.realtime.test_turns import tone
from voiced.config.types import Agent, OwnVad, RealtimeEngine, SemanticVad
from voiced.formats import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat

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


def parse(message: bytes) -> str:
    event = ADAPTER.validate_json(message, strict=True)
    assert extras(event) == []
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
