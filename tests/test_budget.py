"""Caps on costs: by call, number and day, with a farewell's worth in hand."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK, answer
from voiced.budget import FAREWELL_S, Budget, Meter, day_of
from voiced.call import Call, Services
from voiced.config.types import Agent, Cost, Number, Price
from voiced.engine import Ready, SpeechStarted
from voiced.formats import PCMU_8K
from voiced.journal import Charge, Journal, Spent, Struck
from voiced.prompts import Prompts

NOON = 1_790_000_000.0 - 1_790_000_000.0 % 86400 + 43200


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


def budget(clock: Clock | None = None, **caps: float) -> tuple[Budget, list[Spent], Clock]:
    kept: list[Spent] = []
    clock = clock or Clock()

    def keep(entry: Spent | Charge | Struck) -> None:
        if isinstance(entry, Spent):
            kept.append(entry)

    made = Budget(keep, clock=clock)
    made.cost = Cost(**caps)
    return made, kept, clock


def test_without_caps_nothing_is_metered() -> None:
    made, _, _ = budget()
    assert made.open("a", "+1", None) is None
    assert made.exhausted("+1", None) is None


def test_a_call_ends_with_its_farewells_worth_in_hand() -> None:
    made, _, clock = budget(call_usd=1.0)
    meter = made.open("a", "+1", None)
    assert meter is not None
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
    assert first is not None
    assert second is not None
    assert other is not None
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
    assert meter is not None
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
    assert meter is not None
    assert meter.update(0.9) is None
    assert made.exhausted("+1", number) is None
    assert made.exhausted("+1", Number(match="*", agent="a", number_usd=0.5)) == "number"


def test_a_new_day_begins_with_nothing() -> None:
    made, kept, clock = budget(day_usd=1.0)
    meter = made.open("a", "+1", None)
    assert meter is not None
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


def test_a_crash_forgets_nothing_that_was_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    made = Budget(journal.spend)
    made.cost = Cost(day_usd=10.0)
    meter = made.open("a", "+49 30 1", None)
    assert meter is not None
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
    made = Budget(journal.spend, clock=clock)
    made.cost = Cost(number_usd=1.0, day_usd=3.0)
    for called, raised in (("+1", 1.0), ("+2", 1.5)):
        number = Number(match="*", agent="a", number_usd=raised)
        meter = made.open(called, called, number)
        assert meter is not None
        usd = 0.0
        while meter.update(usd) is None:
            usd, clock.now = usd + 0.01, clock.now + 1
        meter.close()
    journal._store(journal._waiting())

    today = day_of(clock.now)
    after = Budget(journal.spend, clock=clock)
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
    meters: list[Meter | None] = []
    while made.exhausted("+1", None, usd_s=0.1) is None:
        meters.append(made.open(str(len(meters)), "+1", None, usd_s=0.1))
    assert len(meters) == 6  # of 1.5 each: the seventh would leave nothing to talk with
    for meter in meters:
        assert meter is not None
        clock.now += 1
        assert meter.update(0.0) is None
    first = meters[0]
    assert first is not None
    assert first.update(1.1) == "day"


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
        assert meter is not None
        struck = meter.update(totals[index])
        assert struck == "day" or sum(totals) < 5.0
    assert made.spent_today() == pytest.approx(sum(totals))
    for meter in meters:
        assert meter is not None
        meter.close()
    written = {each.call_id: each.usd for each in kept}
    assert sum(written.values()) == pytest.approx(sum(totals))
    assert not made._meters


async def test_a_call_hears_a_farewell_before_its_cap(autojump_clock: object) -> None:
    """A model at a dollar a minute, capped at fifty cents: the farewell is heard inside them."""
    engine, leg, journal = FakeEngine(), FakeLeg(), Journal(Path("unused"))
    made = Budget(journal.spend, clock=trio.current_time)
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
