"""Plugins in a call: what they are told, what they can do, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio

from tests.fakes import FACTS, FakeEngine, FakeLeg
from tests.test_call import TICK, Scene, answer, turn
from voiced.call import Call, Services
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    ToolCall,
)
from voiced.formats import PCMU_8K
from voiced.hooks.calls import CallHooks
from voiced.hooks.enabled import Enabled
from voiced.journal import Journal
from voiced.leg import Transferred
from voiced.plugin import Audio, Greeting, Plugin, Settings, Summary, Tool, ToolUse, Words
from voiced.prompts import Prompts
from voiced.states import CallState

SOUND = Audio(b"\x31" * 8000, PCMU_8K, "Good day, this is the reception.")


@asynccontextmanager
async def scene(
    *plugins: type[Plugin], agent: Agent | None = None, attach: bool = True
) -> AsyncIterator[Scene]:
    """A call with plugins; their objects are in `made`."""
    engine, leg = FakeEngine(), FakeLeg()
    journal = Journal(Path("unused"))
    enabled = [Enabled(plugin.__name__, plugin, Settings()) for plugin in plugins]
    call = Call(
        FACTS,
        "reception",
        agent or Agent(),
        engine,
        PCMU_8K,
        Services(journal, Prompts()),
        make_hooks=lambda make: CallHooks(enabled, make),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await trio.sleep(TICK)
        if attach:
            call.attach(leg)
        await trio.sleep(TICK)
        yield Scene(call, leg, engine, journal)
        call.end("test_over")
        with trio.fail_after(30):
            await call.ended.wait()


class Diary(Plugin):
    """Writes down all that it is told."""

    entries: ClassVar[list[tuple[Any, ...]]] = []
    acting: ClassVar[list[Diary]] = []

    async def on_call_start(self) -> None:
        self.entries.clear()
        self.acting[:] = [self]
        self.entries.append(("start", self.call.call_id))

    async def on_media(self) -> None:
        self.entries.append(("media", self.call.state))

    async def on_state(self, previous: str, state: str) -> None:
        self.entries.append(("state", previous, state))

    async def on_session_ready(self) -> None:
        self.entries.append(("ready",))

    async def on_speech_started(self) -> None:
        self.entries.append(("speech started",))

    async def on_speech_stopped(self) -> None:
        self.entries.append(("speech stopped",))

    async def on_response_started(self, response_id: str) -> None:
        self.entries.append(("response", response_id))

    async def on_response_done(self, response_id: str, status: str) -> None:
        self.entries.append(("done", response_id, status))

    async def on_transcript(self, words: Words) -> None:
        self.entries.append(("words", words.role, words.text, words.final, words.cut))

    async def on_barge_in(self, heard_ms: int) -> None:
        self.entries.append(("barge in", heard_ms))

    async def on_engine_error(self, code: str, message: str, lost: bool) -> None:
        self.entries.append(("error", code, lost))

    async def on_call_end(self, summary: Summary) -> None:
        self.entries.append(("end", summary.reason, tuple(summary.transcript)))
        self.call.set_fact("seen", True)


class Listener(Plugin):
    """Keeps the audio of both sides."""

    caller: ClassVar[list[tuple[int, bytes]]] = []
    agent: ClassVar[list[tuple[int, bytes]]] = []

    async def on_call_start(self) -> None:
        self.caller.clear()
        self.agent.clear()

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        self.caller.append((at_ms, payload))

    async def on_agent_audio(self, payload: bytes, at_ms: int) -> None:
        self.agent.append((at_ms, payload))


class Greeter(Plugin):
    """Has its own greeting."""

    async def greeting(self, planned: Greeting) -> Greeting | None:
        return Greeting(before=planned.before, audio=SOUND)


class Keeper(Plugin):
    """Keeps the model's greeting."""

    kept: ClassVar[list[Audio]] = []

    async def on_greeting_made(self, audio: Audio) -> None:
        self.kept.append(audio)


