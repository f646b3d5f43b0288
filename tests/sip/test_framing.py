"""Messages out of a stream, wherever it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.sip_targets import stream
from tests.sip.samples import INVITE, edited, minimal
from tests.sip.strategies import messages
from voiced.sip.errors import ParseError
from voiced.sip.framing import Framed, KeepAlive, StreamParser
from voiced.sip.message import MAX_BODY, MAX_HEAD, Request, Response, parse

PING, PONG = KeepAlive.PING, KeepAlive.PONG


def _cut(data: bytes, step: int) -> list[bytes]:
    return [data[start : start + step] for start in range(0, len(data), step)]


def _error(item: Framed) -> ParseError:
    assert isinstance(item, ParseError)
    return item


def test_messages_in_one_piece() -> None:
    found = StreamParser().feed(INVITE + minimal() + INVITE[:-1])
    assert found == [parse(INVITE), parse(minimal())]
    assert isinstance(found[0], Request)
    assert bytes(found[0]) == INVITE


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_messages_in_pieces(step: int) -> None:
    parser = StreamParser()
    found = [item for piece in _cut(INVITE + minimal(), step) for item in parser.feed(piece)]
    assert found == [parse(INVITE), parse(minimal())]


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([b"\r\n\r\n"], [PING]),
        ([b"\r\n"], [PONG]),
        ([b"\r", b"\n"], [PONG]),
        ([b"\r\n\r\n\r\n\r\n"], [PING, PING]),
        ([b"\r\n\r\n\r\n"], [PING, PONG]),
        ([b"\r\n", b"\r\n"], [PONG, PING]),
        ([b"\r\n\r", b"\n"], [PONG, PING]),
        ([b"\r\n", minimal(), b"\r\n"], [PONG, parse(minimal()), PONG]),
        ([b"\r\n" + minimal() + b"\r\n\r\n"], [PONG, parse(minimal()), PING]),
        ([b"\r\n", b"", b"\r", b"\n"], [PONG, PING]),
    ],
)
def test_keep_alives(pieces: list[bytes], found: list[Framed]) -> None:
    parser = StreamParser()
    assert [item for piece in pieces for item in parser.feed(piece)] == found


def test_line_breaks_in_a_body_are_no_keep_alive() -> None:
    body = b"\r\n\r\n" + minimal() + b"\r\n"
    data = edited("Content-Length: 0", f"Content-Length: {len(body)}") + body
    (message,) = StreamParser().feed(data)
    assert isinstance(message, Request)
    assert message.body == body


def test_a_malformed_message_of_known_length_does_not_end_the_stream() -> None:
    broken = edited("CSeq: 7 OPTIONS", "CSeq: 7 BYE").replace(b"h: 0", b"h: 4") + b"\r\n\r\n"
    for step in (1, 1000):
        parser = StreamParser()
        data = broken + minimal()
        found = [item for piece in _cut(data, step) for item in parser.feed(piece)]
        assert _error(found[0]).reason == "CSeq of another method"
        assert not _error(found[0]).fatal
        assert _error(found[0]).head is not None
        assert found[1:] == [parse(minimal())]


@pytest.mark.parametrize(
    ("data", "reason", "answerable"),
    [
        (edited("Content-Length: 0\n", ""), "no Content-Length on a stream", True),
        (edited("Content-Length: 0", "Content-Length: -1"), "malformed Content-Length", True),
        (edited("Content-Length: 0", "Content-Length: 0\nl: 5"), "repeated header field", True),
        (edited("Content-Length: 0", f"l: {MAX_BODY + 1}"), "body too long", True),
        (edited("Content-Length: 0", f"l: {MAX_BODY + 1}\nbad"), "malformed header field", True),
        (minimal("X: " + "y" * MAX_HEAD), "head too long", False),
        (b"x" * (MAX_HEAD + 4), "head too long", False),
        (b"\x16\x03\x01\r\n\r\n", "malformed start line", False),
    ],
)
def test_fatal_errors_end_the_stream(data: bytes, reason: str, answerable: bool) -> None:
    parser = StreamParser()
    (item,) = parser.feed(data)
    error = _error(item)
    assert (error.reason, error.fatal) == (reason, True)
    assert (error.head is not None) == answerable
    assert parser.feed(minimal()) == []


def test_limits_of_ones_own() -> None:
    (item,) = StreamParser(max_head=40).feed(minimal())
    assert _error(item).reason == "head too long"
    (item,) = StreamParser(max_body=3).feed(INVITE)
    assert (_error(item).reason, _error(item).status) == ("body too long", 513)


@settings(max_examples=30)
@given(st.lists(messages, max_size=3), st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_cuts_do_not_matter(sent: list[Request | Response], steps: list[int]) -> None:
    data = b"\r\n\r\n".join(bytes(message) for message in sent)
    parser = StreamParser()
    found: list[Framed] = []
    position = turn = 0
    while position < len(data):
        step = steps[turn % len(steps)]
        found += parser.feed(data[position : position + step])
        position, turn = position + step, turn + 1
    assert [item for item in found if not isinstance(item, KeepAlive)] == sent
    assert found.count(PING) == max(0, len(sent) - 1)


@given(st.binary(max_size=120), st.booleans())
def test_cuts_do_not_matter_to_garbage_either(data: bytes, after: bool) -> None:
    stream(data[:1] + minimal() * after + data[1:])
