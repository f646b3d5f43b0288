"""What plugins ask a model is paid: with its call, after it, and by a day that is remembered."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import structlog.testing
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK
from voiced.budget import Budget, day_of
from voiced.call import Call, Services
from voiced.completing import Used
from voiced.config.prices import Billed
from voiced.config.types import Agent, Config, Cost, EmulatorEngine, Price
from voiced.cost import Spending
from voiced.engine import Ready, Usage
from voiced.formats import PCMU_8K
from voiced.journal import Added, Charge, Journal, Row, Spent, Struck, Sums
from voiced.prompts import Prompts
from voiced.switchboard import Setup, Switchboard

PRICES = {"chat": Price(text_in=1000.0, text_out=2000.0), "model": Price(per_minute=6.0)}
USAGE = Usage(text_in=400, text_out=50)
USD = 0.5  # 400 and 50 tokens at these prices
AGENT = Agent(engine="fake", greeting="", silence_prompt_s=0, silence_hangup_s=0)


def row(call_id: str, **fields: object) -> Row:
    return Row(call_id, "twilio", "CA1", "inbound", "+1", "+49 30 1", "a", "e", "m", **fields)  # type: ignore[arg-type]


class Desk:
    """A switchboard with a journal whose notes are written when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        self.journal.open()
        self.engine = FakeEngine()
        config = Config(engine={"fake": EmulatorEngine()}, cost=Cost(day_usd=100.0))
        services = Services(self.journal, Prompts(), PRICES)
        self.switchboard = Switchboard(Setup(config, lambda agent: self.engine), services)

    @property
    def budget(self) -> Budget:
        return self.switchboard.budget

    def written(self) -> None:
        for charge, called in self.journal._store(self.journal._waiting()):
            charge.told(called)

    def stored(self, call_id: str = "c1") -> tuple[float | None, dict[str, float]]:
        (found,) = self.journal.call(call_id)
        return found["cost_usd"], found["usage"]

    def day(self, day: str) -> dict[str, float]:
        return {each.call_id: each.usd for each in self.journal.spent(day)}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_call_that_has_ended_pays_in_its_row_and_in_its_days_sums(desk: Desk) -> None:
    budget = desk.budget
    budget.cost = Cost(day_usd=100.0)
    desk.journal.write(row("c1", cost_usd=0.25, usage={"text_in": 100, "audio_in": 7}, reason="x"))
    meter = budget.open("c1", "+49 30 1", None)
    meter.update(0.25)
    meter.close()
    for _ in range(2):
        desk.switchboard.used_afterwards(Used("c1", "chat", USAGE))
    assert budget.spent_today() == pytest.approx(0.25 + 2 * USD)
    desk.written()
    assert budget.spent_today("+49301") == pytest.approx(0.25 + 2 * USD)
    usd, usage = desk.stored()
    assert usd == pytest.approx(0.25 + 2 * USD)
    assert usage == {"text_in": 900, "audio_in": 7, "text_out": 100}
    assert desk.day(day_of(time.time())) == {"c1": pytest.approx(0.25 + 2 * USD)}

    again = Budget(desk.journal.spend)  # after a restart
    again.remember(desk.journal.spent(day_of(time.time())))
    assert again.spent_today("+49301") == again.spent_today() == pytest.approx(0.25 + 2 * USD)


async def test_a_call_of_yesterday_pays_today(desk: Desk) -> None:
    """After a restart, with no cap at all: a row of its own says whose number it was."""
    desk.journal.write(row("c1", cost_usd=0.25, reason="x"))
    desk.switchboard.used_afterwards(Used("c1", "chat", USAGE))
    desk.written()
    (spent,) = desk.journal.spent(day_of(time.time()))
    assert (spent.call_id, spent.called, spent.usd) == ("c1", "+49 30 1", USD)


async def test_what_is_of_no_call_is_of_the_day(desk: Desk) -> None:
    desk.switchboard.used_afterwards(Used(None, "chat", USAGE))
    desk.switchboard.used_afterwards(Used("pruned", "chat", USAGE))
    with structlog.testing.capture_logs() as logs:
        desk.written()
    assert [line["event"] for line in logs] == ["usage of an unknown call"]
    assert desk.budget.spent_today() == 2 * USD
    assert desk.day(day_of(time.time())) == {"": USD, "pruned": USD}


@pytest.mark.parametrize("figure", [-1_000_000, 10**15])
async def test_figures_that_cannot_be_true_do_not_count(desk: Desk, figure: int) -> None:
    used = Used(None, "chat", Usage(text_in=figure, text_out=50))
    desk.switchboard.used_afterwards(used)
    assert desk.budget.spent_today() == 0.1


async def test_a_cost_that_is_not_known_stays_so(desk: Desk) -> None:
    desk.journal.write(row("c1", usage={}, reason="x"))
    desk.switchboard.used_afterwards(Used("c1", "chat", USAGE))
    desk.written()
    assert desk.stored() == (None, {"text_in": 400, "text_out": 50})


