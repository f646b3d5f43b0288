"""What an account allows, used up: the other engine, once; what is asked for again, and when."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from tests.steady.fakes import BAD_KEY, REFUSED, Call, FakeEngine, FakeSession, tool
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudioDone,
    Committed,
    Lost,
    Reconnecting,
    ResponseDone,
    ResponseStarted,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import PCMU_8K
from voiced.steady import Guard
from voiced.steady.asking import LIMITED, LIMITED_S
from voiced.steady.ledger import TURN_S
from voiced.steady.limits import Window
from voiced.steady.utterance import Utterance

TO_TWO = Resumed("two", "model-two", fallback=True, answering=True)


def limited(session: FakeSession, *, lost: bool = False) -> None:
    """The server refuses an answer; `lost`: and its session knows of nothing else to do."""
    session.emit(ResponseStarted("r1"), ResponseDone("r1", "failed", LIMITED))
    if lost:
        session.emit(Lost(LIMITED, "try again in 20 s", retryable=True))


# ---- requests_per_minute


def test_when_there_is_room_again() -> None:
    """Answers of the server's own may exceed the limit: as many have to pass before the next."""
    window = Window(2)
    for at in (0.0, 10.0, 20.0):
        window.record(at)
    assert window.wait_s(30.0) == 40.0
    assert not window.take(69.9)
    assert window.take(70.0)


