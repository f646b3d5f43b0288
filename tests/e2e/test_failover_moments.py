"""A model that is lost in the very moment of something else, or twice while it makes up for it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import pytest
import trio

from tests.e2e.failing import QUICK, Line, Outcome, Plot, words
from tests.e2e.house import Outcomes, judge, until
from tests.e2e.plays import GREETS, HEARS, SILENT, SLOW, Plays, went_on
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.simulate.script import (
    HangUp,
    Hold,
    Pause,
    Resume,
    Say,
    SayWhileAgentSpeaks,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)

PLUGIN = '''
"""Looks something up, and says when it has."""

import trio

from voiced.plugin import Plugin, Tool


class Slow(Plugin):
    async def on_call_start(self) -> None:
        self.call.register_tool(
            Tool("opening_hours", "Looks up the opening hours of the office.", self.look)
        )

    async def look(self, arguments) -> str:
        self.call.log.info("tool runs")
        await trio.sleep(1)
        self.call.log.info("tool returns")
        return "OUTPUT"
'''

AROUND_S = (-0.04, 0.0)
"""Just before the moment, and as soon as it is known: as far as a test of real sockets can aim."""

plays = Plays()


class Scenario(Protocol):
    """`around_s`: from the moment to the loss."""

    __name__: str

    def __call__(self, line: Line, *, around_s: float) -> Awaitable[None]:
        """Play it."""


def in_the_moment(plot: Plot, **more: tuple[str, ...]) -> Callable[[Scenario], None]:
    """Play it with a loss just before, and in the moment."""

    def add(play: Scenario) -> None:
        for around_s in AROUND_S:
            where = "before" if around_s < 0 else "in"
            name = f"{play.__name__}_{where}"
            plays.scenario(plot, name, **more)(partial(play, around_s=around_s))

    return add


def said(call: Outcome) -> str:
    """All that the agent said; an answer that broke off and went on is two texts."""
    return " ".join(call.said("agent").split())


async def aim(line: Line, due: float, around_s: float) -> None:
    """Lose the model at `due`, or so much before or after."""
    await trio.sleep_until(due + around_s)
    line.wire.cut()


# ---- two losses in one call

STORY = "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen."
COUNTS = re.findall(r"\w+", STORY)
SPEAKS = EmulatorOptions(delta_ms=100, realtime_factor=1.5)


@plays.scenario(Plot(SPEAKS, QUICK + f'greeting_text = "{STORY}"\n'))
async def lost_again_while_an_answer_goes_on(line: Line) -> None:
    """What broke off twice is heard to its end: no word is left out, few are said again."""

    async def lose() -> None:
        await line.state("greeting")
        for number in (1, 2):
            await line.model("ready", number)
            await trio.sleep(1.3)
            line.wire.cut()

    line.beside(lose)
    call = await line.call(WaitForAgentSpeech(300), WaitForAgentSilence(2500), HangUp())
    went_on(line, call)
    assert len(call.codes) == 2
    told = re.findall(r"\w+", call.said("agent"))
    assert set(told) == set(COUNTS), told
    places = [told.index(word) for word in COUNTS]
    assert places == sorted(places), told
    assert len(told) <= len(COUNTS) + 4, told


@plays.scenario(Plot(SLOW, SILENT))
async def lost_again_before_it_is_made_up_for(line: Line) -> None:
    """The second loss comes before a word of the answer to the caller's turn."""

    async def lose() -> None:
        await line.state("thinking")
        line.wire.cut()
        await line.model("ready", 2)
        await trio.sleep(0.3)
        line.wire.cut()

    line.beside(lose)
    call = await line.call(Say("thanks"), *HEARS, WaitForAgentSilence(2000), HangUp())
    went_on(line, call)
    assert len(call.codes) == 2
    assert call.said("agent") == words("goodbye"), "once"
    assert call.said("caller") == words("thanks")


# ---- barge-in

LONG = EmulatorOptions(speech="clips", faults=Faults(answer_ms=9000))


@in_the_moment(Plot(LONG, GREETS))
async def barges_in(line: Line, *, around_s: float) -> None:
    """The agent falls silent, what the caller said is understood, the old answer does not go on."""

    async def lose() -> None:
        if around_s < 0:  # the model has heard a little of it, and has not said so yet
            await until(lambda: line.caller_speaks_at is not None, "the interruption")
            assert line.caller_speaks_at is not None
            await aim(line, line.caller_speaks_at, 0.1)
        else:
            await line.state("caller_speaking")
            await aim(line, trio.current_time(), around_s)

    line.beside(lose)
    call = await line.call(
        SayWhileAgentSpeaks("interrupt"), *HEARS, Say("thanks"), *HEARS, HangUp()
    )
    went_on(line, call)
    assert len(call.codes) == 1, call.lines
    assert words("interrupt") in call.said("caller"), call.row["transcript"]
    assert words("thanks") in call.said("caller"), call.row["transcript"]
    asked = [each["text"] for each in call.row["transcript"]]
    at = asked.index(words("interrupt"))
    assert words("greeting") not in " ".join(asked[at + 1 :]), asked
    assert words("go_ahead") in said(call), call.row["transcript"]
    if around_s >= 0:
        assert call.result.clean_barge_in(), call.result.interruptions


