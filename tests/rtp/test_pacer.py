"""When packets leave."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rtp.peer import Wire, stream_on
from voiced.rtp.media import Paced
from voiced.rtp.pacer import BOUNDS_MS, CATCH_UP_S, EARLY_S, SLOT_S, SLOTS, Grid, Lateness, Pacer


class Clock:
    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Ticking:
    """Counts its ticks and stays on its grid."""

    def __init__(self, period: float = 0.02) -> None:
        self.period = period
        self.dues: list[float] = []
        self.fails = False

    def tick(self, due: float, now: float) -> float:
        if self.fails:
            raise RuntimeError
        self.dues.append(due)
        return due + self.period


def pacer(clock: Clock, failed: list[Paced] | None = None) -> Pacer:
    return Pacer(clock, (failed if failed is not None else []).append)


@pytest.mark.parametrize("ptime", [10, 20, 30, 60])
def test_an_hour_drifts_by_no_sample(ptime: int) -> None:
    """On a clock that is always a little late, as clocks are."""
    start, period = 12345.678, ptime / 1000
    grid = Grid(start, period)
    count = 3_600_000 // ptime
    for n in range(count):
        assert grid.pass_over(grid.due + (n % 7) * 0.005) == 0
        following = grid.advance()
    exact = Fraction(start) + count * Fraction(ptime, 1000)
    assert abs(Fraction(following) - exact) < Fraction(1, 16000) / 100  # of a sample


def test_an_hour_of_a_stream() -> None:
    """60 virtual minutes of packets: the timestamp and the clock agree to the sample."""
    wire = Wire()
    stream = stream_on(wire)
    first = wire.due
    for _ in range(60):
        wire.run(60.0)
        packets = wire.packets()
    assert stream.statistics().sent_packets == 180_000
    assert stream.statistics().skipped_ms == 0
    assert wire.due - first == pytest.approx(3600, abs=1e-6)
    steps = {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in itertools.pairwise(packets)}
    assert steps == {160}


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=50))
def test_no_burst_after_any_stall(delays: list[float]) -> None:
    """At most what `CATCH_UP_S` allows leaves at once; the grid is never left."""
    grid = Grid(0.0, 0.02)
    now = 0.0
    for delay in delays:
        now = max(now, grid.due) + delay
        burst = 0
        while grid.due <= now:
            grid.pass_over(now)
            assert now - CATCH_UP_S - 1e-9 <= grid.due <= now
            burst += 1
            grid.advance()
        assert burst <= CATCH_UP_S / 0.02 + 1
        assert grid.due / 0.02 == pytest.approx(round(grid.due / 0.02), abs=1e-6)


def test_streams_are_spread_over_the_slots() -> None:
    clock = Clock()
    it = pacer(clock)
    dues = [it.add(Ticking()) for _ in range(10 * SLOTS)]
    assert all(0 < due - clock.at <= SLOT_S * SLOTS + 1e-9 for due in dues)
    slots = [round(due / SLOT_S) % SLOTS for due in dues]
    assert {slots.count(slot) for slot in range(SLOTS)} == {10}


def test_slots_are_filled_again() -> None:
    it = pacer(Clock())
    first = [Ticking() for _ in range(50)]
    for each in first:
        it.add(each)
    for each in first:
        it.remove(each)
        it.remove(each)
    assert len(it) == 0
    assert it.next_due() is None
    again = [it.add(Ticking()) for _ in range(SLOTS)]
    assert len(set(again)) == SLOTS


def test_what_is_due_is_ticked_in_order() -> None:
    clock = Clock()
    it = pacer(clock)
    members = [Ticking(), Ticking(0.03)]
    dues = [it.add(each) for each in members]
    it.run()
    assert [each.dues for each in members] == [[], []]
    for _ in range(1000):
        due = it.next_due()
        assert due is not None
        clock.at = due - EARLY_S
        it.run()
        assert it.next_due() > clock.at  # type: ignore[operator]
    for each, due in zip(members, dues, strict=True):
        assert each.dues == pytest.approx([due + n * each.period for n in range(len(each.dues))])
        assert len(each.dues) >= 400


def test_one_that_fails_does_not_stop_the_others() -> None:
    clock, failed = Clock(), list[Paced]()
    it = pacer(clock, failed)
    good, bad = Ticking(), Ticking()
    bad.fails = True
    for each in (bad, good):
        it.add(each)
    clock.at += 0.1
    it.run()
    assert failed == [bad]
    assert len(good.dues) >= 4
    assert len(it) == 1


def test_members_may_leave_and_come_during_their_ticks() -> None:
    clock = Clock()
    it = pacer(clock)
    other = Ticking()

    class Leaving(Ticking):
        def tick(self, due: float, now: float) -> float:
            it.remove(other)
            it.remove(self)
            it.add(Ticking())
            return super().tick(due, now)

    leaving = Leaving()
    it.add(leaving)
    it.add(other)
    clock.at += 0.05
    it.run()
    assert len(leaving.dues) == 1
    assert other.dues == []
    assert len(it) == 1


def test_the_histogram() -> None:
    late = Lateness()
    for ms in (-0.3, 0.0, 0.25, 0.26, 1.99, 2.0, 4, 99, 5000):
        late.add(ms / 1000)
    other = Lateness()
    other.add(0.0)
    late.merge(other)
    counts = dict(late.histogram())
    assert counts[0.25] == 4
    assert counts[0.5] == 1
    assert counts[2.0] == 2
    assert counts[5.0] == 1
    assert counts[100.0] == 1
    assert counts[BOUNDS_MS[-1]] == 1
    assert sum(counts.values()) == 10
