from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voiced.sip.sdp import (
    MAX_BODY,
    MAX_LINES,
    MAX_MEDIA,
    Connection,
    Line,
    Media,
    SdpError,
    SessionDescription,
    parse,
)

DATA = Path(__file__).parent / "data"
CAPTURED = sorted(DATA.glob("*.sdp"))

MINIMAL = b"v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\n"


def reason_of(body: bytes) -> str:
    with pytest.raises(SdpError) as caught:
        parse(body)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def test_captured_bodies_are_there() -> None:
    assert len(CAPTURED) >= 15


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_captured_bytes_come_back_unchanged(path: Path) -> None:
    body = path.read_bytes()
    canonical = body if b"\r\n" in body else body.replace(b"\n", b"\r\n")
    assert bytes(parse(body)) == canonical


def test_fields_of_a_captured_offer() -> None:
    description = parse((DATA / "baresip_offer.sdp").read_bytes())
    assert description.origin.session_id == "2027190135"
    assert description.origin.version == "198572035"
    assert description.attribute("tool") == "baresip 1.0.0"
    (media,) = description.media
    assert (media.kind, media.port, media.profile) == ("audio", 39170, "RTP/AVP")
    assert media.formats == ("0", "8", "9", "101")
    assert media.attribute("fmtp") == "101 0-15"
    assert media.attributes("rtcp-rsize") == [""]
    assert media.attribute("rtcp-mux") is None
    assert description.connection_of(media) == Connection("127.0.0.1")
    assert description.direction_of(media) == "sendrecv"


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\r\n\r\n"])
def test_line_ends(end: bytes) -> None:
    body = end.join([b"v=0", b"o=- 1 2 IN IP4 192.0.2.1", b"m=audio 4000 RTP/AVP 0", b""])
    assert bytes(parse(body)) == MINIMAL + b"m=audio 4000 RTP/AVP 0\r\n"
    assert parse(body.removesuffix(end)) == parse(body)


def test_lines_out_of_order_and_left_out() -> None:
    body = b"v=0\r\nt=0 0\r\na=inactive\r\nc=IN IP6 2001:db8::1\r\no=x 1 2 IN IP6 ::1\r\n"
    description = parse(body + b"m=audio 4000 RTP/AVP 0\r\n")
    assert description.origin.family == "IP6"
    assert description.direction_of(description.media[0]) == "inactive"
    assert description.connection_of(description.media[0]) == Connection("2001:db8::1")


def test_media_level_beats_session_level() -> None:
    body = MINIMAL + b"c=IN IP4 192.0.2.1\r\na=recvonly\r\n"
    body += b"m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.9\r\na=sendOnly\r\nm=audio 2 RTP/AVP 8\r\n"
    description = parse(body)
    first, second = description.media
    assert description.connection_of(first) == Connection("192.0.2.9")
    assert description.connection_of(second) == Connection("192.0.2.1")
    assert description.direction_of(first) == "sendonly"
    assert description.direction_of(second) == "recvonly"


def test_username_with_blanks() -> None:
    origin = parse(b"v=0\no=Cisco GW 7712 4421 IN IP4 192.0.2.1\n").origin
    assert (origin.username, origin.session_id, origin.version) == ("Cisco GW", "7712", "4421")
    assert str(origin) == "Cisco GW 7712 4421 IN IP4 192.0.2.1"


@pytest.mark.parametrize(
    ("address", "hole"),
    [
        ("0.0.0.0", True),
        ("::", True),
        ("f81d4fae.invalid", True),
        ("192.0.2.1", False),
        ("::1", False),
        ("media.example.net", False),
        ("224.2.1.1/127", False),
    ],
)
def test_holes(address: str, hole: bool) -> None:
    assert Connection(address).is_hole is hole


