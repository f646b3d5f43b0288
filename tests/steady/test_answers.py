"""Ids, functions and answers that fail; limits of an engine; calls that close."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.steady.fakes import Call, FakeEngine, FakeSession, tool
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    CallerTranscript,
    EngineEvent,
    EngineFault,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    ToolCall,
)
from voiced.steady import Guard


async def test_ids_of_two_sessions_do_not_mix(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.answer()
        await trio.sleep(1)
        engine.newest.lose()
        await trio.sleep(1)
        engine.newest.answer()
        await trio.sleep(1)
        items = [event.item_id for event in call.events if isinstance(event, AgentAudio)]
        assert len(set(items)) == 2
        started = [event.response_id for event in call.events if isinstance(event, ResponseStarted)]
        done = [event.response_id for event in call.events if isinstance(event, ResponseDone)]
        assert started == done
        assert len(set(started)) == 2
        commands = engine.newest.commands
        before = len(commands)
        call.session.truncate(items[0], 0, 10)
        call.session.delete(items[0])
        assert len(commands) == before, "nobody knows that item"
        call.session.truncate(items[1], 0, 10)
        call.session.delete(items[1])
        assert commands[before:] == [("truncate", "i1", 0, 10), ("delete", "i1")]


async def test_results_of_functions(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine, tools=(tool("look"),)).talk() as call:
        await trio.sleep(1)
        engine.newest.emit(ToolCall("f1", "t1", "look", '{"for": "keys"}'))
        engine.newest.emit(ToolCall("f2", "t2", "look", "{}"))
        await trio.sleep(0.1)
        call.session.tool_result("f1", "in the drawer")
        assert engine.newest.commands == [("result", "f1", "in the drawer")]
        engine.newest.lose()
        await trio.sleep(1)
        told = " ".join(str(text) for _, text in engine.newest.texts())
        assert "in the drawer" in told
        assert "still to come" in told
        assert told.count("{}") == 1
        before = len(engine.newest.commands)
        call.session.tool_result("f2", "nowhere")
        call.session.tool_result("f3", "what?")
        (last,) = engine.newest.commands[before:]
        assert last[:2] == ("message", "system")
        assert "nowhere" in str(last[2])
        engine.newest.emit(ToolCall("f1", "t1", "look", "{}"))
        await trio.sleep(0.1)
        (event,) = (each for each in call.of(ToolCall)[2:] if isinstance(each, ToolCall))
        call.session.tool_result(event.call_id, "again")
        assert engine.newest.commands[-1] == ("result", "f1", "again")


async def test_a_failed_answer_is_asked_for_once_more_then_elsewhere(
    autojump_clock: MockClock,
) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        one.newest.emit(ResponseStarted("r1"), ResponseDone("r1", "failed", "odd"))
        await trio.sleep(0.1)
        assert one.newest.asked() == ["Greet.", "Greet."]
        one.newest.emit(ResponseStarted("r2"), ResponseDone("r2", "failed", "odd"))
        await trio.sleep(1)
        assert two.newest.asked() == ["Greet."]
        assert call.events[-1] == Resumed("two", "model-two", fallback=True, answering=True)


async def greeting_fails(engine: FakeEngine, call: Call, then: EngineEvent) -> None:
    """It is asked for and fails; `then` comes right behind that."""
    await trio.sleep(1)
    call.session.respond("Greet.")
    failed = ResponseDone("r1", "failed", "server_error")
    engine.newest.emit(ResponseStarted("r1"), failed, then)
    await trio.sleep(1)
    assert engine.newest.asked() == ["Greet."]


async def test_an_answer_that_the_session_repeats_itself(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await greeting_fails(engine, call, EngineFault("server_error", "oops", "retry"))
        assert len(engine.sessions) == 1
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.asked() == ["Greet."], "still owed"


async def test_failed_and_lost_at_once(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await greeting_fails(engine, call, Lost("server_error", "oops", retryable=True))
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)


async def test_too_many_requests(autojump_clock: MockClock) -> None:
    """The fallback takes those that the engine has no room for; without one they wait."""
    one, two = FakeEngine(), FakeEngine("two")
    guards = [Guard("one", requests_per_minute=1), Guard("two")]
    async with Call(one, two, guards=guards).talk() as call:
        await trio.sleep(1)
        call.session.respond("first")
        one.newest.answer()
        await trio.sleep(0.1)
        call.session.respond("second")
        await trio.sleep(0.5)
        assert one.sessions[0].asked() == ["first"]
        assert two.newest.asked() == ["second"]
    guards = [Guard("one", requests_per_minute=1)]
    async with Call(one, guards=guards).talk() as call:
        await trio.sleep(1)
        call.session.respond("first")
        one.newest.answer()
        asked_at = trio.current_time()
        await trio.sleep(0.1)
        call.session.respond("second")
        await trio.sleep(58)
        assert one.newest.asked() == ["first"]
        await trio.sleep(3)
        assert one.newest.asked() == ["first", "second"]
        assert trio.current_time() - asked_at < 62


async def test_no_session_free(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    guards = [Guard("one", max_sessions=1), Guard("two")]
    first = Call(one, two, guards=guards)
    second = Call(one, two, guards=guards)
    alone = Call(one, guards=guards[:1])
    async with first.talk():
        await trio.sleep(1)
        async with second.talk():
            await trio.sleep(1)
            assert second.engine.name == "two"
        async with alone.talk():
            await trio.sleep(3)
            assert alone.kinds() == ["Reconnecting"]
            one.newest.lose()
            await trio.sleep(1)
            assert first.of(Resumed), "a call keeps its place"
            assert alone.kinds() == ["Reconnecting"]
    async with alone.talk():
        await trio.sleep(1)
        assert alone.events[1:] == [Ready()]
    assert [guard.health()["sessions"] for guard in guards] == [0, 0]


async def test_a_call_waits_for_a_place_and_takes_it(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    guards = [Guard("one", max_sessions=1)]
    first, second = Call(engine, guards=guards), Call(engine, guards=guards)
    async with trio.open_nursery() as nursery:

        async def short() -> None:
            async with first.talk():
                await trio.sleep(3)

        nursery.start_soon(short)
        await trio.sleep(1)
        async with second.talk():
            await trio.sleep(4)
            assert second.kinds() == ["Reconnecting", "Ready"]
            assert 2 < second.times[1] < 3.5
    assert engine.most_open == 1


async def test_closing_in_every_phase(autojump_clock: MockClock) -> None:
    for wait in (0.0, 0.03, 0.06, 1.0, 1.02, 1.2, 1.35, 1.5):
        engine = FakeEngine(connect_s=0.05)
        async with Call(engine).talk() as call:
            if wait > 1:
                await trio.sleep(1)
                engine.newest.lose()
                await trio.sleep(wait - 1)
            else:
                await trio.sleep(wait)
        assert engine.open_now == 0
        assert call.guards[0].health()["sessions"] == 0
        assert call.guards[0].health()["state"] == "closed"


async def test_cancelled_from_outside(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    call = Call(engine)
    with trio.move_on_after(1) as scope:
        async with call.talk():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert engine.open_now == 0
    assert call.guards[0].health()["sessions"] == 0


async def test_a_silent_attempt_is_given_up(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.connect_s = 100
        engine.newest.lose()
        await trio.sleep(2)
        engine.connect_s = 0.05
        await trio.sleep(4)
        assert call.kinds() == ["Ready", "Reconnecting", "Resumed"]


async def test_an_engine_with_a_bug_does_not_end_the_call(autojump_clock: MockClock) -> None:
    class Broken(FakeEngine):
        async def _connect(self, session: object) -> None:
            raise RuntimeError("a bug")

    one, two = Broken(), FakeEngine("two")
    async with Call(one, two, agent=Agent(reconnect_s=1)).talk() as call:
        await trio.sleep(5)
        assert call.kinds() == ["Reconnecting", "Ready", "Resumed"]


async def test_transcripts_pass(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.hears(words="Hello?")
        await trio.sleep(0.1)
        assert call.events[-1] == CallerTranscript("c1", "Hello?", final=True)


async def test_what_comes_along_with_ready(autojump_clock: MockClock) -> None:
    """A fault before, speech right behind, in one wake-up: all of it in its place.

    That the caller began to speak is told once: later sessions hear the same words again.
    """
    fault = EngineFault("unknown_parameter", "session.voice left out", "alarm")

    class Hasty(FakeEngine):
        async def _connect(self, session: FakeSession) -> None:
            session.emit(fault, Ready(), SpeechStarted("c1", 0))
            if len(self.sessions) == 2:
                session.emit(Lost("close_1011", "no", retryable=True))

    engine = Hasty()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        assert call.events == [fault, Ready(), SpeechStarted("c1", 0)]
        engine.newest.lose()
        await trio.sleep(2)
        assert call.events[3:] == [
            Reconnecting("close_1006", "gone"),
            fault,
            Resumed("one", "model-one", fallback=False, answering=False),
            Reconnecting("close_1011", "no"),
            fault,
            Resumed("one", "model-one", fallback=False, answering=False),
        ]


async def test_an_answer_to_something_before_is_not_one_to_the_turn(
    autojump_clock: MockClock,
) -> None:
    """The greeting is heard, the caller's question is not: that is replayed, twice if need be."""
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        call.session.send_audio(b"\x01" * 8000)
        engine.newest.hears(words=None)
        await trio.sleep(0.1)
        engine.newest.answer()
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.heard == b"\x01" * 8000
        call.session.respond("Go on.")
        engine.newest.answer()
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.heard == b"\x01" * 8000
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)
        await trio.sleep(5)
        assert engine.newest.asked() == [None]
