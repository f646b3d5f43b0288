"""The very moments at which a call begins and ends: nothing asked for then is an accident."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK
from tests.test_call_plugins import Diary
from voiced.acting import Acting
from voiced.call import Call, Services, no_hooks
from voiced.config.types import Agent
from voiced.formats import PCMU_8K
from voiced.hooks.calls import CallHooks
from voiced.hooks.enabled import Enabled
from voiced.journal import Journal
from voiced.leg import Unsupported
from voiced.plugin import Settings
from voiced.prompts import Prompts
from voiced.states import CallState


class LastStep(trio.abc.Instrument):
    """Does something once the last task of a call has ended, before the call itself goes on."""

    def __init__(self, call: Call, act: Callable[[Call], None]) -> None:
        self._call = call
        self._nursery = call._nursery
        self._act = act
        self.done = 0
        self.refused = 0
        self.wrong: list[BaseException] = []

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        nursery = self._nursery
        if nursery is None or task.parent_nursery is not nursery or nursery.child_tasks:
            return
        assert self._call._nursery is nursery
        try:
            self._act(self._call)
            self.done += 1
        except Unsupported:
            self.refused += 1
        except BaseException as error:
            self.wrong.append(error)


SERVICES = Services(Journal(Path("unused")), Prompts())

ACTS: dict[str, Callable[[Call], None]] = {
    "start": lambda call: call.start(trio.lowlevel.checkpoint),
    "finish": lambda call: call.finish("asked", None),
    "wind down": lambda call: call.wind_down("asked", None),
}


@pytest.mark.parametrize("end", ["hang up", "operator", "cancel"])
@pytest.mark.parametrize("act", ACTS)
async def test_what_is_asked_for_in_the_last_step_of_a_call_harms_nobody(
    autojump_clock: object, act: str, end: str
) -> None:
    """A drain, an operator, a plugin of another nursery: they know nothing of the call's tasks."""
    async with trio.open_nursery() as nursery:
        call = Call(FACTS, "a", Agent(), FakeEngine(), PCMU_8K, SERVICES)
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.attach(leg := FakeLeg())
        await trio.sleep(TICK)
        last = LastStep(call, ACTS[act])
        trio.lowlevel.add_instrument(last)
        match end:
            case "hang up":
                leg.hang_up_as_caller()
            case "operator":
                call.end("operator")
            case "cancel":
                nursery.cancel_scope.cancel()
        with trio.move_on_after(5, shield=True):
            await call.ended.wait()
        trio.lowlevel.remove_instrument(last)
    assert call.ended.is_set()
    assert not last.wrong, last.wrong
    assert (last.done, last.refused) == ((1, 0) if act == "wind down" else (0, 1))
    reasons = {"hang up": "caller_hangup", "operator": "operator", "cancel": "shutdown"}
    assert call.record.row.reason == reasons[end]


@pytest.mark.parametrize("plugins", [True, False])
async def test_a_call_that_is_cancelled_before_its_first_step_is_ended_too(
    autojump_clock: object, plugins: bool
) -> None:
    """The daemon was told to go in the very step in which it took the call."""
    journal = Journal(Path("unused"))
    enabled = Enabled("diary", Diary, Settings())
    async with trio.open_nursery() as nursery:
        call = Call(
            FACTS,
            "a",
            Agent(),
            FakeEngine(),
            PCMU_8K,
            Services(journal, Prompts()),
            make_hooks=lambda make: CallHooks([enabled], make) if plugins else no_hooks(make),
        )
        nursery.start_soon(call.run)
        nursery.cancel_scope.cancel()
    assert call.ended.is_set()
    assert call.record.state is CallState.ENDED
    assert call.record.row.reason == "shutdown"
    assert call.record.row.ended_at is not None
    if plugins:
        assert Diary.entries[0] == ("start", "call-1")
        assert Diary.entries[-1] == ("end", "shutdown", ())


class Mute(FakeLeg):
    """It has no figures of itself."""

    def facts(self) -> dict[str, int | float | str | bool | None]:
        raise ArithmeticError("no figures")


async def test_a_leg_without_figures_does_not_keep_the_call(autojump_clock: object) -> None:
    call = Call(FACTS, "a", Agent(), FakeEngine(), PCMU_8K, SERVICES)

    async def run() -> None:
        with pytest.raises(ArithmeticError):
            await call.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(TICK)
        call.attach(leg := Mute())
        leg.hang_up_as_caller()
    assert call.ended.is_set()
    with pytest.raises(Unsupported):
        call.clipboard.play(("one_moment",))


async def test_who_asked_too_early_may_ask_again(autojump_clock: object) -> None:
    """A plugin that could not hang up before there was a call to end is not taken to have."""
    call = Call(FACTS, "a", Agent(), FakeEngine(), PCMU_8K, SERVICES)
    acting = Acting(call, "hasty")
    with pytest.raises(Unsupported):
        acting.hang_up(farewell=False, reason="hasty")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        call.attach(FakeLeg())
        await trio.sleep(TICK)
        acting.hang_up(farewell=False, reason="hasty")
        acting.hang_up(farewell=False, reason="again")
        with trio.fail_after(1):
            await call.ended.wait()
    assert call.record.row.reason == "hasty"
