"""What becomes of the caller's turns where a judge says which are speech: each has its verdict.

What is none, neither the model nor the transcript keeps, in whatever order the server tells of it;
what is one, the model gets whole.
"""

from __future__ import annotations

import pytest
import trio

from tests.test_call import TICK, Scene, answer, scene, turn
from tests.test_call_confirm import CALLER, Line, caller, line, recorded, speaking, ulaw
from tests.test_call_plugins import Diary
from tests.test_call_plugins import scene as scene_with
from tests.test_call_words import at_once
from voiced.config.types import Agent
from voiced.engine import (
    CallerTranscript,
    Committed,
    EngineFault,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    Usage,
)
from voiced.states import CallState

CONFIRMS = Agent(greeting="", barge_in="confirm", confirm_ms=400, silence_prompt_s=0)
PAID = Usage(transcription_in=7)


def asked(s: Scene) -> int:
    return s.model.commands.count(("respond", None))


def owed(s: Scene) -> bool:
    talk = s.call._conversation  # `Call.dialogue` is for those who are heard
    return talk is not None and talk.dialogue.patience.owed


def callers(s: Scene) -> list[str]:
    return [entry.text for entry in s.call.record.transcript.entries() if entry.role == "caller"]


async def echoed(s: Scene, leg: Line, item: str = "u2") -> None:
    """The line's echo is reported as speech, and ends."""
    await leg.echo(0.25, 600)
    s.model.emit(SpeechStarted(item, 300))
    await leg.echo(0.25, 600)
    s.model.emit(SpeechStopped(item, 1200))
    await leg.echo(0.25, 20)


# ---- words of what was no speech


async def test_an_echo_without_a_name_costs_nobody_their_words(autojump_clock: object) -> None:
    """A clone that names no items: what is said later has no other name than the echo."""
    async with speaking() as (s, leg):
        await echoed(s, leg, "")
        s.model.emit(Committed(""))
        await trio.sleep(12)
        assert asked(s) == 0
        s.model.emit(*turn(""), CallerTranscript("", "When?", final=True))
        await trio.sleep(TICK)
        assert asked(s) == 1
        assert callers(s) == ["When?"]
        assert ("delete", "") not in s.model.commands


@pytest.mark.parametrize("when", ["before", "with", "after", "in pieces"])
async def test_words_of_an_echo_are_nobodys(autojump_clock: object, when: str) -> None:
    """A server that had begun to write them down tells them though the item was taken out."""
    async with speaking() as (s, leg):
        await echoed(s, leg)
        words = CallerTranscript("u2", "We are open", final=True, usage=PAID)
        if when == "before":
            s.model.emit(words)
        s.model.emit(Committed("u2"))
        if when != "with":
            await trio.sleep(TICK)
            assert ("delete", "u2") in s.model.commands
        if when == "in pieces":
            s.model.emit(*(CallerTranscript("u2", word, final=False) for word in ("We", " are")))
        if when != "before":
            s.model.emit(words)
        await trio.sleep(1)
        assert callers(s) == []
        assert [said.role for said in s.call.plan.history()] == ["assistant"]
        assert s.call.record.spending.usage.transcription_in == 7  # it was paid for all the same
        assert asked(s) == 0


async def test_plugins_are_not_told_them(autojump_clock: object) -> None:
    async with scene_with(Diary, agent=CONFIRMS) as s:
        s.model.emit(Ready(), *answer("a1", 4000))
        await trio.sleep(1)
        s.model.emit(SpeechStarted("u1", 0))
        await trio.sleep(0.5)
        s.model.emit(SpeechStopped("u1", 900), Committed("u1"))
        s.model.emit(CallerTranscript("u1", "ahem", final=True))
        await trio.sleep(5)
        assert ("delete", "u1") in s.model.commands
    assert not [entry for entry in Diary.entries if entry[:2] == ("words", "caller")]


async def test_an_item_that_the_server_keeps_changes_nothing(autojump_clock: object) -> None:
    """It refuses to take it out: the conversation goes on, and here it was never said."""
    async with speaking() as (s, leg):
        await echoed(s, leg)
        s.model.emit(Committed("u2"))
        await trio.sleep(TICK)
        s.model.emit(EngineFault("item_delete_invalid_item_id", "no such item", "ignore"))
        s.model.emit(CallerTranscript("u2", "We are open", final=True))
        await trio.sleep(TICK)
        assert s.at(CallState.SPEAKING)
        assert callers(s) == []
        await trio.sleep(10)
        s.model.emit(*turn("u3"), CallerTranscript("u3", "When?", final=True))
        await trio.sleep(TICK)
        assert callers(s) == ["When?"]
        assert asked(s) == 1


# ---- a turn begins before the one before it is an item


