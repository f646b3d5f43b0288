"""On hold, and while a transfer rings, nothing that the line says is an interruption."""

from __future__ import annotations

from typing import Literal

import pytest
import trio

from tests.test_call import TICK, Scene, answer, scene
from voiced.config.types import Agent
from voiced.engine import Committed, Ready, SpeechStarted, SpeechStopped
from voiced.formats import PCMU_8K
from voiced.leg import Transferred
from voiced.states import CallState

SPEECH = b"\x21" * 160


def transfers(s: Scene, done: bool, takes_s: float = 2.0) -> None:
    async def outcome(target: str) -> Transferred:
        await trio.sleep(takes_s)
        return Transferred(done, 200 if done else 486)

    s.leg.outcome = outcome  # type: ignore[method-assign]


@pytest.mark.parametrize("barge_in", ["immediate", "confirm", "off"])
async def test_what_waits_for_a_caller_on_hold_is_not_cut(
    autojump_clock: object, barge_in: Literal["immediate", "confirm", "off"]
) -> None:
    """The line's music, or what was said just before, comes to be known as speech."""
    async with scene(Agent(greeting="", barge_in=barge_in, silence_prompt_s=0)) as s:
        s.model.emit(Ready(), *answer("item_a", 2000))
        await trio.sleep(0.5)
        s.leg.hold(True)
        await trio.sleep(1)
        s.model.emit(SpeechStarted("item_u", 500))
        await trio.sleep(1)
        s.model.emit(SpeechStopped("item_u", 1500), Committed("item_u"))
        s.model.emit(*answer("item_b", 400))
        await trio.sleep(10)
        names = [str(name) for name, *_ in s.model.commands]
        assert not {"cancel", "truncate", "delete"} & set(names)
        s.leg.hold(False)
        await trio.sleep(5)
        figures = s.call.voice.playout.statistics()
        assert (figures.heard, figures.dropped) == (2400 * 8, 0)
        assert s.at(CallState.LISTENING)
    assert s.rows()[-1].latencies["barge_ins_ms"] == []


async def test_an_answer_that_is_owed_on_hold_is_owed_afterwards(autojump_clock: object) -> None:
    async with scene(Agent(greeting="", no_answer_s=3)) as s:
        s.model.emit(Ready(), SpeechStarted("item_u", 0))
        s.model.emit(SpeechStopped("item_u", 900), Committed("item_u"))
        await trio.sleep(TICK)
        s.leg.hold(True)
        await trio.sleep(TICK)
        s.model.emit(SpeechStarted("item_v", 900))
        await trio.sleep(20)
        s.leg.hold(False)
        await trio.sleep(TICK)
        assert s.at(CallState.THINKING)
        await trio.sleep(3.1)
        assert s.leg.bytes_played() > 0  # the filler


async def test_a_caller_talks_while_a_transfer_rings(autojump_clock: object) -> None:
    async with scene(Agent(greeting="", barge_in="immediate", silence_prompt_s=0)) as s:
        transfers(s, done=False, takes_s=5)
        s.model.emit(Ready(), *answer("item_a", 2000))
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.call.transfer, "+49301")
            await trio.sleep(1)
            s.model.emit(SpeechStarted("item_u", 500), SpeechStopped("item_u", 600))
        await trio.sleep(3)
        assert s.call.voice.playout.statistics().heard == 2000 * 8
        assert s.at(CallState.LISTENING)


async def test_the_model_hears_silence_in_the_place_of_a_hold(autojump_clock: object) -> None:
    """As long as the music: its clock goes on, and a turn that had begun finds its end."""
    async with scene(Agent(greeting="")) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        for held in (False, True, False):
            s.leg.hold(held)
            for _ in range(50):
                s.leg.say(SPEECH)
                await trio.sleep(0.02)
        heard = bytes(s.model.heard)
        second = 50 * SPEECH
        assert heard == second + PCMU_8K.silence(1000) + second


async def test_the_model_hears_silence_while_a_transfer_rings(autojump_clock: object) -> None:
    async with scene(Agent(greeting="")) as s:
        transfers(s, done=False, takes_s=1)
        s.model.emit(Ready())
        await trio.sleep(TICK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.call.transfer, "+49301")
            await trio.sleep(TICK)
            s.leg.say(SPEECH)
        await trio.sleep(TICK)
        s.leg.say(SPEECH)
        await trio.sleep(TICK)
        assert bytes(s.model.heard) == PCMU_8K.silence(20) + SPEECH
