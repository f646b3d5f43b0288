"""What becomes of a model's call of a function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from voiced.engine import ToolCall
from voiced.plugin import Tool, ToolUse
from voiced.talk.toolbox import MAX_RESULT, MAX_RUNNING, Toolbox

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def toolbox(*tools: Tool) -> Toolbox:
    made = Toolbox(structlog.get_logger("test"))
    for tool in tools:
        made.register(tool)
    return made


async def weather(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"city": arguments["city"], "°C": 21}


async def nobody(_use: ToolUse) -> str | None:
    return None


WEATHER = Tool("weather", "Tells the weather.", weather, SCHEMA, timeout_s=2)


def called(arguments: str = '{"city": "İzmir"}', name: str = "weather") -> ToolCall:
    return ToolCall("c1", "i1", name, arguments)


async def test_a_mapping_becomes_json() -> None:
    assert await toolbox(WEATHER).use(called(), nobody) == '{"city": "İzmir", "°C": 21}'


@given(st.text())
async def test_whatever_the_model_writes_it_is_told_something(arguments: str) -> None:
    result = json.loads(await toolbox(WEATHER).use(called(arguments), nobody))
    assert "error" in result or "city" in result


async def test_a_plugin_may_forbid_a_tool() -> None:
    async def forbid(use: ToolUse) -> str | None:
        assert use.arguments == {"city": "İzmir"}
        return "not today"

    assert await toolbox(WEATHER).use(called(), forbid) == "not today"


async def test_a_tool_that_hangs_or_raises_is_told(autojump_clock: object) -> None:
    async def hangs(_arguments: object) -> str:
        await trio.sleep(60)
        return ""

    async def raises(_arguments: object) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            raise ValueError("secret 123")

    box = toolbox(Tool("hangs", "", hangs, timeout_s=1), Tool("raises", "", raises))
    began = trio.current_time()
    assert "too long" in await box.use(called("{}", "hangs"), nobody)
    assert trio.current_time() - began == pytest.approx(1)
    told = await box.use(called("{}", "raises"), nobody)
    assert "failed" in told
    assert "secret" not in told
    assert box.running == 0


async def test_only_so_many_run_at_a_time(autojump_clock: object) -> None:
    async def slow(_arguments: object) -> str:
        await trio.sleep(1)
        return "done"

    box = toolbox(Tool("slow", "", slow))
    results: list[str] = []

    async def use() -> None:
        results.append(await box.use(called("{}", "slow"), nobody))

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_RUNNING + 1):
            nursery.start_soon(use)
    assert results.count("done") == MAX_RUNNING
    assert "too many" in results[0]


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "weather", "ü"])
def test_names_that_no_model_could_call(name: str) -> None:
    box = toolbox(WEATHER)
    with pytest.raises(ValueError, match="tool"):
        box.register(Tool(name, "", weather))


async def test_a_plugin_runs_a_tool_itself() -> None:
    box = toolbox(WEATHER, Tool("big", "", lambda _arguments: _big()))
    assert "İzmir" in await box.run("weather", {"city": "İzmir"})
    assert len(await box.run("big", {})) == MAX_RESULT
    with pytest.raises(KeyError):
        await box.run("other", {})
    with pytest.raises(ValueError, match="city"):
        await box.run("weather", {})


async def _big() -> str:
    return "x" * (MAX_RESULT + 1)
