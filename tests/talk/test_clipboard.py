"""Clips of plugins: what was left out, cut off or never reached is not said to have been heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio

from voiced.formats import PCMU_8K
from voiced.leg import Unsupported
from voiced.playout import Playout
from voiced.plugin import Clip
from voiced.talk.clipboard import MAX_WAITING, Clipboard, Played

SOUND = b"\x31" * 804  # of which the last half of a millisecond counts for nothing


class Shelf:
    """Clips that take a second to read. One called `none` is not there."""

    def __init__(self) -> None:
        self.playout = Playout(PCMU_8K.bytes_per_ms)
        self.queued: list[str] = []
        self.read: list[Clip] = []
        log = structlog.get_logger("test")
        self.clipboard = Clipboard(self._read, self.playout, self._queue, log)
        self.running = False

    async def _read(self, clip: Clip) -> bytes:
        self.read.append(clip)
        await trio.sleep(1)
        if clip == "none":
            raise KeyError(clip)
        return b"" if clip == "empty" else SOUND

    def _queue(self, item_id: str, payload: bytes, *, filler: bool) -> None:
        self.queued.append(item_id)
        self.playout.add(item_id, payload, origin="local")
        self.playout.finish(item_id)

    async def run(self) -> None:
        self.running = True
        await self.clipboard.run()
        self.running = False

    def hear(self, but: int = 0) -> None:
        """The caller hears all that is queued, `but` for the last bytes."""
        while (chunk := self.playout.next_chunk(len(SOUND))) is not None:
            self.playout.sent(chunk)
        self.playout.heard_to(len(SOUND) * len(self.queued) - but)
        self.clipboard.settle()

    def interrupt(self) -> None:
        self.playout.cut()
        self.clipboard.settle()


@asynccontextmanager
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def heard(played: Played) -> bool:
    with trio.fail_after(0.01):
        return await played.heard()


async def test_who_interrupts_the_first_clip_does_not_want_the_rest(
    autojump_clock: object,
) -> None:
    async with shelf() as s:
        played = s.clipboard.play(("one", "two", "three"))
        await trio.sleep(1.5)
        s.interrupt()
        await trio.sleep(5)
        assert len(s.queued) == 1
        assert s.read == ["one", "two"]  # nor is it waited for
        assert not await heard(played)
        after = s.clipboard.play(("four",))
        await trio.sleep(1.5)
        s.hear()
        assert await heard(after)


async def test_what_was_interrupted_before_it_was_cut_short_is_known_at_once(
    autojump_clock: object,
) -> None:
    async with shelf() as s:
        played = s.clipboard.play(("one",))
        await trio.sleep(1.5)
        assert not played.over.is_set()
        s.interrupt()
        assert not await heard(played)


async def test_who_interrupts_with_the_last_sample_does_not_want_the_rest_either(
    autojump_clock: object,
) -> None:
    """Of the first clip less than a millisecond is missing: that was heard, the rest was not."""
    async with shelf() as s:
        played = s.clipboard.play(("one", "two"))
        await trio.sleep(1.5)
        s.hear(but=4)
        s.interrupt()
        await trio.sleep(1)
        assert len(s.queued) == 1
        assert not await heard(played)


async def test_all_that_there_is_was_heard_while_the_rest_was_read(autojump_clock: object) -> None:
    """The rest is not there: nothing else will be heard that would tell."""
    async with shelf() as s:
        played = s.clipboard.play(("one", "none"))
        await trio.sleep(1.5)
        s.hear()
        assert not played.over.is_set()
        await trio.sleep(1)
        assert not await heard(played)


@pytest.mark.parametrize(("clips", "whole"), [(("none",), False), (("empty",), True)])
async def test_what_makes_no_sound_is_over_at_once(
    autojump_clock: object, clips: tuple[str, ...], whole: bool
) -> None:
    async with shelf() as s:
        played = s.clipboard.play(clips)
        await trio.sleep(1.5)
        assert await heard(played) == whole
        assert s.queued == []


async def test_the_call_ends_while_a_clip_is_read(autojump_clock: object) -> None:
    async with shelf() as s:
        heard_in_part = s.clipboard.play(("one",))
        await trio.sleep(1.5)
        read, waiting = s.clipboard.play(("two",)), s.clipboard.play(("three",))
        await trio.sleep(0.5)
        s.clipboard.close()
        for played in (heard_in_part, read, waiting):
            assert not await heard(played)
        with pytest.raises(Unsupported, match="over"):
            s.clipboard.play(("four",))
        await trio.sleep(1)
        assert not s.running


async def test_a_flood_is_held_back(autojump_clock: object) -> None:
    """What is read and what is heard counts alike; what is over does not."""
    async with shelf() as s:
        for _ in range(MAX_WAITING):
            s.clipboard.play(("one",))
        with pytest.raises(Unsupported, match="64"):
            s.clipboard.play(("one",))
        await trio.sleep(2.5)
        with pytest.raises(Unsupported, match="64"):
            s.clipboard.play(("one",))
        s.hear()
        for _ in range(2):
            s.clipboard.play(("one",))
        with pytest.raises(Unsupported, match="64"):
            s.clipboard.play(("one",))
