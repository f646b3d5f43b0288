"""Reading server events in both dialects, and the sessions of other servers."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.realtime.script import Script, plan
from voiced.config.types import Agent, RealtimeEngine, ServerVad
from voiced.engine import AgentAudio, AgentAudioDone, AgentTranscript
from voiced.formats import PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.realtime import events
from voiced.realtime.dialect import (
    MAX_TYPE_CHARS,
    MAX_UNKNOWN,
    Reader,
    UnspeakableFormat,
    echoed_format,
)
from voiced.realtime.events import PASSED_OVER, MalformedEvent
from voiced.realtime.servers import SERVERS, request_headers, request_url
from voiced.realtime.update import session_config


def read(message: Any, reader: Reader | None = None) -> events.ServerEvent | None:
    return (reader or Reader("ga")).read(json.dumps(message).encode())


def test_audio_is_decoded_from_base64() -> None:
    event = read({"type": "response.output_audio.delta", "delta": "AAEC", "item_id": "i"})
    assert event == events.OutputAudioDelta(b"\x00\x01\x02", item_id="i")


def test_unknown_types_are_logged_once_each_and_passed_over() -> None:
    reader = Reader("ga")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert read({"type": "response.telepathy.delta"}, reader) is None
            assert read({"type": "x" * 5000}, reader) is None
    assert [entry["type"] for entry in logs] == ["response.telepathy.delta", "x" * MAX_TYPE_CHARS]


def test_unknown_types_are_bounded() -> None:
    reader = Reader("ga")
    with structlog.testing.capture_logs() as logs:
        for number in range(10 * MAX_UNKNOWN):
            read({"type": f"made.up.{number}"}, reader)
    assert len(logs) == len(reader.unknown) == MAX_UNKNOWN


@pytest.mark.parametrize("kind", sorted(PASSED_OVER))
def test_known_types_of_no_use_are_not_logged(kind: str) -> None:
    with structlog.testing.capture_logs() as logs:
        assert read({"type": kind}) is None
    assert logs == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"error"',
        b"{}",
        b'{"type": 7}',
        b'{"type": null}',
        b'{"type": "response.output_audio.delta"}',
        b'{"type": "response.output_audio.delta", "delta": 5}',
        b'{"type": "response.output_audio.delta", "delta": "A"}',
        b'{"type": "response.output_audio.delta", "delta": "!!!!"}',
        b'{"type": "response.output_audio.delta", "delta": "AAAA", "content_index": "x"}',
        b'{"type": "response.done"}',
        b'{"type": "response.done", "response": {"id": null}}',
        b'{"type": "input_audio_buffer.speech_started", "audio_start_ms": 1e999}',
        b'{"type": "error"}',
        b"[" * 100_000,
        b'{"x":' * 100_000,
        b'{"type": "error", "error": "x", "y":' + b"[" * 100_000,
    ],
)
def test_malformed_messages(message: bytes) -> None:
    with pytest.raises(MalformedEvent):
        Reader("ga").read(message)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "response", "error", "id", "delta", "item_id", "session"]),
            inner,
        )
    ),
    max_leaves=8,
)
TYPES = st.sampled_from(sorted({*PASSED_OVER, "error", "response.done", "session.updated", "x.y"}))


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_an_event_nothing_or_malformed(message: bytes) -> None:
    with contextlib.suppress(MalformedEvent):
        Reader("beta").read(message)


@given(TYPES, st.dictionaries(st.sampled_from(["response", "error", "session"]), JSON_VALUES))
def test_any_json_does_no_harm_to_a_session(kind: str, fields: dict[str, Any]) -> None:
    script = Script().ready().created()
    with contextlib.suppress(MalformedEvent):
        script.says(kind, **fields)
    script.heard()


# --- beta


def test_beta_names_become_ga_events() -> None:
    script = Script(RealtimeEngine(dialect="beta"))
    script.says("session.created", session={}).says("session.updated", session={}).forget()
    ids = {"response_id": "resp_1", "item_id": "item_1", "content_index": 0}
    script.created().forget()
    script.says("response.audio.delta", **ids, delta="AAAA")
    script.says("response.audio_transcript.delta", **ids, delta="Hi")
    script.says("response.audio_transcript.done", **ids, transcript="Hi")
    script.says("response.audio.done", **ids)
    script.says("response.output_audio.delta", **ids, delta="AAAA")  # half-way servers
    assert script.heard() == [
        AgentAudio("resp_1", "item_1", 0, b"\0\0\0"),
        AgentTranscript("item_1", "Hi", final=False),
        AgentTranscript("item_1", "Hi", final=True),
        AgentAudioDone("resp_1", "item_1"),
        AgentAudio("resp_1", "item_1", 0, b"\0\0\0"),
    ]


def test_beta_names_are_unknown_in_ga() -> None:
    assert read({"type": "response.audio.delta", "delta": "AAAA"}) is None


BETA_UPDATE = {
    "modalities": ["text", "audio"],
    "instructions": "Answer the phone.",
    "voice": "marin",
    "input_audio_format": "g711_ulaw",
    "output_audio_format": "g711_ulaw",
    "input_audio_noise_reduction": None,
    "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
    "turn_detection": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "create_response": True,
        "interrupt_response": True,
    },
}


def test_the_beta_session_is_flat() -> None:
    script = Script(RealtimeEngine(dialect="beta")).says("session.created", session={})
    (update,) = script.sent()
    assert update["session"] == BETA_UPDATE
    script.says("session.updated", session={**BETA_UPDATE, "input_audio_format": "pcm16"})
    assert script.machine.input_format == PCM16_24K
    assert script.machine.output_format == PCMU_8K


@pytest.mark.parametrize(("server", "name"), [("speaches", "pcm16"), ("qwen", "pcm")])
def test_servers_that_only_speak_beta(server: Any, name: str) -> None:
    script = Script(RealtimeEngine(server=server)).says("session.created", session={})
    (update,) = script.sent()
    pcm = {"input_audio_format": name, "output_audio_format": name}
    assert update["session"] == {**BETA_UPDATE, **pcm}
    before = script.machine.input_format
    script.says("session.updated", session={**update["session"], "output_audio_format": "pcm24"})
    assert script.machine.input_format == before
    assert script.machine.output_format == PCM16_24K


def test_a_beta_field_that_is_refused_is_left_out() -> None:
    script = Script(RealtimeEngine(dialect="beta")).says("session.created", session={}).forget()
    script.error("unknown_parameter", param="session.input_audio_noise_reduction")
    (update,) = script.sent()
    assert "input_audio_noise_reduction" not in update["session"]


def test_assistant_texts_in_beta() -> None:
    script = Script(RealtimeEngine(dialect="beta")).ready()
    script.machine.add_message("assistant", "Hello")
    (item,) = script.sent()
    assert item["item"]["content"] == [{"type": "text", "text": "Hello"}]


def test_xai_has_voice_and_turn_detection_at_the_top() -> None:
    config = session_config(plan(), SERVERS["xai"], "ga", PCMU_8K, PCMU_8K)
    assert config["voice"] == "marin"
    assert config["turn_detection"]["type"] == "server_vad"
    assert set(config["audio"]["input"]) == {"format", "noise_reduction", "transcription"}
    assert set(config["audio"]["output"]) == {"format"}


# --- what a server says its formats are


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "audio/pcmu"}, PCMU_8K),
        ({"type": "audio/pcma"}, PCMA_8K),
        ({"type": "audio/pcm", "rate": 16000}, PCM16_16K),
        ({"type": "audio/pcm", "rate": 24000.0}, PCM16_24K),
        ({"type": "audio/pcm"}, PCM16_24K),
        ("audio/pcmu", PCMU_8K),
        (None, PCMA_8K),
        ({}, PCMA_8K),
    ],
)
def test_echoed_formats(form: Any, expected: AudioFormat) -> None:
    session = {"audio": {"input": {"format": form}}}
    assert echoed_format(session, "input", PCMA_8K) == expected


@given(JSON_VALUES, JSON_VALUES)
def test_any_echo_is_a_format_or_a_refusal(nested: Any, flat: Any) -> None:
    session = {"audio": {"input": {"format": nested}}, "input_audio_format": flat}
    with contextlib.suppress(UnspeakableFormat):
        assert echoed_format(session, "input", PCMU_8K).bytes_per_ms > 0


# --- handshake


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://api.openai.com/v1/realtime", "wss://api.openai.com/v1/realtime?model=a%2Fb"),
        ("ws://[::1]:8000/v1/realtime?x=1", "ws://[::1]:8000/v1/realtime?x=1&model=a%2Fb"),
        ("wss://h/rt?model=mine", "wss://h/rt?model=mine"),
    ],
)
def test_the_url_names_the_model(url: str, expected: str) -> None:
    assert request_url(RealtimeEngine(url=url, model="a/b")) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RealtimeEngine(), []),
        (RealtimeEngine(api_key="sk-1"), [("Authorization", "Bearer sk-1")]),
        (RealtimeEngine(api_key="k", server="azure"), [("api-key", "k")]),
        (
            RealtimeEngine(server="azure", headers={"authorization": "Bearer entra"}),
            [("authorization", "Bearer entra")],
        ),
        (
            RealtimeEngine(api_key="k", headers={"authorization": "Token k"}),
            [("authorization", "Token k")],
        ),
        (RealtimeEngine(dialect="beta"), [("OpenAI-Beta", "realtime=v1")]),
    ],
)
def test_headers(config: RealtimeEngine, expected: list[tuple[str, str]]) -> None:
    assert request_headers(config) == expected


def test_every_server_of_the_configuration_is_described() -> None:
    for server in ("openai", "azure", "xai", "localai", "speaches", "qwen", "vllm-omni", "other"):
        assert server in SERVERS
    agent = Agent(turn_detection=ServerVad())
    for known in SERVERS.values():
        assert session_config(plan(agent), known, "ga", PCMU_8K, PCMU_8K)["type"] == "realtime"
        assert "type" not in session_config(plan(agent), known, "beta", PCMU_8K, PCMU_8K)
