"""A cap strikes in every moment of a call: what is heard, and what it has cost in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK, answer
from voiced import clips, metrics
from voiced.budget import FAREWELL_S, Budget
from voiced.call import Call, Services
from voiced.completing import Used
from voiced.config.types import Agent, Config, Cost, EmulatorEngine, Price
from voiced.engine import Ready, Reconnecting, Resumed, SpeechStarted, Usage
from voiced.formats import PCMU_8K
from voiced.journal import Journal
from voiced.leg import Transferred
from voiced.prompts import Prompts
from voiced.states import CallState
from voiced.switchboard import Setup, Switchboard

CAP = 35.0
STRIKES_S = CAP - FAREWELL_S
"""At a dollar a second; the watch looks once a second."""
FAREWELL_BYTES = 8 * clips.load("farewell").duration_ms
QUIET: dict[str, Any] = {"silence_prompt_s": 0, "silence_hangup_s": 0}


class Capped:
    def __init__(self, agent: Agent) -> None:
        self.engine, self.leg = FakeEngine(), FakeLeg()
        self.budget = Budget(lambda entry: None, clock=trio.current_time, elapsed=trio.current_time)
        self.budget.cost = Cost(call_usd=CAP)
        services = Services(Journal(Path("unused")), Prompts(), {"model": Price(per_minute=60.0)})
        meter = self.budget.open("call-1", "+1", None, usd_s=1.0)
        self.call = Call(FACTS, "a", agent, self.engine, PCMU_8K, services, meter=meter)
        self.began = trio.current_time()

    @property
    def model(self) -> Any:
        return self.engine.sessions[0]

    def at_s(self) -> float:
        return trio.current_time() - self.began

    def over(self, *, farewell: bool, by_s: float = STRIKES_S + 5) -> None:
        """It has ended because of its cap, inside of it, and all of it is in the day's sum."""
        row = self.call.record.row
        assert row.reason == "cost_call"
        assert self.at_s() <= by_s
        assert row.cost_usd is not None
        assert STRIKES_S - 1 <= row.cost_usd < CAP
        assert self.budget.spent_today() == pytest.approx(row.cost_usd)
        assert not self.budget._meters
        last = b"".join(payload for at, payload in self.leg.played if at >= self.struck_at - 0.01)
        assert (len(last) == pytest.approx(FAREWELL_BYTES, abs=320)) is farewell

    @property
    def struck_at(self) -> float:
        states = dict(self.call.record.row.states)
        return self.began + states.get("ending", states["ended"]) / 1000


@asynccontextmanager
async def capped(**agent: Any) -> AsyncIterator[Capped]:
    s = Capped(Agent(**{"greeting": "", **QUIET, **agent}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(s.call.run)
        await trio.sleep(TICK)
        s.call.attach(s.leg)
        await trio.sleep(TICK)
        s.model.emit(Ready())
        yield s
        with trio.fail_after(60):
            await s.call.ended.wait()


async def test_while_the_caller_says_nothing(autojump_clock: object) -> None:
    async with capped() as s:
        pass
    s.over(farewell=True)


async def test_while_the_caller_speaks(autojump_clock: object) -> None:
    async with capped() as s:
        await trio.sleep(STRIKES_S - 2)
        s.model.emit(SpeechStarted("u", 0))
    s.over(farewell=True)


@pytest.mark.parametrize("greeting", ["", "Say hello."])
async def test_in_an_answer_and_in_the_greeting(autojump_clock: object, greeting: str) -> None:
    """What is being said is broken off: it would cost more than it is worth."""
    async with capped(greeting=greeting) as s:
        if not greeting:
            s.model.emit(SpeechStarted("u", 0))
        s.model.emit(*answer("long", 60_000))
    s.over(farewell=True)


async def test_on_hold_nobody_would_hear_a_farewell(autojump_clock: object) -> None:
    async with capped() as s:
        await trio.sleep(STRIKES_S - 2)
        s.leg.hold(True)
    s.over(farewell=False, by_s=STRIKES_S + 2)


async def test_after_hold_the_caller_hears_it(autojump_clock: object) -> None:
    async with capped() as s:
        s.leg.hold(True)
        await trio.sleep(STRIKES_S - 2)
        s.leg.hold(False)
    s.over(farewell=True)


async def test_while_a_transfer_rings_that_fails(autojump_clock: object) -> None:
    """It is waited for, and then the farewell comes at once."""
    async with capped() as s:
        rings(s, done=False)
        await trio.sleep(STRIKES_S - 2)
        s.call.start(transfer, s.call)
        await trio.sleep(4)
        assert s.call.record.state is CallState.TRANSFERRING
    s.over(farewell=True, by_s=STRIKES_S + 8)


async def test_while_a_transfer_rings_that_succeeds(autojump_clock: object) -> None:
    async with capped() as s:
        rings(s, done=True)
        await trio.sleep(STRIKES_S - 2)
        s.call.start(transfer, s.call)
    assert s.call.record.row.reason == "transferred"
    assert s.budget.spent_today() == pytest.approx(s.call.record.row.cost_usd)


def rings(s: Capped, *, done: bool) -> None:
    async def outcome(target: str) -> Transferred:
        await trio.sleep(5)
        return Transferred(done, 200 if done else 486)

    s.leg.outcome = outcome  # type: ignore[method-assign]


async def transfer(call: Call) -> None:
    await call.transfer("+49301")


async def test_a_model_that_is_away_costs_nothing(autojump_clock: object) -> None:
    """By the minute: of those in which there is one."""
    async with capped() as s:
        await trio.sleep(10)
        s.model.emit(Reconnecting("close_1006", "gone"))
        await trio.sleep(20)
        s.model.emit(Resumed("fake", "model", fallback=False, answering=False))
    s.over(farewell=True, by_s=STRIKES_S + 30)


async def test_a_caller_who_hangs_up_pays_to_the_last_moment(autojump_clock: object) -> None:
    async with capped() as s:
        await trio.sleep(7.5)
        s.call.end("caller_hangup")
    assert s.budget.spent_today() == pytest.approx(7.5, abs=0.1)
    assert s.call.record.row.cost_usd == pytest.approx(s.budget.spent_today())


def test_what_is_paid_after_a_call_is_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    config = Config(engine={"fake": EmulatorEngine()})
    services = Services(journal, Prompts(), {"chat": Price(text_in=1000.0)})
    board = Switchboard(Setup(config, lambda agent: FakeEngine()), services)
    counter = metrics.COST_USD.labels("chat")
    before = counter._value.get()
    board.used_afterwards(Used(None, "chat", Usage(text_in=500)))
    assert counter._value.get() - before == pytest.approx(0.5)
