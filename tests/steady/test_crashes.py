"""Sessions that end in an exception: a bug costs a session, never its place nor the call."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from tests.steady.fakes import Call, FakeEngine, FakeSession
from voiced.config.types import Agent
from voiced.engine import EngineEvent, Lost, Plan, Ready, Reconnecting, Resumed
from voiced.steady import Guard
from voiced.steady.breaker import FAILURES

TIMES = 20


class CrashingSession(FakeSession):
    """Also crashes within `receive`, where the call takes events."""

    crash = False

    async def receive(self) -> Sequence[EngineEvent]:
        events = await super().receive()
        if self.crash:
            raise RuntimeError("an event that nobody thought of")
        return events


class CrashingEngine(FakeEngine):
    """Its connections run in a task beside `open`, as real ones do, which `crash` ends."""

    def __init__(self, name: str = "one", *, fails_to_connect: bool = False) -> None:
        super().__init__(name)
        self.fails_to_connect = fails_to_connect
        self._crashes: dict[FakeSession, trio.Event] = {}

    def _session(self, plan: Plan) -> FakeSession:
        session = CrashingSession(self, plan)
        self._crashes[session] = trio.Event()
        return session

    async def _run(self, session: FakeSession) -> None:
        if self.fails_to_connect:
            raise RuntimeError("a bug")
        await super()._run(session)
        await self._crashes[session].wait()
        raise RuntimeError("a connection's task has failed")

    def crash(self, session: FakeSession) -> None:
        """End the session's task with an exception."""
        self._crashes[session].set()

    def crash_in_receive(self, session: FakeSession) -> None:
        """Have the next event of the session be one too much."""
        assert isinstance(session, CrashingSession)
        session.crash = True
        session.start()


HOW = pytest.mark.parametrize("how", ["task", "receive", "both"])


def crash(engine: CrashingEngine, how: str) -> None:
    session = engine.newest
    if how != "receive":
        engine.crash(session)
    if how != "task":
        engine.crash_in_receive(session)


@HOW
async def test_a_place_is_given_back_after_every_crash(autojump_clock: MockClock, how: str) -> None:
    engine = CrashingEngine()
    guard = Guard("one", max_sessions=2)
    with structlog.testing.capture_logs() as logs:
        async with Call(engine, guards=[guard], agent=Agent(reconnect_s=60)).talk() as call:
            await trio.sleep(1)
            for _ in range(TIMES):
                crash(engine, how)
                await trio.sleep(11)
                assert guard.health()["sessions"] == engine.open_now == 1
            assert call.kinds() == ["Ready", *["Reconnecting", "Resumed"] * TIMES]
            lost = [event for event in call.events if isinstance(event, Reconnecting)]
            assert {event.code for event in lost} == {"engine_failed"}
    assert guard.health()["sessions"] == engine.open_now == 0
    assert guard.health()["state"] == "closed"
    assert [line["event"] for line in logs].count("engine failed: a bug, please report it") >= TIMES
    async with (
        Call(engine, guards=[guard]).talk() as one,
        Call(engine, guards=[guard]).talk() as two,
    ):
        await trio.sleep(1)
        assert one.events == two.events == [Ready()], "all places are free"
        assert guard.health()["sessions"] == 2


@HOW
async def test_a_call_that_ends_in_a_crash_keeps_no_place(
    autojump_clock: MockClock, how: str
) -> None:
    engine = CrashingEngine()
    guard = Guard("one", max_sessions=1)
    for wait in (0.0, 0.001, 0.1, 0.3, 1.0) * 4:
        async with Call(engine, guards=[guard]).talk() as call:
            await trio.sleep(1)
            assert call.events == [Ready()]
            crash(engine, how)
            await trio.sleep(wait)
        assert guard.health()["sessions"] == engine.open_now == 0


async def test_a_successor_that_crashes_gives_its_place_back(autojump_clock: MockClock) -> None:
    engine = CrashingEngine()
    guard = Guard("one", max_sessions=2)
    engine.expires_in_s = 100.0
    async with Call(engine, guards=[guard]).talk() as call:
        await trio.sleep(1)
        engine.fails_to_connect = True
        await trio.sleep(85)
        assert len(engine.sessions) > 1
        assert guard.health()["sessions"] == engine.open_now == 1
        engine.fails_to_connect = False
        engine.connect_s = 1.0
        await trio.sleep(6)
        engine.crash(engine.newest)  # while it connects, or has just taken over
        await trio.sleep(10)
        assert not call.of(Lost)
        assert guard.health()["sessions"] == engine.open_now == 1
    assert guard.health()["sessions"] == engine.open_now == 0


async def test_an_engine_that_crashes_whenever_it_connects_is_taken_for_down(
    autojump_clock: MockClock,
) -> None:
    """Later calls need not find out for themselves."""
    one, two = CrashingEngine(fails_to_connect=True), FakeEngine("two")
    guards = [Guard("one"), Guard("two")]
    async with Call(one, two, guards=guards, agent=Agent(reconnect_s=6)).talk() as call:
        await trio.sleep(10)
        assert call.events[-1] == Resumed("two", "model-two", fallback=True, answering=False)
    assert guards[0].health()["state"] == "open"
    assert guards[0].health()["last_error"] == "engine_failed"
    assert len(one.sessions) >= FAILURES
    async with Call(one, two, guards=guards).talk():
        await trio.sleep(0.2)  # may have tried once more
    attempts = len(one.sessions)
    async with Call(one, two, guards=guards).talk() as call:
        await trio.sleep(0.2)
        assert call.engine.name == "two"
    assert len(one.sessions) == attempts