async def test_answers_of_the_servers_own_count(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    guards = [Guard("one", requests_per_minute=1), Guard("two")]
    async with Call(one, two, guards=guards).talk() as call:
        await trio.sleep(1)
        one.newest.hears()
        one.newest.answer()
        await trio.sleep(1)
        call.session.respond("Go on.")
        await trio.sleep(1)
        assert one.newest.asked() == []
        assert two.newest.asked() == ["Go on."]


async def test_an_answer_that_is_being_given_is_heard_out(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    guards = [Guard("one", requests_per_minute=1), Guard("two")]
    async with Call(one, two, guards=guards).talk() as call:
        await trio.sleep(1)
        call.session.respond("A story.")
        one.newest.start()
        one.newest.speak(500, "Once upon a time")
        await trio.sleep(0.1)
        call.session.respond("And another.")
        await trio.sleep(2)
        assert call.kinds()[-1] == "AgentAudio", "nothing has broken off"
        one.newest.end()
        await trio.sleep(1)
        assert call.events[-1] == TO_TWO
        assert two.newest.asked() == ["And another."]


async def test_two_engines_without_room_do_not_take_turns(autojump_clock: MockClock) -> None:
    """The answer waits where it is, until one of them has room."""
    one, two = FakeEngine(), FakeEngine("two")
    guards = [Guard(name, requests_per_minute=1) for name in ("one", "two")]
    async with Call(one, two, guards=guards).talk() as call:
        for number in range(3):
            await trio.sleep(1)
            call.session.respond(f"Answer {number}.")
            await trio.sleep(1)
            if number < 2:
                (one, two)[number].newest.answer()
        await trio.sleep(10)
        assert [len(engine.sessions) for engine in (one, two)] == [1, 1]
        await trio.sleep(50)
        assert [len(engine.sessions) for engine in (one, two)] == [2, 1]
        assert one.newest.asked() == ["Answer 2."]


async def test_what_was_answered_before_a_renewal_counts(autojump_clock: MockClock) -> None:
    """The second engine has answered since the call came to it: it may leave that as well."""
    one, two = FakeEngine(), FakeEngine("two", expires_in_s=100.0)
    guards = [Guard("one", requests_per_minute=1), Guard("two", requests_per_minute=1)]
    async with Call(one, two, guards=guards).talk() as call:
        for engine in (one, two):
            await trio.sleep(1)
            call.session.respond("Go on.")
            await trio.sleep(1)
            engine.newest.answer()
        await trio.sleep(95)
        assert len(two.sessions) == 2
        guards[1].record()
        call.session.respond("Go on.")
        await trio.sleep(1)
        assert len(one.sessions) == 2
        assert one.newest.asked() == ["Go on."]


# ---- a server's own limit


async def test_a_limited_answer_is_asked_for_elsewhere_at_once(autojump_clock: MockClock) -> None:
    for lost in (False, True):
        one, two = FakeEngine(), FakeEngine("two")
        async with Call(one, two).talk() as call:
            await trio.sleep(1)
            call.session.respond("Greet.")
            limited(one.newest, lost=lost)
            await trio.sleep(0.2)
            assert call.events[-1] == TO_TWO
            assert two.newest.asked() == ["Greet."]
            assert len(one.sessions) == 1
            assert call.guards[0].health()["state"] == "closed", "it works"


async def test_without_another_engine_it_is_asked_for_later(autojump_clock: MockClock) -> None:
    one = FakeEngine()
    async with Call(one, FakeEngine("two", down=BAD_KEY)).talk() as call:
        call.guards[1].failed("invalid_api_key", terminal=True)
        await trio.sleep(1)
        call.session.respond("Greet.")
        limited(one.newest)
        await trio.sleep(LIMITED_S - 0.1)
        assert one.newest.asked() == ["Greet."]
        await trio.sleep(0.2)
        assert one.newest.asked() == ["Greet.", "Greet."]
        assert len(one.sessions) == 1


async def test_two_limited_engines_end(autojump_clock: MockClock) -> None:
    """One leads to the other once: from then on each is tried for as long as patience lasts."""
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two, agent=Agent(reconnect_s=4)).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        began, tried = trio.current_time(), list[str]()
        refused: list[FakeSession] = []
        while not call.of(Lost):
            for session in (*one.sessions, *two.sessions):
                if session.asked() and session not in refused:
                    refused.append(session)
                    tried.append(session.engine.name)
                    limited(session, lost=True)
            await trio.sleep(0.1)
            assert trio.current_time() - began < 12
        assert tried == ["one", *sorted(tried[1:], reverse=True)], "two again and again, then one"
        assert {"one", "two"} == set(tried[1:])
        assert len(tried) < 25


async def test_an_answer_makes_leaving_worth_while_again(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two).talk() as call:
        await trio.sleep(1)
        for number, engine in enumerate((one, two, one)):
            call.session.respond("Go on.")
            limited(engine.newest, lost=True)
            await trio.sleep(0.2)
            other = (two, one, two)[number]
            assert other.newest.asked() == ["Go on."]
            other.newest.answer()
            await trio.sleep(1)


async def test_another_session_is_asked_at_once_for_what_was_put_off(
    autojump_clock: MockClock,
) -> None:
    """What the lost one was limited to says nothing of the next."""
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Go on.")
        limited(engine.newest)
        await trio.sleep(0.1)
        assert engine.newest.asked() == ["Go on."], "not again so soon"
        engine.newest.lose()
        await trio.sleep(LIMITED_S / 2)
        assert len(engine.sessions) == 2
        assert engine.newest.asked() == ["Go on."]


async def test_a_server_that_wants_to_be_left_alone_is(autojump_clock: MockClock) -> None:
    """For as long as it says; where that is too long for the caller, the other one is asked."""
    busy = Lost("http_429", "too many", retryable=True)
    one, two = FakeEngine(fails=[busy], retry_after_s=1.5), FakeEngine("two")
    async with Call(one, two).talk() as call:
        await trio.sleep(1.4)
        assert len(one.sessions) == 1
        await trio.sleep(1)
        assert call.kinds() == ["Reconnecting", "Ready"]
        one.retry_after_s = 30
        one.fails = [busy]
        one.newest.lose()
        await trio.sleep(1)
        assert len(one.sessions) == 3
        assert call.of(Resumed)[-1].engine == "two"  # type: ignore[union-attr]
    one = FakeEngine(fails=[busy], retry_after_s=30)
    async with Call(one).talk() as call:
        await trio.sleep(1)
        assert call.events[-1] == busy, "nobody is left waiting for what cannot come"
    one = FakeEngine(fails=[busy], retry_after_s=3)
    async with Call(one).talk() as call:
        await trio.sleep(2.9)
        assert len(one.sessions) == 1
        await trio.sleep(1)
        assert call.kinds() == ["Reconnecting", "Ready"], "there is nobody else to ask"


async def test_nobody_waits_for_a_server_while_the_other_one_is_free(
    autojump_clock: MockClock,
) -> None:
    """Though there would be patience enough: to the caller it is seconds of fillers."""
    busy = Lost("http_429", "too many", retryable=True)
    one, two = FakeEngine(fails=[busy], retry_after_s=5), FakeEngine("two")
    async with Call(one, two, agent=Agent(reconnect_s=8)).talk() as call:
        await trio.sleep(0.5)
        assert call.of(Resumed)[-1].engine == "two"  # type: ignore[union-attr]
        assert len(one.sessions) == 1


async def test_who_wants_to_be_left_alone_is_asked_again_where_the_other_one_fails(
    autojump_clock: MockClock,
) -> None:
    busy = Lost("http_429", "too many", retryable=True)
    one, two = FakeEngine(fails=[busy], retry_after_s=5), FakeEngine("two", down=REFUSED)
    async with Call(one, two, agent=Agent(reconnect_s=8)).talk() as call:
        await trio.sleep(4.9)
        assert len(one.sessions) == 1
        await trio.sleep(10)
        assert call.kinds() == ["Reconnecting", "Ready"]
        assert len(one.sessions) == 2


async def test_two_servers_that_want_to_be_left_alone_are(autojump_clock: MockClock) -> None:
    """Each for as long as it says, and not for ever."""
    busy = Lost("http_429", "too many", retryable=True)
    one = FakeEngine(down=busy, retry_after_s=3)
    two = FakeEngine("two", down=busy, retry_after_s=3)
    async with Call(one, two, agent=Agent(reconnect_s=8)).talk() as call:
        await trio.sleep(40)
        assert call.events[-1] == busy
        for engine in (one, two):
            begun = [each.opened_at for each in engine.sessions]
            assert all(later - earlier >= 3 for earlier, later in pairwise(begun)), begun
            assert len(begun) > 2


# ---- what is owed


async def test_a_second_item_is_not_over_with_the_first(autojump_clock: MockClock) -> None:
    """Lost in the midst of the second part of an answer, the first of which was whole."""
    engine = FakeEngine()
    async with Call(engine).talk():
        await trio.sleep(1)
        engine.newest.hears()
        engine.newest.start()
        engine.newest.speak(300, "One moment.", "i1")
        engine.newest.emit(AgentAudioDone("r1", "i1"))
        engine.newest.speak(300, "We are open", "i2")
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        assert engine.newest.asked() == [None]
        assert "We are open" in str(engine.newest.texts()[-1])


async def test_a_model_that_may_call_functions_goes_on(autojump_clock: MockClock) -> None:
    """What it said was whole; what it was about to call nobody knows."""
    for tools in ((), (tool("look"),)):
        engine = FakeEngine()
        async with Call(engine, tools=tools).talk():
            await trio.sleep(1)
            engine.newest.hears()
            engine.newest.start()
            engine.newest.speak(300, "Let me look.")
            engine.newest.emit(AgentAudioDone("r1", "i1"))
            await trio.sleep(0.1)
            engine.newest.lose()
            await trio.sleep(1)
            assert engine.newest.asked() == [None] * len(tools)


async def test_a_turn_that_the_next_session_does_not_recognise(autojump_clock: MockClock) -> None:
    """It is asked for the answer all the same, once; and the turn is over."""
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.emit(SpeechStarted("c1", 0))
        call.session.send_audio(b"\x01" * 8000)
        await trio.sleep(0.5)
        engine.newest.lose()
        await trio.sleep(0.5 + TURN_S)
        assert engine.newest.asked() == [None]
        engine.newest.answer()
        await trio.sleep(90)
        assert len(call.of(Resumed)) == 2, "no open turn keeps it from being renewed in time"


def test_an_earlier_turn_is_over_with_a_later_one() -> None:
    """Its transcript may never come: what was said after it has been understood."""
    utterance = Utterance(PCMU_8K)
    utterance.take_over(PCMU_8K, "fir")
    for item in ("c1", "c2"):
        utterance.add(bytes(800))
        utterance.started()
        utterance.stopped()
        utterance.committed(item)
    utterance.understood("c2")
    assert not utterance.open


async def test_a_successor_that_stands_ready_takes_over_whatever_the_loss(
    autojump_clock: MockClock,
) -> None:
    """No attempt could succeed any more: none is needed."""
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(79)
        engine.newest.emit(SpeechStarted("c1", 0))
        await trio.sleep(5)
        assert len(engine.sessions) == 2
        engine.sessions[0].lose("insufficient_quota", retryable=False)
        await trio.sleep(1)
        assert call.kinds()[-2:] == ["Reconnecting", "Resumed"]
        assert not call.of(Lost)


async def test_a_probe_whose_call_ends_leaves_it_to_the_next(autojump_clock: MockClock) -> None:
    """The one attempt that an open breaker admits ends with its caller: others may try."""
    engine, guard = FakeEngine(connect_s=2), Guard("one")
    guard.failed("http_503", terminal=True)
    async with Call(engine, guards=[guard]).talk():
        await trio.sleep(2)
        assert guard.health()["state"] == "half_open"
    assert guard.health()["state"] == "open"
    async with Call(engine, guards=[guard]).talk() as call:
        await trio.sleep(5)
        assert call.kinds() == ["Ready"]
    assert guard.health()["state"] == "closed"


@pytest.mark.parametrize("barge_in", ["immediate", "confirm"])
async def test_a_turn_that_was_over_is_not_begun_again(
    autojump_clock: MockClock, barge_in: Literal["immediate", "confirm"]
) -> None:
    """Its replay would cut off what covers for the loss, and count as an interruption."""
    engine = FakeEngine()
    async with Call(engine, agent=Agent(barge_in=barge_in)).talk() as call:
        await trio.sleep(1)
        call.session.send_audio(b"\x01" * 8000)
        engine.newest.hears(words=None)
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        told = len(call.events)
        engine.newest.hears("c1")
        engine.newest.hears("c2")
        await trio.sleep(0.1)
        begun = ["SpeechStarted", "SpeechStopped"]
        turn = ["Committed", "CallerTranscript"]
        first = turn if barge_in == "immediate" else begun + turn
        assert call.kinds()[told:] == first + begun + turn


async def test_a_turn_that_goes_on_is_not_begun_again(autojump_clock: MockClock) -> None:
    """Its end is news, and so is the beginning of the next."""
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.emit(SpeechStarted("c1", 0))
        call.session.send_audio(b"\x01" * 8000)
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        told = len(call.events)
        engine.newest.emit(SpeechStarted("c1", 0), SpeechStopped("c1", 500), Committed("c1"))
        engine.newest.emit(SpeechStarted("c2", 900))
        await trio.sleep(0.1)
        assert call.kinds()[told:] == ["SpeechStopped", "Committed", "SpeechStarted"]


async def test_a_replay_that_comes_along_with_a_failure(autojump_clock: MockClock) -> None:
    """What it begins again is left out, though the session is left at once."""
    one, two = FakeEngine(), FakeEngine("two")
    async with Call(one, two).talk() as call:
        await trio.sleep(1)
        call.session.send_audio(b"\x01" * 8000)
        one.newest.hears(words=None)
        await trio.sleep(0.1)
        one.newest.lose()
        await trio.sleep(1)
        told = len(call.events)
        one.newest.hears(words=None)
        limited(one.newest)
        await trio.sleep(1)
        begun = ["Committed", "ResponseStarted", "ResponseDone"]
        assert call.kinds()[told:] == [*begun, "Reconnecting", "Resumed"]


async def test_a_replay_may_be_committed_unannounced(autojump_clock: MockClock) -> None:
    """Some servers say no more of a turn that comes in one piece: the next one is news."""
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.hears(words=None)
        call.session.send_audio(b"\x01" * 8000)
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(1)
        told = len(call.events)
        engine.newest.emit(Committed("c1"), SpeechStarted("c2", 900), SpeechStopped("c2", 999))
        await trio.sleep(0.1)
        assert call.kinds()[told:] == ["Committed", "SpeechStarted", "SpeechStopped"]


async def test_who_speaks_after_a_replay_that_was_not_recognised_is_heard(
    autojump_clock: MockClock,
) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.emit(SpeechStarted("c1", 0))
        call.session.send_audio(b"\x01" * 8000)
        await trio.sleep(0.1)
        engine.newest.lose()
        await trio.sleep(TURN_S + 1)
        told = len(call.events)
        engine.newest.emit(SpeechStarted("c2", 0), SpeechStopped("c2", 500))
        await trio.sleep(0.1)
        assert call.kinds()[told:] == ["SpeechStarted", "SpeechStopped"]


# ---- a quiet moment


async def test_a_function_at_work_is_no_quiet_moment(autojump_clock: MockClock) -> None:
    """Its result would be a text in the next session: it is waited for."""
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine, tools=(tool("look"),)).talk() as call:
        await trio.sleep(79)
        engine.newest.emit(ToolCall("f1", "t1", "look", "{}"))
        await trio.sleep(8)
        assert not call.of(Resumed)
        call.session.tool_result("f1", "found")
        assert engine.sessions[0].commands[-1] == ("result", "f1", "found")
        await trio.sleep(1)
        assert call.of(Resumed)
        assert not call.of(Reconnecting)


async def test_what_was_cut_is_not_waited_for(autojump_clock: MockClock) -> None:
    """A minute of an answer, of which the caller heard a second."""
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(78)
        engine.newest.answer(ms=60_000)
        await trio.sleep(1)
        engine.newest.emit(SpeechStarted("c1", 0), SpeechStopped("c1", 500))
        call.session.truncate("i1", 0, 1000)
        engine.newest.emit(Committed("c1"), ResponseStarted("r2"))
        engine.newest.speak(300, "Yes.", "i2", "r2")
        engine.newest.end("i2", "r2")
        await trio.sleep(8)
        assert call.of(Resumed)


async def test_functions_that_changed_while_a_session_was_made(autojump_clock: MockClock) -> None:
    engine = FakeEngine(connect_s=0.5)
    async with Call(engine, tools=(tool("old"),)).talk() as call:
        await trio.sleep(0.2)
        call.session.set_tools([tool("new")])
        await trio.sleep(1)
        assert [spec.name for spec in engine.newest.plan.tools] == ["old"]
        assert engine.newest.commands == [("tools", ["new"])]
