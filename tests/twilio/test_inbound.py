from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.frames import BinaryMessage
from voiced.leg import CallerAudio, Digit, LegEvent, Stopped
from voiced.twilio.errors import ProtocolError
from voiced.twilio.inbound import BURST, MAX_MALFORMED, MESSAGES_PER_S, Inbound

SID = "MZ1"


def inbound(marks: list[str] | None = None, sequence: int | None = 1) -> Inbound:
    return Inbound(SID, "CA1", sequence, 100.0, (marks if marks is not None else []).append)


def media(
    size: int,
    chunk: int | None = None,
    timestamp: int | None = None,
    sequence: int | None = None,
    code: int = 0x11,
) -> bytes:
    body: dict[str, Any] = {"payload": base64.b64encode(bytes([code]) * size).decode()}
    if chunk is not None:
        body["chunk"] = str(chunk)
    if timestamp is not None:
        body["timestamp"] = timestamp
    message: dict[str, Any] = {"event": "media", "media": body}
    if sequence is not None:
        message["sequenceNumber"] = sequence
    return json.dumps(message).encode()


def silence_in(events: list[LegEvent]) -> int:
    """Milliseconds of filling in the audio of `events`."""
    audio = b"".join(each.payload for each in events if isinstance(each, CallerAudio))
    return audio.count(0xFF) // 8


@pytest.mark.parametrize(
    ("second", "filled"),
    [
        (media(160, 2, 20), 0),
        (media(160, 3, 40), 20),  # both agree
        (media(160, 101, 1020), 1000),  # even without timestamps that help
        (media(160, 4), 40),  # by the chunks alone
        (media(160, None, 60), 0),  # by the timestamps alone: jitter
        (media(160, None, 140), 120),
        (media(160, 2, 110), 0),  # chunks count on, a timestamp late by 90 ms: jitter
        (media(160, 2, 520), 500),  # dropped before they were counted
        (media(160, 3, 20), 0),  # chunks jump, time does not
        (media(160, 2, 10_000), 0),  # too long to be a gap
        (media(160, 10**15, 10**18), 0),
        (media(160, 1, 0), 0),  # begins again
        (media(160, 0, -500), 0),
        (media(160), 0),
    ],
)
def test_gaps(second: bytes, filled: int) -> None:
    stream = inbound()
    first = stream.feed([media(160, 1, 0)], 100.0)
    assert first == [CallerAudio(b"\x11" * 160)]
    events = stream.feed([second], 100.1)
    assert silence_in(events) == filled
    assert stream.statistics().filled_ms == filled
    assert isinstance(events[0], CallerAudio)
    assert events[0].payload.endswith(b"\x11" * 160)


def test_filling_never_runs_far_ahead_of_the_clock() -> None:
    stream = inbound()
    for step in range(10):  # each claims to be 1.9 s after the one before; no time has passed
        stream.feed([media(8, step * 2, step * 1900)], 100.0)
    assert stream.statistics().filled_ms < 2000
    stream.feed([media(8, 30, 20_000)], 102.0)
    stream.feed([media(8, 32, 21_900)], 104.0)
    assert stream.statistics().filled_ms > 2000


