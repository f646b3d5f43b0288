"""RTP packets: built and read, broken ones refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rtp.peer import CAPTURES, captured
from voiced.rtp.packet import MalformedPacket, RtpPacket, build, kind, parse

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=300),
    marker=st.booleans(),
    csrcs=st.lists(st.integers(0, 0xFFFFFFFF), max_size=15).map(tuple),
    extension=st.none()
    | st.tuples(
        st.integers(0, 0xFFFF),
        st.integers(0, 4).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n)),
    ),
    padding=st.integers(0, 255),
)


def written(packet: RtpPacket) -> bytes:
    return build(
        *packet[:5],
        marker=packet.marker,
        csrcs=packet.csrcs,
        extension=packet.extension,
        padding=packet.padding,
    )


@given(packets)
def test_what_is_built_is_read(packet: RtpPacket) -> None:
    assert parse(written(packet)) == packet


@given(st.binary(max_size=80))
def test_anything_is_read_or_refused(data: bytes) -> None:
    try:
        packet = parse(data)
    except MalformedPacket:
        return
    # Padding may hold anything but its length.
    assert len(written(packet)) == len(data)
    assert written(packet._replace(padding=0))[1:] == data[1 : len(data) - packet.padding]


def test_a_real_stream_is_written_as_it_was_read() -> None:
    """RFC 3551: PCMA in packets of 30 ms."""
    data = [each for _, each in captured(CAPTURES / "g711a.pcap")]
    packets = [parse(each) for each in data]
    assert [written(packet) for packet in packets] == data
    assert len(packets) == 236
    assert {(packet.payload_type, len(packet.payload)) for packet in packets} == {(8, 240)}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes.fromhex("8000000100000000000000"), "shorter than a header"),
        (bytes.fromhex("400000010000000000000007"), "not version 2"),
        (bytes.fromhex("810000010000000000000007"), "CSRC list beyond the end"),
        (bytes.fromhex("900000010000000000000007"), "extension beyond the end"),
        (bytes.fromhex("900000010000000000000007") + b"\xbe\xde\0\x01", "extension beyond the end"),
        (
            bytes.fromhex("a00000010000000000000007") + b"\1\2\3\5",
            "padding longer than the payload",
        ),
        (bytes.fromhex("a00000010000000000000007") + b"\1\0", "padding longer than the payload"),
    ],
)
def test_broken_packets(data: bytes, why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        parse(data)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\x80\x00", "rtp"),
        (b"\x80\xe0", "rtp"),  # marker and payload type 96
        (b"\x80\xc8", "rtcp"),
        (b"\x81\xc9", "rtcp"),
        (b"\x80\xdf", "rtcp"),
        (b"\x80\xbf", "rtp"),
        (b"\x00\x01", "other"),  # STUN
        (b"\x16\xfe", "other"),  # DTLS
        (b"\x80", "other"),
        (b"", "other"),
    ],
)
def test_kinds(start: bytes, what: str) -> None:
    """RFC 7983 section 7, RFC 5761 section 4."""
    assert kind(start) == what
