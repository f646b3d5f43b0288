"""RFC 6455 framing: against a plain reference, against itself for every split, and rule by rule."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.frames import (
    BINARY_FRAME,
    CLOSE_FRAME,
    PING_FRAME,
    PONG_FRAME,
    RECEIVE_BUFFER,
    TEXT_FRAME,
    BinaryMessage,
    Close,
    Event,
    FrameReader,
    Ping,
    Pong,
    Violation,
    close_payload,
    frame,
)

LIMIT = 4096
KEY = b"\x12\x34\x56\x78"


def raw(first: int, payload: bytes, *, masked: bool = True, length: bytes | None = None) -> bytes:
    """A frame made the slow way; `length` overrides its length field, the mask bit excepted."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size <= 0xFFFF:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size)
    if not masked:
        return bytes([first]) + length + payload
    body = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + KEY + body


def reader(*, server: bool = True, limit: int = LIMIT) -> FrameReader:
    return FrameReader(expect_masked=server, max_message=limit)


def feed_split(data: bytes, cuts: list[int], *, server: bool = True) -> list[Event]:
    subject = reader(server=server)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    events: list[Event] = []
    for start, end in pairwise(edges):
        events += subject.feed(data[start:end])
    return events


controls = st.one_of(
    st.builds(lambda p: (PING_FRAME, p), st.binary(max_size=125)),
    st.builds(lambda p: (PONG_FRAME, p), st.binary(max_size=125)),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[tuple[int, bytes]], list[Event]]:
    """Frames as (first byte, payload), and the events that they must give."""
    wire: list[tuple[int, bytes]] = []
    events: list[Event] = []

    def maybe_control() -> None:
        if draw(st.booleans()):
            first, payload = draw(controls)
            wire.append((first, payload))
            events.append(Ping(payload) if first == PING_FRAME else Pong(payload))

    for _ in range(draw(st.integers(0, 6))):
        is_text = draw(st.booleans())
        message = draw(st.text(max_size=200)).encode() if is_text else draw(st.binary(max_size=400))
        opcode = 1 if is_text else 2
        cuts = sorted(draw(st.lists(st.integers(0, len(message)), max_size=3)))
        edges = [0, *cuts, len(message)]
        parts = [message[a:b] for a, b in pairwise(edges)]
        for number, part in enumerate(parts):
            maybe_control()
            fin = 0x80 if number == len(parts) - 1 else 0
            wire.append((fin | (0 if number else opcode), part))
        events.append(message if is_text else BinaryMessage(message))
    if draw(st.booleans()):
        code, reason = (
            draw(st.sampled_from([1000, 1001, 1011, 3000, 4999])),
            draw(st.text("ü", max_size=9)),
        )
        wire.append((CLOSE_FRAME, close_payload(code, reason)))
        events.append(Close(code, reason))
    return wire, events


@given(conversations(), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_every_split_gives_the_same_events(
    conversation: tuple[list[tuple[int, bytes]], list[Event]], cuts: list[int], server: bool
) -> None:
    wire, events = conversation
    data = b"".join(raw(first, payload, masked=server) for first, payload in wire)
    assert feed_split(data, cuts, server=server) == events


@given(conversations(), st.binary(max_size=40), st.lists(st.integers(0, 10_000), max_size=8))
def test_garbage_gives_the_same_events_for_every_split(
    conversation: tuple[list[tuple[int, bytes]], list[Event]], garbage: bytes, cuts: list[int]
) -> None:
    data = b"".join(raw(first, payload) for first, payload in conversation[0]) + garbage
    events = feed_split(data, cuts)
    assert events == reader().feed(data)
    # What ends a connection is last.
    assert not any(isinstance(event, Close | Violation) for event in events[:-1])


@given(st.binary(max_size=300), st.integers(0, 70_000), st.booleans())
def test_what_is_written_is_read(start: bytes, padding: int, masked: bool) -> None:
    payload = start + bytes(padding)
    data = bytes(frame(BINARY_FRAME, payload, masked=masked))
    subject = reader(server=masked, limit=100_000)
    assert subject.feed(data) == [BinaryMessage(payload)]
    if not masked:
        assert data == raw(BINARY_FRAME, payload, masked=False)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 0xFFFF, 0x10000, 200_000])
def test_length_forms_at_their_edges(size: int) -> None:
    payload = b"a" * size
    data = bytes(frame(TEXT_FRAME, payload, masked=False))
    assert data == raw(TEXT_FRAME, payload, masked=False)
    assert reader(server=False, limit=1 << 20).feed(data) == [payload]


