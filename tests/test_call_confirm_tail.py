"""What comes back of the agent's last words when they are over, and who speaks then."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from tests.interruption import sounds
from tests.test_call import TICK
from tests.test_call_confirm import caller, recorded, speaking, ulaw
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    Committed,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    SpeechStopped,
)
from voiced.states import CallState

WORD_MS = 300
WORD = recorded()[: 16 * WORD_MS]
"""Shorter than the line's delay, 120 ms, and a report of speech, 200 ms, together."""


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
        assert leg.clears == []  # there is nothing to pause


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


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("gap_ms", [0, 200, 600])
@pytest.mark.parametrize("who", [0, 1])
async def test_a_short_word_after_the_answer_is_a_turn(
    autojump_clock: object, gain: float, gap_ms: int, who: int
) -> None:
    """As soft as a third of the agent; it is over before there is a verdict."""
    async with speaking(WORD) as (s, leg):
        await leg.echo(gain, 320 + gap_ms)
        word = caller(who)[: 8 * 300] / 3
        await leg.echo(gain, 200, word)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(gain, 600, word[1600:])
        s.model.emit(SpeechStopped("u2", 900), Committed("u2"))
        await trio.sleep(TICK)
        assert s.at(CallState.THINKING)
        assert ("respond", None) in s.model.commands
        assert ("delete", "u2") not in s.model.commands
    assert s.rows()[-1].latencies["barge_ins_ms"] == []  # there was nothing to interrupt


async def test_a_voice_that_is_none_is_a_turn_too(autojump_clock: object) -> None:
    """In doubt somebody wants to be heard: nothing is lost by an answer."""
    async with speaking(WORD) as (s, leg):
        await leg.echo(0.1, 600)
        sound = sounds.COUGHS["cough"](np.random.default_rng(2))
        await leg.echo(0.1, 120, sound)
        s.model.emit(SpeechStarted("u2", 600))
        await leg.echo(0.1, 900, sound[960:])
        s.model.emit(SpeechStopped("u2", 1500), Committed("u2"))
        await trio.sleep(TICK)
        assert ("respond", None) in s.model.commands


async def test_a_second_after_the_answer_nothing_is_judged(autojump_clock: object) -> None:
    async with speaking(WORD) as (s, leg):
        await leg.echo(0.25, 1320)
        s.model.emit(SpeechStarted("u2", 1300))
        await trio.sleep(TICK)
        assert s.at(CallState.CALLER_SPEAKING)


async def test_what_was_cut_off_echoes_no_longer_than_it_was_heard(autojump_clock: object) -> None:
    """What is cut off by the caller is not heard any more: its second begins at the cut."""
    async with speaking() as (s, leg):
        await leg.echo(0.0, 600)
        s.call.dialogue.silence()
        await leg.echo(0.0, 1100)
        s.model.emit(SpeechStarted("u2", 1700))
        await trio.sleep(TICK)
        assert s.at(CallState.CALLER_SPEAKING)


@pytest.mark.parametrize("back_after_s", [0.1, 3.0])
async def test_a_hold_takes_the_question_away(autojump_clock: object, back_after_s: float) -> None:
    """Nobody can say any more what it was, so it deserves an answer."""
    async with speaking(WORD) as (s, leg):
        await leg.echo(0.25, 320)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(0.25, 100)
        leg.hold(True)
        await trio.sleep(back_after_s)
        assert s.at(CallState.ON_HOLD)
        leg.hold(False)
        await trio.sleep(TICK)
        assert s.at(CallState.LISTENING)
        s.model.emit(SpeechStopped("u2", 900), Committed("u2"))
        await trio.sleep(TICK)
        assert ("respond", None) in s.model.commands


async def test_a_model_that_is_lost_takes_it_away_too(autojump_clock: object) -> None:
    async with speaking(WORD) as (s, leg):
        await leg.echo(0.25, 320)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(0.25, 100)
        s.model.emit(Reconnecting("socket", "closed"), Resumed("fake", "model", False, False))
        await leg.echo(0.25, 1500)
        assert s.at(CallState.LISTENING)
        s.model.emit(SpeechStarted("v1", 0))
        await trio.sleep(TICK)
        assert s.at(CallState.CALLER_SPEAKING)
        s.model.emit(SpeechStopped("v1", 900), Committed("v1"))
        await trio.sleep(TICK)
        assert s.model.commands[-1] == ("respond", None)


async def test_the_call_ends_meanwhile(autojump_clock: object) -> None:
    async with speaking(WORD) as (s, leg):
        await leg.echo(0.25, 320)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(0.25, 100)
        leg.hang_up_as_caller()
        with trio.fail_after(5):
            await s.call.ended.wait()
    row = s.rows()[-1]
    assert row.reason == "caller_hangup"
    assert [(entry.role, entry.cut) for entry in row.transcript] == [("agent", False)]


async def test_an_answer_that_begins_meanwhile_is_not_cut(autojump_clock: object) -> None:
    """It was on its way when the echo of the last one was reported."""
    async with speaking(WORD) as (s, leg):
        await leg.echo(0.1, 320)
        s.model.emit(SpeechStarted("u2", 120))
        await leg.echo(0.1, 100)
        s.model.emit(
            ResponseStarted("r2"),
            AgentAudio("r2", "a2", 0, ulaw(recorded()[16_000:32_000])),
            AgentAudioDone("r2", "a2"),
            ResponseDone("r2", "completed"),
        )
        await leg.echo(0.1, 500)
        s.model.emit(SpeechStopped("u2", 900), Committed("u2"))
        await leg.echo(0.1, 1000)
        figures = s.call.voice.playout.statistics()
        assert (figures.unheard, figures.dropped) == (0, 0)
        assert ("delete", "u2") in s.model.commands


@pytest.mark.parametrize("late_s", [-0.001, 0, 0.0005, 0.0015])
async def test_an_echo_that_is_reported_with_the_last_sample_leaves_the_caller_the_word(
    autojump_clock: object, late_s: float
) -> None:
    """The speaker is a moment behind what is heard: the pause finds that nothing is left."""
    async with speaking(WORD) as (s, leg):
        await trio.sleep_until(leg._play_until + late_s)
        s.model.emit(SpeechStarted("u2", 300))
        await trio.sleep(0.5)
        s.model.emit(SpeechStopped("u2", 1200), Committed("u2"))
        await trio.sleep(TICK)
        assert s.at(CallState.LISTENING)


async def test_the_echo_of_a_question_is_no_sign_of_a_caller(autojump_clock: object) -> None:
    """Whoever does not answer is not there, however often the line does."""
    async with speaking(WORD, silence_prompt_s=5, silence_hangup_s=15) as (s, leg):
        began = trio.current_time()
        await leg.echo(0.1, 320)
        number = 2
        while s.call.record.reason is None and number < 9:
            s.model.emit(SpeechStarted(f"u{number}", 120))
            await leg.echo(0.1, 800)
            s.model.emit(SpeechStopped(f"u{number}", 900), Committed(f"u{number}"))
            number += 1
            while s.call.voice.playout.idle and s.call.record.reason is None:
                await leg.echo(0.1, 20)
            await leg.echo(0.1, 600)
        assert s.call.record.reason == "caller_silence"
        assert trio.current_time() - began < 17
