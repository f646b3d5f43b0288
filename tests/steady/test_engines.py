"""The engines of a daemon: made, guarded, kept over a reload; and how they survive real faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from voiced.config.types import Agent, EmulatorEngine, EngineConfig, PipelineEngine, RealtimeEngine
from voiced.engine import (
    AgentAudio,
    EngineEvent,
    Lost,
    Plan,
    Ready,
    Reconnecting,
    ResponseDone,
    Resumed,
    Said,
    Session,
)
from voiced.engines import Engines
from voiced.formats import PCMU_8K

Configs = dict[str, EngineConfig]

DEAD = RealtimeEngine(url="ws://127.0.0.1:9/v1/realtime", api_key="k")  # the discard port


@asynccontextmanager
async def engines(configs: Mapping[str, EngineConfig]) -> AsyncIterator[Engines]:
    async with trio.open_nursery() as nursery:
        made = Engines(nursery)
        await made.make(configs)
        yield made
        nursery.cancel_scope.cancel()


def plan(agent: Agent) -> Plan:
    def history() -> list[Said]:
        return [Said("user", "Hello?"), Said("assistant", "Hello!")]

    return Plan("call-1", agent, "Be brief.", PCMU_8K, history=history)


async def until(session: Session, kind: type[EngineEvent]) -> list[EngineEvent]:
    """All events up to the first of that kind."""
    taken: list[EngineEvent] = []
    with trio.fail_after(8):
        while not any(isinstance(event, kind) for event in taken):
            taken += await session.receive()
    return taken


async def test_an_agents_engine_and_its_fallback() -> None:
    configs: Configs = {"one": EmulatorEngine(speech="clips"), "two": DEAD}
    async with engines(configs) as made:
        agent = Agent(engine="one", fallback_engine="two")
        engine = made.for_agent(agent)
        assert (engine.name, engine.model) == ("one", "emulator")
        assert made.for_agent(agent) is not engine, "each call has its own"
        with pytest.raises(KeyError):
            made.for_agent(Agent(engine="three"))
        assert set(made.health()) == {"one", "two"}
        assert not made.health()["one"]["answered"], "nobody has tried it"
        async with engine.open(plan(agent)) as session:
            await until(session, Ready)
            assert made.health()["one"]["sessions"] == 1
        assert made.health()["one"]["sessions"] == 0
        assert made.health()["one"]["answered"]
        assert not made.health()["two"]["answered"]
        await made.make({**configs, "one": EmulatorEngine(max_sessions=1)})
        assert not made.health()["one"]["answered"], "it is another one"


async def test_a_reload_keeps_what_has_not_changed() -> None:
    configs: Configs = {"one": EmulatorEngine(), "two": DEAD}
    async with engines(configs) as made:
        before = await made.make(configs)
        agent = Agent(engine="one")
        async with made.for_agent(agent).open(plan(agent)) as session:
            await until(session, Ready)
            limited = RealtimeEngine(url=DEAD.url, api_key="k", max_sessions=3)
            after = await made.make({**configs, "two": limited})
            assert after["one"] is before["one"]
            assert after["two"] is not before["two"]
            assert made.health()["two"]["max_sessions"] == 3
            with pytest.raises(ValueError, match="unknown fault"):
                await made.make({"one": EmulatorEngine(faults={"nonsense": True})})
            assert set(made.health()) == {"one", "two"}, "nothing has changed"
            assert made.health()["one"]["sessions"] == 1
            await made.make({"two": limited})
            assert set(made.health()) == {"two"}
            await made.make(configs)
            assert made.health()["one"]["sessions"] == 1, "the live call still counts"


async def test_a_pipeline_on_the_emulator_is_made() -> None:
    step = {"provider": "emulator"}
    config = msgspec.convert({"stt": step, "chat": step, "tts": step}, PipelineEngine)
    async with engines({"legacy": config}) as made:
        assert made.for_agent(Agent(engine="legacy")).name == "legacy"


async def test_the_first_engine_is_not_there() -> None:
    configs: Configs = {"one": DEAD, "two": EmulatorEngine(speech="clips")}
    async with engines(configs) as made:
        agent = Agent(engine="one", fallback_engine="two", reconnect_s=2)
        engine = made.for_agent(agent)
        async with engine.open(plan(agent)) as session:
            events = await until(session, Resumed)
            assert [type(event) for event in events] == [Reconnecting, Ready, Resumed]
            assert engine.model == "emulator"


async def test_a_cut_connection_goes_on_within_three_seconds() -> None:
    """TCP is cut in the midst of an answer; the next session goes on with it."""
    config = EmulatorEngine(speech="clips", faults={"close_in_answer_ms": 400})
    async with engines({"one": config}) as made:
        agent = Agent(engine="one")
        async with made.for_agent(agent).open(plan(agent)) as session:
            await until(session, Ready)
            session.respond("Greet the caller.")
            events = await until(session, Reconnecting)
            lost_at = trio.current_time()
            assert any(isinstance(event, AgentAudio) for event in events)
            assert events[-1] == Reconnecting("close_1006", events[-1].message)  # type: ignore[union-attr]
            (resumed,) = (e for e in await until(session, Resumed) if isinstance(e, Resumed))
            assert resumed.answering
            await until(session, AgentAudio)
            assert trio.current_time() - lost_at < 3


async def test_terminal_trouble_in_an_answer_goes_to_the_fallback() -> None:
    configs: Configs = {
        "one": EmulatorEngine(speech="clips", faults={"fail_all": True}),
        "two": EmulatorEngine(speech="clips"),
    }
    async with engines(configs) as made:
        agent = Agent(engine="one", fallback_engine="two")
        async with made.for_agent(agent).open(plan(agent)) as session:
            await until(session, Ready)
            session.respond("Greet the caller.")
            events = await until(session, AgentAudio)
            assert not any(isinstance(event, Lost) for event in events)
            assert [e.fallback for e in events if isinstance(e, Resumed)] == [True]
            done = [e for e in await until(session, ResponseDone) if isinstance(e, ResponseDone)]
            assert done[-1].status == "completed"
        assert made.health()["one"]["state"] == "open", "the next call need not find out"
