"""Delivers what must not get lost: spooled, in order within a lane, tried again until a deadline.

`put` never waits. A writer takes what was put to the disk, all that waits in one transaction;
deliveries take it from there, as many lanes at a time as `Limits.at_once` says. At least once: what
was delivered when the machine failed is delivered again, under the same name.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
from voiced_plugins._lanes import Lanes, delay_s
from voiced_plugins._spool import Item, Spool, Stored

__all__ = ["Again", "Courier", "Done", "Limits", "Never", "Outcome"]

LINGER_S: Final = 1.5
"""For what is due when the daemon ends: the rest waits on the disk for the next start."""

ADOPT_S: Final = 60.0
"""How often what another service has left behind is looked for."""

PACE_S: Final = 0.01
"""From one delivery to the next. A delivery costs 1 to 2 ms of the thread in which calls live; what
an outage has piled up is not worth a second without them."""

BACKLOG: Final = 4096
BACKLOG_BYTES: Final = 16 * 2**20
"""What waits for a disk that does not answer: of a hundred lively calls the events of a minute."""

DISK_S: Final = 5.0
"""A disk that failed is tried again after this."""

FAILURES: Final = (sqlite3.Error, OSError)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Done:
    """It was delivered."""


@dataclass(frozen=True, slots=True)
class Again:
    """It was not, and may be later: not before `after_s`, if the other side says so.

    `all_wait`: nothing else would be taken either before that.
    """

    why: str
    after_s: float | None = None
    all_wait: bool = False


@dataclass(frozen=True, slots=True)
class Never:
    """It was refused for good."""

    why: str


Outcome = Done | Again | Never


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait, for how long, and how many lanes are served at a time."""

    max_items: int
    max_bytes: int
    deadline_s: float
    at_once: int
    first_s: float = 0.0
    """How long what was put, or found on the disk, waits before its first try."""


