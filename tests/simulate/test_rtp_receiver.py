"""What the simulated caller reports of RTP is what was done to it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.simulate.events import AgentStopped, DigitPressed
from voiced.simulate.rtp_packets import (
    BadPacket,
    RtpPacket,
    bye,
    event_payload,
    parse_event,
    parse_reports,
    parse_rtp,
    rtp,
    sender_report,
)
from voiced.simulate.rtp_phone import RtpPhone
from voiced.simulate.rtp_receiver import Receiver
from voiced.simulate.script import Pause, Press, Script
from voiced.simulate.sip_sdp import Media

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
SILENCE = b"\xff" * 160


def packet(
    number: int, first: int = 0, clock: int = 0, *, ssrc: int = 7, marker: bool = False
) -> bytes:
    stamp = (clock + 160 * number) & 0xFFFFFFFF
    return rtp(RtpPacket(0, marker, (first + number) & 0xFFFF, stamp, ssrc, SILENCE))


@given(st.integers(0, 127), st.booleans(), U16, U32, U32, st.binary(max_size=200))
def test_packets_survive(
    kind: int, marker: bool, sequence: int, stamp: int, ssrc: int, payload: bytes
) -> None:
    original = RtpPacket(kind, marker, sequence, stamp, ssrc, payload)
    assert parse_rtp(rtp(original)) == original


@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    receiver = Receiver((0, 8), 101)
    receiver.receive(0, data)
    assert receiver.received + receiver.malformed + receiver.unexpected == 1
    for parse in (parse_rtp, parse_event, lambda each: parse_reports(each, 7)):
        try:
            parse(data)
        except BadPacket as error:
            assert str(error)  # noqa: PT017 (either outcome is right, another exception is not)


def test_padding_csrcs_and_extension_are_not_payload() -> None:
    head = bytes([0xB1, 0x80 | 8]) + bytes(10)
    csrc, extension = bytes(4), b"\xbe\xde\0\1" + bytes(4)
    parsed = parse_rtp(head + csrc + extension + b"voice" + b"\0\0\3")
    assert (parsed.payload, parsed.payload_type, parsed.marker) == (b"voice", 8, True)


@given(
    st.lists(st.sampled_from(["kept", "lost", "twice", "swapped"]), min_size=2, max_size=200),
    U16,
    U32,
)
def test_losses_copies_and_order_are_counted(fates: list[str], first: int, clock: int) -> None:
    fates = ["kept", *fates, "kept"]  # what is lost at either end cannot be known
    arriving: list[int] = []
    swaps = 0
    for number, fate in enumerate(fates):
        if (
            fate == "swapped"
            and arriving
            and arriving[-1] == number - 1
            and fates[number - 1] == "kept"
            and number < len(fates) - 1
            and number > 1
        ):
            arriving.insert(-1, number)
            swaps += 1
        elif fate != "lost":
            arriving += [number] * (2 if fate == "twice" else 1)
    receiver = Receiver((0,), None)
    played = 0
    for turn, number in enumerate(arriving):
        given_back = receiver.receive(turn * 20_000, packet(number, first, clock))
        audio = receiver.audio(given_back) if given_back is not None else None
        played += 160 + audio.missing if audio is not None else 0
    assert receiver.received == len(set(arriving))
    assert receiver.lost == fates.count("lost")
    assert receiver.duplicated == fates.count("twice")
    assert receiver.reordered == swaps
    assert receiver.sources == 1
    assert played == 160 * len(fates)  # what was not played is silence, time is kept


@given(U16, U32, st.integers(0, 10**9))
def test_an_even_stream_is_on_its_grid(first: int, clock: int, begin: int) -> None:
    receiver = Receiver((0,), None)
    for number in range(120):
        receiver.receive(begin + number * 20_000, packet(number, first, clock))
    lateness = receiver.lateness()
    assert lateness is not None
    assert (lateness.n, lateness.max, receiver.jitter, receiver.bursts) == (120, 0.0, 0.0, 0)
    assert receiver.longest_gap_us == 20_000


def test_a_stall_and_its_burst_show() -> None:
    receiver = Receiver((0,), None)
    for number in range(100):
        at = number * 20_000
        receiver.receive(max(at, 1_100_000) if 50 <= number < 56 else at, packet(number))
    lateness = receiver.lateness()
    assert lateness is not None
    assert (lateness.p50, lateness.max) == (0.0, 100.0)
    assert receiver.longest_gap_us == 1_100_000 - 49 * 20_000
    assert receiver.bursts == 5


def test_jitter_is_that_of_the_rfc() -> None:
    receiver, jitter, last = Receiver((0,), None), 0.0, 0
    rng = random.Random(3)
    for number in range(200):
        late = rng.randrange(0, 40) * 125
        receiver.receive(number * 20_000 + late, packet(number))
        if number:
            jitter += (abs(late - last) / 125 - jitter) / 16
        last = late
    assert receiver.jitter == pytest.approx(jitter)


def test_a_new_source_begins_anew() -> None:
    receiver = Receiver((0,), None)
    for number in (0, 1, 3):
        receiver.receive(number * 20_000, packet(number, 65_000))
    for number in range(5):
        receiver.receive(80_000 + number * 20_000, packet(number, 9, 1 << 31, ssrc=8))
    assert (receiver.sources, receiver.lost, receiver.received) == (2, 1, 8)
    lateness = receiver.lateness()
    assert lateness is not None
    assert lateness.max == 0


def test_an_event_counts_once_whatever_is_lost_of_it() -> None:
    receiver = Receiver((0,), 101)
    sequence = 0
    for stamp, digit, parts in ((0, "1", (0, 1, 2)), (800, "1", (2, 2)), (1600, "#", (1,))):
        for part in parts:
            payload = event_payload(digit, 160 * (part + 1), end=part == 2)
            sequence += 1
            data = rtp(RtpPacket(101, False, sequence, stamp, 7, payload))
            receiver.receive(sequence * 20_000, data)
    assert receiver.digits == "11#"


@given(U32, U32, st.integers(-(1 << 23), (1 << 23) - 1), U32, U32)
def test_reports_survive(ssrc: int, about: int, lost: int, jitter: int, middle: int) -> None:
    data = sender_report(
        ssrc,
        now_s=1.5,
        timestamp=5,
        packets=9,
        octets=1440,
        block=(about, lost, 70_000, jitter, middle, 3),
        cname="caller",
    )
    report = parse_reports(data, about)
    assert (report.sender, report.packets, report.lost, report.jitter) == (ssrc, 9, lost, jitter)
    assert report.named
    assert report.ntp_middle == ((2_208_988_801 & 0xFFFF) << 16) + 0x8000
    assert parse_reports(bye(ssrc, "caller"), about).bye


def test_a_report_that_came_in_a_stall_was_no_time_ago() -> None:
    """The telephone's ticks are made up for; what comes meanwhile is later than they are."""
    media = Media("127.0.0.1", 4000, (0,), {}, "sendrecv", 20, (), "")
    phone = RtpPhone(Script("listens", "", (Pause(10_000),)))
    phone.answered(media, "a call")
    phone.receive(20_000, packet(0))
    heard_at_us = 5_000_000
    report = sender_report(
        7, now_s=1.0, timestamp=0, packets=1, octets=160, block=None, cname="peer"
    )
    phone.receive_rtcp(heard_at_us, report)
    sent = [data for is_rtcp, data in phone.poll(heard_at_us) if is_rtcp]
    assert sent
    for data in sent:
        # After the header of 8 bytes and the sender's part, of 20, the block about us: its last.
        assert int.from_bytes(data[48:52], "big") == 0


