"""Places that crashes give back, and a breaker that opens again: seen as an operator sees them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.failing import CARRIERS, Line, Outcome, Plot, Stage, stage, words
from tests.e2e.house import nothing_is_left, until
from tests.e2e.plays import GREETS, HEARS, SILENT, places_taken, went_on
from tests.e2e.test_failover_memory import say
from voiced.realtime import client
from voiced.simulate.script import HangUp, Pause, Say, WaitForAgentSilence, WaitForAgentSpeech
from voiced.steady import Guard, breaker, course, session
from voiced.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("virtual_time")

CRASHES = 20
SPOKEN_TO = (WaitForAgentSpeech(300, 120), WaitForAgentSilence(1500))
PLACES = 2
FAR_S = 100.0
"""So long are a breaker's pause and an attempt that comes to nothing: a machine that is slow is not
over them, and the test puts an end to each itself."""


async def over_both(there: Stage, name: str, play: Callable[[Line], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for carrier in CARRIERS:
            nursery.start_soon(play, there.lines[name, carrier])


def spare(line: Line) -> Line:
    """Another caller of the same number; ask nothing of it while it calls."""
    return Line(line.stage, line.name, line.carrier, line.number, line.wire)


async def speaks_up(line: Line) -> None:
    """All sessions that are to be lost have been: the model says something, and is heard."""
    await line.model("ready", CRASHES + 1)
    await say(line, "Are you still there?")


async def all_places_are_free(line: Line) -> None:
    """As many callers as there are places talk to the engine itself."""
    await places_taken(line.stage, line.agent, 0)
    outcomes: list[Outcome] = []

    async def call() -> None:
        outcomes.append(await spare(line).call(Pause(500), Say("thanks"), *HEARS, HangUp()))

    async with trio.open_nursery() as nursery:
        for _ in range(PLACES):
            nursery.start_soon(call)
    assert [outcome.row["engine"] for outcome in outcomes] == [line.agent] * PLACES
    await places_taken(line.stage, line.agent, 0)


FEW = Plot(
    agent=SILENT.replace("6", "30") + 'fallback_engine = "spare"\n',
    engine=f"max_sessions = {PLACES}",
)


async def test_the_place_of_a_lost_session_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty times in one call; each time the call takes its own place again."""
    monkeypatch.setattr(session, "PROVEN_S", 0.0)  # else the patience of one loss is for all
    async with stage(tmp_path, {"few": FEW}) as there:

        async def play(line: Line) -> None:
            taken: list[int] = []

            async def lose() -> None:
                for number in range(1, CRASHES + 1):
                    await line.model("ready", number)
                    taken.append((await there.engine(line.agent))["sessions"])
                    line.wire.cut()
                await speaks_up(line)

            line.beside(lose)
            call = await line.call(*SPOKEN_TO, Say("thanks"), *HEARS, HangUp())
            went_on(line, call)
            assert call.codes == ["close_1006"] * CRASHES
            assert call.row["engine"] == line.agent
            assert set(taken) == {1}
            assert words("goodbye") in call.said("agent")
            assert (await there.engine(line.agent))["max_sessions"] == PLACES
            await all_places_are_free(line)

        await over_both(there, "few", play)
        await nothing_is_left(there.here)


