"""The official `openai` SDK holds a conversation with the emulator over a real socket."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from openai import OpenAI
from openai.resources.realtime.realtime import RealtimeConnection

from voiced import audio, clips
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.server import serve
from voiced.formats import PCM16_8K, PCM16_24K, PCMU_8K, AudioFormat

# The SDK calls `websockets` in a way that its newest version deprecates.
pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:connect.. must be used as:DeprecationWarning"),
]
LIMIT_S = 30.0


def line(name: str, fmt: AudioFormat) -> bytes:
    converter = audio.converter(PCM16_8K, fmt)
    assert converter is not None
    pcm = bytes(16 * 400) + clips.load(name).pcm + bytes(16 * 700)
    return bytes(converter.convert(pcm) + converter.flush())


def say(connection: RealtimeConnection, name: str, fmt: AudioFormat) -> None:
    """Append a caller's line in frames, as fast as it goes."""
    data = line(name, fmt)
    for start in range(0, len(data), fmt.frame_bytes):
        piece = base64.b64encode(data[start : start + fmt.frame_bytes]).decode()
        connection.input_audio_buffer.append(audio=piece)


def until(connection: RealtimeConnection, kind: str, seen: list[Any]) -> Any:
    while True:
        event = connection.recv()
        seen.append(event)
        if event.type == kind:
            return event


def arrived(connection: RealtimeConnection, kind: str, seen: list[Any], count: int = 1) -> Any:
    """The event of this kind that is the `count`th in `seen`, or will be.

    For what a server does beside other things: on a busy machine it may have come before them.
    """
    while len(of(seen, kind)) < count:
        seen.append(connection.recv())
    return of(seen, kind)[count - 1]


def of(seen: list[Any], kind: str) -> list[Any]:
    return [event for event in seen if event.type == kind]


def configure(connection: RealtimeConnection, fmt: str, seen: list[Any]) -> None:
    shape: Any = {"type": fmt, "rate": 24000} if fmt == "audio/pcm" else {"type": fmt}
    connection.session.update(
        session={
            "type": "realtime",
            "instructions": "You are a receptionist.",
            "audio": {
                "input": {
                    "format": shape,
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
                },
                "output": {"format": shape, "voice": "marin"},
            },
        }
    )
    until(connection, "session.updated", seen)


def converse(connection: RealtimeConnection, fmt: AudioFormat, name: str) -> None:
    seen: list[Any] = []
    until(connection, "session.created", seen)
    configure(connection, name, seen)

    connection.response.create(response={"instructions": "Greet the caller."})
    done = until(connection, "response.done", seen)
    assert done.response.status == "completed"
    assert done.response.output[0].content[0].transcript == clips.load("greeting").text

    # A question, an answer, its audio.
    seen.clear()
    say(connection, "hours", fmt)
    until(connection, "response.output_audio.delta", seen)
    assert of(seen, "input_audio_buffer.speech_started")
    assert of(seen, "input_audio_buffer.speech_stopped")
    completed = arrived(connection, "conversation.item.input_audio_transcription.completed", seen)
    assert completed.transcript == "What are your opening hours?"

    # It is interrupted, and truncated to what was heard of it.
    say(connection, "interrupt", fmt)
    cancelled = until(connection, "response.done", seen)
    assert cancelled.response.status == "cancelled"
    assert cancelled.response.status_details.reason == "turn_detected"
    item_id = cancelled.response.output[0].id
    received = sum(
        len(base64.b64decode(event.delta))
        for event in of(seen, "response.output_audio.delta")
        if event.item_id == item_id
    )
    received_ms = received // fmt.bytes_per_ms
    connection.conversation.item.truncate(
        item_id=item_id, content_index=0, audio_end_ms=received_ms + 60
    )
    error = until(connection, "error", seen).error
    assert error.message == (
        f"Audio content of {received_ms}ms is already shorter than {received_ms + 60}ms"
    )
    connection.conversation.item.truncate(
        item_id=item_id, content_index=0, audio_end_ms=received_ms // 2
    )
    truncated = until(connection, "conversation.item.truncated", seen)
    assert truncated.audio_end_ms == received_ms // 2
    arrived(connection, "response.done", seen, 2)

    # What is refused, and how.
    connection.response.cancel(event_id="too-late")
    error = until(connection, "error", seen).error
    assert (error.code, error.event_id) == ("response_cancel_not_active", "too-late")
    connection.input_audio_buffer.clear()
    connection.input_audio_buffer.commit()
    error = until(connection, "error", seen).error
    assert error.code == "input_audio_buffer_commit_empty"
    connection.conversation.item.create(
        item={
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "What are your opening hours?"}],
        }
    )
    connection.response.create(response={"output_modalities": ["text"]})
    done = until(connection, "response.done", seen)
    assert done.response.output[0].content[0].text == clips.load("opening_hours").text


