"""Caps on costs: by call, number and day, with a farewell's worth in hand."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog.testing
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK, answer
from voiced.budget import DAYS, FAREWELL_S, Budget, Meter, day_of
from voiced.call import Call, Services
from voiced.config.types import Agent, Cost, Number, Price
from voiced.costwatch import CostWatch
from voiced.engine import Ready, ResponseDone, SpeechStarted, Usage
from voiced.formats import PCMU_8K
from voiced.journal import Charge, Journal, Spent, Struck, Sums
from voiced.prompts import Prompts
from voiced.record import CallRecord

NOON = 1_790_000_000.0 - 1_790_000_000.0 % 86400 + 43200


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


def budget(clock: Clock | None = None, **caps: float) -> tuple[Budget, list[Spent], Clock]:
    kept: list[Spent] = []
    clock = clock or Clock()

    def keep(entry: Spent | Charge | Struck | Sums) -> None:
        if isinstance(entry, Spent):
            kept.append(entry)

    made = Budget(keep, clock=clock, elapsed=clock)
    made.cost = Cost(**caps)
    return made, kept, clock


def test_a_call_without_caps_counts_for_the_cap_that_is_set_after_it() -> None:
    made, kept, _ = budget()
    meter = made.open("a", "+1", None)
    assert not meter.capped
    assert meter.update(100.0) is None
    meter.close()
    assert made.exhausted("+1", None) is None
    assert [each.usd for each in kept] == [100.0]
    made.cost = Cost(day_usd=99.0)
    assert made.exhausted("+1", None) == "day"
    assert made.open("b", "+1", None).capped


def test_a_call_ends_with_its_farewells_worth_in_hand() -> None:
    made, _, clock = budget(call_usd=1.0)
    meter = made.open("a", "+1", None)
    usd, struck = 0.0, None
    while struck is None:
        usd += 0.01
        clock.now += 1  # a cent a second
        struck = meter.update(usd)
    assert struck == "call"
    assert usd == pytest.approx(1.0 - 0.01 * FAREWELL_S, abs=0.03)


def test_a_numbers_calls_share_its_cap_and_others_do_not() -> None:
    made, _, clock = budget(number_usd=1.0)
    first, second, other = (
        made.open(i, n, None) for i, n in (("a", "+1"), ("b", "+1"), ("c", "+2"))
    )
    clock.now += 3600  # slowly: their farewells will cost next to nothing
    assert first.update(0.5) is None
    assert other.update(0.6) is None
    assert second.update(0.5) == "number"
    assert made.exhausted("+1", None) == "number"
    assert made.exhausted("+2", None) is None


def test_a_cap_that_has_ended_a_call_takes_no_other() -> None:
    """What is left is a farewell's worth: a caller would hear nothing else."""
    made, _, clock = budget(number_usd=1.0, day_usd=5.0)
    meter = made.open("a", "+1", None)
    usd = 0.0
    while meter.update(usd) is None:
        usd, clock.now = usd + 0.01, clock.now + 1
    meter.close()
    assert made.spent_today("+1") < 0.9
    assert made.exhausted("+1", None) == "number"
    assert made.exhausted("+2", None) is None
    made.cost = Cost(number_usd=2.0)
    assert made.exhausted("+1", None) is None, "the operator has raised it"
    made.cost = Cost(number_usd=1.0)
    assert made.exhausted("+1", None) == "number"
    clock.now += 86400
    assert made.exhausted("+1", None) is None


def test_a_number_may_have_caps_of_its_own() -> None:
    made, _, _ = budget(number_usd=1.0, call_usd=0.1)
    number = Number(match="*", agent="a", call_usd=2.0, number_usd=3.0)
    meter = made.open("a", "+1", number)
    assert meter.update(0.9) is None
    assert made.exhausted("+1", number) is None
    assert made.exhausted("+1", Number(match="*", agent="a", number_usd=0.5)) == "number"


def test_a_new_day_begins_with_nothing() -> None:
    made, kept, clock = budget(day_usd=1.0)
    meter = made.open("a", "+1", None)
    assert meter.update(0.9) == "day"  # all of it within a moment: its rate says what is to come
    assert made.exhausted("+2", None) == "day"
    clock.now += 86400
    assert made.exhausted("+2", None) is None
    assert meter.update(1.0) is None
    meter.close()
    assert [(each.day, round(each.usd, 6)) for each in kept] == [
        (day_of(NOON), 0.9),
        (day_of(NOON + 86400), 0.1),
    ]