def test_payloads_may_be_any_buffer() -> None:
    for payload in (b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
        assert bytes(frame(TEXT_FRAME, payload, masked=False)) == b"\x81\x03abc"


def test_masking_keys_differ() -> None:
    keys = {bytes(frame(TEXT_FRAME, b"", masked=True))[2:6] for _ in range(3000)}
    assert len(keys) > 2990  # of 2**32: a repeat is rare, a constant is a defect


def test_more_frames_than_one_call_finds() -> None:
    frames = [raw(TEXT_FRAME, b"%d" % i) for i in range(1000)]
    assert reader().feed(b"".join(frames)) == [b"%d" % i for i in range(1000)]


def test_a_message_larger_than_the_receive_buffer() -> None:
    payload = b"x" * (5 * len(RECEIVE_BUFFER) + 3)
    subject = reader(limit=len(payload))
    assert subject.feed(raw(TEXT_FRAME, payload) + raw(TEXT_FRAME, b"next")) == [payload, b"next"]


VIOLATIONS: list[tuple[str, bytes, int]] = [
    ("reserved bit 1 (permessage-deflate unasked)", raw(0xC1, b"x"), 1002),
    ("reserved bit 2", raw(0xA1, b"x"), 1002),
    ("reserved bit 3", raw(0x91, b"x"), 1002),
    *[(f"opcode {op:#x}", raw(0x80 | op, b""), 1002) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    ("unmasked frame to a server", raw(TEXT_FRAME, b"x", masked=False), 1002),
    ("fragmented ping", raw(0x09, b""), 1002),
    ("fragmented close", raw(0x08, b""), 1002),
    ("ping of 126 bytes", raw(PING_FRAME, bytes(126)), 1002),
    ("close of 126 bytes", raw(CLOSE_FRAME, b"\x03\xe8" + b"a" * 124), 1002),
    ("continuation of nothing", raw(0x80, b"x"), 1002),
    ("message within a message", raw(0x01, b"x") + raw(TEXT_FRAME, b"y"), 1002),
    ("16-bit length for 125", raw(TEXT_FRAME, bytes(125), length=b"\x7e\x00\x7d"), 1002),
    ("64-bit length of 65535", raw(TEXT_FRAME, b"", length=b"\x7f\0\0\0\0\0\0\xff\xff"), 1002),
    ("64-bit length with its top bit", raw(TEXT_FRAME, b"", length=b"\x7f\x80" + bytes(7)), 1002),
    ("oversize by its header", raw(TEXT_FRAME, b"", length=b"\x7e\x10\x01"), 1009),  # LIMIT + 1
    ("oversize in fragments", raw(0x02, bytes(LIMIT)) + raw(0x00, b"") + raw(0x80, b"x"), 1009),
    ("close with one byte", raw(CLOSE_FRAME, b"\x03"), 1002),
    *[
        (f"close code {code}", raw(CLOSE_FRAME, struct.pack("!H", code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ],
    ("close reason not UTF-8", raw(CLOSE_FRAME, b"\x03\xe8\xff"), 1007),
    ("text not UTF-8", raw(TEXT_FRAME, b"\xc0\xaf"), 1007),
    ("text ends within a character", raw(TEXT_FRAME, b"\xe2\x82"), 1007),
    ("bad UTF-8 across fragments", raw(0x01, b"\xed") + raw(0x80, b"\xa0\x80"), 1007),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "code"), [case[1:] for case in VIOLATIONS], ids=[case[0] for case in VIOLATIONS]
)
def test_violations_end_the_connection_with_their_code(data: bytes, code: int) -> None:
    before = raw(TEXT_FRAME, b"before")
    subject = reader()
    assert subject.feed(before + data + raw(TEXT_FRAME, b"after")) == [b"before", Violation(code)]
    assert subject.feed(raw(TEXT_FRAME, b"later")) == []


def test_a_server_must_not_mask() -> None:
    assert reader(server=False).feed(raw(TEXT_FRAME, b"x")) == [Violation(1002)]


def test_a_bad_header_is_refused_before_its_payload_comes() -> None:
    oversize = raw(TEXT_FRAME, b"", length=b"\x7f" + struct.pack("!Q", 1 << 40))
    assert reader().feed(oversize[:10]) == [Violation(1009)]
    assert reader().feed(raw(0xC1, b"abcdef")[:2]) == [Violation(1002)]


def test_text_may_be_cut_within_a_character_by_fragments() -> None:
    euro = "€".encode()
    data = raw(0x01, euro[:1]) + raw(PING_FRAME, b"?") + raw(0x00, euro[1:2]) + raw(0x80, euro[2:])
    assert reader().feed(data) == [Ping(b"?"), euro]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4999])
def test_valid_close_codes(code: int) -> None:
    assert reader().feed(raw(CLOSE_FRAME, close_payload(code, "bye"))) == [Close(code, "bye")]


def test_a_close_without_a_code_is_1005() -> None:
    assert reader().feed(raw(CLOSE_FRAME, b"")) == [Close(1005, "")]
    assert close_payload(1005, "ignored") == b""


def test_nothing_is_read_after_a_close() -> None:
    subject = reader()
    assert subject.feed(raw(CLOSE_FRAME, b"") + raw(TEXT_FRAME, b"x")) == [Close(1005, "")]
    assert subject.feed(raw(TEXT_FRAME, b"x")) == []


def test_endless_empty_fragments_take_no_memory_and_break_nothing() -> None:
    data = raw(0x01, b"a") + raw(0x00, b"") * 5000 + raw(0x80, b"b")
    assert reader(limit=2).feed(data) == [b"ab"]


@given(st.binary(max_size=24) | st.text(max_size=12).map(str.encode))
def test_utf8_agrees_with_python(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert reader().feed(raw(TEXT_FRAME, data)) == [Violation(1007)]
    else:
        assert reader().feed(raw(TEXT_FRAME, data)) == [data]


def test_utf8_agrees_with_python_on_every_two_bytes_and_every_lead() -> None:
    leads = [bytes([a, b]) for a in range(0x7F, 0x100) for b in range(0, 0x100, 3)]
    tails = [b"", b"\x80", b"\xbf", b"\x80\x80", b"\x8f\xbf", b"\x80\x80\x80"]
    for lead in leads:
        for tail in tails:
            data = lead + tail
            try:
                data.decode()
                expected: Event = data
            except UnicodeDecodeError:
                expected = Violation(1007)
            assert reader().feed(raw(TEXT_FRAME, data)) == [expected], data


@given(st.text(max_size=300))
def test_a_long_reason_is_cut_at_a_character(reason: str) -> None:
    payload = close_payload(1000, reason)
    assert len(payload) <= 125
    assert reason.startswith(payload[2:].decode())


@pytest.mark.parametrize("limit", [0, -1, 1 << 30])
def test_the_bound_must_be_sensible(limit: int) -> None:
    with pytest.raises(ValueError, match="max_message"):
        reader(limit=limit)
