"""What goes out: frames, positions, silence, keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.formats import PCM16_16K, PCMU_8K
from voiced.rtp.codec import encoder
from voiced.rtp.media import QueueFull
from voiced.rtp.packet import RtpPacket, parse
from voiced.rtp.sender import Sender


def sender(ptime: int = 20, sequence: int = 0, timestamp: int = 0, most_ms: int = 30_000) -> Sender:
    made = Sender(9, sequence, timestamp, most_ms)
    made.configure(PCMU_8K, 0, None, ptime, 101)
    return made


def packets(it: Sender, count: int) -> list[RtpPacket]:
    return [parse(it.packet()) for _ in range(count)]


@given(
    st.lists(st.binary(max_size=1000), max_size=20),
    st.sampled_from([10, 20, 30, 60]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
)
def test_all_that_is_sent_is_heard_in_order(
    pieces: list[bytes], ptime: int, sequence: int, timestamp: int
) -> None:
    it = sender(ptime, sequence, timestamp)
    for piece in pieces:
        it.send(piece)
    whole = b"".join(pieces)
    assert it.sent == len(whole)
    frame = 8 * ptime
    count = it.frames_until(it.sent)
    assert count == -(-len(whole) // frame)
    wire = b""
    for n in range(count + 2):
        packet = parse(it.packet())
        assert packet.sequence == (sequence + n) & 0xFFFF
        assert packet.timestamp == (timestamp + n * frame) & 0xFFFFFFFF
        assert len(packet.payload) == frame
        assert packet.marker == (n == 0)
        wire += packet.payload
        assert it.heard == min(len(whole), len(wire))
    assert wire == whole + b"\xff" * (len(wire) - len(whole))


@given(
    st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=700).map(lambda b: ("send", b)),
            st.integers(1, 5).map(lambda n: ("tick", n)),
            st.just(("clear", 0)),
            st.integers(1, 4).map(lambda n: ("skip", n)),
        ),
        max_size=60,
    )
)
def test_positions(steps: list[tuple[str, int | bytes]]) -> None:
    """0 <= heard <= sent, heard never goes back in a generation, and only by what has left."""
    it = sender()
    sent = heard = 0
    wire = b""
    spoken = b""
    for what, value in steps:
        if isinstance(value, bytes):
            it.send(value)
            sent += len(value)
            spoken += value
        elif what == "tick":
            for packet in packets(it, value):
                real = min(160, sent - heard)
                assert packet.payload[:real] == spoken[heard : heard + real]
                assert packet.payload[real:] == b"\xff" * (160 - real)
                heard += real
                wire += packet.payload
        elif what == "clear":
            assert it.clear() == heard
            sent = heard = 0
            spoken = b""
        else:
            it.skip(value)
        assert (it.sent, it.heard) == (sent, heard)


def test_the_timestamp_tells_of_a_pause_and_the_marker_of_its_end() -> None:
    """RFC 3551 section 4.1; no sequence number is missing."""
    it = sender()
    packets(it, 3)
    it.skip(5)
    after, next_one = packets(it, 2)
    assert (after.sequence, after.timestamp, after.marker) == (3, 8 * 160, True)
    assert (next_one.sequence, next_one.timestamp, next_one.marker) == (4, 9 * 160, False)


def test_the_queue_is_bounded() -> None:
    it = sender(most_ms=100)
    it.send(bytes(700))
    with pytest.raises(QueueFull):
        it.send(bytes(200))
    assert it.sent == 700
    packets(it, 1)
    it.send(bytes(200))


def test_keys_take_the_place_of_audio_which_waits() -> None:
    it = sender()
    it.send(b"\x01" * 160 + b"\x02" * 160)
    packets(it, 1)
    it.keys.press("8", 320, 160)
    found = packets(it, 7)
    assert [(p.payload_type, p.timestamp, p.marker) for p in found] == [
        (101, 160, True),
        (101, 160, False),
        (101, 160, False),
        (101, 160, False),
        (0, 5 * 160, True),
        (0, 6 * 160, False),
        (0, 7 * 160, False),
    ]
    assert found[4].payload == b"\xff" * 160  # the pause behind it
    assert found[5].payload == b"\x02" * 160
    assert [p.sequence for p in found] == list(range(1, 8))
    assert it.heard == 320


def test_g722() -> None:
    """A frame of 640 bytes of the leg is 160 bytes and 160 ticks on the wire."""
    it = Sender(9, 0, 0, 1000)
    it.configure(PCM16_16K, 9, encoder(PCM16_16K, "G722"), 20, None)
    it.send(bytes(700))
    found = packets(it, 3)
    assert [(len(p.payload), p.timestamp) for p in found] == [(160, 0), (160, 160), (160, 320)]
    assert it.heard == 700


def test_what_is_reported() -> None:
    it = sender(timestamp=100)
    packets(it, 3)
    assert it.info() == (0, 580, 3, 480)