async def with_client(options: EmulatorOptions, use: Callable[[OpenAI], None]) -> None:
    """Run the SDK's blocking client in a thread beside the server."""
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve, "127.0.0.1", 0, options)
            url = f"127.0.0.1:{port}/v1"
            with OpenAI(
                api_key="sk-test", base_url=f"http://{url}", websocket_base_url=f"ws://{url}"
            ) as client:
                await trio.to_thread.run_sync(use, client, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()
    assert not [t for t in threading.enumerate() if t.name.startswith("recv_events")]


@pytest.mark.parametrize(("name", "fmt"), [("audio/pcmu", PCMU_8K), ("audio/pcm", PCM16_24K)])
async def test_a_conversation(name: str, fmt: AudioFormat) -> None:
    def use(client: OpenAI) -> None:
        with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            converse(connection, fmt, name)

    await with_client(EmulatorOptions(speech="clips", api_key="sk-test", realtime_factor=5), use)


async def test_a_wrong_key_is_refused() -> None:
    def use(client: OpenAI) -> None:
        with (
            pytest.raises(Exception, match="401"),
            client.realtime.connect(model="gpt-realtime-2.1"),
        ):
            pass

    await with_client(EmulatorOptions(speech="clips", api_key="another"), use)


def call_a_tool(connection: RealtimeConnection, fmt: AudioFormat, name: str) -> None:
    """A caller's sentence calls a function; the answer is made of what it returns."""
    seen: list[Any] = []
    until(connection, "session.created", seen)
    configure(connection, name, seen)
    connection.session.update(
        session={
            "type": "realtime",
            "tools": [
                {
                    "type": "function",
                    "name": "transfer_call",
                    "description": "Hands the caller over to a department.",
                    "parameters": {
                        "type": "object",
                        "properties": {"to": {"type": "string"}},
                        "required": ["to"],
                    },
                }
            ],
            "tool_choice": "auto",
        }
    )
    until(connection, "session.updated", seen)
    seen.clear()
    say(connection, "transfer", fmt)
    done = until(connection, "response.done", seen)
    (item,) = done.response.output
    assert (item.type, item.name, item.status) == ("function_call", "transfer_call", "completed")
    (told,) = of(seen, "response.function_call_arguments.done")
    assert told.arguments == item.arguments == '{"to":"sales department"}'
    assert "".join(e.delta for e in of(seen, "response.function_call_arguments.delta")) == (
        item.arguments
    )
    connection.conversation.item.create(
        item={
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": '{"message": "Of course. What would you like to know?"}',
        }
    )
    connection.response.create()
    done = until(connection, "response.done", seen)
    assert done.response.output[0].content[0].transcript == clips.load("go_ahead").text
    assert of(seen, "response.output_audio.delta")


@pytest.mark.parametrize(("name", "fmt"), [("audio/pcmu", PCMU_8K), ("audio/pcm", PCM16_24K)])
async def test_a_tool_call(name: str, fmt: AudioFormat) -> None:
    def use(client: OpenAI) -> None:
        with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            call_a_tool(connection, fmt, name)

    await with_client(EmulatorOptions(speech="clips", api_key="sk-test", realtime_factor=10), use)
