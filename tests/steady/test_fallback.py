"""Which engine a call talks to when one is lost, and when it is the end."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.steady.fakes import BAD_KEY, HELLO, REFUSED, Call, FakeEngine
from voiced.config.types import Agent
from voiced.engine import (
    DEAF,
    Billed,
    Lost,
    Ready,
    Reconnecting,
    Resumed,
)
from voiced.steady.course import FIRST_S
from voiced.steady.session import UNHEARD


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


async def test_a_deaf_server_is_replaced_and_the_caller_asked(autojump_clock: MockClock) -> None:
    """Once: what the next one does not hear either is no speech."""
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        first = engine.newest
        assert first.plan.attentive
        first.lose(DEAF)
        await trio.sleep(1)
        assert call.events[-1] == Resumed("one", "model-one", fallback=False, answering=True)
        assert engine.newest is not first
        assert engine.newest.texts() == [("system", UNHEARD)]
        assert engine.newest.asked() == [None]
        assert not engine.newest.plan.attentive
        engine.newest.answer()
        engine.newest.lose()
        await trio.sleep(1)
        assert not engine.newest.plan.attentive
        assert engine.newest.asked() == []


async def test_a_deaf_server_that_owes_an_answer_owes_no_other(autojump_clock: MockClock) -> None:
    engine = FakeEngine()
    async with Call(engine).talk() as call:
        await trio.sleep(1)
        call.session.respond("Greet.")
        engine.newest.lose(DEAF)
        await trio.sleep(1)
        assert engine.newest.asked() == ["Greet."]
        assert engine.newest.texts() == []


async def test_a_first_connection_into_a_hole_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The caller hears nobody meanwhile; where there is nobody else it is waited for."""
    one, two = FakeEngine(connect_s=60), FakeEngine("two")
    async with Call(one, two).talk() as call:
        await trio.sleep(FIRST_S + 0.1)
        assert call.events == [Ready(), Resumed("two", "model-two", True, answering=False)]
        await trio.sleep(60)
        assert one.open_now == 0
    one = FakeEngine(connect_s=FIRST_S + 1)
    async with Call(one).talk() as call:
        await trio.sleep(FIRST_S + 1.1)
        assert call.events == [Ready()]


async def test_who_was_not_waited_for_is_asked_again_where_the_other_one_fails(
    autojump_clock: MockClock,
) -> None:
    one, two = FakeEngine(connect_s=FIRST_S + 1), FakeEngine("two", down=REFUSED)
    async with Call(one, two, agent=Agent(reconnect_s=8)).talk() as call:
        await trio.sleep(30)
        assert call.kinds()[-1] == "Ready"
        assert call.engine.name == "one"
