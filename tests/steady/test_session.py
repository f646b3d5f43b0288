"""What a call sees when sessions are lost, and what the next session is told."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.steady.fakes import BAD_KEY, REFUSED, Call, FakeEngine, FakeSession
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    Billed,
    CallerTranscript,
    Committed,
    EngineFault,
    Lost,
    Ready,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    Said,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolSpec,
)
from voiced.formats import PCM16_24K, PCMU_8K
from voiced.steady import Guard

HELLO = b"\x11" * 160


def tool(name: str) -> ToolSpec:
    return ToolSpec(name, "does it", {"type": "object"})


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


async def test_the_fallback_takes_over(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two, agent=Agent(reconnect_s=3)).talk() as call:
        await trio.sleep(1)
        assert (call.engine.name, call.engine.model) == ("one", "model-one")
        assert call.engine.billed(Agent()) == Billed("model-one")
        one.down = REFUSED
        one.newest.lose()
        await trio.sleep(10)
        assert call.kinds() == ["Ready", "Reconnecting", "Resumed"]
        assert call.events[-1] == Resumed("two", "model-two", fallback=True, answering=False)
        assert 2 < call.at(Resumed) - call.at(Reconnecting) < 4
        assert (call.engine.name, call.engine.model) == ("two", "model-two")
        assert call.engine.billed(Agent()) == Billed("model-two")
        assert len(one.sessions) > 3
        assert one.open_now == 0
        one.down = None
        await trio.sleep(60)
        assert one.open_now == 0, "a call does not go back"


async def test_a_terminal_loss_goes_to_the_fallback_at_once(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two).talk() as call:
        await trio.sleep(1)
        one.newest.lose("insufficient_quota", retryable=False)
        await trio.sleep(0.2)
        assert call.kinds() == ["Ready", "Reconnecting", "Resumed"]
        two.newest.lose("insufficient_quota", retryable=False)
        await trio.sleep(0.2)
        assert call.events[-1] == Lost("insufficient_quota", "gone", retryable=False)
        assert "Reconnecting" not in call.kinds()[3:]


async def test_a_lost_fallback_is_tried_again_then_the_first(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two, agent=Agent(reconnect_s=2)).talk() as call:
        await trio.sleep(1)
        one.down = REFUSED
        one.newest.lose()
        await trio.sleep(20)
        one.down, two.down = None, REFUSED
        two.newest.lose()
        await trio.sleep(20)
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=False)
        assert call.engine.name == "one"


async def test_nothing_left(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two", down=REFUSED)
    async with Call(one, two, agent=Agent(reconnect_s=2)).talk() as call:
        await trio.sleep(1)
        one.down = REFUSED
        one.newest.lose()
        await trio.sleep(20)
        assert call.kinds() == ["Ready", "Reconnecting", "Lost"]
        assert call.events[-1] == REFUSED
        assert call.at(Lost) - call.at(Reconnecting) < 5
        call.session.respond()
        call.session.add_message("user", "x")
        call.session.send_audio(HELLO)
        call.session.cancel()
        call.session.tool_result("x", "y")
        call.session.set_tools([])
        await trio.sleep(20)
        assert len(call.events) == 3
        assert [guard.health()["sessions"] for guard in call.guards] == [0, 0]


async def test_no_retry_where_none_is_wanted(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine, agent=Agent(reconnect_s=0)).talk() as call:
        await trio.sleep(1)
        engine.newest.lose()
        await trio.sleep(1)
        assert call.kinds() == ["Ready", "Lost"]


async def test_the_first_connection_is_tried_again(autojump_clock: MockClock) -> None:
    engine = FakeEngine(fails=[REFUSED, REFUSED])
    async with Call(engine).talk() as call:
        await trio.sleep(2)
        assert call.kinds() == ["Reconnecting", "Ready"], "the caller need not wait in silence"
        assert call.times[0] < 0.5
        assert len(engine.sessions) == 3


async def test_the_fallback_from_the_beginning(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(down=BAD_KEY), FakeEngine("two")
    call = Call(one, two)
    async with call.talk():
        call.session.add_message("assistant", "Hello!")
        await trio.sleep(1)
        assert call.events == [Ready(), Resumed("two", "model-two", True, answering=False)]
        assert two.newest.texts() == [("assistant", "Hello!")]


async def test_the_fallback_from_the_beginning_is_asked_for_the_greeting(
    autojump_clock: MockClock,
) -> None:
    one, two = FakeEngine(down=BAD_KEY), FakeEngine("two")

    class Greets(Call):
        def on_event(self, event: object) -> None:
            if isinstance(event, Ready):
                self.session.respond("Greet.")

    async with Greets(one, two).talk() as call:
        await trio.sleep(1)
        assert call.events == [Ready(), Resumed("two", "model-two", True, answering=True)]
        assert two.newest.asked() == ["Greet."]


async def test_never_connected(autojump_clock: MockClock) -> None:
    engine = FakeEngine(down=REFUSED)
    async with Call(engine, agent=Agent(reconnect_s=2)).talk() as call:
        await trio.sleep(20)
        assert call.events == [Reconnecting(REFUSED.code, REFUSED.message), REFUSED]
        assert call.times[1] < 3


async def test_a_server_that_drops_every_session(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine, agent=Agent(reconnect_s=4)).talk() as call:
        await trio.sleep(1)
        for _ in range(100):
            if engine.open_now and not engine.newest.closed:
                engine.newest.lose()
            await trio.sleep(0.3)
        assert call.kinds()[-1] == "Lost"
        assert call.at(Lost) < 10


async def test_a_server_that_answers_between_losses_is_borne_with(
    autojump_clock: MockClock,
) -> None:
    engine = FakeEngine()
    async with Call(engine, agent=Agent(reconnect_s=4)).talk() as call:
        for _ in range(20):
            await trio.sleep(1)
            engine.newest.answer()
            engine.newest.lose()
        await trio.sleep(1)
        assert not call.of(Lost)
        assert len(call.of(Resumed)) == 20


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


async def test_an_answer_that_the_session_repeats_itself(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        engine.newest.emit(
            ResponseStarted("r1"),
            ResponseDone("r1", "failed", "server_error"),
            EngineFault("server_error", "oops", "retry"),
        )
        await trio.sleep(1)
        assert engine.newest.asked() == ["Greet."]
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.asked() == ["Greet."], "still owed"


async def test_failed_and_lost_at_once(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        engine.newest.emit(
            ResponseStarted("r1"),
            ResponseDone("r1", "failed", "server_error"),
            Lost("server_error", "oops", retryable=True),
        )
        await trio.sleep(1)
        assert engine.newest.asked() == ["Greet."]
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
    """A fault before, speech right behind, in one wake-up: all of it in its place."""
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
            SpeechStarted("2:c1", 0),
            Reconnecting("close_1011", "no"),
            fault,
            Resumed("one", "model-one", fallback=False, answering=False),
            SpeechStarted("3:c1", 0),
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
