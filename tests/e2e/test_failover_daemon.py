"""A model that is lost, and what else happens to the daemon meanwhile; what its operator sees."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.e2e.failing import CARRIERS, QUICK, Line, Plot, stage, words
from tests.e2e.house import nothing_is_left, until
from voiced import log
from voiced.emulator.options import EmulatorOptions
from voiced.simulate.script import (
    HangUp,
    Hold,
    Pause,
    Resume,
    Say,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.steady import breaker

pytestmark = pytest.mark.usefixtures("virtual_time")

SILENT = QUICK + 'greeting = ""\n'
GREETS = QUICK + 'greeting = "Greet the caller."\n'
HEARS = (WaitForAgentSpeech(300), WaitForAgentSilence(1500))
SLOW = EmulatorOptions(speech="clips", think_ms=700)

PLUGIN = '''
"""Looks something up, slowly."""

import trio

from voiced.plugin import Plugin, Tool


class Slow(Plugin):
    async def on_call_start(self) -> None:
        self.call.register_tool(
            Tool("opening_hours", "Looks up the opening hours of the office.", self.look)
        )

    async def look(self, arguments) -> str:
        await trio.sleep(2)
        return "OUTPUT"
'''


async def over_both(play: Callable[[str], Awaitable[None]]) -> None:
    """Play it over both carriers at a time."""
    async with trio.open_nursery() as nursery:
        for carrier in CARRIERS:
            nursery.start_soon(play, carrier)


async def test_a_server_that_is_down_is_left_alone_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later calls do not find out for themselves; health says so, and when it works again."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", 600.0)
    plots = {"down": Plot(agent=GREETS.replace("6", "4") + 'fallback_engine = "spare"\n')}
    alone = "".join(
        f'[agent.alone-{carrier}]\nengine = "down-{carrier}"\n{GREETS}'
        f'[[number]]\nmatch = "+1555999{place}"\nagent = "alone-{carrier}"\n'
        for place, carrier in enumerate(CARRIERS)
    )
    async with stage(tmp_path, plots, alone) as there:

        async def play(carrier: str) -> None:
            line = there.lines["down", carrier]
            line.wire.down()
            first = await line.call(*HEARS, HangUp())
            assert first.result.failure is None
            assert first.row["engine"] == "spare"
            found = await there.engine(line.agent)
            assert found["state"] == "open"
            assert found["failures"] >= breaker.FAILURES
            assert any(line.agent in complaint for complaint in await there.degraded())

            attempts = line.wire.connections
            second = await line.call(*HEARS, HangUp())
            assert second.row["engine"] == "spare"
            assert line.wire.connections == attempts
            assert second.codes == []

            line.wire.up()
            # Who has no other engine need not wait ten minutes.
            number = f"+1555999{CARRIERS.index(carrier)}"
            third = await Line(there, "alone", carrier, number, line.wire).call(*HEARS, HangUp())
            assert third.result.failure is None
            assert third.row["engine"] == line.agent
            assert (await there.engine(line.agent))["state"] == "closed"
            assert not any(line.agent in complaint for complaint in await there.degraded())
            fourth = await line.call(*HEARS, HangUp())
            assert fourth.row["engine"] == line.agent

        await over_both(play)
        await nothing_is_left(there.here)


async def a_tool_runs(line: Line) -> None:
    """While the model is lost: its result reaches the next session, which answers with it."""

    async def lose() -> None:
        await line.state("thinking")
        await trio.sleep(0.8)  # the tool has been called, and is at work
        line.wire.down()
        await trio.sleep(0.5)
        line.wire.up()

    line.beside(lose)
    call = await line.call(Say("hours"), *HEARS, WaitForAgentSilence(3500), HangUp())
    assert call.result.failure is None
    assert call.row["reason"] == "caller_hangup"
    assert len(call.codes) == 1
    assert words("anything_else") in call.said("agent")


async def on_hold(line: Line) -> None:
    """Nobody hears a filler on hold; who comes back is talked with."""
    if line.carrier != "sip":  # media streams know no hold
        return

    async def lose() -> None:
        await line.state("on_hold")
        line.wire.down()
        await trio.sleep(2)
        line.wire.up()

    line.beside(lose)
    steps = (Say("interrupt"), WaitForAgentSpeech(300), Hold(), Pause(3500), Resume())
    call = await line.call(*steps, WaitForAgentSilence(1500), Say("thanks"), *HEARS, HangUp())
    assert call.result.failure is None
    assert not call.result.violations
    assert call.row["reason"] == "caller_hangup"
    assert "Goodbye." in call.said("agent")


async def reload(line: Line) -> None:
    """The call goes on with the engine that it had."""
    logs = line.stage.here.logs

    def reloads() -> int:
        return len([each for each in logs if each["event"] == "configuration reloaded"])

    async def lose() -> None:
        await line.state("thinking")
        line.wire.down()
        await line.model("reconnecting")
        before = reloads()
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: reloads() > before, "the reload")
        line.wire.up()

    line.beside(lose)
    call = await line.call(Say("thanks"), *HEARS, WaitForAgentSilence(2500), HangUp())
    assert call.result.failure is None
    assert call.row["engine"] == line.agent
    assert "Goodbye." in call.said("agent")


async def test_what_goes_on_while_the_model_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "configure", lambda *_: None)  # a reload would end the capture
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "slow.py").write_text(PLUGIN.replace("OUTPUT", words("anything_else")), "utf-8")
    plays = {"tool": a_tool_runs, "hold": on_hold, "reload": reload}
    plots = {
        "tool": Plot(agent=SILENT),
        "hold": Plot(SLOW, SILENT, number="plugins = []"),
        "reload": Plot(SLOW, SILENT, number="plugins = []"),
    }
    more = "[plugins.slow]\n"
    async with stage(tmp_path, plots, more, of_daemon='plugin_dir = "plugins"') as there:

        async def play(carrier: str) -> None:
            async with trio.open_nursery() as nursery:
                for name, one in plays.items():
                    nursery.start_soon(one, there.lines[name, carrier])

        await over_both(play)
        await nothing_is_left(there.here)
        for line in there.lines.values():
            assert (await there.engine(line.agent))["sessions"] == 0


async def test_sigterm_while_the_model_is_lost(tmp_path: Path) -> None:
    """The calls hear a farewell when the time to drain is over, and the daemon ends."""
    agent = SILENT.replace("6", "60")
    async with stage(tmp_path, {"stop": Plot(SLOW, agent)}) as there:

        async def play(carrier: str) -> None:
            line = there.lines["stop", carrier]

            async def lose() -> None:
                await line.state("thinking")
                line.wire.down()
                await line.model("reconnecting")
                if carrier == CARRIERS[0]:
                    await there.lines["stop", CARRIERS[1]].model("reconnecting")
                    signal.raise_signal(signal.SIGTERM)

            line.beside(lose)
            call = await line.call(Say("thanks"), WaitForHangUp())
            assert call.result.failure is None
            assert (call.row["reason"], call.result.ended_by) == ("shutdown", "agent")
            assert call.row["states"][-2][0] == "ending"
            assert call.hears("farewell") is not None

        await over_both(play)
        assert not there.here.tracebacks()