def test_what_a_call_spent_before_midnight_is_of_that_day() -> None:
    made, kept, clock = budget(day_usd=1000.0)
    meter = made.open("a", "+1", None)
    clock.now = NOON + 43_199
    meter.update(0.5)
    clock.now += 1
    assert made.spent_today() == 0
    meter.update(0.625)
    assert made.spent_today() == made.spent_today("+1") == 0.125
    meter.close()
    today = {each.day: each.usd for each in kept}
    assert today == {day_of(NOON): 0.5, day_of(NOON + 86400): 0.125}


@pytest.mark.parametrize("away_s", [-86400.0, 86400.0, 4 * 365 * 86400.0])
def test_a_clock_that_is_set_and_set_right_forgets_nothing(away_s: float) -> None:
    made, kept, clock = budget(number_usd=1.0, day_usd=10.0)
    meter = made.open("a", "+1", None)
    other = made.open("b", "+2", None)
    clock.now += 3600
    assert meter.update(1.0) == "number"
    other.update(0.25)
    clock.now += away_s
    assert made.spent_today() == 0
    assert made.exhausted("+1", None) is None
    other.update(0.5)
    clock.now -= away_s
    other.update(0.75)
    for each in (meter, other):
        each.close()
    assert made.spent_today() == 1.5
    assert made.spent_today("+2") == 0.5
    assert made.exhausted("+1", None) == "number"
    written = {(each.day, each.call_id): each.usd for each in kept}
    assert written[(day_of(NOON), "b")] == 0.5
    assert written[(day_of(NOON + away_s), "b")] == 0.25


def test_days_that_are_known_are_few() -> None:
    made, _, clock = budget(day_usd=10.0)
    meter = made.open("a", "+1", None)
    for day in range(100):
        clock.now = NOON + 86400 * day
        meter.update(day + 1.0)
    assert len(made._days) == DAYS
    assert made.spent_today() == 1.0


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_ends_no_call(step_s: float) -> None:
    """How fast a call spends is not asked of a clock that somebody sets."""
    clock, elapsed = Clock(), Clock()
    made = Budget(lambda entry: None, clock=clock, elapsed=elapsed)
    made.cost = Cost(call_usd=10.0)
    meter = made.open("a", "+1", None, usd_s=0.01)
    for second in range(800):
        clock.now, elapsed.now = clock.now + 1, elapsed.now + 1
        if second == 300:
            clock.now += step_s
        assert meter.update(0.01 * second) is None, second
        assert meter.reserve(10.0) == pytest.approx(0.15, abs=0.02)


def test_a_crash_forgets_nothing_that_was_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    made = Budget(journal.spend)
    made.cost = Cost(day_usd=10.0)
    meter = made.open("a", "+49 30 1", None)
    meter.update(4.0)
    journal._store(journal._waiting())  # and no orderly end
    after = Budget(journal.spend)
    after.remember(journal.spent(day_of(time.time())))
    assert after.spent_today() == 4.0
    assert after.spent_today("+49301") == 4.0


def test_a_cap_that_has_struck_holds_over_a_restart(tmp_path: Path) -> None:
    """From the first call on, though less than the cap is spent."""
    journal = Journal(tmp_path)
    journal.open()
    clock = Clock()
    made = Budget(journal.spend, clock=clock, elapsed=clock)
    made.cost = Cost(number_usd=1.0, day_usd=3.0)
    for called, raised in (("+1", 1.0), ("+2", 1.5)):
        number = Number(match="*", agent="a", number_usd=raised)
        meter = made.open(called, called, number)
        usd = 0.0
        while meter.update(usd) is None:
            usd, clock.now = usd + 0.01, clock.now + 1
        meter.close()
    journal._store(journal._waiting())

    today = day_of(clock.now)
    after = Budget(journal.spend, clock=clock, elapsed=clock)
    after.cost = made.cost
    after.remember(journal.spent(today), journal.struck(today))
    assert after.spent_today("+1") < 0.9
    assert after.exhausted("+1", None) == "number"
    assert after.exhausted("+2", None) == "number"
    assert after.exhausted("+2", Number(match="*", agent="a", number_usd=1.5)) == "number"
    assert after.exhausted("+3", None) is None
    after.cost = Cost(number_usd=2.0)
    assert after.exhausted("+1", None) is None, "the operator has raised it"
    clock.now += 86400
    assert after.exhausted("+2", None) is None


def test_each_call_has_its_farewell_set_aside_from_its_first_moment_on() -> None:
    made, _, clock = budget(day_usd=10.0)
    meters: list[Meter] = []
    while made.exhausted("+1", None, usd_s=0.1) is None:
        meters.append(made.open(str(len(meters)), "+1", None, usd_s=0.1))
    assert len(meters) == 6  # of 1.5 each: the seventh would leave nothing to talk with
    for meter in meters:
        clock.now += 1
        assert meter.update(0.0) is None
    first = meters[0]
    assert first.update(1.1) == "day"


