"""The order of packets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voiced.rtp.reorder import MAX_HELD, RESTART, Reorder


def begun(sequence: int = 0, hold_s: float = 0.04) -> Reorder[int]:
    order: Reorder[int] = Reorder(hold_s)
    order.begin(sequence & 0xFFFF)
    return order


def run(order: Reorder[int], arrivals: list[tuple[float, int]]) -> list[tuple[int, int]]:
    """Push numbers at their times, with a tick every 20 ms between them, and to the end."""
    found: list[tuple[int, int]] = []
    ticks = 0.0
    for at, number in arrivals:
        while ticks <= at:
            found += order.due(ticks)
            ticks += 0.02
        found += order.push(number & 0xFFFF, number, at)
        assert len(order.held) <= MAX_HELD
    return [*found, *order.flush()]


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=80),
)
def test_what_is_two_places_late_at_the_most_comes_in_order(
    start: int, fate: list[tuple[int, bool, bool]]
) -> None:
    """Any packet may be late by up to two places, lost, or doubled; the first is there."""
    fate[0] = (0, False, False)
    arrivals: list[tuple[float, int]] = []
    for n, (late, lost, twice) in enumerate(fate):
        if not lost:
            # Half a place more lets equal times fall in order of being late.
            arrivals += [((n + late) * 0.019 + late * 1e-6, start + n)] * (1 + twice)
    arrivals.sort()
    order = begun(start)
    found = run(order, arrivals)
    kept = [start + n for n, (_, lost, _) in enumerate(fate) if not lost]
    assert [number for _, number in found] == kept
    assert order.lost == sum(gone for gone, _ in found) == kept[-1] - start + 1 - len(kept)
    assert order.late == 0
    assert order.duplicated == len(arrivals) - len(kept)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.floats(0, 1)), max_size=200))
def test_any_numbers_at_all(arrivals: list[tuple[int, float]]) -> None:
    """Nothing is delivered twice in a run, nothing grows, every delivery goes up."""
    order = begun()
    now, last = 0.0, -1
    for number, pause in arrivals:
        now += pause
        for gone, each in [*order.due(now), *order.push(number, number, now)]:
            if gone == RESTART:
                last = -1
            else:
                assert gone >= 0
                assert last == -1 or (each - last) & 0xFFFF == gone + 1
            last = each
        assert len(order.held) <= MAX_HELD
        assert order.expected == order.highest + 1 & 0xFFFF


def test_in_order_nothing_waits_over_the_wrap() -> None:
    order = begun(0xFFFE)
    assert [order.push(n & 0xFFFF, n, 0.0) for n in range(0xFFFE, 0x10003)] == [
        ((0, n),) for n in range(0xFFFE, 0x10003)
    ]
    assert order.highest - order.base + 1 == 5


def test_a_gap_is_given_up_after_the_hold_time() -> None:
    order = begun()
    order.push(0, 0, 0.0)
    assert order.push(2, 2, 0.02) == ()
    assert order.due(0.059) == ()
    assert order.due(0.06) == [(1, 2)]
    assert order.push(1, 1, 0.07) == ()
    assert (order.lost, order.late) == (1, 1)
    assert order.push(1, 1, 0.08) == ()
    assert order.duplicated == 1


def test_the_third_behind_a_gap_gives_it_up() -> None:
    order = begun(hold_s=10)
    assert [order.push(n, n, 0.0) for n in (0, 3, 4)] == [((0, 0),), (), ()]
    assert order.push(5, 5, 0.0) == [(2, 3), (0, 4), (0, 5)]


def test_no_hold_time() -> None:
    order = begun(hold_s=0)
    assert order.push(1, 1, 0.0) == [(1, 1)]
    assert order.push(0, 0, 0.0) == ()


def test_a_jump_is_believed_when_a_second_packet_follows() -> None:
    """RFC 3550 appendix A.1, but the first of the two is not lost."""
    order = begun()
    order.push(0, 0, 0.0)
    assert order.push(30_000, 30_000, 0.0) == ()
    assert order.push(1, 1, 0.0) == ((0, 1),)
    assert order.push(30_001, 30_001, 0.0) == [(RESTART, 30_000), (0, 30_001)]
    assert order.push(30_002, 30_002, 0.0) == ((0, 30_002),)
    assert order.lost == 0


def test_back_by_more_than_a_hundred_is_a_jump() -> None:
    order = begun(5000)
    order.push(5000, 5000, 0.0)
    assert order.push(4800, 4800, 0.0) == ()
    assert order.push(4801, 4801, 0.0) == [(RESTART, 4800), (0, 4801)]


def test_what_waits_when_the_numbers_jump_is_not_lost() -> None:
    order = begun()
    order.push(0, 0, 0.0)
    assert order.push(2, 2, 0.0) == ()
    assert order.push(30_000, 30_000, 0.0) == ()
    assert order.push(30_001, 30_001, 0.0) == [(1, 2), (RESTART, 30_000), (0, 30_001)]
