"""From the first event to `Ready`: what is asked for, what is granted, what waits meanwhile."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.realtime.script import Script, b64
from voiced.config.types import Agent, OwnVad, RealtimeEngine, SemanticVad, ServerVad
from voiced.engine import EngineFault, Lost, Ready
from voiced.formats import PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.realtime.setup import EARLY_AUDIO_MS, MAX_EARLY_MESSAGES


def update_of(script: Script) -> dict[str, Any]:
    script.says("session.created", session={})
    (update,) = script.sent()
    assert update["type"] == "session.update"
    session: dict[str, Any] = update["session"]
    return session


def test_the_whole_update() -> None:
    agent = Agent(
        voice="cedar",
        language="de-AT",
        noise_reduction="near_field",
        turn_detection=ServerVad(threshold=0.7, prefix_padding_ms=200, silence_ms=1500),
    )
    assert update_of(Script(agent=agent)) == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "Answer the phone.",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "near_field"},
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "de"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.7,
                    "prefix_padding_ms": 200,
                    "silence_duration_ms": 1500,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "cedar"},
        },
    }


def test_the_server_speaks_first() -> None:
    script = Script()
    script.machine.send_audio(b"\xff" * 160)
    script.machine.respond()
    assert script.sent() == []


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (Agent(transcription_model=None), None),
        (Agent(), {"model": "gpt-4o-mini-transcribe"}),
        (
            Agent(transcription_model="gpt-transcribe", language="ja"),
            {"model": "gpt-transcribe", "languages": ["ja"]},
        ),
    ],
)
def test_transcription(agent: Agent, expected: Any) -> None:
    assert update_of(Script(agent=agent))["audio"]["input"]["transcription"] == expected


def test_semantic_vad_has_no_thresholds() -> None:
    agent = Agent(turn_detection=SemanticVad(eagerness="high"))
    assert update_of(Script(agent=agent))["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "high",
        "create_response": True,
        "interrupt_response": True,
    }


def test_own_endpointing_turns_the_servers_off() -> None:
    agent = Agent(turn_detection=OwnVad())
    session = update_of(Script(agent=agent))
    assert session["audio"]["input"]["turn_detection"] is None


def test_without_barge_in_the_server_neither_interrupts_nor_creates() -> None:
    detection = update_of(Script(agent=Agent(barge_in="off")))["audio"]["input"]["turn_detection"]
    assert detection["interrupt_response"] is False
    assert detection["create_response"] is False


def test_custom_voices_are_named_by_id() -> None:
    session = update_of(Script(agent=Agent(voice="voice_123")))
    assert session["audio"]["output"]["voice"] == {"id": "voice_123"}


@pytest.mark.parametrize(
    ("config", "leg", "source", "sink"),
    [
        (RealtimeEngine(), PCMU_8K, PCMU_8K, PCMU_8K),
        (RealtimeEngine(), PCMA_8K, PCMA_8K, PCMA_8K),
        (RealtimeEngine(), PCM16_16K, PCM16_24K, PCM16_24K),
        (RealtimeEngine(input_format="pcm"), PCMU_8K, PCM16_24K, PCMU_8K),
        (RealtimeEngine(output_format="pcma"), PCMU_8K, PCMU_8K, PCMA_8K),
        (RealtimeEngine(server="localai"), PCMU_8K, PCM16_24K, PCM16_24K),
        (RealtimeEngine(server="qwen"), PCMU_8K, PCM16_16K, PCM16_24K),
    ],
)
def test_formats_asked_for(
    config: RealtimeEngine, leg: AudioFormat, source: AudioFormat, sink: AudioFormat
) -> None:
    script = Script(config, leg_format=leg).ready()
    assert (script.machine.input_format, script.machine.output_format) == (source, sink)


def test_early_audio_goes_out_in_one_piece_after_the_update() -> None:
    script = Script()
    script.machine.send_audio(b"\x01" * 160)
    session = update_of(script)
    script.machine.send_audio(b"\x02" * 160)
    assert script.sent() == []
    script.says("session.updated", session=session)
    assert script.sent() == [
        {"type": "input_audio_buffer.append", "audio": b64(b"\x01" * 160 + b"\x02" * 160)}
    ]
    script.machine.send_audio(b"\x03")
    assert script.sent() == [{"type": "input_audio_buffer.append", "audio": b64(b"\x03")}]


def test_of_early_audio_the_newest_two_seconds_are_kept() -> None:
    script = Script()
    for second in range(5):
        script.machine.send_audio(bytes([second]) * 8000)
    session = update_of(script)
    script.says("session.updated", session=session)
    (append,) = script.sent()
    assert append["audio"] == b64(b"\x03" * 8000 + b"\x04" * 8000)
    assert EARLY_AUDIO_MS == 2000


def test_early_audio_is_cut_between_samples() -> None:
    config = RealtimeEngine(input_format="pcm")
    script = Script(config)
    script.machine.send_audio(b"\x01\x02" * 48_000 * 2)
    script.machine.send_audio(b"\x01")  # the rest of the sample is still to come
    session = update_of(script)
    script.says("session.updated", session=session)
    (append,) = script.sent()
    assert base64.b64decode(append["audio"])[:2] == b"\x01\x02"


def test_texts_then_audio_then_the_answer() -> None:
    script = Script()
    script.machine.respond("Greet the caller.")
    script.machine.send_audio(b"\x01")
    script.machine.add_message("system", "The caller pressed 3.")
    script.machine.add_message("assistant", "Hello!")
    script.says("session.updated", session=update_of(script))
    item, said, append, create = script.sent()
    assert item["item"] == {
        "type": "message",
        "role": "system",
        "content": [{"type": "input_text", "text": "The caller pressed 3."}],
    }
    assert said["item"]["content"] == [{"type": "output_text", "text": "Hello!"}]
    assert append["type"] == "input_audio_buffer.append"
    assert create["response"] == {"instructions": "Greet the caller."}


def test_early_texts_are_bounded() -> None:
    script = Script()
    for number in range(MAX_EARLY_MESSAGES + 5):
        script.machine.add_message("user", str(number))
    script.says("session.updated", session=update_of(script))
    texts = [event["item"]["content"][0]["text"] for event in script.sent()]
    assert len(texts) == MAX_EARLY_MESSAGES
    assert texts[0] == "5"


def test_another_format_than_asked_for_is_believed_and_early_audio_converted() -> None:
    script = Script()
    script.machine.send_audio(b"\xff" * 800)
    session = update_of(script)
    pcm = {"type": "audio/pcm", "rate": 24000}
    session["audio"]["input"]["format"] = session["audio"]["output"]["format"] = pcm
    assert script.machine.input_format == PCMU_8K
    script.says("session.updated", session=session)
    assert script.heard() == [Ready()]
    assert script.machine.input_format == script.machine.output_format == PCM16_24K
    (append,) = script.sent()
    assert len(append["audio"]) == pytest.approx(800 * 6 * 4 / 3, rel=0.1)


def test_a_server_that_echoes_nothing_is_taken_at_its_silence() -> None:
    script = Script()
    update_of(script)
    script.says("session.updated", session={})
    assert script.heard() == [Ready()]
    assert script.machine.output_format == PCMU_8K


@pytest.mark.parametrize(
    "form",
    [
        {"type": "audio/opus"},
        "mp3",
        {"type": "audio/pcm", "rate": 44100},
        {"type": "audio/pcm", "rate": 32000},
        {"type": 7},
        ["x"],
    ],
)
def test_a_format_nobody_speaks_ends_the_session(form: Any) -> None:
    script = Script()
    session = update_of(script)
    session["audio"]["output"]["format"] = form
    script.says("session.updated", session=session)
    (lost,) = script.heard()
    assert isinstance(lost, Lost)
    assert (lost.code, lost.retryable) == ("unspeakable_format", False)


@pytest.mark.parametrize(
    ("param", "message", "path"),
    [
        ("session.audio.input.noise_reduction", "", "audio.input.noise_reduction"),
        ("session.audio.input.transcription.language", "", "audio.input.transcription"),
        ("session.audio.output.voice", "", "audio.output.voice"),
        (None, "Unknown parameter: 'session.output_modalities'.", "output_modalities"),
        (
            "session.audio.input.turn_detection.prefix_padding_ms",
            "",
            "audio.input.turn_detection.prefix_padding_ms",
        ),
        (
            "session.audio.input.turn_detection.create_response",
            "",
            "audio.input.turn_detection.create_response",
        ),
    ],
)
def test_a_rejected_optional_field_is_left_out(param: str | None, message: str, path: str) -> None:
    script = Script()
    before = update_of(script)
    script.error("unknown_parameter", message, "voiced_1", param=param)
    (fault,) = script.heard()
    assert isinstance(fault, EngineFault)
    assert (fault.code, fault.action) == ("unknown_parameter", "alarm")
    assert path in fault.message
    (update,) = script.sent()
    *parents, leaf = path.split(".")
    whole, part = before, update["session"]
    for key in parents:
        whole, part = whole[key], part[key]
    assert leaf not in part
    del whole[leaf]
    assert update["session"] == before
    script.says("session.updated", session=update["session"])
    assert script.heard() == [Ready()]


def test_each_field_is_left_out_once_only() -> None:
    script = Script()
    update_of(script)
    script.error("unknown_parameter", param="session.audio.output.voice").forget()
    script.error("unknown_parameter", param="session.audio.output.voice")
    (lost,) = script.heard()
    assert isinstance(lost, Lost)
    assert not lost.retryable
    assert script.sent() == []


def test_a_rejected_format_leaves_the_servers_default() -> None:
    script = Script()
    update_of(script)
    script.error("invalid_value", param="session.audio.input.format.type")
    script.error("invalid_value", param="session.audio.output.format")
    script.says("session.updated", session={})
    assert script.machine.input_format == script.machine.output_format == PCM16_24K


@pytest.mark.parametrize("side", ["input", "output"])
def test_one_side_s_format_says_nothing_of_the_other_s(side: str) -> None:
    script = Script()
    update_of(script)
    script.error("invalid_value", param=f"session.audio.{side}.format")
    script.says("session.updated", session={})
    formats = {"input": script.machine.input_format, "output": script.machine.output_format}
    assert formats.pop(side) == PCM16_24K
    assert list(formats.values()) == [PCMU_8K]


@pytest.mark.parametrize(
    ("agent", "param"),
    [
        (Agent(), "session.type"),
        (Agent(), "session.instructions"),
        (Agent(), "session.audio.input.turn_detection"),
        (Agent(), "nonsense[0]..x"),
        (Agent(), None),
        # Without this promise the server would answer as well as we.
        (Agent(barge_in="off"), "session.audio.input.turn_detection.create_response"),
    ],
)
def test_what_cannot_be_left_out_ends_the_session(agent: Agent, param: str | None) -> None:
    script = Script(agent=agent)
    update_of(script)
    script.error("unknown_parameter", "no", param=param)
    (lost,) = script.heard()
    assert lost == Lost("unknown_parameter", "no", retryable=False)


def test_trouble_at_the_server_while_configuring_may_pass() -> None:
    script = Script()
    update_of(script)
    script.error(None, "internal", kind="server_error")
    assert script.heard() == [Lost("server_error", "internal", retryable=True)]
    script = Script()
    update_of(script)
    script.error("rate_limit_exceeded", "later")
    assert script.heard() == [Lost("rate_limit_exceeded", "later", retryable=True)]


def test_audio_events_before_ready_are_passed_over() -> None:
    script = Script()
    update_of(script)
    script.created().delta().done()
    script.says("input_audio_buffer.speech_started", audio_start_ms=0, item_id="i")
    assert script.heard() == []


def test_a_second_updated_changes_nothing() -> None:
    script = Script().ready()
    script.says("session.created", session={}).says(
        "session.updated", session={"audio": {"input": {"format": {"type": "audio/pcma"}}}}
    )
    assert script.heard() == []
    assert script.sent() == []
    assert script.machine.input_format == PCMU_8K


def test_appends_are_as_long_as_asked_for_and_lose_nothing() -> None:
    script = Script(RealtimeEngine(append_ms=60)).ready()
    frames = [bytes([n]) * 160 for n in range(7)]
    for frame in frames:
        script.machine.send_audio(frame)
    sent = [event["audio"] for event in script.sent()]
    assert sent == [b64(b"".join(frames[:3])), b64(b"".join(frames[3:6]))]