def test_a_small_cap_leaves_half_of_it_to_talk() -> None:
    made, _, clock = budget(call_usd=1.0, number_usd=1.0)
    assert made.exhausted("+1", None, usd_s=0.1) is None, "though 15 s are worth more"
    meter = made.open("a", "+1", None, usd_s=0.1)
    clock.now += 1
    assert meter.update(0.0) is None
    clock.now += 1
    assert meter.update(0.05) is None
    clock.now += 4
    assert meter.update(0.5) == "call"


def test_a_rate_is_that_of_the_last_minute() -> None:
    made, _, clock = budget(call_usd=10.0)
    meter = made.open("a", "+1", None)
    for second in range(600):
        clock.now += 1
        assert meter.update(0.1 * min(second, 60)) is None  # six dollars in a minute, then nothing
    assert meter.reserve(10.0) == 0
    clock.now += 1
    meter.update(6.6)
    assert meter.reserve(10.0) == pytest.approx(0.6 / 60 * FAREWELL_S, rel=0.05)


def test_nothing_is_known_of_a_rate_until_something_costs() -> None:
    made, _, clock = budget(call_usd=10.0)
    meter = made.open("a", "+1", None, usd_s=0.1)
    for _ in range(100):  # ringing, or a caller who says nothing
        clock.now += 1
        meter.update(0.0)
    assert meter.reserve(10.0) == pytest.approx(1.5)
    clock.now += 1
    meter.update(0.1)
    assert meter.reserve(10.0) == pytest.approx(1.5, abs=0.1)


def test_a_cost_that_turns_out_lower_gives_nothing_back() -> None:
    made, kept, _ = budget(day_usd=10.0)
    meter = made.open("a", "+1", None)
    for usd in (1.0, 0.5, float("nan"), 1.25):
        meter.update(usd)
    meter.close()
    assert made.spent_today() == meter.usd == kept[-1].usd == 1.25


def test_what_is_spent_is_written_down_in_time() -> None:
    made, kept, clock = budget(day_usd=10.0)
    meter = made.open("a", "+1", None)
    for second, usd in enumerate((0.25, 0.26, 0.27, 0.28, 0.29, 0.30, 0.31, 0.37, 0.38)):
        clock.now = NOON + second
        meter.update(usd)
    # At once, every 5 s, and whenever 5 cents have gathered.
    assert [each.usd for each in kept] == [0.25, 0.30, 0.37]


def test_numbers_are_remembered_however_they_were_written() -> None:
    made, _, _ = budget(day_usd=10.0)
    made.remember([Spent(day_of(NOON), "a", "+49 30 1", 1.0), Spent("1999-01-01", "b", "+2", 2.0)])
    assert made.spent_today("+49-301") == made.spent_today() == 1.0


def test_a_days_cap_that_has_ended_a_call_takes_no_other() -> None:
    made, _, clock = budget(day_usd=1.0)
    meter = made.open("a", "+1", None)
    usd = 0.0
    while meter.update(usd) is None:
        usd, clock.now = usd + 0.01, clock.now + 1
    meter.close()
    assert made.spent_today() < 0.9
    assert made.exhausted("+2", None) == "day"
    made.cost = Cost(day_usd=2.0)
    assert made.exhausted("+2", None) is None


async def test_what_cannot_be_counted_and_what_strikes_is_said_once(
    autojump_clock: object,
) -> None:
    """However long a transfer or a farewell is under way."""
    made = Budget(lambda entry: None, clock=trio.current_time, elapsed=trio.current_time)
    made.cost = Cost(call_usd=1.0)
    record = CallRecord(FACTS, agent="a", engine="e", model="strange")
    record.spending.use(Usage(text_in=1))
    record.spending.use_beside("chat", Usage(text_in=1), 2.0)
    told: list[str] = []
    watch = CostWatch(record, {"chat": Price()}, made.open("c", "+1", None))
    with structlog.testing.capture_logs() as logs, trio.move_on_after(5):
        await watch.watch(lambda reason, words: told.append(f"{reason} {words}"))
    assert 5 <= len(told) <= 6
    assert set(told) == {"cost_call farewell"}
    assert [(line["event"], line.get("model"), line.get("cap")) for line in logs] == [
        ("cost not counted: no price", "strange", None),
        ("cost cap reached", None, "call"),
    ]
    assert watch.usd is None
    watch.close()


@dataclass
class Caller:
    """A call of the next test: it begins, and talks at a steady price."""

    begins: float
    usd_s: float
    looks: float
    farewell_s: float
    meter: Meter | None = None
    told_at: float | None = None

    def spent(self, now: float) -> float:
        return self.usd_s * (now - self.begins)


callers = st.builds(
    Caller,
    begins=st.floats(0, 60),
    usd_s=st.floats(0.001, 0.1),
    looks=st.floats(0, 0.99),
    farewell_s=st.floats(0, FAREWELL_S),
)


