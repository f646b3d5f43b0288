"""A session is exchanged before its limit; and many calls at once survive a restart."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from tests.steady.fakes import REFUSED, Call, FakeEngine
from voiced.config.types import Agent
from voiced.engine import (
    Lost,
    Reconnecting,
    Resumed,
    SpeechStarted,
    SpeechStopped,
)
from voiced.steady import Guard

RENEWED = Resumed("one", "model-one", fallback=False, answering=False)


@pytest.mark.parametrize("interruptible", [False, True])
async def test_a_session_is_renewed_before_its_limit(
    autojump_clock: MockClock, interruptible: bool
) -> None:
    engine = FakeEngine(expires_in_s=100.0, interruptible=interruptible)
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.newest.hears(words="Hello?")
        engine.newest.answer(words="Hello!")
        await trio.sleep(78)
        assert len(engine.sessions) == 1
        call.session.send_audio(b"\x01" * 160)
        await trio.sleep(6)
        first, second = engine.sessions
        assert call.events[-1] == RENEWED
        assert not call.of(Reconnecting)
        assert second.texts() == [("user", "Hello?"), ("assistant", "Hello!")]
        assert second.asked() == []
        assert first.closed
        assert call.guards[0].health()["sessions"] == 1
        call.session.send_audio(b"\x02" * 160)
        assert second.heard.endswith(b"\x02" * 160)
        await trio.sleep(1000)
        assert len(call.of(Resumed)) in (12, 13)
        assert engine.most_open == 2
        assert not call.of(Lost)
    assert call.guards[0].health()["sessions"] == 0


async def test_it_waits_until_nobody_speaks(autojump_clock: MockClock) -> None:
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(79)
        first = engine.newest
        first.emit(SpeechStarted("c1", 0))
        await trio.sleep(8)
        assert len(engine.sessions) == 2
        assert not call.of(Resumed)
        first.emit(SpeechStopped("c1", 0))
        await trio.sleep(1)
        first.hears(words="So I said.")
        first.answer(ms=2000)
        await trio.sleep(1)
        assert not call.of(Resumed), "the answer is still heard"
        await trio.sleep(2)
        assert call.events[-1] == RENEWED


async def test_it_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    """A caller who talks on and on is heard by both sessions; an answer goes on in the second."""
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(79)
        engine.newest.emit(SpeechStarted("c1", 0))
        await trio.sleep(14)
        call.session.send_audio(b"\x05" * 160)
        assert not call.of(Resumed)
        await trio.sleep(4)
        assert call.events[-1] == RENEWED
        assert not call.of(Reconnecting)
        assert engine.newest.heard == b"\x05" * 160
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(79)
        engine.newest.hears()
        engine.newest.start()
        engine.newest.speak(500, "A long story")
        await trio.sleep(20)
        assert call.kinds()[-2:] == ["Reconnecting", "Resumed"]
        assert engine.newest.asked() == [None]


async def test_without_a_second_place_it_expires_and_goes_on(autojump_clock: MockClock) -> None:
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine, guards=[Guard("one", max_sessions=1)]).talk() as call:
        await trio.sleep(99)
        assert engine.most_open == 1
        engine.newest.lose("session_expired")
        await trio.sleep(2)
        assert call.events[-1] == RENEWED
        assert call.guards[0].health()["sessions"] == 1


async def test_a_successor_that_cannot_be_made_is_tried_again(autojump_clock: MockClock) -> None:
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.fails = [REFUSED, REFUSED]
        await trio.sleep(95)
        assert call.kinds() == ["Ready", "Resumed"]
        assert call.guards[0].health()["sessions"] == 1


async def test_lost_while_the_successor_connects(autojump_clock: MockClock) -> None:
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        engine.connect_s = 1.0
        await trio.sleep(79.5)
        assert engine.open_now == 2
        call.session.respond("Go on.")
        engine.sessions[0].lose()
        await trio.sleep(3)
        assert call.kinds() == ["Ready", "Reconnecting", "Resumed"]
        assert engine.newest.asked() == ["Go on."]
        assert engine.open_now == 1
        assert call.guards[0].health()["sessions"] == 1


async def test_lost_while_the_successor_stands_ready(autojump_clock: MockClock) -> None:
    engine = FakeEngine(expires_in_s=100.0)
    async with Call(engine).talk() as call:
        await trio.sleep(79)
        engine.newest.emit(SpeechStarted("c1", 0))
        await trio.sleep(8)
        lost_at = trio.current_time()
        engine.sessions[0].lose()
        await trio.sleep(1)
        assert call.kinds()[-2:] == ["Reconnecting", "Resumed"]
        assert call.at(Resumed) == lost_at, "it was there"
        assert len(engine.sessions) == 2
        assert call.guards[0].health()["sessions"] == 1


async def test_twenty_calls_survive_a_restart_of_their_server(autojump_clock: MockClock) -> None:
    """Whatever the outage: three seconds after it the conversations go on."""
    for outage_s in (0.0, 0.5, 1.5, 3.0, 5.0):
        engine = FakeEngine()
        guard = Guard("one")
        calls = [Call(engine, guards=[guard]) for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(partial(_stay, call, 60))
            await trio.sleep(20)
            engine.down = REFUSED
            before = len(engine.sessions)
            for session in list(engine.sessions):
                session.lose()
            await trio.sleep(outage_s)
            engine.down = None
            back_at = trio.current_time()
            await trio.sleep(10)
            for call in calls:
                assert call.kinds() == ["Ready", "Reconnecting", "Resumed"]
                assert call.at(Resumed) - back_at < 3
            assert len(engine.sessions) - before < 20 * (2 + 2 * outage_s)
            nursery.cancel_scope.cancel()
        assert guard.health()["state"] == "closed"
        assert guard.health()["sessions"] == 0


async def test_a_long_outage_is_probed_by_few(autojump_clock: MockClock) -> None:
    one, two = FakeEngine(down=REFUSED, connect_s=0.5), FakeEngine("two")
    guards = [Guard("one"), Guard("two")]
    counted: list[tuple[str, str]] = []
    guards[0].count = lambda what, why: counted.append((what, why))
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            call = Call(one, two, guards=guards, agent=Agent(reconnect_s=0))
            nursery.start_soon(partial(_stay, call, 5))
            await trio.sleep(1)
            assert call.engine.name == "two" or call.session
        await trio.sleep(6)
    assert len(one.sessions) < 20
    assert ("breaker_open", "one") in counted
    assert counted.count(("attempt_failed", "http_503")) == len(one.sessions)
    assert guards[0].health()["state"] == "open"
    assert guards[0].health()["last_error"] == "http_503"
    assert [guard.health()["sessions"] for guard in guards] == [0, 0]


async def _stay(call: Call, seconds: float) -> None:
    async with call.talk():
        await trio.sleep(seconds)
