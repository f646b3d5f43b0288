"""Clips that plugins have played: read in turn, queued in the order asked for, and waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
import trio

from voiced import wav
from voiced.leg import Unsupported
from voiced.playout import Playout
from voiced.plugin import Clip
from voiced.talk.greeting import CLIP

__all__ = ["Clipboard"]

MAX_WAITING: Final = 64
"""Clips of a call that wait to be read or heard: a menu has ten; beyond it a plugin floods."""


class Queue(Protocol):
    """Has audio heard after all that was queued before."""

    def __call__(self, item_id: str, payload: bytes, *, filler: bool) -> None:
        """`filler`: it makes way for an answer."""


@dataclass(eq=False, slots=True)
class Played:
    """One clip, or several in a row, that a plugin asked for (`voiced.plugin.Playing`)."""

    clips: tuple[Clip, ...]
    filler: bool = False  # it makes way for an answer
    items: list[str] = field(default_factory=list)
    complete: bool = True  # nothing of it was left out
    dropped: bool = False  # the rest of it is not wanted any more
    over: trio.Event = field(default_factory=trio.Event)

    async def heard(self) -> bool:
        """Wait until it is over; True if all of it was heard."""
        await self.over.wait()
        return self.complete


class Clipboard:
    """The clips of one call."""

    def __init__(
        self,
        read: Callable[[Clip], Awaitable[bytes]],
        playout: Playout,
        queue: Queue,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`read` gives a clip's audio, and raises WavError or KeyError."""
        self._read = read
        self._playout = playout
        self._queue = queue
        self._log = log
        self._made = 0
        self._unread: list[Played] = []
        self._unheard: list[Played] = []
        self._work = trio.Event()
        self._closed = False

    def play(self, clips: tuple[Clip, ...], *, filler: bool = False) -> Played:
        """Have clips heard. Raises Unsupported when too many wait, or the call is over.

        `filler`: they make way for an answer.
        """
        if self._closed:
            raise Unsupported("the call is over")
        if len(self._unread) + len(self._unheard) >= MAX_WAITING:
            raise Unsupported(f"{MAX_WAITING} clips wait to be heard already")
        played = Played(clips, filler)
        self._unread.append(played)
        self._work.set()
        return played

    def drop_unread(self) -> None:
        """What was asked for so far and is not read yet is not to be heard."""
        for played in self._unread:
            played.dropped = True

    def settle(self) -> None:
        """Something was heard or cut off: tell those whose clips are over."""
        for played in list(self._unheard):
            heard = [
                (self._playout.heard_ms(item), self._playout.received_ms(item))
                for item in played.items
            ]
            if all(part == whole for part, whole in heard):
                self._over(played)
            elif any(self._playout.was_cut(item) for item in played.items):
                played.complete = False
                self._over(played)

    def close(self) -> None:
        """The call is over: what was not heard will not be."""
        self._closed = True
        for played in [*self._unread, *self._unheard]:
            played.complete = False
            played.over.set()
        self._unread.clear()
        self._unheard.clear()

    async def run(self) -> None:
        """Read clips and queue them; ends by cancellation."""
        while True:
            while not self._unread:
                self._work = trio.Event()
                await self._work.wait()
            played = self._unread[0]
            for clip in played.clips:
                try:
                    payload = await self._read(clip)
                except (wav.WavError, KeyError) as error:
                    self._log.error("clip left out", clip=str(clip)[:200], error=str(error))
                    played.complete = False
                    continue
                if played.dropped or any(map(self._playout.was_cut, played.items)):
                    played.complete = False
                    break  # whoever interrupted the first does not want the rest
                if played.filler and not played.items and not self._playout.idle:
                    played.complete = False  # what it was to cover for has come meanwhile
                    break
                if payload:
                    self._made += 1
                    item = f"{CLIP}{self._made}"
                    played.items.append(item)
                    self._queue(item, payload, filler=played.filler)
            if not self._unread:
                return  # closed meanwhile
            self._unread.pop(0)
            if played.items:
                self._unheard.append(played)
                self.settle()  # what there is of it may have been heard while the rest was read
            else:
                played.over.set()

    def _over(self, played: Played) -> None:
        self._unheard.remove(played)
        played.over.set()