@given(st.lists(callers, min_size=1, max_size=12), st.floats(3, 20))
@settings(deadline=None)  # a busy machine is no defect
def test_calls_together_pass_a_cap_by_two_seconds_of_each_at_most(
    calls: list[Caller], cap: float
) -> None:
    """A second until each has told what it costs, and one until it hears that it has to end."""
    made, _, clock = budget(day_usd=cap)
    steps = sorted(
        (each.begins + each.looks * (n > 0) + n, index)
        for index, each in enumerate(calls)
        for n in range(300)
    )
    talked = set()
    for at, index in steps:
        caller = calls[index]
        clock.now = NOON + at
        if at == caller.begins and made.exhausted("+1", None, caller.usd_s) is None:
            caller.meter = made.open(str(index), "+1", None, caller.usd_s)
            talked.add(index)
        if caller.meter is None:
            continue
        over_at = math.inf if caller.told_at is None else caller.told_at + caller.farewell_s
        struck = caller.meter.update(caller.spent(min(at, over_at)))
        if at >= over_at:
            caller.meter.close()
            caller.meter = None
        elif struck and caller.told_at is None:
            caller.told_at = at
    assert talked, "one call finds room, under a cap of half a minute and more"
    rates = [calls[index].usd_s for index in talked]
    assert made.spent_today() <= cap + 2 * sum(rates)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.4), st.floats(0, 30)), max_size=60))
def test_the_days_sum_is_that_of_its_calls(steps: list[tuple[int, float, float]]) -> None:
    made, kept, clock = budget(day_usd=5.0)
    meters = [made.open(str(index), f"+{index}", None) for index in range(4)]
    totals = [0.0] * 4
    for index, usd, seconds in steps:
        clock.now += seconds
        totals[index] += usd
        meter = meters[index]
        struck = meter.update(totals[index])
        assert struck == "day" or sum(totals) < 5.0
    assert made.spent_today() == pytest.approx(sum(totals))
    for meter in meters:
        meter.close()
    written = {each.call_id: each.usd for each in kept}
    assert sum(written.values()) == pytest.approx(sum(totals))
    assert not made._meters


async def test_a_call_hears_a_farewell_before_its_cap(autojump_clock: object) -> None:
    """A model at a dollar a minute, capped at fifty cents: the farewell is heard inside them."""
    engine, leg, journal = FakeEngine(), FakeLeg(), Journal(Path("unused"))
    made = Budget(journal.spend, clock=trio.current_time, elapsed=trio.current_time)
    made.cost = Cost(call_usd=0.5)
    services = Services(journal, Prompts(), {"model": Price(per_minute=1.0)})
    agent = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
    meter = made.open("call-1", "+1", None)
    call = Call(FACTS, "a", agent, engine, PCMU_8K, services, meter=meter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.attach(leg)
        began = trio.current_time()
        engine.sessions[0].emit(Ready(), SpeechStarted("u", 0), *answer("a", 1000))
        await call.ended.wait()
    assert call.record.reason == "cost_call"
    assert 10 < trio.current_time() - began < 30
    assert call.record.row.cost_usd is not None
    assert call.record.row.cost_usd < 0.5
    assert ("ending" in [state for state, _ in call.record.row.states]) is True
    assert len(leg.played) > 5  # the farewell
    assert made.spent_today() == pytest.approx(call.record.row.cost_usd)
    assert not made._meters


async def test_a_model_whose_server_tells_no_usage_meets_its_cap(autojump_clock: object) -> None:
    """It is billed by the time of the conversation: a dollar a minute, as near as can be."""
    engine, leg, journal = FakeEngine(), FakeLeg(), Journal(Path("unused"))
    made = Budget(journal.spend, clock=trio.current_time, elapsed=trio.current_time)
    made.cost = Cost(call_usd=0.5)
    prices = {"model": Price(audio_in=600.0, audio_out=533.0)}
    agent = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
    meter = made.open("call-1", "+1", None)
    call = Call(
        FACTS, "a", agent, engine, PCMU_8K, Services(journal, Prompts(), prices), meter=meter
    )
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.attach(leg)
        *sound, done = answer("a", 1000)
        assert isinstance(done, ResponseDone)
        untold = ResponseDone(done.response_id, done.status, done.reason, None)
        engine.sessions[0].emit(Ready(), SpeechStarted("u", 0), *sound, untold)
        with trio.fail_after(60):
            await call.ended.wait()
    assert call.record.reason == "cost_call"
    assert 10 < trio.current_time() - began < 30
    assert call.record.row.cost_usd == pytest.approx(made.spent_today())
    assert 0.25 < made.spent_today() < 0.5
