"""The outbound task, at the moments at which several things happen in one step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from tests.fakes import FakeLeg
from voiced.formats import PCMU_8K
from voiced.playout import Playout
from voiced.talk.speaker import Speaker


@dataclass
class Told:
    """What the speaker said of itself (`voiced.talk.speaker.Listener`)."""

    words: list[str] = field(default_factory=list)

    def audio_started(self, item_id: str, in_s: float) -> None:
        self.words.append(item_id)

    def turn_over(self) -> None:
        self.words.append("over")

    def ran_dry(self) -> None:
        self.words.append("dry")


@dataclass
class Booth:
    speaker: Speaker
    leg: FakeLeg
    playout: Playout
    told: Told

    def add(self, item_id: str, ms: int) -> None:
        self.playout.add(item_id, b"\x21" * (8 * ms))
        self.speaker.wake()

    def whole(self, item_id: str, ms: int) -> None:
        self.add(item_id, ms)
        self.playout.finish(item_id)
        self.speaker.wake()


@asynccontextmanager
async def booth() -> AsyncIterator[Booth]:
    leg, playout, told = FakeLeg(), Playout(PCMU_8K.bytes_per_ms), Told()
    speaker = Speaker(playout, leg, 0, told)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speaker.run)
        yield Booth(speaker, leg, playout, told)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("before_ms", [0, 100, 300, 799, 1500])
@pytest.mark.parametrize("at_ms", [50, 2000])
async def test_what_comes_in_the_step_of_a_pause_waits(
    autojump_clock: object, before_ms: int, at_ms: int
) -> None:
    """One wake-up brings more of the answer and the reason to stop: not a byte goes out."""
    async with booth() as b:
        if before_ms:
            b.add("a", before_ms)
        await trio.sleep(at_ms / 1000)
        b.add("a", 1000)
        sent = b.leg.bytes_played()
        b.speaker.pause()
        await trio.sleep(3)
        assert b.leg.bytes_played() == sent
        heard = b.playout.heard_ms("a")
        assert heard == min(before_ms, at_ms)
        b.speaker.resume()
        await trio.sleep(4)
        assert b.playout.heard_ms("a") == before_ms + 1000
        assert b.leg.bytes_played() == sent + 8 * (before_ms + 1000 - heard)


async def test_an_interrupted_turn_is_not_said_to_be_over(autojump_clock: object) -> None:
    """New audio, the interruption, and the next answer, all in one step."""
    async with booth() as b:
        b.add("a", 300)
        await trio.sleep(0.05)
        b.add("a", 100)
        (cut,) = b.speaker.interrupt()
        assert (cut.item_id, cut.heard_ms, cut.action) == ("a", 50, "truncate")
        await trio.sleep(1)
        assert b.told.words == ["a"]
        b.whole("b", 300)
        await trio.sleep(1)
        assert b.told.words == ["a", "b", "over"]
        b.whole("c", 300)
        await trio.sleep(0.05)
        b.whole("c", 1)
        b.speaker.interrupt()
        b.whole("d", 20)
        await trio.sleep(1)
        assert b.told.words == ["a", "b", "over", "c", "d", "over"]


@pytest.mark.parametrize("at_ms", [0, 20, 700, 2999])
async def test_what_is_skipped_makes_way_at_once(autojump_clock: object, at_ms: int) -> None:
    """The rest of a filler is not heard, all of what comes behind it is, and the turn goes on."""
    async with booth() as b:
        b.playout.add("filler", b"\x21" * 24_000, origin="local")
        b.playout.finish("filler")
        b.speaker.wake()
        await trio.sleep(at_ms / 1000)
        assert b.speaker.left_s("filler") == pytest.approx(3 - at_ms / 1000, abs=0.01)
        b.whole("answer", 1000)
        b.speaker.skip("filler")
        assert b.speaker.left_s("answer") == pytest.approx(1, abs=0.01)
        await trio.sleep(1.01)
        assert b.playout.heard_ms("filler") == pytest.approx(at_ms, abs=1)
        assert b.playout.heard_ms("answer") == 1000
        assert b.told.words[-2:] == ["answer", "over"]
        assert b.told.words.count("over") == 1
        assert b.speaker.left_s("answer") == b.speaker.left_s("filler") == 0


async def test_what_waits_is_skipped_without_a_sound(autojump_clock: object) -> None:
    """Nothing of it has gone out: what is being heard is not touched."""
    async with booth() as b:
        b.whole("answer", 2000)
        b.playout.add("filler", b"\x21" * 24_000, origin="local")
        b.playout.finish("filler")
        b.whole("more", 1000)
        await trio.sleep(0.5)
        assert b.speaker.left_s("answer") == pytest.approx(1.5, abs=0.01)
        assert b.speaker.left_s("filler") == pytest.approx(4.5, abs=0.01)
        assert b.speaker.left_s("more") == pytest.approx(5.5, abs=0.01)
        generation = b.playout.generation
        b.speaker.skip("filler")
        b.speaker.skip("filler")
        assert b.playout.generation == generation
        assert b.speaker.left_s("more") == pytest.approx(2.5, abs=0.01)
        await trio.sleep(2.51)
        assert (b.playout.heard_ms("answer"), b.playout.heard_ms("more")) == (2000, 1000)
        assert b.playout.heard_ms("filler") == 0
        assert b.told.words == ["answer", "more", "over"]


async def test_what_is_skipped_while_nobody_listens_stays_unheard(autojump_clock: object) -> None:
    async with booth() as b:
        b.playout.add("filler", b"\x21" * 24_000, origin="local")
        b.playout.finish("filler")
        b.speaker.wake()
        await trio.sleep(1)
        b.speaker.pause()
        b.whole("answer", 1000)
        b.speaker.skip("filler")
        await trio.sleep(5)
        assert b.playout.heard_ms("answer") == 0
        b.speaker.resume()
        await trio.sleep(1.01)
        assert (b.playout.heard_ms("filler"), b.playout.heard_ms("answer")) == (1000, 1000)


async def test_a_turn_that_was_interrupted_in_a_pause_is_not_over_with_it(
    autojump_clock: object,
) -> None:
    async with booth() as b:
        b.whole("a", 300)
        await trio.sleep(0.05)
        b.speaker.pause()
        await trio.sleep(1)
        b.speaker.interrupt()
        b.speaker.resume()
        await trio.sleep(1)
        assert b.told.words == ["a"]
        b.whole("b", 300)
        await trio.sleep(1)
        assert b.told.words == ["a", "b", "over"]


@pytest.mark.parametrize("interrupted", [False, True])
async def test_what_was_heard_is_let_go_of_after_a_pause_as_before(
    autojump_clock: object, interrupted: bool
) -> None:
    """The ledger keeps no more than two leads of it."""
    async with booth() as b:
        b.whole("a", 20_000)
        await trio.sleep(8)
        if interrupted:
            b.speaker.interrupt()
            b.whole("b", 20_000)
        else:
            b.speaker.pause()
            b.speaker.resume()
        before = b.playout.statistics().heard
        for _ in range(10):
            await trio.sleep(0.5)
            heard = b.playout.statistics().heard + b.playout.unheard - b.playout.unsent
            assert b.playout.statistics().heard >= heard - 3 * 800 * 8
        assert b.playout.statistics().heard > before + 8 * 3000


async def test_what_comes_while_it_rises_rises_on(autojump_clock: object) -> None:
    """Paused two milliseconds before the end of what had come; the rest comes after the pause."""
    async with booth() as b:
        b.add("a", 100)
        await trio.sleep(0.098)
        b.speaker.pause()
        b.speaker.resume()
        await trio.sleep(0.05)
        b.add("a", 100)
        await trio.sleep(0.05)
        (_, rest), (_, more) = b.leg.played[-2:]
        assert (len(rest), len(more)) == (16, 800)
        assert b"\x21" not in rest + more[:23]
        assert set(more[24:]) == {0x21}
