"""Greetings that are kept or not, fillers and clips: what must not be heard, or handed on."""

from __future__ import annotations

import pytest
import trio

from tests.test_call import answer, scene, turn
from tests.test_call_plugins import Diary, Keeper
from tests.test_call_plugins import scene as scene_with
from tests.test_call_words import spoken
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudioDone,
    AgentTranscript,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    ToolCall,
)
from voiced.leg import Unsupported
from voiced.plugin import Tool
from voiced.states import CallState
from voiced.talk.clipboard import MAX_WAITING

QUIET = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
GREETS = Agent(greeting="Greet.")
BACK = Resumed("other", "model", fallback=False, answering=False)


@pytest.mark.parametrize("end", ["cancelled", "failed", "incomplete", "lost"])
async def test_a_greeting_that_is_not_whole_is_not_handed_on(
    autojump_clock: object, end: str
) -> None:
    Keeper.kept.clear()
    async with scene_with(Keeper, agent=GREETS) as s:
        s.model.emit(Ready(), *spoken(400))
        await trio.sleep(0.1)
        if end == "lost":  # the next session may well count its answers from one
            s.model.emit(Reconnecting("gone", "gone"), BACK, *spoken(400)[1:])
            end = "completed"
        s.model.emit(AgentAudioDone("r1", "a1"), ResponseDone("r1", end))  # type: ignore[arg-type]
        await trio.sleep(1)
        assert Keeper.kept == []


@pytest.mark.parametrize(
    ("items", "text", "kept"), [(2, "Hi", 1), (1, "x" * 5000, 0), (20, "x", 0)]
)
async def test_words_without_end_are_no_greeting(
    autojump_clock: object, items: int, text: str, kept: int
) -> None:
    Keeper.kept.clear()
    async with scene_with(Keeper, agent=GREETS) as s:
        s.model.emit(Ready(), *spoken(400))
        s.model.emit(*(AgentTranscript(f"a{n}", text, False) for n in range(1, items + 1)))
        s.model.emit(AgentAudioDone("r1", "a1"), ResponseDone("r1", "completed"))
        await trio.sleep(1)
        assert len(Keeper.kept) == kept


async def test_a_call_that_ends_before_the_model_is_there_is_not_greeted(
    autojump_clock: object,
) -> None:
    async with scene(GREETS) as s:
        s.call.wind_down("asked", b"\x55" * 8000)
        await trio.sleep(0.1)
        s.model.emit(Ready())
        await s.call.ended.wait()
        assert ("respond", "Greet.") not in s.model.commands


async def test_a_tool_has_no_filler_while_the_agent_speaks(autojump_clock: object) -> None:
    async def slow(_arguments: object) -> str:
        await trio.sleep(2)
        return "done"

    async with scene_with(Diary, agent=QUIET) as s:
        s.call.register_tool(Tool("slow", "Slow.", slow, filler="one_moment", answer=False))
        s.model.emit(Ready(), *turn(), *answer("a1", 3000))
        s.model.emit(ToolCall("c1", "t1", "slow", "{}"))
        await trio.sleep(5)
        assert s.leg.bytes_played() == 24_000


async def test_a_plugin_that_floods_with_clips_is_told(autojump_clock: object) -> None:
    async with scene_with(Diary, agent=QUIET) as s:
        for _ in range(MAX_WAITING):
            s.call.clipboard.play(("one_moment",))
        with pytest.raises(Unsupported, match=str(MAX_WAITING)):
            s.call.clipboard.play(("one_moment",))


async def test_a_model_that_is_back_and_owes_nothing_listens(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"))
        await trio.sleep(0.1)
        assert s.at(CallState.THINKING)
        s.model.emit(Reconnecting("gone", "gone"), BACK)
        await trio.sleep(0.1)
        assert s.at(CallState.LISTENING)
