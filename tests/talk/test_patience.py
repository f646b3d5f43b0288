"""Patience on a virtual clock: who waits for what, and what is heard meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

from voiced.config.types import GIVE_UP, Agent, RealtimeEngine
from voiced.leg import CallFacts
from voiced.playout import Playout
from voiced.record import CallRecord
from voiced.states import CallState
from voiced.talk.patience import FILLER_AGAIN_S, LOST_FILLER_S, Patience

CLIP_S = 1.5


class Host:
    """Plays clips, each for `CLIP_S`, and writes down when."""

    def __init__(self, playout: Playout) -> None:
        self.began = trio.current_time()
        self.heard: list[tuple[str, float]] = []
        self.ended: tuple[str, str, float] | None = None
        self._playout = playout
        self._clips = 0

    @property
    def now(self) -> float:
        return round(trio.current_time() - self.began, 1)

    def play_clip(self, name: str, *, ahead: bool = False, filler: bool = False) -> None:
        assert filler == (name == "one_moment")
        self._clips += 1
        if ahead:
            assert self._playout.add_ahead(f"clip:{self._clips}", bytes(int(8000 * CLIP_S)))
            self.heard.append((name, self.now))
            return
        self._playout.add(f"clip:{self._clips}", bytes(int(8000 * CLIP_S)), origin="local")
        self._playout.finish(f"clip:{self._clips}")
        self.heard.append((name, self.now))

    def wind_down(self, reason: str, words: Literal["farewell", "unavailable"]) -> None:
        self.ended = self.ended or (reason, words, self.now)

    async def listens(self) -> None:
        """Hear what is played."""
        while True:
            await trio.sleep(0.02)
            chunk = self._playout.next_chunk(160)
            if chunk is not None:
                self._playout.sent(chunk)
                self._playout.heard_to(self._playout.statistics().sent)


class Waits:
    """A call of which nothing but its patience is there."""

    def __init__(self, **agent: Any) -> None:
        facts = CallFacts("call-1", "twilio", "CA1", "+1", "+2")
        self.record = CallRecord(facts, agent="a", engine="e", model="m")
        self.playout = Playout(8)
        self.host = Host(self.playout)
        self.patience = Patience(
            self.host, self.host.wind_down, Agent(**agent), self.record, self.playout
        )

    @property
    def heard(self) -> list[tuple[str, float]]:
        return self.host.heard


@asynccontextmanager
async def waits(*, connected: bool = True, **agent: Any) -> AsyncIterator[Waits]:
    call = Waits(**{"silence_prompt_s": 0, "silence_hangup_s": 0, **agent})
    for state in (CallState.ANSWERING, CallState.MEDIA_READY, CallState.LISTENING):
        call.record.to(state)
    if connected:
        call.patience.connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.host.listens)
        nursery.start_soon(call.patience.watch)
        await trio.testing.wait_all_tasks_blocked()
        yield call
        nursery.cancel_scope.cancel()
    call.record.to(CallState.ENDED)
    call.record.finish({})


async def test_a_model_that_owes_is_covered_then_given_up(autojump_clock: MockClock) -> None:
    async with waits(no_answer_s=4) as call:
        call.patience.owe()
        await trio.sleep(20)
        assert call.heard == [("one_moment", 4.0)]
        assert call.host.ended == ("model_silent", "unavailable", 4.0 * GIVE_UP)


async def test_a_model_that_connects_is_not_given_up(autojump_clock: MockClock) -> None:
    """Whoever connects has limits of its own; the caller is told to wait, again and again."""
    async with waits(connected=False, no_answer_s=4) as call:
        call.patience.owe()
        await trio.sleep(30)
        assert call.host.ended is None
        assert [name for name, _ in call.heard] == ["one_moment"] * 3
        call.patience.connected()
        began = call.host.now
        await trio.sleep(20)
        assert call.host.ended == ("model_silent", "unavailable", began + 4.0 * GIVE_UP)


async def test_a_lost_model_is_covered_within_a_second_and_again(autojump_clock: MockClock) -> None:
    async with waits() as call:
        await trio.sleep(10)
        call.patience.lost()
        assert call.patience.reconnecting
        await trio.sleep(12)
        at = 10 + LOST_FILLER_S
        assert call.heard == [("one_moment", at + step * FILLER_AGAIN_S) for step in range(3)]
        assert call.host.ended is None, "who tries to get it back knows when to give up"


async def test_a_model_that_is_soon_back_was_not_missed(autojump_clock: MockClock) -> None:
    async with waits(no_answer_s=4) as call:
        call.patience.lost()
        await trio.sleep(0.6)
        call.patience.resumed(answering=False)
        await trio.sleep(60)
        assert call.heard == []
        assert call.host.ended is None


async def test_what_is_owed_is_owed_by_the_next_model(autojump_clock: MockClock) -> None:
    """It is the answer that is waited for: a model that is soon back and thinks is covered for."""
    async with waits(no_answer_s=4) as call:
        call.patience.owe()
        await trio.sleep(3)
        call.patience.lost()
        await trio.sleep(0.5)
        call.patience.resumed(answering=True)
        await trio.sleep(60)
        assert call.heard == [("one_moment", 3 + LOST_FILLER_S)]
        assert call.host.ended == ("model_silent", "unavailable", 3.5 + 4.0 * GIVE_UP)


async def test_an_answer_that_is_soon_there_was_not_missed(autojump_clock: MockClock) -> None:
    async with waits(no_answer_s=4) as call:
        call.patience.owe()
        call.patience.lost()
        await trio.sleep(0.3)
        call.patience.resumed(answering=True)
        await trio.sleep(0.3)
        call.patience.settled()
        await trio.sleep(1)
        call.patience.owe()
        await trio.sleep(5)
        assert call.heard == [("one_moment", 1.6 + 4)], "the next answer is waited for as any"


async def test_a_model_that_comes_and_goes_is_covered(autojump_clock: MockClock) -> None:
    """Each time before the filler is due: it is heard all the same, and not each time again."""
    async with waits(no_answer_s=4) as call:
        call.patience.owe()
        for _ in range(14):
            call.patience.lost()
            await trio.sleep(0.4)
            call.patience.resumed(answering=True)
            await trio.sleep(0.1)
        again = LOST_FILLER_S + FILLER_AGAIN_S
        assert call.heard == [("one_moment", LOST_FILLER_S), ("one_moment", again)]
        call.patience.settled()
        call.patience.lost()
        await trio.sleep(2)
        assert call.heard[2:] == [("one_moment", 7 + LOST_FILLER_S)], "an answer was heard"


async def test_the_replay_of_a_turn_is_no_answer(autojump_clock: MockClock) -> None:
    """The next session hears the caller's last words, ends their turn, and then thinks."""
    async with waits(no_answer_s=4) as call:
        call.patience.lost()
        await trio.sleep(0.3)
        call.patience.resumed(answering=True)
        call.patience.settled()
        await trio.sleep(0.1)
        call.patience.owe()
        await trio.sleep(2)
        assert call.heard == [("one_moment", LOST_FILLER_S)]