# ---- hold


@in_the_moment(Plot(SLOW, SILENT), carriers=("sip",))
async def holds(line: Line, *, around_s: float) -> None:
    """Nothing is heard on hold; who comes back is talked with."""

    async def lose() -> None:
        if around_s < 0:
            await line.state("speaking")
            await trio.sleep(0.25)
        else:
            await line.state("on_hold")
            await trio.sleep(around_s)
        line.wire.cut()

    line.beside(lose)
    steps = (Say("interrupt"), WaitForAgentSpeech(300), Hold(), Pause(1500), Resume())
    call = await line.call(*steps, *HEARS, Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert len(call.codes) == 1, call.lines
    assert words("go_ahead") in said(call), call.row["transcript"]
    assert "Goodbye." in call.said("agent"), call.row["transcript"]


@in_the_moment(Plot(SLOW, SILENT), carriers=("sip",))
async def comes_back_from_hold(line: Line, *, around_s: float) -> None:
    async def lose() -> None:
        await line.state("on_hold")
        held_at = trio.current_time()
        if around_s < 0:
            await aim(line, held_at + 1.0, around_s)
        else:
            await until(lambda: line.now != "on_hold", "the end of hold")
            await aim(line, trio.current_time(), around_s)

    line.beside(lose)
    steps = (Say("interrupt"), WaitForAgentSpeech(300), Hold(), Pause(1000), Resume())
    call = await line.call(*steps, *HEARS, Say("thanks"), *HEARS, HangUp())
    went_on(line, call)
    assert len(call.codes) == 1, call.lines
    assert words("go_ahead") in said(call), call.row["transcript"]
    assert "Goodbye." in call.said("agent"), call.row["transcript"]


# ---- hang-up


@in_the_moment(Plot(SLOW, GREETS))
async def hangs_up(line: Line, *, around_s: float) -> None:
    """The call is over, whoever was first, and nobody looks for another model."""

    async def lose() -> None:
        await until(lambda: line.media_at is not None, "media")
        assert line.media_at is not None
        await aim(line, line.media_at + 1.5, around_s)

    line.beside(lose)
    call = await line.call(Pause(1500), HangUp())
    assert call.result.failure is None
    assert call.row["reason"] == "caller_hangup"
    attempts = line.wire.connections
    await trio.sleep(1.0)
    assert line.wire.connections == attempts


@in_the_moment(Plot(SLOW, f"{QUICK}max_duration_s = 2\ngreeting = ''\n"))
async def is_hung_up_on(line: Line, *, around_s: float) -> None:
    """The farewell is heard to its end all the same."""

    async def lose() -> None:
        await until(lambda: line.media_at is not None, "media")
        if around_s < 0:
            assert line.media_at is not None
            await aim(line, line.media_at + 2, 2 * around_s)
        else:
            await line.state("ending")
            await aim(line, trio.current_time(), around_s)

    line.beside(lose)
    call = await line.call(WaitForHangUp())
    assert call.result.failure is None
    assert (call.row["reason"], call.result.ended_by) == ("max_duration", "agent")
    if line.carrier == "twilio":  # a packet that has left was heard
        assert call.result.unheard_ms == 0
    assert call.hears("farewell") is not None


# ---- a tool's return


@in_the_moment(Plot(SLOW, SILENT, number='plugins = ["slow"]'))
async def a_tool_returns(line: Line, *, around_s: float) -> None:
    """Its result is spoken, once, and it is not called again."""

    async def lose() -> None:
        event = "tool runs" if around_s < 0 else "tool returns"
        await until(lambda: bool(line.logged(event)), event)
        await aim(line, trio.current_time() + (1.0 if around_s < 0 else 0.0), around_s)

    line.beside(lose)
    call = await line.call(Say("hours"), *HEARS, WaitForAgentSilence(2500), HangUp())
    went_on(line, call)
    assert len(call.codes) == 1, call.lines
    assert call.said("agent").count(words("anything_else")) == 1, call.row["transcript"]
    assert len(line.logged("tool runs")) == 1


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("moments")
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    (plugins / "slow.py").write_text(PLUGIN.replace("OUTPUT", words("anything_else")), "utf-8")
    return plays.play(folder, "[plugins.slow]\n", of_daemon='plugin_dir = "plugins"')


@pytest.mark.parametrize("name", plays.scenes.names)
def test_failover_moments(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