class Courier:
    """See the module's text. `open`, then `run` as a task, then `close`.

    Args:
        folder: where the spool is.
        deliver: tries once, and says what became of it.
        limits: what may wait, and how long.
        log: where outages and losses are said, once each.
        now: Unix time.
        jitter: a random number from 0 to 1.
        on_lost: told of each item that will not be delivered, and why.
        limiter: for the threads that use the disk.
    """

    def __init__(
        self,
        folder: Path,
        deliver: Callable[[Stored], Awaitable[Outcome]],
        limits: Limits,
        log: Any,
        *,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        on_lost: Callable[[Item, str], None] = lambda item, why: None,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._folder = folder
        self._deliver = deliver
        self._on_lost = on_lost
        self._limits = limits
        self._log = log
        self._now, self._jitter = now, jitter
        self._spool: Spool | None = None
        self._limiter = limiter or trio.CapacityLimiter(4)
        self._waiting: deque[Item] = deque()
        self._waiting_bytes = 0
        self._put = self._kept = 0  # of all items: how many were put, how many are on the disk
        self._kept_changed = trio.Event()
        self._lanes = Lanes()
        # What is over but could not be removed from a full disk: at most the first of each lane.
        self._settled: set[int] = set()
        self._wake_writer = trio.Event()
        self._wake = trio.Event()
        self._not_before = 0.0  # on Trio's clock: the other side has had enough of us
        self._failing = False
        self._disk_failing = False
        self.delivered = 0
        self.lost = 0
        """Items that were refused, came too late, or had to make room."""
        self._lost_said = 0

    # ---- what is to be delivered ----

    def put(self, item: Item) -> None:
        """Deliver `item`, after those of its lane that were put before. Never waits."""
        self._put += 1
        if len(self._waiting) >= BACKLOG or self._waiting_bytes > BACKLOG_BYTES:
            self._kept += 1
            self._lose(item, "the disk does not keep up")
            return
        self._waiting.append(item)
        self._waiting_bytes += len(item.body)
        self._wake_writer.set()

    async def written(self) -> None:
        """Wait until what was put so far is on the disk, or lost."""
        wanted = self._put
        while self._kept < wanted:
            await self._kept_changed.wait()

    @property
    def statistics(self) -> dict[str, int]:
        """What has become of the items so far."""
        return {"delivered": self.delivered, "lost": self.lost}

    # ---- its life ----

    async def open(self) -> None:
        """Open the spool. Raises sqlite3.Error or OSError."""
        limits = self._limits
        self._spool = await trio.to_thread.run_sync(
            lambda: Spool(self._folder, max_items=limits.max_items, max_bytes=limits.max_bytes)
        )
        if self._spool.set_aside is not None:
            self._log.error("spool was unreadable and is set aside", file=self._spool.set_aside)

    async def run(self) -> None:
        """Write and deliver until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_all)
                nursery.start_soon(self._adopt_all)
                nursery.start_soon(self._serve, nursery)
        finally:
            self._lanes.put_all_back(trio.current_time())

    async def close(self) -> None:
        """Write what waits, deliver what can be within a moment, and close the spool."""
        if self._spool is None:
            return
        try:
            if self._waiting:
                await self._write(self._spool)
            with trio.move_on_after(LINGER_S):
                async with trio.open_nursery() as nursery:
                    for _ in range(self._limits.at_once):
                        nursery.start_soon(self._serve_due)
        except FAILURES as error:
            self._log.error("spool cannot be written", error=str(error), lost=len(self._waiting))
        self._say_lost()
        await self._in_thread(self._spool.close)

    # ---- to the disk ----

    async def _write_all(self) -> None:
        assert self._spool is not None
        while True:
            self._wake_writer = trio.Event()
            if not self._waiting:
                await self._wake_writer.wait()
            try:
                await self._write(self._spool)
                self._disk_failing = False
            except FAILURES as error:
                if not self._disk_failing:
                    self._disk_failing = True
                    self._log.error("spool cannot be written", error=str(error))
                await trio.sleep(DISK_S)

    async def _write(self, spool: Spool) -> None:
        items = list(self._waiting)
        gone = await self._in_thread(lambda: spool.add(items))
        # Only now: whoever is cancelled or fails before leaves them to the next.
        for _ in items:
            self._waiting_bytes -= len(self._waiting.popleft().body)
        due = trio.current_time() + self._limits.first_s
        for each in items:
            self._lanes.add(each.lane, due)
        self._kept += len(items)
        self._kept_changed.set()
        self._kept_changed = trio.Event()
        self._wake.set()
        if gone:
            self.lost += gone
            self._say("there is no more room for it", None)

    async def _adopt_all(self) -> None:
        assert self._spool is not None
        due = trio.current_time() + self._limits.first_s
        while True:
            try:
                found = await self._in_thread(self._spool.adopt)
                for lane in await self._in_thread(self._spool.lanes) if found else ():
                    self._lanes.add(lane, max(due, trio.current_time()))
                if found:
                    self._log.info("deliveries of before go on", items=found)
                    self._wake.set()
            except FAILURES as error:
                self._log.warning("spool cannot be read", error=str(error))
            await trio.sleep(ADOPT_S)

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        # Left behind with a disk that hangs: nothing may hold up the daemon's end.
        return await trio.to_thread.run_sync(
            function, abandon_on_cancel=True, limiter=self._limiter
        )

    # ---- deliveries ----

    async def _serve(self, nursery: trio.Nursery) -> None:
        while True:
            self._wake = trio.Event()
            while self._lanes.taken < self._limits.at_once:
                now = trio.current_time()
                lane = self._lanes.take(now) if now >= self._not_before else None
                if lane is None:
                    break
                nursery.start_soon(self._serve_lane, lane)
                await trio.sleep(PACE_S)
            await self._until_due()

    async def _serve_due(self) -> None:
        while trio.current_time() >= self._not_before:
            lane = self._lanes.take(trio.current_time())
            if lane is None:
                return
            await self._serve_lane(lane)

    async def _until_due(self) -> None:
        due = self._lanes.next_due()
        if self._lanes.taken >= self._limits.at_once:
            due = None
        with trio.move_on_at(float("inf") if due is None else max(due, self._not_before)):
            await self._wake.wait()

    async def _serve_lane(self, lane: str) -> None:
        assert self._spool is not None
        try:
            again_in_s = await self._serve_first(self._spool, lane)
        except FAILURES as error:
            if not self._disk_failing:
                self._disk_failing = True
                self._log.error("spool cannot be used", error=str(error))
            again_in_s = DISK_S
        now = trio.current_time()
        if again_in_s is None:
            self._lanes.empty(lane, now)
        else:
            self._lanes.put_back(lane, now + again_in_s)
        self._wake.set()

    async def _serve_first(self, spool: Spool, lane: str) -> float | None:
        """Deliver the first of a lane; returns when to look again, None when there is nothing."""
        found = await self._in_thread(lambda: spool.first(lane))
        if found is None:
            return None
        if found.id in self._settled:
            await self._settle(spool, found)
            return 0.0
        left_s = found.item.added + self._limits.deadline_s - self._now()
        if left_s <= 0:
            return await self._bury(spool, found, "its time is over")
        try:
            outcome = await self._deliver(found)
        except Exception as error:  # a bug; the next item may not have it
            self._log.exception("delivery failed", kind=found.item.kind)
            outcome = Again(f"a {type(error).__name__}")  # whose words may hold a secret
        match outcome:
            case Done():
                self.delivered += 1
                self._works()
                await self._settle(spool, found)
                return 0.0
            case Never(why):
                return await self._bury(spool, found, why)
            case Again(why, after_s, all_wait):
                return await self._later(spool, found, why, after_s, all_wait=all_wait)

    async def _later(
        self, spool: Spool, found: Stored, why: str, after_s: float | None, *, all_wait: bool
    ) -> float | None:
        wait_s = delay_s(found.tries + 1, after_s, self._jitter())
        if not self._failing:
            self._failing = True
            self._log.warning("delivery failed, and is tried again", why=why, in_s=round(wait_s, 1))
        if found.item.added + self._limits.deadline_s - self._now() <= wait_s:
            return await self._bury(spool, found, f"its time is over: {why}")
        if all_wait:
            self._not_before = max(self._not_before, trio.current_time() + wait_s)
        await self._in_thread(lambda: spool.failed(found.id))
        return wait_s

    async def _bury(self, spool: Spool, found: Stored, why: str) -> float:
        self._lose(found.item, why)
        await self._settle(spool, found)
        return 0.0

    async def _settle(self, spool: Spool, found: Stored) -> None:
        self._settled.add(found.id)
        await self._in_thread(lambda: spool.remove(found.id))
        self._settled.discard(found.id)
        self._disk_failing = False

    # ---- what is said of it ----

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            self._log.info("deliveries go on")
        self._say_lost()

    def _lose(self, item: Item, why: str) -> None:
        self.lost += 1
        self._on_lost(item, why)
        self._say(why, item)

    def _say(self, why: str, item: Item | None) -> None:
        # Once until something is delivered again: a thousand lines of one outage help nobody.
        if self._lost_said == 0:
            call = None if item is None else item.lane
            self._log.error("delivery given up", why=why, lane=call, lost=self.lost)
            self._lost_said = self.lost

    def _say_lost(self) -> None:
        if self._lost_said:
            if self.lost > self._lost_said:
                self._log.error("deliveries were given up", lost=self.lost)
            self._lost_said = 0
