"""The server in the beta dialect; `Peer` reads it with the SDK's types of that interface."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.emulator.peer import Peer, error, kinds
from tests.emulator.test_server import connecting
from voiced.emulator.options import Faults

BETA = Faults(dialect="beta")
FLAT = {
    "modalities": ["text", "audio"],
    "instructions": "Be brief.",
    "voice": "alloy",
    "input_audio_format": "g711_ulaw",
    "output_audio_format": "g711_alaw",
    "input_audio_noise_reduction": {"type": "near_field"},
    "input_audio_transcription": {"model": "whisper-1"},
    "turn_detection": {"type": "server_vad", "threshold": 0.6},
    "tools": [{"type": "function", "name": "lookup", "description": "Looks it up."}],
    "tool_choice": "auto",
    "temperature": 0.9,
    "max_response_output_tokens": 500,
}


def peer() -> Peer:
    made = Peer(BETA)
    made.dialogue.greet()
    assert kinds(made.read()) == ["session.created"]
    return made


def test_a_flat_session_means_what_it_says() -> None:
    beta = peer()
    (updated,) = beta.send("session.update", session=FLAT)
    assert updated["type"] == "session.updated"
    shown = updated["session"]
    assert "audio" not in shown
    assert "type" not in shown
    held = {"temperature": 0.8, "turn_detection": shown["turn_detection"]}
    assert {name: shown[name] for name in FLAT} == {**FLAT, **held}
    assert shown["turn_detection"]["threshold"] == 0.6
    meant = beta.dialogue.session
    assert meant["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert meant["audio"]["output"] == {
        "format": {"type": "audio/pcma"},
        "voice": "alloy",
        "speed": 1.0,
    }
    assert meant["audio"]["input"]["noise_reduction"] == {"type": "near_field"}
    assert meant["audio"]["input"]["transcription"] == {"model": "whisper-1"}
    assert (meant["output_modalities"], meant["max_output_tokens"]) == (["audio"], 500)
    (updated,) = beta.send("session.update", session={"modalities": ["text"]})
    assert updated["session"]["modalities"] == ["text"]
    assert updated["session"]["voice"] == "alloy"  # what is not there stays


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime"}, "unknown_parameter", "session.type"),
        ({"audio": {}}, "unknown_parameter", "session.audio"),
        ({"output_modalities": ["audio"]}, "unknown_parameter", "session.output_modalities"),
        (
            {"input_audio_format": {"type": "audio/pcmu"}},
            "invalid_type",
            "session.input_audio_format",
        ),
        ({"input_audio_format": "audio/pcmu"}, "invalid_value", "session.input_audio_format"),
        ({"temperature": 2}, "invalid_value", "session.temperature"),
        ({"model": "another"}, "invalid_value", "session.model"),
    ],
)
def test_a_bad_update_names_the_field_as_the_client_does(
    session: dict[str, Any], code: str, param: str
) -> None:
    beta = peer()
    assert error(beta.send("session.update", session=session))[::2] == (code, param)


def test_an_answer_in_its_names() -> None:
    beta = peer()
    beta.send("session.update", session=FLAT)
    response = beta.respond(modalities=["audio", "text"], instructions="Greet.", temperature=0.7)
    response.begin()
    response.open_message()
    response.speak(bytes(800), "Good day")
    response.finish("completed")
    beta.dialogue.responses.released(response)
    events = beta.read()
    assert kinds(events) == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.created",
        "response.content_part.added",
        "response.audio.delta",
        "response.audio_transcript.delta",
        "response.audio.done",
        "response.audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    assert base64.b64decode(events[5]["delta"]) == bytes(800)
    (item,) = events[-1]["response"]["output"]
    assert "object" not in item
    assert item["content"] == [{"type": "audio", "transcript": "Good day"}]
    assert events[-1]["response"]["modalities"] == ["text", "audio"]
    # The voice has been heard: it stays, and the error says so in the client's words.
    refused = beta.send("session.update", session={"voice": "echo"})
    assert error(refused)[::2] == ("cannot_update_voice", "session.voice")


def test_a_text_and_a_call_in_its_names() -> None:
    beta = peer()
    response = beta.respond(modalities=["text"])
    response.begin()
    response.open_message()
    response.write("Good day")
    response.finish("completed")
    beta.dialogue.responses.released(response)
    told = kinds(beta.read())
    assert [kind for kind in told if ".text." in kind] == [
        "response.text.delta",
        "response.text.done",
    ]
    response = beta.respond()
    response.begin()
    response.call("lookup", '{"a": 1}')
    response.finish("completed")
    beta.dialogue.responses.released(response)
    events = beta.read()
    (done,) = [e for e in events if e["type"] == "response.function_call_arguments.done"]
    assert "name" not in done
    assert done["arguments"] == '{"a": 1}'
    told_of = beta.send(
        "conversation.item.create",
        item={"type": "function_call_output", "call_id": done["call_id"], "output": "{}"},
    )
    assert kinds(told_of) == ["conversation.item.created"]


def test_an_assistants_item_has_parts_of_text() -> None:
    beta = peer()
    message = {"type": "message", "role": "assistant"}
    ga = {**message, "content": [{"type": "output_text", "text": "Hi"}]}
    refused = error(beta.send("conversation.item.create", item=ga))
    assert refused[::2] == ("invalid_value", "item.content[0].type")
    own = {**message, "content": [{"type": "text", "text": "Hi"}]}
    (created,) = beta.send("conversation.item.create", item=own)
    assert created["item"]["content"] == own["content"]
    (item,) = beta.dialogue.conversation
    assert item.body["content"] == [{"type": "output_text", "text": "Hi"}]
    assert beta.respond(input=[own]).context()[0].text == "Hi"


@pytest.mark.parametrize(
    ("faults", "headers", "code"),
    [
        (BETA, [], "missing_beta_header"),
        (BETA, [(b"OpenAI-Beta", b"assistants=v2")], "missing_beta_header"),
        (BETA, [(b"OpenAI-Beta", b"realtime=v1")], None),
        (Faults(), [(b"OpenAI-Beta", b"realtime=v1")], "beta_api_shape_disabled"),
        (Faults(), [], None),
    ],
)
async def test_the_header(
    faults: Faults, headers: list[tuple[bytes, bytes]], code: str | None, autojump_clock: None
) -> None:
    async with connecting(faults) as connect:
        client = await connect(headers=headers)
        first = json.loads(await client.websocket.get_message())
        assert first["type"] == ("error" if code else "session.created")
        assert first.get("error", {}).get("code") == code