async def test_a_plugin_is_told_everything_in_order(autojump_clock: object) -> None:
    async with scene(Diary, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), *turn(), *answer("item_a", 1000))
        await trio.sleep(0.5)
        s.model.emit(SpeechStarted("item_u2", 0))
        await trio.sleep(TICK)
    told = Diary.entries
    assert told[0] == ("start", "call-1")
    assert told.index(("media", "listening")) < told.index(("ready",))
    words = "one two three four five six seven eight nine ten"
    assert [each for each in told if each[0] not in ("state", "start", "media")] == [
        ("ready",),
        ("speech started",),
        ("speech stopped",),
        ("response", "resp_item_a"),
        ("words", "agent", words, True, False),
        ("done", "resp_item_a", "completed"),
        ("speech started",),
        ("words", "agent", "one two three four five", True, True),
        ("barge in", 500),
        ("end", "test_over", told[-1][2]),
    ]
    assert [line.text for line in told[-1][2]] == ["one two three four five"]
    assert ("state", "speaking", "caller_speaking") in told
    rows = s.rows()
    assert rows[-1].facts == {"seen": True}


async def test_audio_of_both_sides_comes_with_its_time(autojump_clock: object) -> None:
    async with scene(Listener, agent=Agent(greeting="")) as s:
        s.model.emit(Ready())
        await trio.sleep(1)
        for _ in range(100):
            s.leg.say(b"\x11" * 160)
            await trio.sleep(0.02)
        began = trio.current_time()
        s.model.emit(*answer("item_a", 1000), *answer("item_b", 500))
        await trio.sleep(3)
        s.model.emit(*answer("item_c", 2000))
        await trio.sleep(0.5)
        s.model.emit(SpeechStarted("item_u2", 0))
        await trio.sleep(1)
        media_at = s.call.record.media_at
        assert media_at is not None
    said = b"".join(payload for _, payload in Listener.caller)
    assert said == b"\x11" * 16000
    first = Listener.caller[0][0]
    assert abs(first - 980) <= 2  # 20 ms of audio that came at 1,000 ms were said before
    assert abs(Listener.caller[-1][0] + len(Listener.caller[-1][1]) // 8 - first - 2000) <= 20
    at = round((began - media_at) * 1000)
    heard = sum(len(payload) for _, payload in Listener.agent)
    assert heard == 8 * (1000 + 500 + 500)
    assert abs(Listener.agent[0][0] - at) <= 2
    ends = {start + len(payload) // 8 for start, payload in Listener.agent}
    assert min(abs(end - (at + 1500)) for end in ends) <= 2
    assert abs(max(ends) - (at + 3500)) <= 2


async def test_what_was_heard_is_told_while_the_model_stalls(autojump_clock: object) -> None:
    async with scene(Listener, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), ResponseStarted("r"), AgentAudio("r", "i", 0, b"\x21" * 8000))
        await trio.sleep(1.5)
        assert sum(len(payload) for _, payload in Listener.agent) == 8000


async def test_without_listeners_nothing_listens(autojump_clock: object) -> None:
    async with scene(Diary) as s:
        assert s.call.voice._speaker is not None
        assert s.call.voice._speaker._ears is None


async def test_a_supplied_greeting_is_heard_and_seeded(autojump_clock: object) -> None:
    async with scene(Greeter, Diary, agent=Agent(greeting="Greet.")) as s:
        assert s.at(CallState.GREETING)
        assert s.leg.played[0][1] == SOUND.payload[:3200]
        await trio.sleep(0.5)
        s.model.emit(Ready())
        await trio.sleep(1)
        assert s.at(CallState.LISTENING)
        assert s.model.commands == [("add_message", "assistant", SOUND.text)]
    assert [(line.role, line.text) for line in Diary.entries[-1][2]] == [("agent", SOUND.text)]


async def test_an_interrupted_greeting_is_seeded_as_heard(autojump_clock: object) -> None:
    async with scene(Greeter, agent=Agent(greeting="Greet.")) as s:
        s.model.emit(Ready())
        await trio.sleep(0.5)
        s.model.emit(SpeechStarted("item_u1", 0))
        await trio.sleep(TICK)
        assert s.at(CallState.CALLER_SPEAKING)
        assert s.model.commands == [("add_message", "assistant", "Good day, this")]
        assert len(s.leg.clears) == 1
    assert [(line.text, line.cut) for line in s.rows()[-1].transcript] == [("Good day, this", True)]


async def test_the_models_greeting_is_handed_on_whole(autojump_clock: object) -> None:
    Keeper.kept.clear()
    async with scene(Keeper, agent=Agent(greeting="Greet.")) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.model.emit(*answer("item_g", 1000), *turn(), *answer("item_a", 400))
        await trio.sleep(2)
    (kept,) = Keeper.kept
    assert kept.payload == b"\x21" * 8000
    assert kept.format == PCMU_8K
    assert kept.text.startswith("one two")


class Knowing(Keeper):
    """Says who calls before the model greets."""

    async def on_media(self) -> None:
        self.call.tell("The caller is Ada Lovelace.", answer=False)


class Quick(Keeper):
    """Has the agent say something before the model is there."""

    async def on_media(self) -> None:
        self.call.say("Good morning, Ada.")


@pytest.mark.parametrize("plugin", [Knowing, Quick])
async def test_a_greeting_that_knows_the_caller_is_not_handed_on(
    plugin: type[Keeper], autojump_clock: object
) -> None:
    Keeper.kept.clear()
    async with scene(plugin, agent=Agent(greeting="Greet.")) as s:
        await trio.sleep(TICK)
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.model.emit(*answer("item_g", 1000))
        await trio.sleep(2)
    assert not Keeper.kept


async def test_what_answers_a_caller_who_spoke_first_is_no_greeting(
    autojump_clock: object,
) -> None:
    Keeper.kept.clear()
    async with scene(Keeper, agent=Agent(greeting="Greet.")) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        s.model.emit(*turn(), *answer("item_a", 1000))
        await trio.sleep(2)
    assert not Keeper.kept


async def test_what_is_told_while_the_greeting_is_made_does_not_shape_it(
    autojump_clock: object,
) -> None:
    Keeper.kept.clear()
    async with scene(Keeper, agent=Agent(greeting="Greet.")) as s:
        s.model.emit(Ready())
        await trio.sleep(TICK)
        first, *rest = answer("item_g", 1000)
        s.model.emit(first)
        await trio.sleep(TICK)
        s.call.dialogue.tell("system", "The caller pressed 5.", answer=False)
        s.model.emit(*rest)
        await trio.sleep(2)
    assert len(Keeper.kept) == 1


class Consent(Plugin):
    """Says something before the greeting."""

    async def greeting(self, planned: Greeting) -> Greeting | None:
        return Greeting((*planned.before, Audio(b"\x41" * 1600, PCMU_8K)), planned.audio)


async def test_clips_stand_before_the_models_greeting(autojump_clock: object) -> None:
    async with scene(Consent, agent=Agent(greeting="Greet.")) as s:
        s.model.emit(Ready(), *answer("item_g", 400))
        await trio.sleep(1)
        sound = b"".join(payload for _, payload in s.leg.played)
    assert sound == b"\x41" * 1600 + b"\x21" * 3200


class Broken(Plugin):
    """Everything fails."""

    async def greeting(self, planned: Greeting) -> Greeting | None:
        raise RuntimeError("broken")

    async def on_digit(self, digit: str) -> bool | None:
        await trio.sleep(100)
        return True

    async def on_state(self, previous: str, state: str) -> None:
        raise RuntimeError("broken")


async def test_a_broken_plugin_is_passed_over(autojump_clock: object) -> None:
    async with scene(Broken, agent=Agent(greeting="Greet.")) as s:
        s.model.emit(Ready(), *answer("item_g", 400))
        await trio.sleep(1)
        assert s.at(CallState.LISTENING)
        s.leg.press("5")
        await trio.sleep(2)
        told = ("add_message", "system", "The caller pressed the key 5.")
        assert told in s.model.commands


class Keys(Plugin):
    """Takes the star for itself."""

    async def on_digit(self, digit: str) -> bool | None:
        return digit == "*"


async def test_a_key_that_a_plugin_takes_is_not_told(autojump_clock: object) -> None:
    async with scene(Keys, agent=Agent(greeting="")) as s:
        for key in "1*2":
            s.leg.press(key)
        await trio.sleep(TICK)
        told = [command[2] for command in s.model.commands if command[0] == "add_message"]
    assert told == ["The caller pressed the key 1.", "The caller pressed the key 2."]


# ---- what a plugin can do


class Actor(Plugin):
    """At the test's hands."""

    at_hand: ClassVar[list[Actor]] = []

    async def on_call_start(self) -> None:
        self.at_hand[:] = [self]
        self.call.register_tool(Tool("look_up", "Looks something up.", self.look_up, filler=SOUND))

    async def look_up(self, arguments: object) -> str:
        await trio.sleep(2)
        return "nothing"

    async def on_tool_call(self, use: ToolUse) -> str | None:
        return "forbidden" if use.name == "other" else None


async def test_clips_are_played_and_waited_for(autojump_clock: object) -> None:
    async with scene(Actor, agent=Agent(greeting="")) as s:
        s.model.emit(Ready())
        call = Actor.at_hand[0].call
        playing = call.play(Audio(b"\x51" * 4000, PCMU_8K), Audio(b"\x52" * 4000, PCMU_8K))
        began = trio.current_time()
        assert await playing.heard()
        assert trio.current_time() - began == pytest.approx(1.0, abs=0.05)
        assert call.state == "listening"
        second = call.play(Audio(b"\x53" * 8000, PCMU_8K))
        await trio.sleep(0.5)
        s.model.emit(SpeechStarted("item_u1", 0))
        assert not await second.heard()
        never = call.play(Audio(b"\x54" * 80000, PCMU_8K))
        s.leg.hang_up_as_caller()
        assert not await never.heard()


async def test_a_tool_runs_with_a_filler_and_the_model_goes_on(autojump_clock: object) -> None:
    async with scene(Actor, agent=Agent(greeting="")) as s:
        assert ("set_tools", "look_up") in s.model.commands
        s.model.emit(Ready(), *turn())
        await trio.sleep(TICK)
        s.model.commands.clear()
        s.model.emit(ToolCall("c1", "item_t", "look_up", "{}"))
        await trio.sleep(1.9)
        assert s.leg.played[0][1][:10] == SOUND.payload[:10]
        assert s.model.commands == []
        await trio.sleep(0.2)
        assert s.model.commands == [("tool_result", "c1", "nothing"), ("respond", None)]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("unknown", "{}", "there is no tool"),
        ("look_up", "[1]", "no JSON object"),
        ("look_up", "{", "not JSON"),
    ],
)
async def test_a_tool_called_wrongly_is_told_to_the_model(
    autojump_clock: object, name: str, arguments: str, said: str
) -> None:
    async with scene(Actor, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), ToolCall("c1", "item_t", name, arguments))
        await trio.sleep(TICK)
        (result,) = [command for command in s.model.commands if command[0] == "tool_result"]
        assert said in str(result[2])
        assert s.model.commands[-1] == ("respond", None)


