"""The opening handshake: heads read strictly, both sides held to RFC 6455 section 4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced import handshake
from voiced.handshake import HandshakeError, Headers, RequestHead

SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
UPGRADE = (
    b"GET /chat?x=1 HTTP/1.1\r\nHost: server.example\r\nUpgrade: WebSocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def parsed(data: bytes) -> RequestHead:
    result = handshake.parse_request(data)
    assert result is not None
    return result[0]


def test_the_rfcs_own_example() -> None:
    assert handshake.accept_token(SAMPLE_KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_request_head_with_bytes_behind_it() -> None:
    result = handshake.parse_request(UPGRADE + b"rest")
    assert result is not None
    head, size = result
    assert size == len(UPGRADE)
    assert (head.method, head.target, head.path) == ("GET", "/chat?x=1", "/chat")
    assert head.headers.get("host") == "server.example"
    assert head.wants_websocket
    assert handshake.check_upgrade(head) == SAMPLE_KEY


@given(st.integers(0, len(UPGRADE) - 1))
def test_a_head_is_incomplete_until_its_last_byte(size: int) -> None:
    assert handshake.parse_request(UPGRADE[:size]) is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),  # a TLS hello
        (b"GET / HTTP/1.0\n\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno-colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (b"GET /" + b"a" * handshake.MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\na: " + b"b" * handshake.MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_what_cannot_become_a_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake.parse_request(data)
    assert caught.value.status == status


@given(st.binary(max_size=200))
def test_any_bytes_give_a_head_or_nothing_or_a_refusal(data: bytes) -> None:
    status = None
    try:
        result = handshake.parse_request(data + b"\r\n\r\n")
    except HandshakeError as error:
        status = error.status
    assert status in (400, 431, 505) if status else result is not None


def without(line: bytes, instead: bytes = b"") -> bytes:
    assert line in UPGRADE
    return UPGRADE.replace(line, instead)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (without(b"GET", b"POST"), 405),
        (without(b"Upgrade: WebSocket\r\n"), 426),
        (without(b"keep-alive, Upgrade", b"keep-alive"), 400),
        (without(b"Host: server.example\r\n"), 400),
        (without(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (without(b"Version: 13", b"Version: 8"), 426),
        (without(b"Version: 13", b"Version: 13\r\nSec-WebSocket-Version: 8"), 426),
        (without(b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), 400),
        (without(b"dGhlIHNhbXBsZSBub25jZQ==", b"not base64"), 400),
        (without(b"dGhlIHNhbXBsZSBub25jZQ==", b"\xe9"), 400),
        (without(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
        (without(b"Host", b"Content-Length: 5\r\nHost"), 400),
        (without(b"Host", b"Transfer-Encoding: chunked\r\nHost"), 400),
    ],
)
def test_upgrades_that_break_section_4_2_1(data: bytes, status: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake.check_upgrade(parsed(data))
    assert caught.value.status == status


def test_a_request_of_ours_is_one_that_we_accept_and_our_response_too() -> None:
    key = handshake.new_key()
    data = handshake.request("h:81", "/a?b", key, {"Authorization": "Bearer x"})
    head = parsed(data)
    assert head.headers.get("authorization") == "Bearer x"
    assert head.headers.get("sec-websocket-extensions") is None
    answer = handshake.switching_protocols(handshake.check_upgrade(head))
    result = handshake.parse_response(answer + b"\x81\x00")
    assert result is not None
    response, size = result
    assert size == len(answer)
    handshake.check_response(response, key)
    with pytest.raises(HandshakeError, match="Accept"):
        handshake.check_response(response, handshake.new_key())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b" 101 ", b" 200 "), "answered 200"),
        ((b"Upgrade: websocket", b"Upgrade: h2c"), "does not switch"),
        ((b"Connection: Upgrade", b"Connection: close"), "does not switch"),
        ((b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "extension"),
    ],
)
def test_responses_that_break_section_4_1(change: tuple[bytes, bytes], message: str) -> None:
    result = handshake.parse_response(handshake.switching_protocols(SAMPLE_KEY).replace(*change))
    assert result is not None
    with pytest.raises(HandshakeError, match=message):
        handshake.check_response(result[0], SAMPLE_KEY)


def test_a_malformed_response() -> None:
    with pytest.raises(HandshakeError, match="status line"):
        handshake.parse_response(b"SSH-2.0-server\r\n\r\n")


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "\x00"])
def test_a_header_cannot_smuggle_another(value: str) -> None:
    with pytest.raises(ValueError, match="X-Name"):
        handshake.request("h", "/", handshake.new_key(), [("X-Name", value)])


@pytest.mark.parametrize("target", ["/a b", "/a\r\nb", ""])
def test_a_target_cannot_break_the_request_line(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        handshake.request("h", target, handshake.new_key())


def test_a_refusal_is_a_whole_response() -> None:
    data = handshake.refusal(426, "upgrade")
    result = handshake.parse_response(data)
    assert result is not None
    head, size = result
    assert head.status == 426
    assert head.headers.get("content-length") == str(len(data) - size)
    assert head.headers.get("connection") == "close"
    assert head.headers.get("sec-websocket-version") == "13"


def test_repeated_fields_are_joined() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("a", "3")])
    assert headers.get("a") == "1, 3"
    assert headers.tokens("a") == {"1", "3"}
    assert headers.get("c") is None
