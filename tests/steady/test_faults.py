"""The emulator as the server, with its faults, and a TCP connection that is cut in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.steady.test_engines import Configs, engines, plan, until
from voiced.config.types import Agent, EmulatorEngine, EngineConfig, RealtimeEngine
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.server import serve
from voiced.engine import (
    AgentAudio,
    EngineEvent,
    Lost,
    Plan,
    Ready,
    Reconnecting,
    Resumed,
    Said,
    Session,
)
from voiced.realtime import client
from voiced.steady import Guard, Guarded, SteadyEngine


def faulty(**faults: Any) -> EmulatorEngine:
    return EmulatorEngine(speech="clips", faults=faults)


@asynccontextmanager
async def session(config: EngineConfig, **agent: Any) -> AsyncIterator[Session]:
    """A call's session over one engine, ready and asked for a greeting."""
    configs: Configs = {"one": config}
    async with engines(configs) as made:
        who = Agent(engine="one", **agent)
        async with made.for_agent(who).open(plan(who)) as opened:
            await until(opened, Ready)
            yield opened


class Relay:
    """TCP between a client and a server, until it is cut."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.connections = 0
        self._target = target
        self._scope = trio.CancelScope()

    async def run(
        self, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Relay; may be run again after `cut`, at the same port."""
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        with trio.CancelScope() as self._scope:
            await trio.serve_listeners(self._relay, listeners, task_status=task_status)

    def cut(self) -> None:
        """Drop every connection and take no other."""
        self._scope.cancel()

    async def _relay(self, client: trio.SocketStream) -> None:
        self.connections += 1
        server = await trio.open_tcp_stream("127.0.0.1", self._target)

        async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            try:
                async for data in source:
                    await sink.send_all(data)
            except trio.BrokenResourceError:
                pass
            nursery.cancel_scope.cancel()

        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server)
            nursery.start_soon(pump, server, client)


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[SteadyEngine, Relay, trio.Nursery]]:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, "127.0.0.1", 0, EmulatorOptions(speech="clips"))
        relay = Relay(port)
        await nursery.start(relay.run)
        url = f"ws://127.0.0.1:{relay.port}/v1/realtime"
        config = RealtimeEngine(url=url, model="m", server="other")
        yield (
            SteadyEngine(Guarded(client.RealtimeEngine("one", config), Guard("one"))),
            relay,
            nursery,
        )
        nursery.cancel_scope.cancel()


async def test_a_cut_wire_that_comes_back() -> None:
    """The server is away for a second; less than three after it is back the answer goes on."""
    who = Agent()
    async with relayed() as (engine, relay, nursery), engine.open(plan(who)) as opened:
        await until(opened, Ready)
        opened.respond("Greet the caller.")
        await until(opened, AgentAudio)
        cut_at = trio.current_time()
        relay.cut()
        await until(opened, Reconnecting)
        assert trio.current_time() - cut_at < 0.5
        await trio.sleep(1)
        await nursery.start(relay.run)
        back_at = trio.current_time()
        (resumed,) = (e for e in await until(opened, Resumed) if isinstance(e, Resumed))
        assert resumed.answering
        await until(opened, AgentAudio)
        assert trio.current_time() - back_at < 3
        assert relay.connections == 2


async def test_a_wire_that_stays_cut() -> None:
    who = Agent(reconnect_s=1.0)
    async with relayed() as (engine, relay, _), engine.open(plan(who)) as opened:
        await until(opened, Ready)
        relay.cut()
        events = await until(opened, Lost)
        assert [type(event) for event in events] == [Reconnecting, Lost]
        assert engine.name == "one"


async def test_the_first_connections_are_refused() -> None:
    async with session(faulty(refuse_first=2, refuse_status=429)) as opened:
        opened.respond("Greet the caller.")
        await until(opened, AgentAudio)


async def test_no_quota_is_not_tried_again() -> None:
    configs: Configs = {"one": faulty(quota=True), "two": faulty()}
    async with engines(configs) as made:
        who = Agent(engine="one", fallback_engine="two")
        began = trio.current_time()
        async with made.for_agent(who).open(plan(who)) as opened:
            events = await until(opened, Resumed)
        assert [type(event) for event in events] == [Ready, Resumed]
        assert trio.current_time() - began < 2


async def test_expired_in_an_answer() -> None:
    """The session is at its end, and so is the next one: the conversation goes on."""
    async with session(faulty(session_expired_after_ms=500, answer_ms=8000)) as opened:
        opened.respond("Greet the caller.")
        for _ in range(2):
            lost = [e for e in await until(opened, Reconnecting) if isinstance(e, Reconnecting)]
            assert lost[0].code == "session_expired"
            await until(opened, Resumed)
            await until(opened, AgentAudio)


async def test_every_session_is_lost_once() -> None:
    config = faulty(lose_all_after_ms=600, outage_ms=500)
    async with session(config) as opened:
        await until(opened, Reconnecting)
        lost_at = trio.current_time()
        await until(opened, Resumed)
        assert 0.3 < trio.current_time() - lost_at < 3
        opened.respond("Greet the caller.")
        await until(opened, AgentAudio)


async def test_renewed_on_a_real_server() -> None:
    config = EmulatorEngine(speech="clips", max_session_s=2.5)
    async with session(config) as opened:
        events: list[EngineEvent] = await until(opened, Resumed)
        assert not any(isinstance(event, Reconnecting) for event in events)
        opened.respond("Greet the caller.")
        await until(opened, AgentAudio)


async def test_the_next_session_knows_the_conversation() -> None:
    """Told through the real client, the emulator has the history as items, before it answers."""
    who = Agent()
    said = [Said("user", "My name is Ada."), Said("assistant", "Good morning, Ada.")]
    told = Plan("call-1", who, "Be brief.", plan(who).leg_format, history=lambda: said)
    async with relayed() as (engine, relay, nursery), engine.open(told) as opened:
        await until(opened, Ready)
        relay.cut()
        await until(opened, Reconnecting)
        await nursery.start(relay.run)
        opened.respond("Greet the caller.")
        events = await until(opened, Resumed)
        assert [e.answering for e in events if isinstance(e, Resumed)] == [True]
        await until(opened, AgentAudio)
