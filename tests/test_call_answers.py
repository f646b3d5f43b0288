"""The model's answers by the call's own rules: asked for, put off, failed, silenced."""

from __future__ import annotations

import pytest
import trio

from tests.test_call import Scene, answer, scene, turn
from tests.test_call_words import at_once, spoken
from voiced.config.types import Agent
from voiced.engine import (
    AgentTranscript,
    Committed,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.leg import Unsupported
from voiced.plugin import Tool
from voiced.states import CallState
from voiced.talk.answers import MAX_POSTPONED

QUIET = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)


def asked(s: Scene) -> list[object]:
    return [command[1] for command in s.model.commands if command[0] == "respond"]


def owed(s: Scene) -> bool:
    return s.call.dialogue.patience.owed


def paused(s: Scene) -> bool:
    """For the judge to say whether the caller interrupts."""
    talk = s.call._conversation
    confirming = None if talk is None else talk.dialogue.turns.confirming
    return confirming is not None and confirming.pending


async def test_only_so_much_is_put_off_while_a_plugin_has_the_call(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        dialogue = s.call.dialogue
        dialogue.take_over(True)
        for number in range(MAX_POSTPONED + 5):
            dialogue.answers.ask(str(number))
        assert asked(s) == []
        dialogue.take_over(False)
        assert asked(s) == [str(number) for number in range(MAX_POSTPONED)]


async def test_the_last_of_two_plugins_gives_the_call_back(autojump_clock: object) -> None:
    """The second takes what nobody has: it cuts nothing off that the first one plays."""
    async with scene(QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        dialogue = s.call.dialogue
        dialogue.take_over(True)
        s.call.voice.queue("menu", b"\x55" * 8000)
        await trio.sleep(0.2)
        dialogue.take_over(True)
        await trio.sleep(2)
        assert s.leg.bytes_played() == 8000
        assert not s.leg.clears[1:]
        dialogue.take_over(False)
        s.model.emit(*answer("a1", 400))
        await trio.sleep(1)
        assert s.leg.bytes_played() == 8000
        dialogue.take_over(False)
        s.model.emit(*answer("a2", 400))
        await trio.sleep(1)
        assert s.leg.bytes_played() == 8000 + 3200


async def test_an_answer_in_words_that_another_is_to_follow_settles_nothing(
    autojump_clock: object,
) -> None:
    """A result came while the model was writing: what it says to that is owed still."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"))
        await trio.sleep(0.01)
        s.call.dialogue.answers.ask()
        s.model.emit(AgentTranscript("a1", "Let me see.", True), ResponseDone("r1", "completed"))
        await trio.sleep(0.01)
        assert owed(s)
        s.model.emit(ResponseStarted("r2"), ResponseDone("r2", "completed"))
        await trio.sleep(0.01)
        assert not owed(s)
        assert s.at(CallState.LISTENING)


async def test_an_answer_that_failed_is_owed_still(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"), ResponseDone("r1", "failed"))
        await trio.sleep(0.01)
        assert owed(s)
        assert s.at(CallState.THINKING)
        await trio.sleep(QUIET.no_answer_s + 0.1)
        assert s.leg.bytes_played()  # the filler


async def test_what_was_cancelled_with_an_interruption_is_not_asked_for_anew(
    autojump_clock: object,
) -> None:
    """The caller is speaking still: there is nothing to answer."""
    async with scene(QUIET) as s:
        at_once(s.model)
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.model.emit(*turn())
        await trio.sleep(0.01)
        s.model.emit(SpeechStarted("item_u2", 0), *spoken(1000))
        await trio.sleep(0.1)
        assert asked(s) == []
        assert s.at(CallState.CALLER_SPEAKING)


async def test_keys_pressed_at_the_end_are_nobodys(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.call.wind_down("asked", "farewell")
        await trio.sleep(0.01)
        s.model.commands.clear()
        s.leg.press("5")
        await trio.sleep(0.01)
        assert not [command for command in s.model.commands if command[0] == "add_message"]


@pytest.mark.parametrize("how", ["taken", "ending"])
async def test_a_judgement_ends_where_somebody_else_has_the_call(
    autojump_clock: object, how: str
) -> None:
    """Playback was paused for it; what is to be heard next is heard."""
    agent = Agent(greeting="", barge_in="confirm", silence_prompt_s=0, silence_hangup_s=0)
    async with scene(agent) as s:
        s.model.emit(Ready(), *turn(), *answer("a1", 3000))
        await trio.sleep(1)
        s.model.emit(SpeechStarted("item_u2", 0))
        await trio.sleep(0.1)
        assert paused(s)
        played = s.leg.bytes_played()
        if how == "taken":
            s.call.dialogue.take_over(True)
            s.call.voice.queue("menu", b"\x55" * 800)
        else:
            s.call.wind_down("asked", b"\x55" * 800)
        await trio.sleep(0.05)
        assert not paused(s)
        assert s.leg.bytes_played() > played
        if how == "ending":
            with trio.fail_after(10):
                await s.call.ended.wait()
            with pytest.raises(Unsupported):
                _ = s.call.dialogue


async def test_last_words_do_not_wait_for_the_rest_of_a_sentence(autojump_clock: object) -> None:
    """What came of it is heard out; the rest was cancelled, and nobody says that it is over."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *spoken(1000))
        await trio.sleep(0.5)
        s.call.wind_down("asked", b"\x55" * 800)
        with trio.fail_after(0.7):
            await s.call.ended.wait()
        assert s.leg.bytes_played() == 8000 + 800


async def test_a_call_that_is_to_end_waits_for_what_a_tool_brings(autojump_clock: object) -> None:
    async def slow(_arguments: object) -> str:
        await trio.sleep(2)
        return "done"

    async with scene(QUIET) as s:
        s.call.register_tool(Tool("slow", "Slow.", slow))
        s.model.emit(Ready(), *turn(), ResponseStarted("r1"))
        s.model.emit(ToolCall("c1", "t1", "slow", "{}"), ResponseDone("r1", "completed"))
        await trio.sleep(0.1)
        s.call.dialogue.patience.settled()
        s.call.finish("asked", None)
        await trio.sleep(2.1)
        assert asked(s) == [None]
        s.model.emit(*answer("a1", 1000))
        with trio.fail_after(1.5):
            await s.call.ended.wait()
        assert s.leg.bytes_played() == 8000


async def test_speech_before_media_pauses_nothing(autojump_clock: object) -> None:
    """Nothing is heard yet, so nothing can be interrupted, nor come back as an echo."""
    agent = Agent(greeting="", barge_in="confirm", silence_prompt_s=0, silence_hangup_s=0)
    async with scene(agent, attach=False) as s:
        s.call.voice.queue("notice", b"\x55" * 8000)
        s.model.emit(Ready(), SpeechStarted("item_u1", 0))
        await trio.sleep(0.01)
        s.call.attach(s.leg)
        await trio.sleep(0.01)
        assert not paused(s)
        await trio.sleep(1.1)
        assert s.leg.bytes_played() == 8000
        assert not s.leg.clears


async def test_last_words_are_the_calls_whatever_a_plugin_takes(autojump_clock: object) -> None:
    """A plugin that takes the call over while it ends silences nobody."""
    agent = Agent(greeting="", farewell_text="Bye!")
    async with scene(agent) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        dialogue = s.call.dialogue
        s.call.wind_down("asked", "farewell")
        await trio.sleep(0.01)
        dialogue.take_over(True)
        s.model.emit(*answer("a1", 400))
        with trio.fail_after(1):
            await s.call.ended.wait()
        assert s.leg.bytes_played() == 3200
        dialogue.take_over(False)


async def test_back_from_hold_the_state_says_who_speaks(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *answer("a1", 2000))
        await trio.sleep(0.5)
        s.leg.hold(True)
        await trio.sleep(1)
        s.leg.hold(False)
        await trio.sleep(0.1)
        assert s.at(CallState.SPEAKING)
        await trio.sleep(2)
        assert s.at(CallState.LISTENING)


async def test_on_hold_the_model_hears_nothing_of_the_end(autojump_clock: object) -> None:
    """A plugin gives the call back as it ends: what comes from the other side is music still."""
    async with scene(QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        dialogue = s.call.dialogue
        dialogue.hold(True)
        dialogue.close()
        assert dialogue.floor.deaf
        dialogue.hold(False)
        assert not dialogue.floor.deaf


@pytest.mark.parametrize("asked_before", [True, False])
async def test_who_confirms_owes_no_answer_to_a_turn_that_goes_on(
    autojump_clock: object, asked_before: bool
) -> None:
    """The caller speaks again before anything was heard of the answer."""
    agent = Agent(greeting="", barge_in="confirm", silence_prompt_s=0, silence_hangup_s=0)
    async with scene(agent) as s:
        s.model.emit(Ready())
        if asked_before:
            s.model.emit(*turn())
        await trio.sleep(0.01)
        assert owed(s) == asked_before
        s.model.emit(SpeechStarted("item_u2", 0))
        await trio.sleep(0.01)
        assert not owed(s)
        assert (("cancel",) in s.model.commands) == asked_before
        assert s.at(CallState.CALLER_SPEAKING)


async def test_back_from_hold_in_a_pause_of_the_answer(autojump_clock: object) -> None:
    """All that came was heard, and more is owed: the agent has the word, and nobody is asked."""
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *spoken(400))
        await trio.sleep(1)
        s.leg.hold(True)
        await trio.sleep(1)
        s.leg.hold(False)
        await trio.sleep(0.1)
        assert s.at(CallState.SPEAKING)


async def test_after_an_interruption_that_was_judged_the_next_answer_is_heard(
    autojump_clock: object,
) -> None:
    agent = Agent(greeting="", barge_in="confirm", silence_prompt_s=0, silence_hangup_s=0)
    async with scene(agent) as s:
        s.model.emit(Ready(), *turn(), *answer("a1", 3000))
        await trio.sleep(1)
        s.model.emit(SpeechStarted("item_u2", 0))
        await trio.sleep(0.01)
        confirming = s.call.dialogue.turns.confirming
        assert confirming is not None
        confirming._conclude("interruption", trio.current_time())
        (told,) = [command for command in s.model.commands if command[0] == "truncate"]
        assert told == ("truncate", "a1", 0, 1000)
        played = s.leg.bytes_played()
        s.model.emit(SpeechStopped("item_u2", 0), Committed("item_u2"), *answer("a2", 400))
        await trio.sleep(1)
        assert s.leg.bytes_played() == played + 3200


async def test_the_model_hears_nothing_of_the_last_words(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready())
        s.leg.say(b"\x21" * 160)
        await trio.sleep(0.01)
        s.call.wind_down("asked", b"\x55" * 8000)
        s.leg.say(b"\x22" * 160)
        await trio.sleep(0.1)
        assert s.model.heard == b"\x21" * 160


async def test_the_end_does_not_wait_for_an_answer_that_was_lost(autojump_clock: object) -> None:
    async with scene(QUIET) as s:
        s.model.emit(Ready(), *turn(), *spoken(200), Reconnecting("gone", "gone"))
        s.model.emit(Resumed("other", "model", fallback=False, answering=False))
        await trio.sleep(0.5)
        s.call.finish("asked", None)
        with trio.fail_after(0.5):
            await s.call.ended.wait()


async def test_a_farewell_whose_model_is_lost_is_not_waited_for(autojump_clock: object) -> None:
    async with scene(Agent(greeting="", farewell_text="Bye!")) as s:
        s.model.emit(Ready())
        await trio.sleep(0.01)
        s.call.wind_down("asked", "farewell")
        await trio.sleep(0.01)
        s.model.emit(*spoken(400), Reconnecting("gone", "gone"))
        with trio.fail_after(1):
            await s.call.ended.wait()
        assert s.leg.bytes_played() == 3200
