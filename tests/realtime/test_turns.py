"""`turn_detection = { kind = "none" }`: voiced finds the turns, commits them, asks for answers."""

from __future__ import annotations

import base64
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.realtime.script import JSON, Script
from voiced.config.types import Agent, OwnVad, RealtimeEngine
from voiced.engine import AgentAudio, ResponseStarted, SpeechStarted, SpeechStopped
from voiced.formats import PCM16_8K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding
from voiced.realtime.turns import OwnTurns
from voiced.vad import VadStarted, VadStopped

SETTINGS = OwnVad(prefix_padding_ms=100, silence_ms=300)
AGENT = Agent(turn_detection=SETTINGS)


def tone(ms: int, audio: AudioFormat = PCMU_8K) -> bytes:
    """Return speech, as far as the detector can tell."""
    if audio.encoding is not Encoding.PCM16:
        # Both ends of the scale by turns: a square wave at half the sampling rate's eighth.
        low, high = {Encoding.PCMU: (0x10, 0x90), Encoding.PCMA: (0x2A, 0xAA)}[audio.encoding]
        return bytes([low] * 8 + [high] * 8) * (ms // 2)
    samples = ms * audio.rate // 1000
    wave = (int(8000 * math.sin(i * 2 * math.pi * 440 / audio.rate)) for i in range(samples))
    return struct.pack(f"<{samples}h", *wave)


def frames(payload: bytes, audio: AudioFormat = PCMU_8K) -> list[bytes]:
    size = audio.frame_bytes
    return [payload[at : at + size] for at in range(0, len(payload), size)]


def say(script: Script, payload: bytes, audio: AudioFormat = PCMU_8K) -> list[JSON]:
    for frame in frames(payload, audio):
        script.machine.send_audio(frame)
    return script.sent()


def appended(sent: list[JSON]) -> bytes:
    return b"".join(
        base64.b64decode(event["audio"])
        for event in sent
        if event["type"] == "input_audio_buffer.append"
    )


@pytest.mark.parametrize(
    ("config", "leg"),
    [
        (RealtimeEngine(), PCMU_8K),
        (RealtimeEngine(), PCMA_8K),
        (RealtimeEngine(input_format="pcm"), PCM16_24K),
    ],
)
def test_a_turn_is_appended_committed_and_answered(
    config: RealtimeEngine, leg: AudioFormat
) -> None:
    script = Script(config, AGENT, leg).ready()
    assert say(script, leg.silence(1000), leg) == []
    speech = tone(600, leg)
    sent = say(script, speech + leg.silence(400), leg)
    kinds = [event["type"] for event in sent]
    assert kinds[-2:] == ["input_audio_buffer.commit", "response.create"]
    assert set(kinds[:-2]) == {"input_audio_buffer.append"}
    audio = appended(sent)
    assert speech in audio
    assert len(audio) == (100 + 600 + 300) * leg.bytes_per_ms
    started, stopped = script.heard()
    assert started == SpeechStarted("", 900)
    assert stopped == SpeechStopped("", 1900)


def test_speech_while_responding_cancels() -> None:
    script = Script(agent=AGENT).ready().created().forget()
    sent = say(script, tone(200))
    assert "response.cancel" in [event["type"] for event in sent]
    script.delta()
    assert [type(event) for event in script.heard()] == [SpeechStarted]


def test_speech_before_the_answer_is_created_cancels_that() -> None:
    script = Script(agent=AGENT).ready()
    say(script, tone(400) + PCMU_8K.silence(400))
    say(script, tone(200))
    script.forget().created()
    assert script.kinds() == ["response.cancel"]
    assert ResponseStarted("resp_1") not in script.heard()


@pytest.mark.parametrize("answer", ["queued", "outstanding", "begun"])
def test_a_turn_that_came_at_once_is_answered(answer: str) -> None:
    """A stall: the call learns of its beginning, and interrupts, when it has been asked for."""
    script = Script(agent=AGENT).ready()
    if answer == "queued":
        script.created("resp_0").delta(response="resp_0")
    script.forget().machine.acted()
    say(script, tone(400) + PCMU_8K.silence(400))
    assert [type(event) for event in script.heard()] == [SpeechStarted, SpeechStopped]
    if answer == "begun":
        script.created()
    script.machine.cancel()
    assert "response.cancel" not in script.kinds()
    if answer == "queued":
        script.done("resp_0", "cancelled")
        assert script.kinds() == ["response.create"]
    if answer != "begun":
        script.created()
    script.delta()
    assert [type(event) for event in script.heard()][-2:] == [ResponseStarted, AgentAudio]
    script.machine.acted()  # and what the call has heard of, it may cancel
    script.machine.cancel()
    assert script.kinds() == ["response.cancel"]
    script.delta()
    assert script.heard() == []


@pytest.mark.parametrize("instructions", [None, "Say goodbye."])
def test_what_was_asked_for_before_such_a_turn_is_cancelled_with_it(
    instructions: str | None,
) -> None:
    script = Script(agent=AGENT).ready().created("resp_0")
    script.machine.respond(instructions)
    script.forget().machine.acted()
    say(script, tone(400) + PCMU_8K.silence(400))
    script.machine.respond(instructions)  # behind a plain one a plain one says nothing new
    script.machine.cancel()
    script.sent()
    script.done("resp_0", "cancelled")
    (create,) = script.sent()
    assert "instructions" not in create.get("response", {})
    script.created().done()
    assert script.sent() == []


def test_a_turn_that_the_call_knows_of_is_cancelled() -> None:
    script = Script(agent=AGENT).ready().created("resp_0").forget()
    say(script, tone(400) + PCMU_8K.silence(400))
    script.heard()
    script.machine.acted()
    script.machine.cancel()
    script.sent()
    script.done("resp_0", "cancelled")
    assert script.sent() == []


def test_without_barge_in_the_answer_goes_on_and_the_turn_waits() -> None:
    script = Script(agent=Agent(turn_detection=SETTINGS, barge_in="off")).ready().created()
    kinds = [event["type"] for event in say(script, tone(400) + PCMU_8K.silence(400))]
    assert "response.cancel" not in kinds
    assert kinds[-1] == "input_audio_buffer.commit"
    script.says("input_audio_buffer.committed", item_id="item_0")
    script.done()
    assert script.kinds() == ["response.create"]
    script.created("resp_2").done("resp_2")
    assert script.sent() == []


def test_never_less_than_100_ms_are_committed() -> None:
    agent = Agent(turn_detection=OwnVad(prefix_padding_ms=0, silence_ms=20))
    script = Script(agent=agent).ready()
    say(script, PCMU_8K.silence(200))
    sent = say(script, tone(60) + PCMU_8K.silence(100))
    assert "input_audio_buffer.commit" in [event["type"] for event in sent]
    assert len(appended(sent)) >= 100 * 8


def test_early_audio_is_searched_for_turns_too() -> None:
    script = Script(agent=AGENT)
    script.machine.send_audio(PCMU_8K.silence(400) + tone(600) + PCMU_8K.silence(500))
    script.ready()
    kinds = script.kinds()
    assert kinds[-2:] == ["input_audio_buffer.commit", "response.create"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=8),
    st.lists(st.integers(1, 3000), min_size=1, max_size=20),
)
def test_whatever_the_pieces_turns_are_the_same(
    parts: list[tuple[bool, int]], cuts: list[int]
) -> None:
    stream = b"".join(
        tone(20 * n, PCM16_8K) if loud else PCM16_8K.silence(20 * n) for loud, n in parts
    )
    whole = OwnTurns(PCM16_8K, SETTINGS)
    expected = whole.feed(stream)
    pieces, at = OwnTurns(PCM16_8K, SETTINGS), 0
    out: list[bytes | VadStarted | VadStopped] = []
    for index in range(len(stream)):
        if at >= len(stream):
            break
        size = cuts[index % len(cuts)]
        out += pieces.feed(stream[at : at + size])
        at += size
    assert [x for x in out if not isinstance(x, bytes)] == [
        x for x in expected if not isinstance(x, bytes)
    ]
    assert b"".join(x for x in out if isinstance(x, bytes)) == b"".join(
        x for x in expected if isinstance(x, bytes)
    )
    # Audio comes inside turns only.
    inside = False
    for x in out:
        if isinstance(x, bytes):
            assert inside
        else:
            inside = isinstance(x, VadStarted)
