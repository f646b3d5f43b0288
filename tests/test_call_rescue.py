"""A caller on hold whose model is lost for good: somebody else takes them when they are back."""

from __future__ import annotations

import pytest
import trio

from tests.test_call import TICK, scene
from tests.test_call_hold import transfers
from voiced.config.types import Agent
from voiced.engine import Lost, Ready
from voiced.states import CallState
from voiced.talk.ending import HOLD_LIMIT_S

TARGET = "+4930123456"
RESCUED = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0, transfer_when_lost=TARGET)
LOST = Lost("close_1006", "gone", retryable=True)


async def test_a_caller_on_hold_is_rescued_when_they_are_back(autojump_clock: object) -> None:
    async with scene(RESCUED) as s:
        transfers(s, done=True)
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.leg.hold(True)
        await trio.sleep(TICK)
        s.model.emit(LOST)
        await trio.sleep(HOLD_LIMIT_S - 1)
        assert s.at(CallState.ON_HOLD)
        assert s.leg.transfers == []
        assert s.leg.bytes_played() == 0
        s.leg.hold(False)
        await trio.sleep(0.5)
        assert s.leg.bytes_played() > 0  # one moment, please
        with trio.fail_after(10):
            await s.call.ended.wait()
    assert s.leg.transfers == [TARGET]
    assert s.rows()[-1].reason == "transferred"


async def test_a_caller_who_does_not_come_back_is_not_waited_for_for_ever(
    autojump_clock: object,
) -> None:
    async with scene(RESCUED) as s:
        s.model.emit(Ready())
        s.leg.hold(True)
        await trio.sleep(TICK)
        began = trio.current_time()
        s.model.emit(LOST)
        await s.call.ended.wait()
        assert trio.current_time() - began == pytest.approx(HOLD_LIMIT_S, abs=0.01)
    assert s.leg.transfers == []
    assert s.leg.bytes_played() == 0
    assert s.rows()[-1].reason == "model_lost"


async def test_a_rescue_outlasts_the_time_that_the_hold_had(autojump_clock: object) -> None:
    async with scene(RESCUED) as s:
        transfers(s, done=True, takes_s=20)
        s.model.emit(Ready())
        s.leg.hold(True)
        await trio.sleep(TICK)
        s.model.emit(LOST)
        await trio.sleep(HOLD_LIMIT_S - 1)
        s.leg.hold(False)
        with trio.fail_after(30):
            await s.call.ended.wait()
    assert s.rows()[-1].reason == "transferred"


async def test_nobody_takes_a_caller_who_was_on_hold(autojump_clock: object) -> None:
    async with scene(RESCUED) as s:
        transfers(s, done=False)
        s.model.emit(Ready())
        s.leg.hold(True)
        await trio.sleep(TICK)
        s.model.emit(LOST)
        await trio.sleep(5)
        s.leg.hold(False)
        with trio.fail_after(30):
            await s.call.ended.wait()
    row = s.rows()[-1]
    assert s.leg.transfers == [TARGET]
    assert row.reason == "model_lost"
    assert [state for state, _ in row.states[-3:]] == ["transferring", "ending", "ended"]


async def test_a_rescue_that_fails_while_the_other_side_holds_again(
    autojump_clock: object,
) -> None:
    """It was tried: nobody is left to wait for."""
    async with scene(RESCUED) as s:
        transfers(s, done=False)
        s.model.emit(Ready(), LOST)
        while not s.at(CallState.TRANSFERRING):
            await trio.sleep(0.1)
        s.leg.hold(True)
        with trio.fail_after(3):
            await s.call.ended.wait()
    assert s.rows()[-1].reason == "model_lost"


async def test_a_model_lost_while_a_transfer_fails_on_hold(autojump_clock: object) -> None:
    """Neither the transfer nor the hold takes the caller's second chance away."""
    async with scene(RESCUED) as s:
        transfers(s, done=False)
        s.model.emit(Ready())
        await trio.sleep(TICK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.call.transfer, "+49301")
            await trio.sleep(1)
            s.leg.hold(True)
            s.model.emit(LOST)
            await trio.sleep(5)
            assert s.at(CallState.ON_HOLD)
            transfers(s, done=True)
            s.leg.hold(False)
            with trio.fail_after(10):
                await s.call.ended.wait()
    assert s.leg.transfers == ["+49301", TARGET]
    assert s.rows()[-1].reason == "transferred"


async def test_without_anybody_else_a_lost_model_ends_a_hold_at_once(
    autojump_clock: object,
) -> None:
    async with scene() as s:
        s.model.emit(Ready())
        s.leg.hold(True)
        await trio.sleep(TICK)
        s.model.emit(LOST)
        with trio.fail_after(0.1):
            await s.call.ended.wait()
    assert s.rows()[-1].reason == "model_lost"