async def test_the_caller_speaks_while_a_tool_runs(autojump_clock: object) -> None:
    """The answer to what was said last has the result as well: none is asked for twice."""
    async with scene(Actor, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), *turn(), ToolCall("c1", "item_t", "look_up", "{}"))
        await trio.sleep(1)
        s.model.emit(*turn("item_u2"))
        await trio.sleep(1.5)
        assert ("tool_result", "c1", "nothing") in s.model.commands
        assert ("respond", None) not in s.model.commands


async def test_taken_over_the_model_neither_hears_nor_speaks(autojump_clock: object) -> None:
    async with scene(Actor, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), *turn(), *answer("item_a", 4000))
        await trio.sleep(0.5)
        call = Actor.at_hand[0].call
        async with call.take_over():
            await trio.sleep(TICK)
            s.leg.say(b"\x11" * 160)
            s.model.emit(*turn("item_u2"), *answer("item_b", 400))
            assert await call.play(Audio(b"\x51" * 4000, PCMU_8K)).heard()
            assert s.model.heard.endswith(b"\xff" * 160)
        played = b"".join(payload for _, payload in s.leg.played)
        assert played.count(b"\x21") >= 4000
        assert played.endswith(b"\x51" * 4000)
        s.leg.say(b"\x12" * 160)
        await trio.sleep(TICK)
        assert s.model.heard.endswith(b"\x12" * 160)