async def test_a_model_without_a_price_is_said_once(desk: Desk) -> None:
    desk.journal.write(row("c1", cost_usd=0.25, reason="x"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            desk.switchboard.used_afterwards(Used("c1", "strange", USAGE))
    assert [(line["event"], line["model"]) for line in logs] == [
        ("cost not counted: no price", "strange")
    ]
    desk.written()
    assert desk.stored()[0] == 0.25
    assert desk.budget.spent_today() == 0


async def test_a_live_call_pays_with_the_rest_of_it(desk: Desk, autojump_clock: object) -> None:
    board = desk.switchboard
    async with trio.open_nursery() as nursery:
        board.nursery = nursery
        call = board.start(FACTS, "a", AGENT, PCMU_8K)
        await trio.sleep(TICK)
        call.attach(FakeLeg())
        desk.engine.sessions[0].emit(Ready())
        await trio.sleep(3)
        board.used_afterwards(Used(FACTS.call_id, "chat", USAGE))
        board.used_afterwards(Used(FACTS.call_id, "strange", USAGE))
        await trio.sleep(3)
        assert desk.budget.spent_today() > USD
        call.end("operator")
    desk.written()
    (found,) = desk.journal.call(FACTS.call_id)
    talked = 0.1 * found["media_ms"] / 1000
    assert found["cost_usd"] == pytest.approx(USD + talked, abs=0.02)
    assert found["usage"] == {"text_in": 400, "text_out": 50}
    assert desk.day(day_of(time.time())) == {FACTS.call_id: pytest.approx(found["cost_usd"])}


@pytest.mark.parametrize("written_between", [True, False])
async def test_a_call_whose_plugins_have_their_last_word_pays_once(
    desk: Desk, autojump_clock: object, written_between: bool
) -> None:
    board, budget = desk.switchboard, desk.budget

    async def last_word(call: Call) -> None:
        if written_between:
            desk.written()
        assert call.ended.is_set()
        board.used_afterwards(Used(FACTS.call_id, "chat", USAGE))
        if written_between:
            desk.written()
        call.record.row.facts["late"] = True
        desk.journal.write(call.record.row)

    async with trio.open_nursery() as nursery:
        board.nursery = nursery
        call = board.start(FACTS, "a", AGENT, PCMU_8K, released=last_word)
        await trio.sleep(TICK)
        call.end("operator")
    desk.written()
    assert desk.stored(FACTS.call_id) == (USD, {"text_in": 400, "text_out": 50})
    assert budget.spent_today() == budget.spent_today(FACTS.called) == USD
    assert desk.day(day_of(time.time())) == {FACTS.call_id: USD}


async def test_what_was_written_when_the_journal_is_cancelled_is_not_added_again(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    journal.open()
    journal.write(row("c1", cost_usd=1.0, reason="x"))
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        budget = Budget(journal.spend)
        budget.charge("c1", 0.5)
        journal.add(Added("c1", {}, 0.5))
        charge_number = budget._charge_number

        def stop(day: object, usd: float, called: str) -> None:
            told.append(called)
            nursery.cancel_scope.cancel()
            charge_number(day, usd, called)  # type: ignore[arg-type]

        budget._charge_number = stop  # type: ignore[method-assign]
        budget.charge("c1", 0.25)
        nursery.start_soon(journal.run)
    assert told == ["+49 30 1"]
    assert journal.calls()[0]["cost_usd"] == 1.5
    assert [each.usd for each in journal.spent(day_of(time.time()))] == [0.75]


def test_a_number_is_not_charged_for_a_day_that_is_over() -> None:
    now = 1_790_000_000.0
    kept: list[Spent | Charge | Struck | Sums] = []
    budget = Budget(kept.append, clock=lambda: now)
    budget.charge("c1", 0.5)
    (charge,) = kept
    assert isinstance(charge, Charge)
    now += 86400
    assert budget.spent_today() == 0
    charge.told("+1")
    assert budget.spent_today("+1") == 0
    assert charge.day == day_of(now - 86400)
    now -= 86400
    assert budget.spent_today("+1") == budget.spent_today() == 0.5


def test_a_day_that_such_costs_have_spent_takes_no_other_call() -> None:
    budget = Budget(lambda note: None)
    budget.cost = Cost(day_usd=1.0)
    budget.charge("c1", 0.9)
    assert budget.exhausted("+1", None) is None
    budget.charge(None, 0.2)
    assert budget.exhausted("+1", None) == "day"


@given(st.lists(st.tuples(st.sampled_from(["chat", "model"]), st.integers(0, 1000)), max_size=20))
def test_models_beside_the_engines_add_up(asked: list[tuple[str, int]]) -> None:
    spending = Spending(Billed("model"))
    spending.use(Usage(text_in=5))
    for model, tokens in asked:
        spending.use_beside(model, Usage(text_in=tokens), tokens / 1000)
    total = sum(tokens for _, tokens in asked)
    assert spending.usage.text_in == 5 + total
    assert spending.usd(PRICES, 0.0) == pytest.approx(total / 1000)
    assert sum(usd or 0 for usd in spending.by_model(PRICES, 0.0).values()) == pytest.approx(
        total / 1000
    )


async def test_what_was_paid_afterwards_is_made_up_in_a_new_file_too(desk: Desk) -> None:
    desk.journal.write(row("c1", cost_usd=0.25, usage={"text_in": 100}, reason="x"))
    meter = desk.budget.open("c1", "+49 30 1", None)
    meter.update(0.25)
    meter.close()
    desk.written()
    desk.switchboard.used_afterwards(Used("c1", "chat", USAGE))
    desk.written()
    for file in desk.journal.path.parent.glob("journal.sqlite*"):
        file.unlink()
    for _ in range(2):  # once is enough, and twice is not twice as much
        desk.switchboard.write_down()
        desk.written()
    (sum_,) = desk.day(day_of(time.time())).values()
    assert sum_ == pytest.approx(desk.budget.spent_today()) == pytest.approx(0.25 + USD)