def test_uneven_payloads_leave_no_gap() -> None:
    stream = inbound()
    at = 0
    for chunk, size in enumerate([100, 161, 3, 1601, 7, 160], 1):
        stream.feed([media(size, chunk, at // 8)], 100.0)
        at += size
    assert stream.statistics().filled_ms == 0
    assert stream.statistics().audio_ms == at // 8


@pytest.mark.parametrize("sequence", [1, None])
def test_sequence_numbers(sequence: int | None) -> None:
    stream = inbound(sequence=sequence)
    for number in (2, 3, None, 4, 7, 8, 5):
        stream.feed([media(8, sequence=number)], 100.0)
    # 4 follows 3; then 7 and 5 are jumps
    assert stream.statistics().sequence_jumps == 2


def test_unknown_events_have_their_place_in_the_sequence() -> None:
    stream = inbound()
    later = b'{"event":"applause","streamSid":"MZ1","sequenceNumber":"%d"}'
    stream.feed([media(8, sequence=2), later % 3, later % 4, media(8, sequence=5)], 100.0)
    assert (stream.statistics().ignored, stream.statistics().sequence_jumps) == (2, 0)


@pytest.mark.parametrize(
    "message",
    [
        b'{"event":"dtmf","streamSid":"MZ2","dtmf":{"digit":"1"}}',
        b'{"event":"mark","streamSid":"MZ2","mark":{"name":"g0:1"}}',
        b'{"event":"stop","streamSid":"MZ2","stop":{"callSid":"CA2"}}',
        b'{"event":"media","streamSid":"MZ2","media":{"payload":"AAAA"}}',
    ],
)
def test_what_belongs_to_another_stream_is_not_acted_upon(message: bytes) -> None:
    marks: list[str] = []
    stream = inbound(marks)
    assert stream.feed([message], 100.0) == []
    assert marks == []
    assert stream.statistics().malformed == {"wrong stream": 1}


def test_overtaken_chunks_are_filled_for_once() -> None:
    """Look-alikes do not promise order: what comes late is heard late, and adds no silence."""
    stream = inbound()
    for number in (1, 3, 2, 4, 5, 7, 8, 6, 9):
        stream.feed([media(160, number, 20 * number, number + 1)], 100.0)
    assert stream.statistics().filled_ms == 2 * 20
    assert stream.statistics().audio_ms == 9 * 20 + 2 * 20


def test_chunks_that_begin_anew_are_followed() -> None:
    stream = inbound()
    for number in (*range(1, 61), 1, 2, 4):
        stream.feed([media(160, number, 20 * number)], 100.0)
    assert stream.statistics().filled_ms == 20


def test_marks_come_back_by_name() -> None:
    marks: list[str] = []
    stream = inbound(marks)
    assert stream.feed([b'{"event":"mark","mark":{"name":"g0:1"}}'], 100.0) == []
    assert marks == ["g0:1"]


def test_flood_is_a_rate_not_a_burst() -> None:
    message = [b'{"event":"connected"}']
    stream = inbound()
    stream.feed(message * BURST, 100.0)
    stream.feed(message * MESSAGES_PER_S, 101.0)
    with pytest.raises(ProtocolError, match="flood"):
        stream.feed(message * (MESSAGES_PER_S + 1), 102.0)


def test_malformed_messages_are_borne_up_to_a_bound() -> None:
    stream = inbound()
    for _ in range(MAX_MALFORMED):
        stream.feed([b"?"], 100.0)
    with pytest.raises(ProtocolError, match="malformed"):
        stream.feed([BinaryMessage(b"?")], 100.0)
    assert stream.statistics().malformed == {"not json": MAX_MALFORMED, "binary": 1}


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats()
NUMBERS = st.integers(-5, 200) | st.integers(0, 200).map(str) | SCALARS
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "payload": st.binary(max_size=400).map(lambda b: base64.b64encode(b).decode()) | SCALARS,
        "chunk": NUMBERS,
        "timestamp": NUMBERS,
        "track": st.sampled_from(["inbound", "outbound"]) | SCALARS,
        "digit": st.sampled_from(list("0123456789*#ABCDx")) | SCALARS,
        "name": st.text(max_size=9) | SCALARS,
        "callSid": st.just("CA1") | SCALARS,
    },
)
EVENTS = ["connected", "start", "media", "dtmf", "mark", "stop", "later"]


@st.composite
def messages(draw: st.DrawFn) -> bytes | BinaryMessage:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return BinaryMessage(draw(st.binary(max_size=9)))
    if kind == 1:
        return draw(st.binary(max_size=30))
    event = draw(st.sampled_from([*EVENTS, "media", "media", "dtmf", "mark"]))
    message: dict[str, Any] = {"event": event, event: draw(BODIES)}
    if draw(st.booleans()):
        message["streamSid"] = draw(st.just(SID) | SCALARS)
    if draw(st.booleans()):
        message["sequenceNumber"] = draw(NUMBERS)
    return json.dumps(message).encode()


@given(st.lists(st.tuples(st.lists(messages(), max_size=5), st.floats(0, 5)), max_size=12))
def test_any_messages(wake_ups: list[tuple[list[bytes | BinaryMessage], float]]) -> None:
    """Whatever comes: audio, then digits, then at most one end; silence is accounted for."""
    stream = inbound()
    now = 100.0
    audio = 0
    for batch, pause in wake_ups:
        now += pause
        events = stream.feed(batch, now)
        kinds = [type(event) for event in events]
        assert set(kinds) <= {CallerAudio, Digit, Stopped}
        assert kinds == sorted(kinds, key=[CallerAudio, Digit, Stopped].index)
        assert kinds.count(CallerAudio) <= 1
        assert kinds.count(Stopped) <= 1
        audio += sum(len(event.payload) for event in events if isinstance(event, CallerAudio))
        if Stopped in kinds:
            break
    statistics = stream.statistics()
    assert statistics.audio_ms == audio // 8
    assert statistics.filled_ms * 8 <= audio
    assert statistics.filled_ms <= (now - 100) * 1000 + 2000


@given(st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
def test_what_arrives_is_as_long_as_what_was_said(lost: list[bool], random: Any) -> None:
    """However frames are lost and batched, the audio between the first and the last is complete."""
    stream = inbound()
    sent = [
        media(160, number + 1, number * 20, number + 2)
        for number, missing in enumerate(lost)
        if not missing
    ]
    events: list[LegEvent] = []
    while sent:
        size = random.randint(1, 5)
        events += stream.feed(sent[:size], 100.0)
        del sent[:size]
    arrived = [number for number, missing in enumerate(lost) if not missing]
    total = sum(len(each.payload) for each in events if isinstance(each, CallerAudio))
    expected = (arrived[-1] - arrived[0] + 1) * 160 if arrived else 0
    assert total == expected