async def test_the_place_of_a_session_that_crashed_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the task that keeps a connection alive, twenty times in one call."""
    monkeypatch.setattr(session, "PROVEN_S", 0.0)
    crash: dict[str, trio.Event] = defaultdict(trio.Event)  # by engine

    async def watch(session: client.RealtimeSession, _ws: WebSocket) -> None:
        await crash[session._machine._plan.agent.engine].wait()
        raise RuntimeError("a bug")

    monkeypatch.setattr(client.RealtimeSession, "_watch", watch)
    async with stage(tmp_path, {"buggy": FEW}) as there:

        async def play(line: Line) -> None:
            async def crashes() -> None:
                for number in range(1, CRASHES + 1):
                    await line.model("ready", number)
                    crash.pop(line.agent).set()
                await speaks_up(line)

            line.beside(crashes)
            call = await line.call(*SPOKEN_TO, Say("thanks"), *HEARS, HangUp())
            went_on(line, call)
            # Who takes its events may find its socket closed before the task has ended, with our
            # code or the one that the server answers with.
            assert len(call.codes) == CRASHES
            assert set(call.codes) <= {"engine_failed", "close_1011", "close_1000"}
            assert words("goodbye") in call.said("agent")
            await all_places_are_free(line)

        await over_both(there, "buggy", play)
        told = [line["event"] for line in there.here.tracebacks()]
        assert told == ["engine failed: a bug, please report it"] * CRASHES * len(CARRIERS)


async def test_a_probe_that_fails_opens_the_breaker_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a server that is back is found: by the next probe, and by every call after it."""
    guards: dict[str, Guard] = {}
    init = Guard.__init__

    def known(guard: Guard, name: str, **more: Any) -> None:
        init(guard, name, **more)
        guards[name] = guard

    monkeypatch.setattr(Guard, "__init__", known)
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "SPAN_S", 0.0)
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", FAR_S)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE_S", 4 * FAR_S)
    monkeypatch.setattr(course, "ATTEMPT_S", FAR_S)
    monkeypatch.setattr(course, "FIRST_S", FAR_S)
    agent = GREETS.replace("6", str(FAR_S)) + 'fallback_engine = "spare"\n'
    plots = {"probed": Plot(agent=agent, engine=f"connect_timeout_s = {FAR_S}")}
    async with stage(tmp_path, plots) as there:

        async def once(line: Line) -> None:
            async def health() -> tuple[str, bool]:
                """The breaker, and whether /readyz complains of it."""
                complains = any(line.agent in each for each in await there.degraded())
                return (await there.engine(line.agent))["state"], complains

            async def pause_is_over() -> None:
                guards[line.agent]._breaker._opened_at = -math.inf
                assert (await there.engine(line.agent))["retry_in_s"] == 0.0

            async def goes_to_the_fallback(caller: Line) -> None:
                attempts = line.wire.connections
                call = await caller.call(*HEARS, HangUp())
                went_on(line, call)
                assert (call.row["engine"], call.codes) == ("spare", [])
                assert line.wire.connections == attempts, "it was not tried"
                assert call.result.agent[0].start_ms < 500 * FAR_S, "nor waited for"

            line.wire.down()
            first = await line.call(*HEARS, HangUp())
            assert first.row["engine"] == "spare"
            assert await health() == ("open", True)
            pause_s = (await there.engine(line.agent))["retry_in_s"]
            assert 0 < pause_s <= FAR_S
            await pause_is_over()

            # The probe: a connection that is taken, and then nothing.
            line.wire.up()
            line.wire.freeze()
            before = line.wire.connections

            async def probed() -> None:
                await until(lambda: line.wire.connections > before, "the probe")
                assert (await health())[0] == "half_open"
                await goes_to_the_fallback(spare(line))
                assert (await health())[0] == "half_open", "by one call at a time"
                line.wire.down()
                with trio.fail_after(20):
                    while (await health())[0] != "open":
                        await trio.sleep(0.02)
                found = await there.engine(line.agent)
                assert FAR_S < found["retry_in_s"] <= 2 * FAR_S, "longer than before"
                assert found["failures"] >= 2
                assert found["last_error"] is not None
                await goes_to_the_fallback(spare(line))

            line.beside(probed)
            # Between two fillers nobody hangs up: the probe would end with its call.
            second = await line.call(WaitForAgentSpeech(300), WaitForAgentSilence(9000), HangUp())
            assert second.row["engine"] == "spare"
            assert second.result.failure is None
            assert await health() == ("open", True)

            await pause_is_over()
            line.wire.up()
            for _ in range(2):
                found_again = await line.call(*HEARS, HangUp())
                went_on(line, found_again)
                assert found_again.row["engine"] == line.agent
                assert await health() == ("closed", False)
            found = await there.engine(line.agent)
            assert (found["failures"], found["last_error"]) == (0, None)
            assert found["retry_in_s"] is None

        await over_both(there, "probed", once)
        await nothing_is_left(there.here)
        for line in there.lines.values():
            await places_taken(there, line.agent, 0)
