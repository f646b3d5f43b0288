"""The play clock by itself: what each kind of evidence does to the estimate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.simulated_carrier import BYTES_PER_MS
from voiced.twilio.playclock import PlayClock


def ms(position: int) -> float:
    return position / BYTES_PER_MS


def probed(round_trip: float = 0.08) -> PlayClock:
    """A clock at 10 s that has learnt its round trip on an empty buffer at 9 s."""
    clock = PlayClock(BYTES_PER_MS)
    assert clock.mark_due()
    name = clock.mark(9.0)
    assert clock.echoed(name, 9.0 + round_trip)
    return clock


def speak(clock: PlayClock, length_ms: int, now: float = 10.0) -> list[tuple[str, int]]:
    """Send it at once in 20 ms chunks; returns the marks that were due, with positions in ms."""
    marks = []
    for _ in range(length_ms // 20):
        clock.sent(20 * BYTES_PER_MS, now)
        if clock.mark_due():
            marks.append((clock.mark(now), clock.position // BYTES_PER_MS))
    return marks


def test_without_marks_the_clock_of_sending_decides() -> None:
    clock = PlayClock(BYTES_PER_MS)
    clock.sent(800, 5.0)
    assert [clock.heard(now) for now in (5.0, 5.05, 5.1, 9.0)] == [0, 400, 800, 800]
    clock.sent(800, 9.0)  # the buffer ran empty meanwhile
    assert [clock.heard(now) for now in (9.0, 9.05, 9.2)] == [800, 1200, 1600]
    assert clock.round_trip is None


def test_a_mark_on_the_empty_buffer_tells_the_round_trip() -> None:
    assert probed(0.08).round_trip == pytest.approx(0.08)


def test_an_echo_caps_the_round_trip_by_a_frame_at_most() -> None:
    clock = probed(0.3)
    ((name, _),) = speak(clock, 20)
    clock.echoed(name, 10.02 + 0.05)
    assert clock.round_trip == pytest.approx(0.05 + 0.02)


def test_the_round_trip_rises_again_when_the_way_grows_longer() -> None:
    clock = probed(0.05)
    for turn in range(70):
        now = 20.0 + turn
        clock.echoed(clock.mark(now), now + 0.2)
    assert clock.round_trip == pytest.approx(0.2)


def test_names_carry_generation_and_position_and_never_repeat() -> None:
    clock = PlayClock(BYTES_PER_MS)
    clock.sent(160, 1.0)
    first, second = clock.mark(1.0), clock.mark(1.0)
    assert first.startswith("g0:160:")
    assert first != second
    clock.clear(1.0)
    assert clock.mark(1.0).startswith("g1:0:")


def test_a_late_start_is_believed_at_its_first_mark() -> None:
    clock = probed()
    marks = speak(clock, 2000)
    assert marks[0][1] == 20  # behind the first audio
    clock.echoed(marks[0][0], 10.0 + 0.3 + 0.02 + 0.08)  # 300 ms late
    assert ms(clock.heard(10.5)) == pytest.approx(200, abs=1)
    assert clock.statistics().lag == pytest.approx(0.3)


def test_one_late_echo_is_jitter_three_are_a_stall() -> None:
    clock = probed()
    marks = speak(clock, 4000)
    late = 0.0
    shown = []
    for name, position in marks[:9]:
        if position >= 1020:
            late = 0.15
        at = 10.0 + position / 1000 + 0.08 + late
        clock.echoed(name, at)
        shown.append(clock.statistics().lag if clock.seconds_until(32000, at) else None)
    on_time = [0.0] * 7
    assert shown[:7] == pytest.approx(on_time, abs=0.001)  # 20, 220 ... 820, and two late ones
    assert shown[7:] == pytest.approx([0.15, 0.15], abs=0.001)


def test_less_lag_shifts_the_estimate_back_and_heard_stays() -> None:
    clock = probed()
    marks = speak(clock, 4000)
    for name, position in marks[:3]:
        clock.echoed(name, 10.0 + position / 1000 + 0.08 + 0.3)
    before = clock.heard(10.8)
    assert ms(before) == pytest.approx(500, abs=1)
    name, position = marks[3]
    clock.echoed(name, 10.0 + position / 1000 + 0.08 + 0.25)
    assert clock.heard(10.96) > before
    assert clock.statistics().lag == pytest.approx(0.25)


def test_what_all_echoes_are_late_by_now_and_then_is_not_lag() -> None:
    clock = probed()
    marks = speak(clock, 4000)
    for number, (name, position) in enumerate(marks[:12]):
        clock.echoed(name, 10.0 + position / 1000 + 0.08 + (0.03, 0.09, 0.06)[number % 3])
    assert ms(clock.heard(12.4)) == pytest.approx(2400, abs=1)
    assert clock.statistics().jitter == pytest.approx(0.03)
    assert clock.statistics().lag == 0


def test_new_audio_after_a_pause_waits_for_what_is_late() -> None:
    clock = probed()
    marks = speak(clock, 1000)
    marks.append((clock.mark(10.0), 1000))
    for name, position in marks[:3]:
        clock.echoed(name, 10.0 + position / 1000 + 0.08 + 0.8)
    clock.sent(8000, 11.3)  # by our sending 300 ms after the end, really 500 ms before it
    assert ms(clock.heard(11.5)) == pytest.approx(700, abs=1)


def test_marks_that_do_not_come_stop_the_clock() -> None:
    clock = probed()
    marks = speak(clock, 4000)
    for name, position in marks[:3]:  # to 420 ms, then nothing
        clock.echoed(name, 10.0 + position / 1000 + 0.08)
    assert ms(clock.heard(10.7)) == pytest.approx(700, abs=1)  # one overdue: jitter, perhaps
    stopped = clock.heard(11.2)
    assert ms(stopped) < 1200
    assert clock.heard(13.0) == stopped
    assert clock.seconds_until(clock.position, 13.0) > 3.0


def test_a_carrier_that_loses_marks_does_not_stop_the_clock_for_ever() -> None:
    clock = probed()
    speak(clock, 1000)
    assert clock.heard(10.0 + 1.0 + 0.08 + 5.1) == clock.position


def test_an_echo_proves_what_it_names() -> None:
    clock = probed(0.5)
    name, position = speak(clock, 1000)[-1]
    assert clock.echoed(name, 10.01)  # quicker than any model allows
    assert clock.confirmed == position * BYTES_PER_MS
    assert clock.heard(10.01) >= clock.confirmed


def test_echoes_of_a_cleared_generation_prove_nothing() -> None:
    clock = probed()
    marks = speak(clock, 1000)
    final = clock.clear(10.1)
    assert ms(final) == pytest.approx(100, abs=1)
    assert not any(clock.echoed(name, 10.18) for name, _ in marks)
    assert not clock.echoed("someone else's", 10.2)
    assert (clock.position, clock.confirmed, clock.heard(10.3)) == (0, 0, 0)
    assert clock.statistics().cleared_echoes == len(marks)
    assert clock.statistics().unknown_echoes == 1


def test_a_mark_is_due_at_the_start_every_200_ms_and_when_all_was_played() -> None:
    clock = probed()
    assert not clock.mark_due()
    marks = speak(clock, 1000)
    assert [position for _, position in marks] == [20, 220, 420, 620, 820]
    end = clock.mark(10.0)
    for name in [*(name for name, _ in marks), end]:
        clock.echoed(name, 11.1)
    assert clock.mark_due()
    clock.mark(11.1)
    assert not clock.mark_due()


def test_pending_marks_are_bounded() -> None:
    clock = PlayClock(BYTES_PER_MS)
    for _ in range(1000):
        clock.mark(1.0)
    statistics = clock.statistics()
    assert statistics.pending == 256
    assert statistics.lost_marks == 744


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1), st.integers(0, 9999))
def test_after_seconds_until_it_is_heard(sends: list[tuple[int, float]], wish: int) -> None:
    clock = PlayClock(BYTES_PER_MS)
    now = 1000.0
    for size, gap in sends:
        now += gap
        clock.sent(size, now)
    wish = min(wish, clock.position)
    wait = clock.seconds_until(wish, now)
    if wait > 0.001:
        assert clock.seconds_until(wish, now + wait / 2) > 0
        assert clock.heard(now + wait * 0.99 - 0.001) < wish
    assert clock.heard(now + wait + 1e-9) >= wish


class ClockMachine(RuleBasedStateMachine):
    """Whatever a carrier does: 0 <= confirmed <= heard <= sent, and heard never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = PlayClock(BYTES_PER_MS)
        self.now = 100.0
        self.heard = 0
        self.marks: list[str] = []
        self.old: list[str] = []

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(size=st.integers(1, 20_000))
    def send(self, size: int) -> None:
        self.clock.sent(size, self.now)

    @rule()
    def mark(self) -> None:
        self.marks.append(self.clock.mark(self.now))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def echo(self, data: st.DataObject) -> None:
        name = self.marks.pop(data.draw(st.integers(0, len(self.marks) - 1)))
        assert self.clock.echoed(name, self.now)
        assert not self.clock.echoed(name, self.now)  # once only

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def echo_old(self, data: st.DataObject) -> None:
        confirmed = self.clock.confirmed
        assert not self.clock.echoed(data.draw(st.sampled_from(self.old)), self.now)
        assert self.clock.confirmed == confirmed

    @rule()
    def clear(self) -> None:
        sent = self.clock.position
        assert self.heard <= self.clock.clear(self.now) <= sent
        self.heard = 0
        self.old += self.marks
        self.marks.clear()

    @invariant()
    def bounds(self) -> None:
        wait = self.clock.seconds_until(self.clock.position, self.now)
        heard = self.clock.heard(self.now)
        assert self.heard <= heard <= self.clock.position
        assert self.clock.confirmed <= heard
        assert (wait == 0) == (heard == self.clock.position)
        self.heard = heard
        assert self.clock.round_trip is None or self.clock.round_trip >= 0


TestClockMachine = ClockMachine.TestCase