async def test_hanging_up_lets_the_agent_finish(autojump_clock: object) -> None:
    async with scene(Actor, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), *turn(), *answer("item_a", 2000))
        await trio.sleep(0.5)
        Actor.at_hand[0].call.hang_up(farewell=Audio(b"\x61" * 1600, PCMU_8K), reason="done")
        with trio.fail_after(5):
            await s.call.ended.wait()
        played = b"".join(payload for _, payload in s.leg.played)
    assert played == b"\x21" * 16000 + b"\x61" * 1600
    assert s.call.record.reason == "done"


# ---- a model that stalls, or is lost


async def test_a_model_that_stalls_in_an_answer_is_covered(autojump_clock: object) -> None:
    """The filler is heard before the rest of the answer; a short pause needs none."""
    async with scene(Diary, agent=Agent(greeting="", no_answer_s=2)) as s:
        s.model.emit(Ready(), *turn(), ResponseStarted("r"))
        s.model.emit(AgentAudio("r", "i", 0, b"\x21" * 4000))
        await trio.sleep(2)  # 1.5 s without a sound
        s.model.emit(AgentAudio("r", "i", 0, b"\x22" * 4000))
        await trio.sleep(3)  # 2.5 s
        played = b"".join(payload for _, payload in s.leg.played)
        assert played[:8000] == b"\x21" * 4000 + b"\x22" * 4000
        assert len(played) - 8000 > 4000  # the filler has begun
        await trio.sleep(2)
        s.model.emit(AgentAudio("r", "i", 0, b"\x23" * 4000), AgentAudioDone("r", "i"))
        s.model.emit(ResponseDone("r", "completed"))
        await trio.sleep(1)
        played = b"".join(payload for _, payload in s.leg.played)
        assert played.endswith(b"\x23" * 4000)
        assert s.at(CallState.LISTENING)
        assert s.call.voice.playout.statistics().dropped == 0
        assert s.call.voice.playout.heard_ms("i") == 1500