@pytest.mark.parametrize("named", [True, False], ids=["named", "own endpointing"])
async def test_a_turn_keeps_its_verdict_when_the_next_begins(
    autojump_clock: object, named: bool
) -> None:
    """A real one becomes an item while it is still judged what came behind it."""
    second, third = ("u2", "u3") if named else ("", "")
    async with speaking() as (s, leg):
        await leg.echo(0.0, 600)
        at = await line(s, ulaw(CALLER), 300)
        s.model.emit(SpeechStarted(second, 600))
        await line(s, ulaw(CALLER), 440, at)
        assert s.at(CallState.CALLER_SPEAKING)
        s.model.emit(SpeechStopped(second, 1500))
        await line(s, b"", 500)
        s.call.voice.play_clip("one_moment")
        await line(s, b"", 600)
        s.model.emit(SpeechStarted(third, 1700))
        await line(s, b"", 60)
        assert s.call.dialogue.turns.confirming is not None
        assert s.call.dialogue.turns.confirming.pending
        s.model.emit(Committed("u2"))
        await line(s, b"", 20)
        assert ("delete", "u2") not in s.model.commands
        assert asked(s) == 1
        assert s.call.dialogue.turns.confirming.pending  # it is judged in its own time
        await line(s, b"", 600)
        s.model.emit(SpeechStopped(third, 2400), Committed("u3"))
        await line(s, b"", 20)
        assert ("delete", "u3") in s.model.commands
        assert asked(s) == 1


async def test_an_echo_keeps_its_verdict_when_a_caller_follows(autojump_clock: object) -> None:
    async with speaking() as (s, leg):
        await echoed(s, leg, "")
        at = await line(s, ulaw(CALLER), 300)
        s.model.emit(SpeechStarted("", 600))
        await line(s, ulaw(CALLER), 440, at)
        assert s.at(CallState.CALLER_SPEAKING)
        s.model.emit(Committed("u2"))
        await line(s, b"", 20)
        assert ("delete", "u2") in s.model.commands
        assert asked(s) == 0
        s.model.emit(SpeechStopped("", 2400), Committed("u3"))
        await line(s, b"", 20)
        assert ("delete", "u3") not in s.model.commands
        assert asked(s) == 1


async def test_a_turn_that_never_became_an_item_is_forgotten(autojump_clock: object) -> None:
    """What the server thought too short to be one must not stand for all that follow."""
    async with speaking() as (s, leg):
        await echoed(s, leg, "")
        await leg.echo(0.0, 9000)
        assert s.call.voice.playout.idle
        for number in (3, 4):
            s.model.emit(SpeechStarted("", 0), SpeechStopped("", 900), Committed(f"u{number}"))
            await trio.sleep(TICK)
            assert ("delete", f"u{number}") not in s.model.commands
            assert asked(s) == number - 2
            s.model.emit(ResponseStarted(f"r{number}"), ResponseDone(f"r{number}", "completed"))
            await trio.sleep(TICK)


async def test_who_is_told_twice_of_a_turn_hears_one(autojump_clock: object) -> None:
    """It was speech by the first report; the second is judged when its words are over."""
    async with speaking() as (s, leg):
        await leg.echo(0.0, 600)
        at = await line(s, ulaw(CALLER), 300)
        s.model.emit(SpeechStarted("u2", 600))
        await line(s, ulaw(CALLER), 440, at)
        assert s.at(CallState.CALLER_SPEAKING)
        s.model.emit(SpeechStarted("u2", 600))
        await line(s, b"", 600)
        s.model.emit(SpeechStopped("u2", 1500), Committed("u2"))
        await line(s, b"", 20)
        assert ("delete", "u2") not in s.model.commands
        assert asked(s) == 1


# ---- the session is lost between


@pytest.mark.parametrize("over", [False, True], ids=["in the midst", "over"])
@pytest.mark.parametrize("judged", [False, True], ids=["undecided", "an interruption"])
async def test_what_was_said_to_a_session_that_is_gone_is_answered(
    autojump_clock: object, over: bool, judged: bool
) -> None:
    """The next one hears it again while a filler plays and the caller waits: nothing is to be
    heard of them then, which says nothing of what they had said.
    """
    async with speaking() as (s, leg):
        await leg.echo(0.0, 600)
        at = await line(s, ulaw(CALLER), 300)
        s.model.emit(SpeechStarted("u2", 600))
        at = await line(s, ulaw(CALLER), 440 if judged else 60, at)
        assert s.at(CallState.CALLER_SPEAKING) == judged
        if over:
            s.model.emit(SpeechStopped("u2", 1200))
            await line(s, b"", 20)
        s.model.emit(Reconnecting("socket", "closed"))
        await line(s, b"", 1000)  # the filler is being heard
        assert not s.call.voice.playout.idle
        s.model.emit(Resumed("fake", "model", fallback=False, answering=over))
        s.model.emit(SpeechStarted("v1", 0))
        await line(s, b"", 500)
        s.model.emit(SpeechStopped("v1", 900), Committed("v1"))
        await line(s, b"", 20)
        assert ("delete", "v1") not in s.model.commands
        assert asked(s) == 1
        s.model.emit(CallerTranscript("v1", "Wait!", final=True))
        await trio.sleep(TICK)
        assert callers(s) == ["Wait!"]


