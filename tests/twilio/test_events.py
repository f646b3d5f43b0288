from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.twilio import events
from voiced.twilio.errors import ProtocolError
from voiced.twilio.events import Connected, Dtmf, Mark, Media, Start, Stop, Unknown, parse

SID = "MZ0000000000000000000000000000000c"


def dumps(message: Any) -> bytes:
    return json.dumps(message).encode()


def test_connected() -> None:
    event = parse(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
    assert event == Connected()
    assert event.sequence_number is None


def test_start() -> None:
    event = parse(
        dumps(
            {
                "event": "start",
                "sequenceNumber": "1",
                "start": {
                    "accountSid": "AC1",
                    "callSid": "CA1",
                    "streamSid": SID,
                    "tracks": ["inbound"],
                    "mediaFormat": {
                        "encoding": "audio/x-mulaw",
                        "sampleRate": 8000,
                        "channels": 1,
                    },
                    "customParameters": {"agent": "reception", "digits": "007"},
                },
                "streamSid": SID,
            }
        )
    )
    assert isinstance(event, Start)
    assert (event.sequence_number, event.stream_sid) == (1, SID)
    assert (event.start.call_sid, event.start.account_sid) == ("CA1", "AC1")
    assert event.start.media_format == events.MediaFormat("audio/x-mulaw", 8000, 1)
    assert event.parameters == {"agent": "reception", "digits": "007"}


@pytest.mark.parametrize("parameters", [{}, {"customParameters": None}, {"customParameters": {}}])
def test_start_without_parameters(parameters: dict[str, Any]) -> None:
    event = parse(dumps({"event": "start", "start": {"callSid": "CA1", **parameters}, "x": [1]}))
    assert isinstance(event, Start)
    assert event.parameters == {}


@pytest.mark.parametrize("kind", [str, int, float])
def test_every_number_may_be_a_string(kind: type) -> None:
    event = parse(
        dumps(
            {
                "event": "media",
                "sequenceNumber": kind(4),
                "media": {
                    "track": "inbound",
                    "chunk": kind(2),
                    "timestamp": kind(20),
                    "payload": "",
                },
                "streamSid": SID,
            }
        )
    )
    assert isinstance(event, Media)
    assert (event.sequence_number, event.media.chunk, event.media.timestamp) == (4, 2, 20)
    assert type(event.sequence_number) is int

    start = {"callSid": "CA1", "mediaFormat": {"sampleRate": kind(8000), "channels": kind(1)}}
    event = parse(dumps({"event": "start", "start": start}))
    assert isinstance(event, Start)
    assert event.start.media_format == events.MediaFormat("audio/x-mulaw", 8000, 1)


@pytest.mark.parametrize(("given", "digit"), [("1", "1"), (1, "1"), ("#", "#"), ("*", "*")])
def test_dtmf(given: str | int, digit: str) -> None:
    event = parse(
        dumps({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": given}, "later": {}})
    )
    assert isinstance(event, Dtmf)
    assert event.digit == digit


def test_mark_and_stop() -> None:
    mark = parse(dumps({"event": "mark", "sequenceNumber": "42", "mark": {"name": "g1:1200"}}))
    assert isinstance(mark, Mark)
    assert mark.mark.name == "g1:1200"
    assert isinstance(parse(dumps({"event": "stop", "stop": {"callSid": "CA1"}})), Stop)
    assert isinstance(parse(b'{"event":"stop"}'), Stop)


def test_unknown_event_is_told_from_a_malformed_one() -> None:
    # "media" is not what it is in a media message: that must not matter
    assert parse(b'{"event":"applause","media":5}') == Unknown("applause")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not json"),
        (b"\xff", "not json"),
        (b'{"event":"mark","mark":{"name":"\xff"}}', "not json"),
        (b'{"event":"media"', "not json"),
        (b'{"event":"connected","x":' + b"[" * 60_000, "not json"),
        (b"[" + b'{"event":"stop"}' + b"]", "wrong shape"),
        (b"{}", "wrong shape"),
        (b'{"event":7}', "wrong shape"),
        (b'{"event":"media"}', "wrong shape"),
        (b'{"event":"media","media":{"payload":5}}', "wrong shape"),
        (b'{"event":"media","sequenceNumber":"x","media":{"payload":""}}', "wrong shape"),
        (b'{"event":"media","sequenceNumber":4.5,"media":{"payload":""}}', "wrong shape"),
        (b'{"event":"media","sequenceNumber":1e400,"media":{"payload":""}}', "wrong shape"),
        (b'{"event":"start","start":{}}', "wrong shape"),
        (b'{"event":"mark","mark":{"name":["g1"]}}', "wrong shape"),
        (b'{"event":"media","media":{"payload":"a"}}', "bad base64"),
        (b'{"event":"media","media":{"payload":"YQ==YQ=="}}', "bad base64"),
        (b'{"event":"media","media":{"payload":"!!!!"}}', "bad base64"),
        (b" " * (events.MAX_MESSAGE_BYTES + 1), "too large"),
    ],
)
def test_malformed(message: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(message)
    assert caught.value.reason == reason


def test_largest_message() -> None:
    head, tail = b'{"event":"media","media":{"payload":"', b'"}}'
    room = (events.MAX_MESSAGE_BYTES - len(head) - len(tail)) // 4 * 4
    event = parse(head + b"A" * room + tail)
    assert isinstance(event, Media)
    assert len(event.media.payload) == room // 4 * 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "payload",
        "track",
        "chunk",
        "timestamp",
        "name",
        "digit",
        "callSid",
        "streamSid",
        "mediaFormat",
        "customParameters",
        "tracks",
        "sampleRate",
    ]
)
NEARLY = st.fixed_dictionaries(
    {
        "event": st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop", "other"])
        | JSON
    },
    optional={
        key: JSON | st.dictionaries(KEYS, JSON, max_size=5)
        for key in [
            "sequenceNumber",
            "streamSid",
            "start",
            "media",
            "dtmf",
            "mark",
            "stop",
            "extra",
        ]
    },
)


