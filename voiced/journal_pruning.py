"""What the journal keeps no longer: calls past their time, and sums that no cap asks for any more.

Rows go in small batches, with the file free between two of them: a row that has to be written waits
for one batch at the most, and a crash leaves some of the old rows to the next start.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

import structlog
import trio

from voiced.journal_file import connect
from voiced.journal_rows import day_of

__all__ = ["BATCH", "GRACE_S", "Pruner", "give_back", "remove_calls", "remove_sums"]

log = structlog.get_logger("voiced.journal")

DAY_S: Final = 86_400.0

BATCH: Final = 100
"""Rows that go at once: at the usual 1 to 10 KB a millisecond or two, at 50 KB some tens."""

PAUSE_S: Final = 0.02  # between two batches: the disk is the recordings' too

GRACE_S: Final = 60.0
"""How long a row of an ended call stays whatever is set: `voiced dial` reads in it what became of
its call, and plugins note what they found out."""

PAGES: Final = 256  # that are given back at once: a megabyte, as a rule

LEAP_S: Final = DAY_S
"""A clock that is set forward by more makes all calls old at once; what went would not come back
when somebody notices. So nothing goes for a day, or for as long as calls are kept."""

# Goes on while the machine sleeps, as the hour does, and nobody sets it.
_ELAPSED: Final = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

INCREMENTAL: Final = 2  # as SQLite numbers the kinds of auto_vacuum

SPARE: Final = 4
"""One page in so many may lie free: the next day's rows need what the last day's leave. Beyond it
pages go back to the disk, as after a change of settings."""


class Pruner:
    """Prunes one journal, at the start, about daily, and whenever the setting has changed."""

    def __init__(
        self,
        path: Path,
        turn: trio.Lock,
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = _ELAPSED,
    ) -> None:
        """`turn` is held while the file is written; `clock` gives Unix time, `elapsed` seconds."""
        self._path = path
        self._turn = turn
        self._clock = clock
        self._elapsed = elapsed
        self._offset = clock() - elapsed()
        self._held_until = -math.inf
        self._keep_s: float | None = None
        self._changed = trio.Event()

    def keep(self, days: float | Literal["forever"]) -> None:
        """Keep ended calls so many days from now on. Until it is called nothing is removed."""
        keep_s = math.inf if isinstance(days, str) else max(days * DAY_S, GRACE_S)
        if keep_s != self._keep_s:
            self._keep_s = keep_s
            self._changed.set()

    @property
    def period_s(self) -> float:
        """A day, or less where calls are kept so briefly that a day more would be much of it."""
        if self._keep_s is None:
            return math.inf
        return min(DAY_S, max(GRACE_S, self._keep_s / 24))

    async def run(self) -> None:
        """Prune until cancelled; a file that cannot be pruned is a log line."""
        while True:
            self._changed = trio.Event()
            if self._keep_s is not None and not self._held(self._keep_s):
                try:
                    await self._prune(self._keep_s)
                except (sqlite3.Error, OSError) as error:
                    log.error("journal cannot be pruned", file=str(self._path), error=str(error))
                except Exception:  # the journal goes on all the same
                    log.exception("journal not pruned: a bug of voiced, please report it")
            with trio.move_on_after(self.period_s):
                await self._changed.wait()

    def _held(self, keep_s: float) -> bool:
        """Whether the clock has leapt forward so lately that it may be wrong."""
        now = self._elapsed()
        offset = self._clock() - now
        leapt_s, self._offset = offset - self._offset, offset
        if leapt_s > LEAP_S:
            wait_s = min(DAY_S, keep_s)
            self._held_until = now + wait_s
            log.warning(
                "clock was set forward, journal is not pruned",
                days=round(leapt_s / DAY_S, 1),
                for_s=round(wait_s),
                remedy="set it right until then if it is wrong: old calls go by it",
            )
        elif leapt_s < -LEAP_S:  # it was wrong, and is right again
            self._held_until = -math.inf
        return now < self._held_until

    async def _prune(self, keep_s: float) -> None:
        now = self._clock()
        # One connection for all: the last one that closes writes the log back into the file.
        database = await trio.to_thread.run_sync(connect, self._path)
        removed = 0
        try:
            await self._step(remove_sums, database, now)
            while keep_s < math.inf:
                gone = await self._step(remove_calls, database, now - keep_s)
                removed += gone
                if gone < BATCH or self._changed.is_set():
                    break
                await trio.sleep(PAUSE_S)
            surplus = 1
            while surplus:
                surplus = await self._step(give_back, database)
                await trio.sleep(PAUSE_S)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(database.close)
            if removed:
                log.info("journal pruned", calls=removed, older_than_days=keep_s / DAY_S)

    async def _step(self, step: Callable[..., int], *arguments: object) -> int:
        async with self._turn:
            return await trio.to_thread.run_sync(step, *arguments)


def remove_calls(database: sqlite3.Connection, before: float) -> int:
    """Remove one batch of calls that ended before a time; says how many. Live ones have no end."""
    with database:
        return database.execute(
            # It began before it ended: the index on the one spares a look at every row.
            "DELETE FROM call WHERE rowid IN (SELECT rowid FROM call "
            "WHERE started_at < :before AND ended_at < :before ORDER BY started_at LIMIT :batch)",
            {"before": before, "batch": BATCH},
        ).rowcount


def remove_sums(database: sqlite3.Connection, now: float) -> int:
    """Remove what was spent, and which caps struck, before yesterday; says how many rows.

    Caps ask for today alone; yesterday stays for a clock that is set back over midnight.
    """
    oldest = (day_of(now - DAY_S),)
    with database:
        removed = database.execute("DELETE FROM spent WHERE day < ?", oldest).rowcount
        return removed + database.execute("DELETE FROM struck WHERE day < ?", oldest).rowcount


def give_back(database: sqlite3.Connection) -> int:
    """Give some free pages back to the disk; says how many there still are to give back.

    Files that were made before `connect` asked for it keep theirs for later rows: a VACUUM would
    hold the file for as long as it takes to write all of it again.
    """

    def pragma(name: str) -> int:
        return int(database.execute(f"PRAGMA {name}").fetchone()[0])

    def surplus() -> int:
        return pragma("freelist_count") - pragma("page_count") // SPARE

    before = surplus()
    if before <= 0 or pragma("auto_vacuum") != INCREMENTAL:
        return 0
    # A statement that gives a page back at each step, and no row: `execute` takes one step.
    database.executescript(f"PRAGMA incremental_vacuum({min(before, PAGES)})")
    after = surplus()
    return after if 0 < after < before else 0
