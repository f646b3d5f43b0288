"""What an answer costs whose usage no server ever tells: it was made, so it is paid for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio

from tests.test_call import Scene, answer, scene, turn
from voiced.config.types import Agent
from voiced.engine import (
    EngineEvent,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
)

QUIET = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0, no_answer_s=60)

TOLD_USD = (1000 * 10 + 2000 * 20) / 1e6
BROKEN_USD = (1000 * 10 + 20 * 20) / 1e6
"""It read what the one before it had; one second of it was heard."""


def broken() -> list[EngineEvent]:
    """The first second of an answer."""
    return [*turn("item_u2"), *answer("item_b", 1000)[:-3]]


def lost(s: Scene) -> None:
    s.model.emit(Reconnecting("close_1006", "gone"))
    s.model.emit(Resumed("e", "test-model", False, answering=False))


def unreachable(s: Scene) -> None:
    s.model.emit(Lost("close_1006", "gone", retryable=True))


def cancelled(s: Scene) -> None:
    s.model.emit(ResponseDone("resp_item_b", "cancelled"))


def failed(s: Scene) -> None:
    s.model.emit(ResponseDone("resp_item_b", "failed", "server_error"))


def completed(s: Scene) -> None:
    s.model.emit(ResponseDone("resp_item_b", "completed"))


def hung_up(s: Scene) -> None:
    s.leg.hang_up_as_caller()


@pytest.mark.parametrize("ends", [lost, unreachable, cancelled, failed, completed, hung_up])
async def test_an_answer_that_breaks_off_is_paid_for(
    autojump_clock: object, ends: Callable[[Scene], None]
) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *answer("item_a", 1000))
        await trio.sleep(2)
        s.model.emit(*broken())
        await trio.sleep(0.1)
        ends(s)
        await trio.sleep(0.1)
    row = s.rows()[-1]
    # Some words of it as well, which this model's prices leave out.
    assert row.cost_usd == pytest.approx(TOLD_USD + BROKEN_USD)
    assert row.usage == {"audio_in": 1000, "audio_out": 2000}


async def test_an_answer_is_paid_for_once(autojump_clock: object) -> None:
    """Its end comes, and then the model is lost, and then the caller goes."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *answer("item_a", 1000))
        await trio.sleep(2)
        lost(s)
        await trio.sleep(2)
    assert s.rows()[-1].cost_usd == pytest.approx(TOLD_USD)


NOT_MADE: Sequence[Sequence[EngineEvent]] = (
    [ResponseStarted("r"), ResponseDone("r", "completed", "no_speech")],
    [ResponseStarted("r"), ResponseDone("r", "failed", "invalid_value")],
    [ResponseDone("r", "cancelled")],
)


@pytest.mark.parametrize("events", NOT_MADE)
async def test_what_was_not_made_costs_nothing(
    autojump_clock: object, events: Sequence[EngineEvent]
) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *answer("item_a", 1000))
        await trio.sleep(2)
        s.model.emit(*events)
        await trio.sleep(1)
    assert s.rows()[-1].cost_usd == pytest.approx(TOLD_USD)
