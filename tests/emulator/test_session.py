from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.peer import Peer, error, kinds


def test_the_server_speaks_first_with_a_full_session() -> None:
    peer = Peer()
    peer.dialogue.greet()
    (event,) = peer.read()
    assert event["type"] == "session.created"
    assert event["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert event["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert event["session"]["model"] == "gpt-realtime-2.1"


def test_an_update_changes_what_is_present_and_shows_the_whole() -> None:
    peer = Peer()
    (event,) = peer.update(
        instructions="Be brief.",
        audio={
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "tr"},
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 1000},
            },
            "output": {"voice": "cedar"},
        },
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        truncation={"type": "retention_ratio", "retention_ratio": 0.8},
        max_output_tokens=100,
        tracing=None,
    )
    assert event["type"] == "session.updated"
    detection = event["session"]["audio"]["input"]["turn_detection"]
    assert detection["silence_duration_ms"] == 1000
    assert detection["prefix_padding_ms"] == 300
    assert event["session"]["audio"]["output"]["speed"] == 1.0
    (event,) = peer.update(audio={"input": {"turn_detection": None, "noise_reduction": None}})
    assert event["session"]["audio"]["input"]["turn_detection"] is None
    assert event["session"]["audio"]["input"]["transcription"]["language"] == "tr"
    assert event["session"]["instructions"] == "Be brief."
    (event,) = peer.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    assert event["session"]["audio"]["input"]["turn_detection"]["eagerness"] == "auto"


VAD = {"type": "server_vad"}


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"audio": {"input": {"voice": "x"}}}, "unknown_parameter", "session.audio.input.voice"),
        ({"instructions": 3}, "invalid_type", "session.instructions"),
        ({"instructions": None}, "invalid_type", "session.instructions"),
        ({"output_modalities": ["audio", "text"]}, "invalid_value", "session.output_modalities"),
        ({"output_modalities": ["smell"]}, "invalid_value", "session.output_modalities[0]"),
        (
            {"audio": {"input": {"format": {"type": "g711_ulaw"}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {"audio": {"input": {"format": {}}}},
            "missing_required_parameter",
            "session.audio.input.format.type",
        ),
        (
            {"audio": {"input": {"turn_detection": {**VAD, "threshold": 1.5}}}},
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"audio": {"input": {"turn_detection": {**VAD, "idle_timeout_ms": 100}}}},
            "invalid_value",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "threshold": 0.5}}}},
            "unknown_parameter",
            "session.audio.input.turn_detection.threshold",
        ),
        ({"audio": {"output": {"speed": 3}}}, "invalid_value", "session.audio.output.speed"),
        ({"max_output_tokens": 5000}, "invalid_value", "session.max_output_tokens"),
        ({"max_output_tokens": "lots"}, "invalid_value", "session.max_output_tokens"),
        ({"tools": [{"type": "function"}, 3]}, "invalid_type", "session.tools[1]"),
        ({"model": "another"}, "invalid_value", "session.model"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"type": "party"}, "invalid_value", "session.type"),
    ],
)
def test_a_bad_update_names_the_field_and_changes_nothing(
    session: dict[str, Any], code: str, param: str
) -> None:
    peer = Peer()
    before = peer.dialogue.session
    events = peer.update(**session)
    assert error(events)[::2] == (code, param)
    assert param in error(events)[1] or "'" in error(events)[1] or code == "invalid_value"
    assert peer.dialogue.session == before


def test_the_type_is_required() -> None:
    assert error(Peer().send("session.update", session={})) == (
        "missing_required_parameter",
        "Missing required parameter: 'session.type'.",
        "session.type",
    )


def test_the_voice_is_fixed_once_it_was_heard() -> None:
    peer = Peer()
    assert kinds(peer.update(audio={"output": {"voice": "cedar"}})) == ["session.updated"]
    peer.spoken()
    assert error(peer.update(audio={"output": {"voice": "ash"}}))[0] == "cannot_update_voice"
    assert kinds(peer.update(audio={"output": {"voice": "cedar"}})) == ["session.updated"]


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_event", None),
        ("[1]", "invalid_event", None),
        ("[" * 100_000, "invalid_event", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type":3}', "invalid_type", "type"),
        ('{"type":"session.mood"}', "invalid_value", "type"),
        ('{"type":"session.update"}', "missing_required_parameter", "session"),
        ('{"type":"input_audio_buffer.append","audio":"@@"}', "invalid_value", "audio"),
        ('{"type":"input_audio_buffer.append","audio":"é"}', "invalid_value", "audio"),
        ('{"type":"input_audio_buffer.clear","why":1}', "unknown_parameter", "why"),
    ],
)
def test_what_is_no_event_is_an_error_and_no_more(
    message: str, code: str, param: str | None
) -> None:
    peer = Peer()
    peer.dialogue.receive(message)
    assert error(peer.read())[::2] == (code, param)
    peer.dialogue.receive(b"\xff\xfe")
    assert error(peer.read())[0] == "invalid_event"


def test_an_error_names_the_event_that_caused_it() -> None:
    (event,) = Peer().send("response.cancel", event_id="mine")
    assert event["error"]["event_id"] == "mine"
