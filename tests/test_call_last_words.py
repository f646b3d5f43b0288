"""What a call that ends still waits for, and what it does not begin any more."""

from __future__ import annotations

import trio

from tests.fakes import FakeLeg
from tests.test_call import Scene, answer, scene, turn
from tests.test_call_words import spoken
from voiced.config.types import Agent
from voiced.engine import Ready, ResponseDone, ResponseStarted, ToolCall
from voiced.plugin import Tool

QUIET = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
CALLED = ToolCall("c1", "t1", "slow", "{}")


def said(s: Scene) -> list[str]:
    return [str(command[0]) for command in s.model.commands]


def tool(ran: list[float]) -> Tool:
    """It takes a second; `ran` has when it began."""

    async def slow(_arguments: object) -> str:
        ran.append(trio.current_time())
        await trio.sleep(1)
        return "done"

    return Tool("slow", "Slow.", slow)


class Confirming(FakeLeg):
    """Its carrier says a moment later that all was played."""

    async def drained(self) -> None:
        await super().drained()
        await trio.sleep(0.3)


async def test_the_line_drops_when_the_carrier_has_played_all(autojump_clock: object) -> None:
    async with scene(QUIET, attach=False) as s:
        s.call.attach(Confirming())
        await trio.sleep(0.01)
        began = trio.current_time()
        s.call.wind_down("asked", b"\x55" * 8000)
        await s.call.ended.wait()
        assert 1.3 <= trio.current_time() - began < 1.4


async def test_a_farewell_that_begins_too_late_is_not_heard_over_the_other(
    autojump_clock: object,
) -> None:
    """The bundled one is being played in its place."""
    async with scene(Agent(greeting="", farewell_text="Bye!")) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.call.wind_down("asked", "farewell")
        await trio.sleep(Agent().no_answer_s + 0.1)
        heard = s.leg.bytes_played()
        assert heard
        s.model.emit(*spoken(1000))
        await s.call.ended.wait()
        assert not [part for _, part in s.leg.played if b"\x21" * 400 in part]


async def test_a_tool_called_at_the_end_does_not_run(autojump_clock: object) -> None:
    ran: list[float] = []
    async with scene(QUIET) as s:
        s.call.register_tool(tool(ran))
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.call.wind_down("asked", b"\x55" * 16000)
        await trio.sleep(0.01)
        s.model.emit(CALLED)
        await s.call.ended.wait()
        assert ran == []


async def test_a_tool_that_returns_at_the_end_asks_for_nothing(autojump_clock: object) -> None:
    ran: list[float] = []
    async with scene(QUIET) as s:
        s.call.register_tool(tool(ran))
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"), CALLED)
        s.model.emit(ResponseDone("r1", "completed"))
        await trio.sleep(0.1)
        s.call.wind_down("asked", b"\x55" * 16000)
        await s.call.ended.wait()
        assert len(ran) == 1
        assert "respond" not in said(s)
        assert "tool_result" not in said(s)


async def test_a_hold_ends_the_time_that_an_answer_took(autojump_clock: object) -> None:
    """It was heard when the caller was back: that says nothing of the model."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn())
        await trio.sleep(0.1)
        s.leg.hold(True)
        await trio.sleep(0.1)
        s.model.emit(*answer("a1", 400))
        await trio.sleep(5)
        s.leg.hold(False)
        await trio.sleep(1)
        assert s.leg.bytes_played() == 3200
        s.leg.hang_up_as_caller()
        await s.call.ended.wait()
        assert s.rows()[-1].latencies["answers_ms"] == []