# ---- a model that is lost


async def test_a_lost_model_is_covered_and_its_return_goes_on(autojump_clock: object) -> None:
    async with scene(Diary, agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), *turn())
        await trio.sleep(0.2)
        s.model.emit(Reconnecting("close_1006", "gone"))
        await trio.sleep(0.9)
        assert len(s.leg.played) >= 1  # a filler, within a second
        await trio.sleep(1)
        s.model.emit(Resumed("fake", "model", fallback=False, answering=True))
        s.model.emit(*answer("item_a", 400))
        await trio.sleep(5)
        assert s.at(CallState.LISTENING)
    row = s.rows()[-1]
    assert ("error", "close_1006", True) in Diary.entries
    assert [entry.text[:7] for entry in row.transcript] == ["one two"]


async def test_a_model_that_is_back_at_once_is_not_missed(autojump_clock: object) -> None:
    async with scene(agent=Agent(greeting="")) as s:
        s.model.emit(Ready(), Reconnecting("close_1006", "gone"))
        await trio.sleep(0.4)
        s.model.emit(Resumed("fake", "model", fallback=False, answering=False))
        await trio.sleep(3)
        assert s.leg.played == []


async def test_no_model_is_left_and_somebody_else_takes_the_caller(autojump_clock: object) -> None:
    agent = Agent(greeting="", transfer_when_lost="+4930123")
    async with scene(agent=agent) as s:

        async def done(target: str) -> Transferred:
            return Transferred(True, 200)

        s.leg.outcome = done  # type: ignore[method-assign]
        s.model.emit(Ready(), Lost("close_1006", "gone", retryable=True))
        with trio.fail_after(10):
            await s.call.ended.wait()
    assert s.leg.transfers == ["+4930123"]
    assert s.call.record.reason == "transferred"


async def test_nobody_takes_the_caller(autojump_clock: object) -> None:
    agent = Agent(greeting="", transfer_when_lost="+4930123")
    async with scene(agent=agent) as s:
        s.model.emit(Ready(), Lost("close_1006", "gone", retryable=True))
        with trio.fail_after(30):
            await s.call.ended.wait()
    assert s.call.record.reason == "model_lost"
    assert s.call.record.row.states[-2][0] == "ending"
