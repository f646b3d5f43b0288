"""The heap of timers, by example and against a list kept sorted."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sip.wire import Clock
from voiced.sip.timers import Timer, Timers


def make() -> tuple[Clock, Timers, list[str]]:
    clock = Clock(0.0)
    return clock, Timers(clock), []


def test_runs_what_is_due_in_order_of_time_then_of_arming() -> None:
    clock, timers, ran = make()
    timers.call_at(2, lambda: ran.append("c"))
    timers.call_later(1, lambda: ran.append("a"))
    timers.call_at(1, lambda: ran.append("b"))
    assert timers.next_deadline() == 1
    assert timers.run_due() == 0
    clock.time = 1
    assert timers.run_due() == 2
    assert ran == ["a", "b"]
    assert len(timers) == 1
    assert timers.next_deadline() == 2
    clock.time = 10
    assert timers.run_due() == 1
    assert timers.next_deadline() is None
    assert len(timers) == 0


def test_a_cancelled_timer_does_not_run() -> None:
    clock, timers, ran = make()
    first = timers.call_at(1, lambda: ran.append("a"))
    timers.call_at(2, lambda: ran.append("b"))
    first.cancel()
    first.cancel()
    assert not first.armed
    assert len(timers) == 1
    assert timers.next_deadline() == 2
    clock.time = 3
    timers.run_due()
    assert ran == ["b"]
    first.cancel()
    assert len(timers) == 0


def test_a_timer_may_cancel_one_that_is_due_with_it() -> None:
    clock, timers, ran = make()
    timers.call_at(1, lambda: second.cancel())
    second = timers.call_at(1, lambda: ran.append("b"))
    clock.time = 1
    assert timers.run_due() == 1
    assert ran == []
    assert len(timers) == 0


def test_a_timer_armed_while_they_run_waits_for_the_next_turn() -> None:
    clock, timers, ran = make()

    def again() -> None:
        ran.append("x")
        timers.call_later(0, again)

    timers.call_at(1, again)
    clock.time = 1
    assert timers.run_due() == 1
    assert len(timers) == 1
    assert timers.next_deadline() == 1
    assert timers.run_due() == 1
    assert ran == ["x", "x"]


def test_what_raises_leaves_the_others_armed() -> None:
    clock, timers, ran = make()

    def fail() -> None:
        raise ValueError("x")

    timers.call_at(1, fail)
    timers.call_at(1, lambda: ran.append("b"))
    clock.time = 1
    with pytest.raises(ValueError, match="x"):
        timers.run_due()
    assert len(timers) == 1
    assert timers.run_due() == 1
    assert ran == ["b"]


def test_changed_tells_when_the_earliest_deadline_moves_forward() -> None:
    _, timers, _ = make()
    told: list[float | None] = []
    timers.changed = lambda: told.append(timers.next_deadline())
    timers.call_at(5, lambda: None)
    timers.call_at(6, lambda: None)
    timers.call_at(5, lambda: None)
    earlier = timers.call_at(4, lambda: None)
    earlier.cancel()
    assert timers.next_deadline() == 5
    timers.call_at(4.5, lambda: None)
    assert told == [5, 4, 4.5]


def test_cancelled_timers_far_ahead_do_not_pile_up() -> None:
    _, timers, _ = make()
    keep = [timers.call_at(1000 + n, lambda: None) for n in range(10)]
    for number in range(10_000):
        timers.call_at(100 + number, lambda: None).cancel()
    assert len(timers._heap) <= 65
    assert len(timers) == len(keep)
    assert timers.next_deadline() == 1000


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("pass"), st.integers(0, 5)),
    ),
    max_size=150,
)


@given(ACTIONS)
def test_timers_are_a_sorted_list(actions: list[tuple[str, int]]) -> None:
    clock, timers, _ = make()
    shell: list[float | None] = [None]  # the deadline that a shell is armed to

    def rearm() -> None:
        shell[0] = timers.next_deadline()

    timers.changed = rearm
    ran: list[int] = []
    made: list[Timer] = []
    model: dict[int, float] = {}
    for what, number in actions:
        if what == "arm":
            made.append(timers.call_later(number, partial(ran.append, len(made))))
            model[len(made) - 1] = clock.time + number
        elif what == "cancel" and made:
            made[number % len(made)].cancel()
            model.pop(number % len(made), None)
        elif what == "pass":
            clock.time += number
            due = sorted((when, n) for n, when in model.items() if when <= clock.time)
            ran.clear()
            timers.run_due()
            rearm()
            assert ran == [n for _, n in due]
            for _, n in due:
                del model[n]
        assert len(timers) == len(model)
        earliest = min(model.values(), default=None)
        if earliest is not None:
            assert shell[0] is not None
            assert shell[0] <= earliest, "a shell never sleeps too long"
        assert timers.next_deadline() == earliest