@pytest.mark.parametrize(
    ("pressed_ms", "cut"), [(700, True), (900, True), (500, False), (1200, False)]
)
def test_what_a_key_silences_is_cut(pressed_ms: int, cut: bool) -> None:
    """The agent speaks for a second; the key comes before its silence, or is not the reason."""
    media = Media("127.0.0.1", 4000, (0,), {}, "sendrecv", 20, (), "")
    steps = (Pause(pressed_ms), Press("4", secret=True), Pause(5000))
    phone = RtpPhone(Script("presses", "", steps))
    phone.answered(media, "a call")
    for number in range(50):
        phone.poll(20_000 * number)
        loud = RtpPacket(0, False, number, 160 * number, 7, b"\x00" * 160)
        phone.receive(20_000 * number, rtp(loud))
    phone.poll(3_000_000)
    (stopped,) = (event for event in phone.events if isinstance(event, AgentStopped))
    assert stopped.cut is cut
    assert [e.digit for e in phone.events if isinstance(e, DigitPressed)] == [""]


@pytest.mark.parametrize(("buffer_ms", "holes"), [(0, True), (60, False)])
def test_a_jitter_buffer_makes_up_for_packets_that_come_late(buffer_ms: int, holes: bool) -> None:
    media = Media("127.0.0.1", 4000, (0,), {}, "sendrecv", 20, (), "")
    phone = RtpPhone(Script("listens", "", (Pause(10_000),)), buffer_ms=buffer_ms)
    phone.answered(media, "a call")
    sound = bytes(range(160)) * 50
    for number in range(50):
        late_us = (0, 35_000, 10_000, 50_000, 20_000)[number % 5]
        payload = sound[160 * number :][:160]
        phone.receive(
            20_000 * number + late_us, rtp(RtpPacket(0, False, number, 160 * number, 7, payload))
        )
    phone.poll(3_000_000)
    heard = phone.agent_audio().strip(b"\xff")
    assert (heard != sound) == holes
    assert heard.replace(b"\xff", b"") == sound
