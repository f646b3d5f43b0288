"""Whole calls with servers that differ from OpenAI's: dialect, order of events, half a call."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import trio

from tests.e2e.ears import find
from tests.e2e.house import House, Outcomes, Scenes, agent, house, judge, nothing_is_left, played
from voiced import clips
from voiced.emulator.options import EmulatorOptions, Faults, Order
from voiced.emulator.server import serve
from voiced.simulate import Script
from voiced.simulate.script import (
    HangUp,
    Pause,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)

QUICK = "no_answer_s = 4\nsilence_prompt_s = 0\n"
GREETS = QUICK + 'greeting = "Greet the caller."\n'
SILENT = QUICK + 'greeting = ""\n'
HEARS: tuple[Step, ...] = (WaitForAgentSpeech(300), WaitForAgentSilence(700))
GREETING, GOODBYE = clips.load("greeting").text, clips.load("goodbye").text
CLONES = {
    **{order: f'order = "{order}"' for order in get_args(Order) if order != "usual"},
    "beta": 'dialect = "beta"',
}

configured: list[str] = []
scenes: Scenes[House] = Scenes()


def clone(name: str, faults: str, settings: str, number: str = "plugins = []\n") -> None:
    configured.append(
        f'[engine.{name}]\nkind = "emulator"\nspeech = "clips"\nfaults = {{ {faults} }}\n'
        f"{agent(name, name, settings)}{number}"
    )


async def is_like_any(here: House, name: str) -> None:
    """A greeting, a question, an answer: heard whole, and written down whole and in their order."""
    steps = (*HEARS, Say("thanks"), *HEARS, HangUp())
    result = await here.call(Script("asks", "", steps), name)
    assert result.failure is None
    assert not result.violations
    greeting, goodbye = find(result, "greeting"), find(result, "goodbye")
    assert greeting is not None
    assert goodbye is not None
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    assert [(each["role"], each["text"], each["cut"]) for each in row["transcript"]] == [
        ("agent", GREETING, False),
        ("caller", clips.load("thanks").text, False),
        ("agent", GOODBYE, False),
    ]
    assert not here.lines_of(result.call_sid)


async def is_interrupted(here: House, name: str) -> None:
    """It stops at once, the next answer is given, and of the first is written what was heard."""
    steps = (SayWhileAgentSpeaks("thanks", 1500), *HEARS, HangUp())
    result = await here.call(Script("interrupts", "", steps), name)
    assert result.failure is None
    assert result.clean_barge_in(), result.interruptions
    assert find(result, "goodbye") is not None
    row = await here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    *before, asked, answered = row["transcript"]
    assert (asked["role"], answered["text"], answered["cut"]) == ("caller", GOODBYE, False)
    if "words_last" not in name:  # of what was cut then nobody knew the words
        (cut,) = before
        assert (cut["role"], cut["cut"]) == ("agent", True)
        assert 0 < len(cut["text"]) < len(GREETING)
        assert GREETING.startswith(cut["text"])
    assert not here.lines_of(result.call_sid)


for name, faults in CLONES.items():
    clone(name, faults, GREETS)
    scenes[name] = partial(is_like_any, name=name)
    clone(f"long_{name}", f"{faults}, answer_ms = 8000", GREETS)
    scenes[f"long_{name}"] = partial(is_interrupted, name=f"long_{name}")


async def ends_only_when_told_all(here: House, name: str) -> None:
    """A goodbye that the caller talked into is no end of the call; one that came whole is."""
    steps = (Say("thanks"), Pause(1500), Say("thanks"), WaitForHangUp(20))
    result = await here.call(Script("says goodbye twice", "", steps), name)
    assert (result.failure, result.ended_by) == (None, "agent")
    assert len(result.caller) == 2  # the first was not enough
    row = await here.row(result.call_sid)
    assert row["reason"] == "model"
    assert [each["role"] for each in row["transcript"]].count("caller") == 2


TOOLS = 'plugins = ["tools"]\n'
for name, faults in (
    ("half", "half_calls = 1"),
    ("half_and_unnamed", "half_calls = 1, unnamed_calls = true"),
    ("half_beta", 'half_calls = 1, dialect = "beta"'),
):
    clone(name, faults, SILENT, TOOLS)
    scenes[name] = partial(ends_only_when_told_all, name=name)


# ---- the same by an address, as an operator would name such a server

BY_URL = """
[engine.by_url]
kind = "realtime"
server = "other"
dialect = "beta"
model = "emulator"
url = "ws://127.0.0.1:{port}/v1/realtime"
"""
OFFLINE = EmulatorOptions(speech="clips", faults=Faults(dialect="beta", answer_ms=8000))
configured.append(agent("by_url", "by_url", GREETS) + "plugins = []\n")
scenes["by_url"] = partial(is_interrupted, name="by_url")


async def all_of_it(folder: Path) -> Outcomes:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, "127.0.0.1", 0, OFFLINE)
        text = "".join(configured) + BY_URL.format(port=port) + "[plugins.tools]\n"
        async with house(folder, text) as here:
            outcomes = await scenes.play(here, nothing_is_left)
        nursery.cancel_scope.cancel()
    return outcomes


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_clones(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