def test_rejected_section_keeps_its_formats() -> None:
    media = parse(MINIMAL + b"m=video 30210/2  RTP/AVP 105 31\r\na=x\r\n").media[0]
    assert str(media) == "m=video 30210/2  RTP/AVP 105 31\r\na=x\r\n"
    assert str(media.rejected()) == "m=video 0 RTP/AVP 105 31\r\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b" \r\n\n", "empty body"),
        (b"v=0\0", "null byte"),
        (b"INVITE sip:a@b SIP/2.0\r\n", "no version line"),
        (b'{"v": 0}', "no version line"),
        (b"v=1\r\no=- 1 2 IN IP4 192.0.2.1\r\n", "no version line"),
        (b"o=- 1 2 IN IP4 192.0.2.1\r\nv=0\r\n", "no version line"),
        (b"v=0\r\ns=-\r\n", "no origin line"),
        (b"v=0\r\no=- 1 2 IP4 192.0.2.1\r\n", "bad origin line"),
        (b"v=0\r\no=- 1 2 XX IP4 192.0.2.1\r\n", "bad origin line"),
        (MINIMAL + b"hello\r\n", "line without a type"),
        (MINIMAL + b"A=upper\r\n", "line without a type"),
        (MINIMAL + b" a=indented\r\n", "line without a type"),
        (MINIMAL + b"m=audio\r\n", "bad media line"),
        (MINIMAL + b"m=audio x RTP/AVP 0\r\n", "bad media line"),
        (MINIMAL + b"m=audio -1 RTP/AVP 0\r\n", "bad media line"),
        (MINIMAL + b"m=audio 65536 RTP/AVP 0\r\n", "bad media line"),
        (MINIMAL + "m=audio ٤٠٠٠ RTP/AVP 0\r\n".encode(), "bad media line"),
        (MINIMAL + b"m=audio 1 RTP/AVP 0\r\n" * (MAX_MEDIA + 1), "too many media sections"),
        (MINIMAL + b"a=x\r\n" * MAX_LINES, "too many lines"),
        (MINIMAL + b"a=" + b"x" * MAX_BODY, "body too large"),
    ],
)
def test_reasons(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


def test_too_large_has_its_own_status() -> None:
    with pytest.raises(SdpError) as caught:
        parse(b"v=0\r\n" + b"a" * MAX_BODY)
    assert caught.value.status == 413
    with pytest.raises(SdpError) as caught:
        parse(b"x")
    assert caught.value.status == 400


@pytest.mark.parametrize("value", ["IN IP4", "IN IP5 192.0.2.1", "XX IP4 192.0.2.1", ""])
def test_connection_is_checked_where_it_is_used(value: str) -> None:
    description = parse(MINIMAL + f"c={value}\r\nm=audio 4000 RTP/AVP 0\r\n".encode())
    with pytest.raises(SdpError, match="bad connection line"):
        _ = description.connection


values = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]))
kinds = st.characters(min_codepoint=ord("a"), max_codepoint=ord("z")).filter(
    lambda kind: kind not in "mov"
)
lines = st.lists(st.builds(Line, kinds, values), max_size=8).map(tuple)
tokens = st.text("abcAZ019/-+", min_size=1, max_size=10)
media = st.builds(
    Media,
    tokens.map(str.lower),
    st.integers(0, 65535),
    tokens,
    st.lists(tokens, min_size=1, max_size=6).map(tuple),
    lines,
)


@given(lines, st.lists(media, max_size=5))
def test_what_is_written_is_read(session: tuple[Line, ...], sections: list[Media]) -> None:
    head = (Line("v", "0"), Line("o", "- 1 2 IN IP4 192.0.2.1"))
    written = bytes(SessionDescription(head + session, tuple(sections)))
    if len(written) > MAX_BODY:
        return
    read = parse(written)
    assert bytes(read) == written
    assert [str(section) for section in read.media] == [str(section) for section in sections]
    assert [(m.kind, m.port, m.profile, m.formats) for m in read.media] == [
        (m.kind, m.port, m.profile, m.formats) for m in sections
    ]


LINES = [b"v=0", b"o=- 1 2 IN IP4 1.2.3.4", b"m=audio 1 RTP/AVP 0", b"a=rtpmap:0 x", b"c=IN IP4 ::"]
BITS = [b"\r\n", b"\n", b"\r", b"=", b" ", b"\xff", b"\x0c", "\u2028".encode()]
pieces = st.sampled_from(LINES + BITS)


@given(st.one_of(st.binary(), st.lists(pieces).map(b"".join)))
@example("\u2028".encode())
@example(b"v=0\no=- 1 2 IN IP4 1.2.3.4\nm=audio 1 RTP/AVP 0\n\xff=\n")
def test_garbage_is_an_error_or_comes_back(body: bytes) -> None:
    try:
        description = parse(body)
    except SdpError:
        return
    assert parse(bytes(description)) == description