def parses_or_protocol_error(message: bytes) -> None:
    try:
        event = parse(message)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert isinstance(event, events.Event)
        return
    assert reason in {"not json", "wrong shape", "bad base64", "too large"}


@given(st.binary())
def test_any_bytes(message: bytes) -> None:
    parses_or_protocol_error(message)


@given(NEARLY | JSON)
def test_any_json(message: Any) -> None:
    parses_or_protocol_error(dumps(message))


@given(NEARLY, st.data())
def test_any_cut_or_flipped_json(message: Any, data: st.DataObject) -> None:
    text = bytearray(dumps(message))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    parses_or_protocol_error(bytes(text))
    parses_or_protocol_error(bytes(text[:at]))


@given(st.binary(max_size=2000), st.integers(0, 2**53), st.integers(0, 2**53))
def test_media_round_trip(payload: bytes, chunk: int, timestamp: int) -> None:
    body = {
        "timestamp": str(timestamp),
        "payload": base64.b64encode(payload).decode(),
        "chunk": chunk,
    }
    event = parse(dumps({"media": body, "event": "media", "streamSid": SID}))
    assert isinstance(event, Media)
    assert event.media.payload == payload
    assert (event.media.chunk, event.media.timestamp) == (chunk, timestamp)
    assert (event.media.track, event.stream_sid) == ("inbound", SID)


@given(st.text(), st.binary(max_size=500), st.text())
def test_outbound_key_sets_are_exact(sid: str, payload: bytes, name: str) -> None:
    assert json.loads(events.encode_media(sid, payload)) == {
        "event": "media",
        "streamSid": sid,
        "media": {"payload": base64.b64encode(payload).decode()},
    }
    assert json.loads(events.encode_mark(sid, name)) == {
        "event": "mark",
        "streamSid": sid,
        "mark": {"name": name},
    }
    assert json.loads(events.encode_clear(sid)) == {"event": "clear", "streamSid": sid}
