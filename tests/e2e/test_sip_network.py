"""SIP calls through a bad network, both ways: words are understood, nothing grows, calls end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, judge, played, until
from tests.impairment import Network, SipPath, sip_path
from tests.interop.sip.house import SipHouse, SipScenes, sip_house
from voiced import clips
from voiced.simulate import SCRIPTS, CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Hold,
    Pause,
    Resume,
    Say,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)
from voiced.simulate.sip_caller import call

TEXT = f"""
[engine.offline]
kind = "emulator"
speech = "clips"

[agent.reception]
engine = "offline"
greeting_text = "{clips.load("greeting").text}"
silence_prompt_s = 0
silence_hangup_s = 0

[[number]]
match = "*"
agent = "reception"
"""

# The path's own address is the one that the daemon sees.
TRUNKS = {"path": 'allow = ["127.0.0.1/32"]\nhost = "127.0.0.1"'}

WORDS = [clips.load(name).text for name in ("hours", "interrupt", "thanks")]

scenes = SipScenes()


async def through(here: SipHouse, path: SipPath, script: Script, **more: Any) -> CallResult:
    """A call over the path."""
    result = await call(script, uri=path.uri("+15550100"), deadline_s=60, **more)
    assert (result.failure, result.violations) == (None, ()), (result.failure, result.violations)
    return result


async def row_of(here: SipHouse, result: CallResult) -> dict[str, Any]:
    row = await here.here.row(result.call_sid)
    assert row["reason"] == "caller_hangup"
    return row


def understood(row: Mapping[str, Any], words: list[str]) -> None:
    """The model heard these lines."""
    assert [each["text"] for each in row["transcript"] if each["role"] == "caller"] == words


def bounded(here: SipHouse, media: Mapping[str, Any]) -> None:
    """No queue ran over, and time was made up for once: where audio was lost, not more."""
    assert media["overrun_ms"] == 0
    assert media["resyncs"] == 0
    lost_ms = 20 * (media["lost"] + media["late"])
    assert media["filled_ms"] <= lost_ms * 1.5 + 500, media


@scenes
async def five_percent_both_ways(here: SipHouse) -> None:
    """Loss, reordering and jitter of audio; of signalling the same."""
    audio = Network(loss=0.05, reorder=0.05, reorder_s=0.03, delay_s=0.02, jitter_s=0.015)
    words = Network(loss=0.05, reorder=0.05, delay_s=0.02, jitter_s=0.01)
    address = "127.0.0.1", here.port
    async with sip_path(address, signalling=words, media=audio, seed=11) as path:
        result = await through(here, path, SCRIPTS["conversation"], linger_s=2)
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    row = await row_of(here, result)
    understood(row, WORDS)
    media = row["media"]
    bounded(here, media)
    assert path.rtp_to_daemon.lost > 20
    # What comes too late counts as lost, too.
    assert media["lost"] - media["late"] == pytest.approx(path.rtp_to_daemon.lost, abs=3)
    assert media["reordered"] > 10
    assert media["remote_lost"] > 5  # what the caller missed, by its own reports
    assert media["jitter_ms"] > 1
    assert media["rtt_ms"] > 40
    assert result.rtp is not None
    assert result.rtp.lost == pytest.approx(path.rtp_to_caller.lost, abs=3)
    assert result.rtp.remote_lost is not None
    assert result.rtp.remote_lost > 5


LONG = Script(
    "long",
    "",
    (
        WaitForAgentSpeech(300),
        WaitForAgentSilence(),
        Say("hello"),
        WaitForAgentSpeech(300),
        WaitForAgentSilence(),
        Pause(3000),
    ),
)


@scenes
async def twenty_percent(here: SipHouse) -> None:
    """Hardly a line any more; the call lives on, and ends when the caller ends it."""
    bad = Network(loss=0.2, reorder=0.1, duplicate=0.05, delay_s=0.03, jitter_s=0.03, burst=0.01)
    async with sip_path(("127.0.0.1", here.port), media=bad, seed=5) as path:
        result = await through(here, path, LONG)
    media = (await row_of(here, result))["media"]
    bounded(here, media)
    sent = path.rtp_to_daemon.passed + path.rtp_to_daemon.lost
    assert media["lost"] / sent == pytest.approx(path.rtp_to_daemon.lost / sent, abs=0.02)
    assert media["lost"] / sent > 0.15
    assert media["duplicated"] == pytest.approx(path.rtp_to_daemon.duplicated, abs=2)
    # What the caller hears is as long as it would be without loss.
    assert result.heard_greeting()
    assert result.heard_answer()


@scenes
async def signalling_that_is_lost(here: SipHouse) -> None:
    """A quarter of all messages: set up, held, resumed and torn down all the same."""
    lost = Network(loss=0.25, delay_s=0.01)
    script = Script("held", "", (WaitForAgentSpeech(300), Hold(), Pause(300), Resume(), HangUp()))
    results: list[CallResult] = []
    missing: list[int] = []

    async def talk(seed: int) -> None:
        async with sip_path(("127.0.0.1", here.port), signalling=lost, seed=seed) as path:
            results.append(await through(here, path, script, linger_s=3))
            missing.append(path.to_daemon.lost + path.to_caller.lost)

    async with trio.open_nursery() as nursery:
        for seed in range(40, 46):
            nursery.start_soon(talk, seed)
    assert sum(missing) > 12
    for result in results:
        row = await row_of(here, result)
        assert row["trunk"] == "path"
        assert "on_hold" in [state for state, _ in row["states"]]
        bounded(here, row["media"])


@scenes
async def a_line_that_is_cut_for_a_while(here: SipHouse) -> None:
    """Two seconds without a packet: silence stands in for them, then words are heard again."""
    hears = WaitForAgentSpeech(300), WaitForAgentSilence()
    script = Script("cut", "", (*hears, Pause(3000), Say("thanks"), *hears))
    results: list[CallResult] = []
    async with sip_path(("127.0.0.1", here.port), seed=3) as path, trio.open_nursery() as nursery:

        async def talk() -> None:
            results.append(await through(here, path, script))

        nursery.start_soon(talk)
        await until(lambda: path.rtp_to_daemon.passed > 220, "the greeting")
        path.cut()
        await trio.sleep(2)
        path.cut(False)
    (result,) = results
    row = await row_of(here, result)
    understood(row, WORDS[2:])
    assert row["media"]["lost"] == pytest.approx(path.rtp_to_daemon.lost, abs=3)
    # The time that was lost is made up for while it passes, not again when it is over.
    assert 1500 < row["media"]["filled_ms"] < 2300
    assert row["media"]["overrun_ms"] == 0


async def all_of_it(folder: Path) -> Outcomes:
    async with sip_house(folder, TRUNKS, text=TEXT) as here:
        return await scenes.play(here, SipHouse.nothing_left)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_sip_network(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
