"""What comes back of the agent's last words when they are over: on a virtual clock."""

from __future__ import annotations

import pytest
import trio

from tests.test_call import TICK
from tests.test_call_confirm import caller, recorded, speaking
from voiced.engine import Committed, SpeechStarted, SpeechStopped
from voiced.states import CallState

WORD_MS = 300
WORD = recorded()[: 16 * WORD_MS]
"""Shorter than the line's delay, 120 ms, and a report of speech, 200 ms, together."""


@pytest.mark.xfail(strict=True, reason="speech_started after the last sample is taken for a turn")
@pytest.mark.parametrize("gain", [0.1, 0.25])
@pytest.mark.parametrize("silence_ms", [500, 1500])
async def test_the_echo_of_a_short_answer_is_no_turn(
    autojump_clock: object, gain: float, silence_ms: int
) -> None:
    """Its echo is reported when nothing is to be heard any more; the model must not answer it."""
    async with speaking(WORD) as (s, leg):
        await leg.echo(gain, 320)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(gain, 100 + silence_ms)
        assert s.at(CallState.LISTENING)
        s.model.emit(SpeechStopped("u2", 900), Committed("u2"))
        await trio.sleep(TICK)
        assert ("delete", "u2") in s.model.commands
        assert ("respond", None) not in s.model.commands


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("who", [0, 1])
async def test_who_speaks_right_after_the_answer_is_answered(
    autojump_clock: object, gain: float, who: int
) -> None:
    """Though an echo is looked for."""
    async with speaking(WORD) as (s, leg):
        await leg.echo(gain, 320)
        said = caller(who)
        await leg.echo(gain, 200, said)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(gain, 1000, said[1600:])
        s.model.emit(SpeechStopped("u2", 1500), Committed("u2"))
        await trio.sleep(TICK)
        assert ("respond", None) in s.model.commands
        assert ("delete", "u2") not in s.model.commands
