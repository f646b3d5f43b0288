"""What the carrier writes, and how strictly it reads."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.simulate.link import Link
from voiced.simulate.signature import sign
from voiced.simulate.twiml import CallRefused, StreamOrder, parse_twiml
from voiced.simulate.wire import (
    Clear,
    Identifiers,
    Mark,
    Media,
    Narrator,
    WireError,
    parse_server_message,
)

IDS = Identifiers("AC" + "a" * 32, "CA" + "b" * 32, "MZ" + "c" * 32)
SID = IDS.stream_sid


@given(st.binary(min_size=1, max_size=400).filter(lambda p: not p.startswith((b"RIFF", b".snd"))))
def test_reads_media(payload: bytes) -> None:
    text = base64.b64encode(payload).decode()
    message = json.dumps({"event": "media", "streamSid": SID, "media": {"payload": text}})
    parsed = parse_server_message(message, SID)
    assert isinstance(parsed, Media)
    assert parsed.media.payload == payload


def test_reads_mark_and_clear() -> None:
    mark = parse_server_message(
        json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": "g1:160"}}), SID
    )
    assert isinstance(mark, Mark)
    assert mark.mark.name == "g1:160"
    clear = parse_server_message(json.dumps({"event": "clear", "streamSid": SID}), SID)
    assert isinstance(clear, Clear)


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        '"media"',
        '{"event":"media"}',
        '{"streamSid":"S"}',
        '{"event":"stop","streamSid":"S"}',
        '{"event":"clear","streamSid":"other"}',
        '{"event":"clear","streamSid":1}',
        '{"event":"clear","streamSid":"S","sequenceNumber":"1"}',
        '{"event":"mark","streamSid":"S","mark":{}}',
        '{"event":"mark","streamSid":"S","mark":{"name":7}}',
        '{"event":"mark","streamSid":"S","mark":{"name":"a","extra":1}}',
        '{"event":"media","streamSid":"S","media":{"payload":"gggg="}}',
        '{"event":"media","streamSid":"S","media":{"payload":""}}',
        '{"event":"media","streamSid":"S","media":{"payload":"UklGRgAA"}}',
        '{"event":"media","streamSid":"S","media":{"payload":"AAAA","track":"outbound"}}',
        '{"event":"media","streamSid":"S","media":{"payload":"AAAA"},"mark":{"name":"a"}}',
    ],
)
def test_refuses_what_twilio_would_warn_of(message: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_server_message(message, "S")
    assert caught.value.code == 31951


def test_refuses_binary_frames() -> None:
    with pytest.raises(WireError) as caught:
        parse_server_message(b'{"event":"clear","streamSid":"S"}', "S")
    assert caught.value.code == 31950


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_read_or_refused(message: str) -> None:
    with pytest.raises(WireError):
        parse_server_message(message, "S")


def test_writes_twilios_messages() -> None:
    narrator = Narrator(IDS)
    assert json.loads(narrator.connected()) == {
        "event": "connected",
        "protocol": "Call",
        "version": "1.0.0",
    }
    start = json.loads(narrator.start({"agent": "reception"}))
    assert start["sequenceNumber"] == "1"
    assert start["streamSid"] == start["start"]["streamSid"] == SID
    assert start["start"]["customParameters"] == {"agent": "reception"}
    assert start["start"]["mediaFormat"] == {
        "encoding": "audio/x-mulaw",
        "sampleRate": 8000,
        "channels": 1,
    }
    assert json.loads(narrator.media(2, 20, "AAAA")) == {
        "event": "media",
        "sequenceNumber": "2",
        "media": {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": "AAAA"},
        "streamSid": SID,
    }
    assert json.loads(narrator.dtmf("#"))["dtmf"] == {"track": "inbound_track", "digit": "#"}
    narrator.skip()
    assert json.loads(narrator.mark('a"b'))["sequenceNumber"] == "5"
    assert json.loads(narrator.stop()) == {
        "event": "stop",
        "sequenceNumber": "6",
        "stop": {"accountSid": IDS.account_sid, "callSid": IDS.call_sid},
        "streamSid": SID,
    }


def test_writes_numbers_as_look_alikes_do() -> None:
    narrator = Narrator(IDS, integers=True)
    assert json.loads(narrator.start({}))["sequenceNumber"] == 1
    media = json.loads(narrator.media(1, 0, "AAAA"))
    assert (media["sequenceNumber"], media["media"]["chunk"]) == (2, 1)


def test_identifiers_are_twilios_shape_and_differ() -> None:
    one, other = Identifiers(), Identifiers()
    assert one.call_sid != other.call_sid
    assert one.stream_sid.startswith("MZ")
    assert len(one.stream_sid) == 34


PARAMETERS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
    ("Caller", "+14158675309"),
]


@pytest.mark.parametrize(
    ("token", "url", "fields", "expected"),
    [  # published vectors, and handshakes
        (
            "12345",
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            PARAMETERS,
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (
            "12345",
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            [
                ("Sid", "CA123"),
                ("SidAccount", "AC123"),
                *(("Digits", digits) for digits in ("5678", "1234", "1234")),
            ],
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
        (
            "test-auth-token-0123456789abcdef",
            "wss://voice.example.com/twilio/media",
            [],
            "XlvpXmq6bo5nPSrtKYVwZOR3T6k=",
        ),
    ],
)
def test_signs_as_twilio(
    token: str, url: str, fields: list[tuple[str, str]], expected: str
) -> None:
    assert sign(token, url, fields) == expected


def test_reads_twiml() -> None:
    document = b"""<?xml version="1.0" encoding="UTF-8"?>
      <Response><Connect><Stream url="wss://h.test/twilio/media/tok" name="main"
        statusCallback="https://h.test/s"><Parameter name="a" value="&lt;1&gt;"/></Stream></Connect>
        <Hangup/></Response>"""
    assert parse_twiml(document) == StreamOrder(
        "wss://h.test/twilio/media/tok", "main", {"a": "<1>"}, "https://h.test/s", ("Hangup",)
    )


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "not XML"),
        ("<Response><Connect>", "not XML"),
        ("<!DOCTYPE a><Response/>", "DTD"),
        ("<Answer/>", "root is <Answer>"),
        ("<Response/>", "but nothing"),
        ("<Response><Reject reason='busy'/></Response>", "but <Reject>"),
        ("<Response><Connect/></Response>", "but <Connect>"),
        ("<Response><Connect><Stream/></Connect></Response>", "31922"),
        ("<Response><Connect><Stream url='https://h/'/></Connect></Response>", "31922"),
        ("<Response><Connect><Stream url='wss:///p'/></Connect></Response>", "31923"),
        ("<Response><Connect><Stream url='wss://h/p?t=1'/></Connect></Response>", "31920"),
        (
            "<Response><Connect><Stream url='wss://h/p' track='both_tracks'/></Connect></Response>",
            "31941",
        ),
        (
            "<Response><Connect><Stream url='wss://h/p'><Parameter name='x'/></Stream>"
            "</Connect></Response>",
            "lacks its name or value",
        ),
        (
            "<Response><Connect><Stream url='wss://h/p'>"
            f"<Parameter name='x' value='{'v' * 499}'/></Stream></Connect></Response>",
            "500 characters",
        ),
    ],
)
def test_refuses_other_twiml(document: str, reason: str) -> None:
    with pytest.raises(CallRefused, match=reason):
        parse_twiml(document.encode())


@given(
    st.integers(0, 100_000),
    st.integers(0, 50_000),
    st.lists(st.integers(0, 30_000), max_size=50),
    st.integers(),
)
def test_link_delays_within_its_bounds_and_keeps_order(
    delay: int, jitter: int, waits: list[int], seed: int
) -> None:
    import random

    link = Link(delay, jitter, random.Random(seed))
    sent = previous = 0
    for wait in waits:
        sent += wait
        arrival = link.arrival_us(sent)
        assert arrival >= previous
        assert sent + delay <= arrival <= max(previous, sent + delay + jitter)
        previous = arrival