@pytest.mark.parametrize("gain", [0.0, 0.25])
async def test_what_was_said_while_no_session_listened_is_answered(
    autojump_clock: object, gain: float
) -> None:
    """Over the rest of an answer, or a filler. The next session hears it in one piece; an echo,
    too, which is none for that.
    """
    async with speaking(recorded()) as (s, leg):
        await leg.echo(gain, 600)
        s.model.emit(Reconnecting("socket", "closed"))
        await leg.echo(gain, 200)
        await leg.echo(gain, 1500, None if gain else caller(0))
        await leg.echo(gain, 400)
        assert not s.call.voice.playout.idle
        s.model.emit(Resumed("fake", "model", fallback=False, answering=False))
        s.model.emit(SpeechStarted("v1", 0), SpeechStopped("v1", 900), Committed("v1"))
        await leg.echo(gain, 20)
        assert (("delete", "v1") in s.model.commands) == bool(gain)
        assert asked(s) == (0 if gain else 1)
        await leg.echo(gain, 5000)
        s.model.emit(SpeechStarted("v2", 0), SpeechStopped("v2", 900), Committed("v2"))
        await leg.echo(gain, 20)
        assert s.call.dialogue.turns.confirming is not None
        assert not s.call.dialogue.turns.confirming.pending


async def test_it_is_answered_where_a_session_is_renewed_too(autojump_clock: object) -> None:
    """Nothing was lost, so that nobody has said so; playback does not stay paused for it."""
    async with speaking() as (s, leg):
        await leg.echo(0.0, 600)
        at = await line(s, ulaw(CALLER), 300)
        s.model.emit(SpeechStarted("u2", 600))
        await line(s, ulaw(CALLER), 60, at)
        s.model.emit(Resumed("fake", "model", fallback=False, answering=False))
        await line(s, b"", 20)
        assert s.call.dialogue.turns.confirming is not None
        assert not s.call.dialogue.turns.confirming.pending
        s.model.emit(SpeechStarted("v1", 0))
        await line(s, b"", 500)
        s.model.emit(SpeechStopped("v1", 900), Committed("v1"))
        await line(s, b"", 20)
        assert ("delete", "v1") not in s.model.commands
        assert asked(s) == 1


@pytest.mark.parametrize("after_s", [0.0, 3.0])
async def test_what_comes_after_it_is_judged_again(autojump_clock: object, after_s: float) -> None:
    """An echo was all that the lost session had heard, or what was said then is long over."""
    async with speaking() as (s, leg):
        if after_s:
            await leg.echo(0.0, 600)
            s.model.emit(SpeechStarted("u2", 600))
            await line(s, b"", 20)
        s.model.emit(Reconnecting("socket", "closed"))
        s.model.emit(Resumed("fake", "model", fallback=False, answering=False))
        await leg.echo(0.25, 600 + round(1000 * after_s))
        s.model.emit(SpeechStarted("v1", 0))
        await leg.echo(0.25, 600)
        s.model.emit(SpeechStopped("v1", 900), Committed("v1"))
        await leg.echo(0.25, 20)
        assert ("delete", "v1") in s.model.commands
        assert asked(s) == 0


# ---- one wake-up brings the turn and what it made stale


@pytest.mark.parametrize("media", [False, True], ids=["before media", "with media"])
async def test_the_answer_to_a_turn_after_a_stall_is_asked_for_once(
    autojump_clock: object, media: bool
) -> None:
    """The call has asked for it itself: what began meanwhile was asked for before, and is over."""
    async with scene(CONFIRMS, attach=media) as s:
        at_once(s.model)
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.model.emit(*turn("u1"))
        await trio.sleep(TICK)
        assert asked(s) == 1
        s.model.emit(*turn("u2"), ResponseStarted("r1"))
        await trio.sleep(TICK)
        assert s.model.commands.count(("cancel",)) == 1
        assert asked(s) == 2
        s.model.emit(ResponseDone("r1", "cancelled"))
        await trio.sleep(TICK)
        assert owed(s)
        s.model.emit(ResponseStarted("r2"), ResponseDone("r2", "completed"))
        await trio.sleep(TICK)
        assert not owed(s)
        assert asked(s) == 2


async def test_a_turn_that_came_while_another_answer_was_made_is_still_owed(
    autojump_clock: object,
) -> None:
    """The one that was running says nothing; its end is not the end of what was asked for."""
    async with scene(CONFIRMS) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.call.dialogue.tell("system", "Look it up.", answer=True)
        s.model.emit(SpeechStarted("u1", 0), SpeechStopped("u1", 900))
        await trio.sleep(TICK)
        s.model.emit(ResponseStarted("r1"), Committed("u1"), ResponseDone("r1", "completed"))
        await trio.sleep(TICK)
        assert owed(s)
        assert s.at(CallState.THINKING)
