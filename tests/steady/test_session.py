"""What a call sees when sessions are lost, and what the next session is told."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.steady.fakes import HELLO, Call, FakeEngine, tool
from voiced.config.types import Agent
from voiced.engine import (
    Committed,
    EngineEvent,
    Ready,
    Reconnecting,
    Resumed,
    Said,
    SpeechStarted,
    SpeechStopped,
)
from voiced.formats import PCM16_24K, PCMU_8K


async def test_all_is_well(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        call.session.send_audio(HELLO)
        await trio.sleep(1)
        assert call.events == [Ready()]
        session = engine.newest
        assert session.heard == HELLO, "what was said before the model was there"
        call.session.respond("Greet.")
        call.session.send_audio(b"x")
        call.session.truncate("i1", 0, 100)
        call.session.delete("i2")
        call.session.cancel()
        assert session.commands == [
            ("respond", "Greet."),
            ("truncate", "i1", 0, 100),
            ("delete", "i2"),
            ("cancel",),
        ]
        assert session.heard == HELLO + b"x"
        session.answer()
        await trio.sleep(1)
    assert call.kinds()[1:] == [
        "ResponseStarted",
        "AgentTranscript",
        "AgentAudio",
        "AgentAudioDone",
        "ResponseDone",
    ]
    assert engine.open_now == 0


async def test_a_lost_session_is_made_anew_with_the_history(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        first = engine.newest
        call.session.add_message("system", "The caller is called Ada.")
        first.hears(words="What is it?")
        first.answer(words="A telephone.")
        await trio.sleep(2)
        lost_at = trio.current_time()
        first.lose()
        await trio.testing.wait_all_tasks_blocked()
        assert call.events[-1:] == [Reconnecting("close_1006", "gone")], "at once"
        await trio.sleep(1)
        resumed = Resumed("one", "model-one", fallback=False, answering=False)
        assert call.events[-1:] == [resumed]
        assert call.at(Resumed) - lost_at <= 0.5
        assert engine.newest.texts() == [
            ("system", "The caller is called Ada."),
            ("user", "What is it?"),
            ("assistant", "A telephone."),
        ]
        assert engine.newest.asked() == []
        assert first.closed


async def test_a_text_that_the_history_names_is_told_once(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.add_message("system", "The caller pressed the key 1.")
        call.history.append(Said("system", "The caller pressed the key 1."))
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.texts() == [("system", "The caller pressed the key 1.")]


async def test_commands_while_nobody_is_there(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine, tools=(tool("old"),)).talk() as call:
        await trio.sleep(1)
        engine.newest.lose()
        await trio.testing.wait_all_tasks_blocked()
        session = call.session
        session.add_message("system", "one")
        session.set_tools([tool("new")])
        session.respond("two")
        session.truncate("i1", 0, 7)
        session.delete("i1")
        session.add_message("system", "three")
        session.respond()
        session.respond()
        session.send_audio(HELLO)
        await trio.sleep(1)
        now = engine.newest
        assert [spec.name for spec in now.plan.tools] in (["old"], ["new"])
        assert now.commands[-4:] == [
            ("message", "system", "one"),
            ("message", "system", "three"),
            ("respond", "two"),
            ("respond", None),
        ]
        assert now.commands[:-4] in ([], [("tools", ["new"])])
        assert now.heard == HELLO
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)


async def test_an_answer_that_was_owed_is_asked_for_again(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        engine.newest.start()
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.asked() == ["Greet."]
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)


async def test_the_answer_to_a_turn_is_asked_for_again(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk():
        await trio.sleep(1)
        engine.newest.hears(words="Where are you?")
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.commands == [("message", "user", "Where are you?"), ("respond", None)]


async def test_with_confirm_only_the_call_asks(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine, agent=Agent(barge_in="confirm")).talk() as call:
        await trio.sleep(1)
        engine.newest.hears(words="Hm.")
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.asked() == []
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=False)


async def test_a_cancelled_answer_is_not_asked_for_again(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        engine.newest.lose()
        await trio.testing.wait_all_tasks_blocked()
        call.session.cancel()
        await trio.sleep(1)
        assert engine.newest.asked() == []
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=False)


async def test_an_answer_that_broke_off_goes_on(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.hears(words="Tell me a story.")
        engine.newest.start()
        engine.newest.speak(900, "There was once a king who")
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        texts = engine.newest.texts()
        assert texts[:2] == [
            ("user", "Tell me a story."),
            ("assistant", "There was once a king who"),
        ]
        role, note = texts[2]
        assert role == "system"
        assert '"There was once a king who"' in str(note)
        assert engine.newest.asked() == [None]
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)


async def test_an_answer_that_was_whole_is_not_repeated(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk():
        await trio.sleep(1)
        engine.newest.hears()
        engine.newest.answer()
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.asked() == []


async def test_a_turn_that_was_not_written_down_is_heard_again(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.send_audio(b"\x01" * 8000)
        engine.newest.emit(SpeechStarted("c1", 0))
        await trio.sleep(0.1)
        call.session.send_audio(b"\x02" * 8000)
        engine.newest.emit(SpeechStopped("c1", 0), Committed("c1"))
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.testing.wait_all_tasks_blocked()
        call.session.send_audio(b"\x03" * 160)
        await trio.sleep(1)
        assert engine.newest.heard == b"\x01" * 8000 + b"\x02" * 8000 + b"\x03" * 160
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)
        assert engine.newest.asked() == [], "the turn detection asks"
        engine.newest.emit(SpeechStarted("c9", 0))
        await trio.sleep(5)
        assert engine.newest.asked() == []


async def test_what_was_no_speech_is_not_heard_again(autojump_clock: MockClock) -> None:
    """The session that it is taken out of was lost in the step that told of it."""

    class Judging(Call):
        def on_event(self, event: EngineEvent) -> None:
            if isinstance(event, Committed):
                self.session.delete(event.item_id)

    engine = FakeEngine()
    async with Judging(engine, agent=Agent(barge_in="confirm")).talk() as call:
        await trio.sleep(1)
        call.session.send_audio(b"\x01" * 8000)
        engine.newest.emit(SpeechStarted("c1", 0), SpeechStopped("c1", 0))
        await trio.sleep(0.1)
        engine.newest.emit(Committed("c1"))
        engine.newest.lose()
        await trio.testing.wait_all_tasks_blocked()
        call.session.send_audio(b"\x03" * 160)
        await trio.sleep(1)
        assert len(engine.sessions) == 2
        assert engine.newest.heard == b"\x03" * 160
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=False)


async def test_a_turn_that_is_not_heard_again_is_answered_all_the_same(
    autojump_clock: MockClock,
) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.send_audio(b"\x01" * 8000)
        engine.newest.hears(words=None)
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(5)
        assert engine.newest.asked() == [None]


async def test_audio_goes_on_in_the_new_sessions_format(autojump_clock: MockClock) -> None:
    one = FakeEngine()
    two = FakeEngine("two", input_format=PCM16_24K, output_format=PCM16_24K)
    async with Call(one, two, agent=Agent(reconnect_s=0)).talk() as call:
        await trio.sleep(1)
        assert (call.session.input_format, call.session.output_format) == (PCMU_8K, PCMU_8K)
        one.newest.lose()
        await trio.testing.wait_all_tasks_blocked()
        call.session.send_audio(b"\xff" * 800)
        await trio.sleep(1)
        assert call.session.input_format == call.session.output_format == PCM16_24K
        assert two.newest.heard == bytes(101 * 48), "100 ms of silence, and what the filter held"
