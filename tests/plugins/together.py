"""A real call with several plugins, in the order given."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from msgspec import UNSET

from voiced.call import Call, Services
from voiced.config.types import Agent
from voiced.formats import PCMU_8K
from voiced.hooks.house import House
from voiced.hooks.tables import from_mapping
from voiced.journal import Journal
from voiced.leg import CallFacts
from voiced.plugin import Json, Plugin, PluginError
from voiced.prompts import Prompts
from voiced.testing import FACTS, FakeEngine, FakeLeg, Scene


@asynccontextmanager
async def call_with_all(
    plugins: Sequence[tuple[type[Plugin], Mapping[str, Any]]],
    agent: Agent | None = None,
    facts: CallFacts = FACTS,
) -> AsyncIterator[Scene]:
    """As `voiced.testing.call_with`, with more than one plugin."""
    agent = agent or Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
    engine = FakeEngine(input_format=PCMU_8K, output_format=PCMU_8K)

    async def complete(
        engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None
    ) -> str:
        raise PluginError("there is no chat model here")

    def annotate(call_id: str, key: str, value: Json) -> None:
        raise AssertionError("nothing is noted after a call here")

    with tempfile.TemporaryDirectory() as state_dir:
        async with House.open(Path(state_dir), annotate, complete) as house:
            failures: list[tuple[str, str, BaseException | None]] = []
            for plugin, table in plugins:
                name = plugin.__module__.rpartition(".")[2]
                enabled = await house.add(name, plugin, from_mapping(name, table, plugin))
                enabled.on_failure = lambda *failure: failures.append(failure)
            call = Call(
                facts,
                "test",
                agent,
                engine,
                PCMU_8K,
                Services(Journal(Path("unused")), Prompts()),
                make_hooks=lambda make_call: house.hooks(UNSET, make_call),
            )
            scene = Scene(call, FakeLeg(PCMU_8K), engine, {})
            scene.failures = failures
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call.run)
                await scene.begin(True)
                yield scene
                call.end("test_over")
            assert failures == []
