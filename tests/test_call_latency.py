"""How long the caller waited for an answer, as the journal has it: for that, and nothing else."""

from __future__ import annotations

import trio

from tests.test_call import answer, turn
from tests.test_call_fillers import heard_ms, quiet
from tests.test_call_plugins import Diary, scene
from voiced.engine import Ready, ResponseDone, ResponseStarted, ToolCall
from voiced.plugin import Tool


async def test_what_a_plugin_spoke_over_is_no_slow_answer(autojump_clock: object) -> None:
    """It had the call for a minute: the next answer is to its request, not to the caller."""
    async with scene(Diary, agent=quiet()) as s:
        s.model.emit(Ready(), *turn())
        await trio.sleep(0.1)
        s.call.dialogue.take_over(True)
        await trio.sleep(60)
        s.call.dialogue.take_over(False)
        s.call.dialogue.say("Thank you.", verbatim=True)
        s.model.emit(*answer("item_a", 1000))
        await trio.sleep(2)
        assert heard_ms(s, "item_a") == 1000
        assert s.call.record._answers_ms == []


async def test_what_got_no_answer_is_no_slow_one(autojump_clock: object) -> None:
    """The model answered with a text, or a cough with nothing: the next is to something else."""
    async with scene(Diary, agent=quiet()) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"), ResponseDone("r1", "completed"))
        await trio.sleep(30)
        s.call.dialogue.say("Still there?", verbatim=True)
        s.model.emit(*answer("item_a", 1000))
        await trio.sleep(2)
        assert heard_ms(s, "item_a") == 1000
        assert s.call.record._answers_ms == []


async def test_what_a_tool_is_needed_for_is_a_slow_answer(autojump_clock: object) -> None:
    """The caller waits through both answers, of which the first has no sound."""

    async def slow(arguments: object) -> str:
        await trio.sleep(2)
        return "done"

    async with scene(Diary, agent=quiet()) as s:
        s.call.register_tool(Tool("slow", "Slow.", slow))
        call = ToolCall("call_1", "item_f", "slow", "{}")
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"), call, ResponseDone("r1", "completed"))
        await trio.sleep(2.1)
        s.model.emit(*answer("item_a", 1000))
        await trio.sleep(2)
        assert len(s.call.record._answers_ms) == 1
        assert s.call.record._answers_ms[0] >= 2100
