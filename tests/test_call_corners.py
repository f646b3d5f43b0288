"""Corners of a call with plugins, tools, hold and rescue in which it once went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio

from tests.test_call import TICK, answer, turn
from tests.test_call_confirm import CALLER, line, speaking, ulaw
from tests.test_call_plugins import SOUND, scene
from voiced import clips
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    Committed,
    Lost,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import PCMU_8K, AudioFormat, Encoding
from voiced.leg import Transferred
from voiced.plugin import Audio, Clip, Greeting, Plugin, Tool
from voiced.states import CallState
from voiced.testing import virtual_time
from voiced.transcript import Transcript

QUIET = Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
SECOND = Audio(b"\x41" * 8000, PCMU_8K)


class Hand(Plugin):
    """Has the call in its hand, for a test to use."""

    acting: ClassVar[list[Hand]] = []

    async def on_call_start(self) -> None:
        self.acting[:] = [self]


def hand() -> Any:
    return Hand.acting[0].call


def heard(s: Any) -> int:
    return sum(len(payload) for _, payload in s.leg.played)


# ---- clips that are none

BROKEN: list[Any] = [
    Path("nul\0byte.wav"),
    Audio(b"\x01\x02\x03", AudioFormat(Encoding.PCM16, 24000)),
    Audio(b"\x01\x02\x03\x04", AudioFormat(Encoding.PCM16, 7)),
    Audio("text", AudioFormat(Encoding.PCM16, 24000)),  # type: ignore[arg-type]
    Audio(b"\x01\x02", None),  # type: ignore[arg-type]
    None,
    7,
    "no-such-message",
]


@pytest.mark.parametrize("clip", BROKEN, ids=repr)
@virtual_time
async def test_a_clip_that_is_none_costs_the_call_nothing(clip: Clip) -> None:
    async with scene(Hand, agent=QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        playing = hand().play(clip, SECOND)
        with trio.fail_after(5):
            await playing.heard()
        assert heard(s) >= 8000
        assert not s.call.ended.is_set()
        hand().hang_up(farewell=clip)
        with trio.fail_after(30):
            await s.call.ended.wait()
        assert s.rows()[-1].reason == "plugin"


@pytest.mark.parametrize("clip", BROKEN, ids=repr)
@virtual_time
async def test_a_greeting_that_is_none_costs_the_call_nothing(clip: Clip) -> None:
    class Greeter(Plugin):
        async def greeting(self, planned: Greeting) -> Greeting | None:
            return Greeting(before=(clip,), audio=clip if isinstance(clip, Audio) else None)

    async with scene(Greeter, agent=Agent(greeting="Greet.")) as s:
        await trio.sleep(0.1)
        s.model.emit(Ready())
        await trio.sleep(0.1)
        assert not s.call.ended.is_set()
        # The greeting is the model's where the plugin's cannot be heard.
        odd = isinstance(clip, Audio) and heard(s) > 0
        assert odd or ("respond", "Greet.") in s.model.commands


async def test_clips_in_a_row_end_with_the_one_that_was_interrupted(
    autojump_clock: object,
) -> None:
    async with scene(Hand, agent=QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        slow = trio.Event()
        sound = s.call.sounds.read

        async def reads(clip: Clip) -> bytes:
            if clip is SECOND:
                await slow.wait()
            return await sound(clip)

        s.call.clipboard._read = reads
        playing = hand().play(SOUND, SECOND)
        await trio.sleep(0.5)
        s.model.emit(SpeechStarted("u", 0))
        await trio.sleep(TICK)
        slow.set()
        with trio.fail_after(1):
            assert not await playing.heard()
        assert heard(s) < 8000 + 100


async def test_what_was_heard_before_the_rest_was_read_is_over(autojump_clock: object) -> None:
    async with scene(Hand, agent=QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        sound = s.call.sounds.read

        async def reads(clip: Clip) -> bytes:
            if clip == "none":
                await trio.sleep(3)
            return await sound(clip)

        s.call.clipboard._read = reads
        playing = hand().play(SOUND, "none")
        with trio.fail_after(5):
            assert not await playing.heard()


async def test_after_a_long_announcement_the_silence_begins_anew(autojump_clock: object) -> None:
    agent = Agent(greeting="", silence_prompt_s=15, silence_hangup_s=30)
    async with scene(Hand, agent=agent) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        hand().play(Audio(b"\x41" * 8000 * 40, PCMU_8K))
        await trio.sleep(45)
        assert s.call.record.reason is None
        assert heard(s) == 8000 * 40
        await trio.sleep(20)
        assert heard(s) > 8000 * 40  # asked
        with trio.fail_after(30):
            await s.call.ended.wait()
        assert s.rows()[-1].reason == "caller_silence"


# ---- from the first sign on


async def test_tasks_and_the_end_may_be_asked_for_at_the_start(autojump_clock: object) -> None:
    class Early(Plugin):
        ran: ClassVar[list[str]] = []

        async def on_call_start(self) -> None:
            self.ran.clear()
            self.call.start(self.works)
            self.call.hang_up(farewell=False, reason="not_welcome")

        async def works(self) -> None:
            self.ran.append("task")

    async with scene(Early, agent=QUIET) as s:
        with trio.fail_after(30):
            await s.call.ended.wait()
        assert s.rows()[-1].reason == "not_welcome"
        assert Early.ran == ["task"]


# ---- in the model's place


async def test_a_turn_that_ends_while_taken_over_is_owed_nothing(autojump_clock: object) -> None:
    async with scene(Hand, agent=QUIET) as s:
        s.model.emit(Ready(), SpeechStarted("u", 0))
        await trio.sleep(0.5)
        async with hand().take_over():
            await trio.sleep(0.2)
            s.model.emit(SpeechStopped("u", 700), *turn("u")[2:])
            s.model.emit(ResponseStarted("r"), ResponseDone("r", "cancelled"))
            await trio.sleep(1)
        await trio.sleep(20)
        assert s.call.record.reason is None
        assert s.at(CallState.LISTENING)
        assert heard(s) == 0


async def test_what_is_asked_for_while_taken_over_is_said_afterwards(
    autojump_clock: object,
) -> None:
    async with scene(Hand, agent=QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        async with hand().take_over():
            hand().say("Thank you.")
            await trio.sleep(1)
            assert not [each for each in s.model.commands if each[0] == "respond"]
        asked = [each for each in s.model.commands if each[0] == "respond"]
        assert len(asked) == 1
        assert "Thank you." in str(asked[0])
        s.model.emit(*answer("a", 500))
        await trio.sleep(1)
        assert heard(s) == 4000


async def test_hold_and_a_plugin_that_has_taken_over_end_apart(autojump_clock: object) -> None:
    """Whichever ends first, nobody is impatient until the other has ended, too."""
    agent = Agent(greeting="", silence_prompt_s=5, silence_hangup_s=0)
    async with scene(Hand, agent=agent) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        async with hand().take_over():
            s.leg.hold(True)
            await trio.sleep(1)
            s.leg.hold(False)
            await trio.sleep(20)
            assert heard(s) == 0
            s.leg.hold(True)
            await trio.sleep(1)
        await trio.sleep(20)
        assert heard(s) == 0
        s.leg.hold(False)
        await trio.sleep(6)
        assert heard(s) > 0


async def test_a_plugin_that_has_taken_over_ends_with_the_agents_farewell(
    autojump_clock: object,
) -> None:
    agent = Agent(greeting="", farewell_text="Farewell.", silence_prompt_s=0, silence_hangup_s=0)
    async with scene(Hand, agent=agent) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        async with hand().take_over():
            hand().hang_up()
            await trio.sleep(1)
            assert any("Farewell." in str(each) for each in s.model.commands)
            s.model.emit(*answer("f", 700))
            with trio.fail_after(3):
                await s.call.ended.wait()
        assert heard(s) == 5600


# ---- what was heard of a greeting of ours


class Greeter(Plugin):
    async def greeting(self, planned: Greeting) -> Greeting | None:
        return Greeting(audio=Audio(b"\x31" * 40_000, PCMU_8K, "One two three four five."))


async def test_a_caller_who_leaves_heard_part_of_the_greeting(autojump_clock: object) -> None:
    async with scene(Greeter, agent=QUIET) as s:
        s.model.emit(Ready())
        await trio.sleep(2.5)
        s.leg.hang_up_as_caller()
        with trio.fail_after(5):
            await s.call.ended.wait()
        (entry,) = s.rows()[-1].transcript
        assert (entry.text, entry.cut) == ("One two", True)


async def test_a_greeting_of_which_nothing_was_heard_was_not_said(autojump_clock: object) -> None:
    async with scene(Greeter, agent=QUIET) as s:
        s.model.emit(Ready(), SpeechStarted("u", 0))
        await trio.sleep(1)
        s.call.end("test")
        await s.call.ended.wait()
        assert s.rows()[-1].transcript == []


# ---- tools


async def test_a_result_that_comes_into_a_later_answer_is_spoken_after_it(
    autojump_clock: object,
) -> None:
    class Slow(Plugin):
        async def on_call_start(self) -> None:
            async def runs(_arguments: object) -> str:
                await trio.sleep(5)
                return "42"

            self.call.register_tool(Tool("slow", "Slow.", runs))

    async with scene(Slow, agent=QUIET) as s:
        s.model.emit(Ready(), *turn("u1"), ResponseStarted("r1"))
        s.model.emit(ToolCall("c", "i", "slow", "{}"), ResponseDone("r1", "completed"))
        await trio.sleep(1)
        s.model.emit(*turn("u2"), ResponseStarted("r2"), AgentAudio("r2", "a2", 0, b"\x31" * 800))
        await trio.sleep(5)
        kinds = [each[0] for each in s.model.commands]
        assert "tool_result" in kinds
        assert "respond" in kinds[kinds.index("tool_result") :]


# ---- a model that is lost


async def test_a_rescue_after_a_failed_transfer_is_not_silent(autojump_clock: object) -> None:
    agent = Agent(
        greeting="", silence_prompt_s=0, silence_hangup_s=0, transfer_when_lost="+4930123456"
    )
    async with scene(Hand, agent=agent) as s:
        tried: list[tuple[str, float]] = []

        async def outcome(target: str) -> Transferred:
            tried.append((target, trio.current_time()))
            await trio.sleep(2)
            return Transferred(target == "+4930123456")

        s.leg.outcome = outcome  # type: ignore[method-assign]
        s.model.emit(Ready())
        await trio.sleep(TICK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.call.transfer, "+49301")
            await trio.sleep(1)
            s.model.emit(Lost("gone", "The model is gone.", retryable=False))
            with trio.fail_after(30):
                await s.call.ended.wait()
        assert s.rows()[-1].reason == "transferred"
        (_, first), (_, second) = tried
        assert second - first < 2.5 + clips.load("one_moment").duration_ms / 1000
        assert heard(s) > 0


# ---- reversible barge-in


async def test_a_caller_who_speaks_in_the_turn_that_an_echo_began_is_answered(
    autojump_clock: object,
) -> None:
    """The model's turn detection hears one turn: the end of the agent's words, then the caller."""
    async with speaking() as (s, leg):
        await leg.echo(0.25, 4800)
        s.model.emit(SpeechStarted("u2", 4700))
        await leg.echo(0.25, 2400)  # to the end of the answer, which was paused for a while
        await line(s, ulaw(CALLER), 1800)
        s.model.emit(SpeechStopped("u2", 8800), Committed("u2"))
        await trio.sleep(TICK)
        assert ("delete", "u2") not in s.model.commands
        assert ("respond", None) in s.model.commands


async def test_an_echo_that_outlives_the_answer_is_answered_by_nobody(
    autojump_clock: object,
) -> None:
    async with speaking() as (s, leg):
        await leg.echo(0.25, 4800)
        s.model.emit(SpeechStarted("u2", 4700))
        await leg.echo(0.25, 2400)
        await line(s, b"", 700)  # the turn ends when there was silence for a while
        s.model.emit(SpeechStopped("u2", 7900), Committed("u2"))
        await trio.sleep(TICK)
        assert ("delete", "u2") in s.model.commands
        assert ("respond", None) not in s.model.commands


# ---- what is kept


def test_notes_to_the_model_do_not_replace_each_other() -> None:
    transcript = Transcript()
    transcript.open("caller", "u1")
    transcript.note("The caller pressed the key 1.")
    transcript.drop("u1")
    transcript.note("The caller pressed the key 2.")
    assert [said.text[-2] for said in transcript.history()] == ["1", "2"]
