"""Reports: compound packets built and read, loss, round trip, intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.rtp.rtcp import (
    INTERVAL_S,
    Compound,
    MalformedRtcp,
    ReceptionReport,
    Reporter,
    SenderInfo,
    build,
    parse,
)

u32 = st.integers(0, 0xFFFFFFFF)
blocks = st.builds(
    ReceptionReport,
    u32,
    st.integers(0, 255),
    st.integers(-(1 << 23), (1 << 23) - 1),
    u32,
    u32,
    u32,
    u32,
)
compounds = st.builds(
    Compound,
    u32,
    st.none() | st.builds(SenderInfo, st.integers(0, (1 << 64) - 1), u32, u32, u32),
    st.lists(blocks, max_size=31).map(tuple),
    st.none()
    | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=255),
    st.booleans(),
)


@given(compounds)
def test_what_is_built_is_read(compound: Compound) -> None:
    data = build(compound)
    assert len(data) % 4 == 0
    assert parse(data) == compound


@given(st.binary(max_size=120))
def test_anything_is_read_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except MalformedRtcp:
        assert data[:1] < b"\x80" or data[:1] >= b"\xc0" or len(data) < 8 or data[2:4] != b"\0\1"


@given(compounds, st.binary(max_size=30))
def test_a_broken_end_spoils_nothing(compound: Compound, end: bytes) -> None:
    assert parse(build(compound) + b"\0" + end) == compound


def test_a_real_report() -> None:
    """Sender report, one block, and a CNAME, byte for byte (RFC 3550 sections 6.4.1 and 6.5)."""
    data = bytes.fromhex(
        "81c8000c" "0000aaaa" "e3a1b2c3d4e5f607" "00001f40" "00000032" "00001f40"
        "0000bbbb" "40fffffe" "00010003" "00000010" "b2c3d4e5" "00010000"
        "81ca0003" "0000aaaa" "0104726f 6f740000".replace(" ", "")
    )  # fmt: skip
    compound = parse(data)
    assert compound == Compound(
        0xAAAA,
        SenderInfo(0xE3A1B2C3D4E5F607, 8000, 50, 8000),
        (ReceptionReport(0xBBBB, 64, -2, 65539, 16, 0xB2C3D4E5, 65536),),
        "root",
    )
    assert build(compound) == data


def test_unknown_packets_are_passed_over() -> None:
    """Feedback (205), extended reports (207) and application data (204) say nothing to us."""
    foreign = b"".join(bytes([0x81, kind, 0, 2]) + bytes(8) for kind in (204, 205, 207))
    compound = Compound(5, None, (), "x", True)
    assert parse(build(compound._replace(bye=False)) + foreign + build(compound)) == compound


def test_padding_at_the_end() -> None:
    data = bytearray(build(Compound(5, cname="ab")))
    data += bytes.fromhex("a0c9 0002 00000005 00000004".replace(" ", ""))
    assert parse(bytes(data)) == Compound(5, cname="ab")


def reporter(**changes: float) -> Reporter:
    return Reporter(1, "us", changes.get("now", 100.0), 1.8e9, lambda: changes.get("draw", 0.5))


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_intervals_are_drawn_around_five_seconds(draw: float) -> None:
    """RFC 3550 section 6.3.1; the first after half the time (6.2)."""
    one = reporter(draw=draw)
    assert one.due - 100 == pytest.approx(INTERVAL_S / 2 * (0.5 + draw))
    one.report(200.0, None, None)
    assert one.due - 200 == pytest.approx(INTERVAL_S * (0.5 + draw))


@given(
    st.floats(0, 10),
    st.floats(0, 5),
    st.floats(0, 10),
    st.floats(0, 1e6),
)
def test_the_round_trip(there: float, delay: float, back: float, start: float) -> None:
    """Two reporters with clocks of their own: SR, its answer, the sum of both ways."""
    ours = Reporter(1, "us", start, 1.8e9, lambda: 0.5)
    theirs = Reporter(2, "them", 7.0, 1.6e9, lambda: 0.5)
    sent = parse(ours.report(start, SenderInfo(0, 1, 2, 3), None))
    theirs.received(sent, 50.0)
    answer = parse(theirs.report(50.0 + delay, None, (1, 10, 10, 8, 4.0)))
    ours.received(answer, start + there + delay + back)
    assert ours.rtt_s == pytest.approx(there + back, abs=1e-3)
    assert (ours.remote_lost, ours.remote_jitter) == (2, 4)


def test_no_round_trip_from_what_answers_nothing() -> None:
    ours = reporter()
    ours.received(Compound(2, None, (ReceptionReport(1, 0, 0, 0, 0, 0, 0),)), 101)
    ours.received(Compound(2, None, (ReceptionReport(1, 0, 0, 0, 0, 12345, 0),)), 101)
    assert ours.rtt_s is None
    ours.received(Compound(2, None, (ReceptionReport(9, 255, 7, 0, 0, 0, 0),)), 101)
    assert ours.remote_lost == 0  # of another source


def test_the_fraction_is_of_the_time_since_the_report_before() -> None:
    ours = reporter()
    block = parse(ours.report(1, None, (9, 100, 100, 75, 0.0))).reports[0]
    assert (block.fraction_lost, block.cumulative_lost, block.highest_sequence) == (64, 25, 100)
    block = parse(ours.report(2, None, (9, 200, 200, 175, 0.0))).reports[0]
    assert (block.fraction_lost, block.cumulative_lost) == (0, 25)
    block = parse(ours.report(3, None, (9, 210, 210, 190, 0.0))).reports[0]  # duplicates
    assert (block.fraction_lost, block.cumulative_lost) == (0, 20)
    block = parse(ours.report(4, None, (10, 4, 4, 2, 0.0))).reports[0]  # another source
    assert (block.fraction_lost, block.cumulative_lost) == (128, 2)


def test_a_new_source_is_not_told_of_the_report_of_the_one_before() -> None:
    ours = reporter()
    ours.received(Compound(9, SenderInfo(5 << 32, 0, 0, 0)), 1.0)
    block = parse(ours.report(2, None, (9, 10, 10, 10, 0.0))).reports[0]
    assert (block.last_sr, block.delay_since_last_sr) == (5 << 16, 65536)
    block = parse(ours.report(3, None, (10, 4, 4, 4, 0.0))).reports[0]
    assert (block.last_sr, block.delay_since_last_sr) == (0, 0)
    ours.received(Compound(10, SenderInfo(7 << 32, 0, 0, 0)), 4.0)
    block = parse(ours.report(4, None, (10, 8, 8, 8, 0.0))).reports[0]
    assert (block.last_sr, block.delay_since_last_sr) == (7 << 16, 0)


def test_goodbye() -> None:
    theirs = parse(reporter().report(1, None, None, bye=True))
    assert theirs.bye
    assert theirs.cname == "us"
    ours = reporter()
    ours.received(theirs, 2)
    assert ours.said_bye
    of_another = build(Compound(2)) + bytes.fromhex("81cb000100000003")
    assert not parse(of_another).bye
    assert parse(build(Compound(2)) + bytes.fromhex("82cb00020000000300000002")).bye