@pytest.mark.parametrize("back_after_s", [0.1, 3.0, 11.0])
async def test_a_loss_on_hold_is_covered_soon_after_the_hold(
    autojump_clock: MockClock, back_after_s: float
) -> None:
    async with waits(no_answer_s=8) as call:
        call.patience.hold(True)
        call.patience.lost()
        await trio.sleep(back_after_s)
        call.patience.hold(False)
        await trio.sleep(2)
        ((name, at),) = call.heard
        assert name == "one_moment"
        assert at == pytest.approx(back_after_s + LOST_FILLER_S)


async def test_a_model_that_comes_back_with_the_caller_is_not_covered(
    autojump_clock: MockClock,
) -> None:
    async with waits(no_answer_s=8) as call:
        call.patience.hold(True)
        call.patience.lost()
        await trio.sleep(3)
        call.patience.hold(False)
        call.patience.resumed(answering=True)
        await trio.sleep(0.5)
        assert call.heard == []
        call.patience.settled()
        await trio.sleep(3)
        assert call.heard == []


async def test_a_loss_before_media_is_covered_once_there_is_media(
    autojump_clock: MockClock,
) -> None:
    call = Waits(silence_prompt_s=0, silence_hangup_s=0)
    call.patience.lost()
    await trio.sleep(30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.host.listens)
        nursery.start_soon(call.patience.watch)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert call.heard == [("one_moment", 30 + LOST_FILLER_S)]
    call.record.to(CallState.ENDED)
    call.record.finish({})


async def test_what_the_lost_model_said_is_heard_out_first(autojump_clock: MockClock) -> None:
    async with waits() as call:
        call.host.play_clip("the rest of an answer")
        call.patience.lost()
        await trio.sleep(3)
        (_, (name, at)) = call.heard
        assert name == "one_moment"
        assert CLIP_S <= at <= CLIP_S + 0.2


async def test_what_the_lost_model_said_is_heard_out_though_the_next_is_there(
    autojump_clock: MockClock,
) -> None:
    async with waits(no_answer_s=4) as call:
        call.host.play_clip("the rest of an answer")
        call.patience.lost()
        await trio.sleep(0.3)
        call.patience.resumed(answering=True)
        await trio.sleep(3)
        (_, (name, at)) = call.heard
        assert name == "one_moment"
        assert CLIP_S <= at <= CLIP_S + 0.2


async def test_a_loss_while_a_tool_runs_leaves_the_tool_its_time(autojump_clock: MockClock) -> None:
    async with waits(no_answer_s=4) as call:
        call.patience.working(True)
        call.patience.lost()
        await trio.sleep(0.5)
        call.patience.resumed(answering=False)
        assert call.patience.owed
        await trio.sleep(30)
        assert call.host.ended is None
        assert [name for name, _ in call.heard] == ["one_moment"] * 3


async def test_on_hold_nobody_is_told_to_wait(autojump_clock: MockClock) -> None:
    async with waits() as call:
        call.patience.hold(True)
        call.patience.lost()
        await trio.sleep(30)
        assert call.heard == []
        call.patience.hold(False)
        await trio.sleep(20)
        assert call.heard


async def test_a_call_that_ends_is_not_covered_for(autojump_clock: MockClock) -> None:
    async with waits() as call:
        call.patience.lost()
        call.patience.stop()
        await trio.sleep(30)
        assert call.heard == []


async def test_the_longest_call_ends_while_the_model_is_lost(autojump_clock: MockClock) -> None:
    async with waits(max_duration_s=3) as call:
        call.patience.lost()
        await trio.sleep(30)
        assert call.host.ended == ("max_duration", "farewell", 3.0)


def test_a_silent_server_is_left_before_the_call_is_given_up() -> None:
    """With the settings that nobody has changed, another session has time to answer."""
    assert RealtimeEngine().silent_s + LOST_FILLER_S < GIVE_UP * Agent().no_answer_s
