"""The journal: one row a call, in SQLite, in `state_dir`.

A row is written when the call begins and completed when it ends, so that after a crash the journal
says which calls were cut. One task owns the database and works in threads; calls hand it rows and
never wait for a disk. While the disk is full, or another program has the file locked, the rows wait
and are tried again. Where the file is taken away a new one is begun. What is past its time is
removed beside it, see `voiced.journal_pruning`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal

import structlog
import trio

from voiced.journal_file import (
    MAX_FACTS,
    SCHEMA_VERSION,
    MovedJournalError,
    NewerJournalError,
    begin,
    called,
    connect,
    create,
    decoded,
    identity,
    prepare,
    remedy,
    store,
)
from voiced.journal_pruning import Pruner
from voiced.journal_rows import (
    Added,
    Annotation,
    Charge,
    Fact,
    Note,
    Row,
    Spent,
    Struck,
    Sums,
    checked_fact,
)

__all__ = [
    "BACKLOG",
    "FILE_NAME",
    "MAX_FACT",
    "MAX_FACTS",
    "SCHEMA_VERSION",
    "Added",
    "Annotation",
    "Charge",
    "Fact",
    "Journal",
    "NewerJournalError",
    "Note",
    "Row",
    "Spent",
    "Struck",
    "Sums",
    "checked_fact",
]

log = structlog.get_logger("voiced.journal")

MAX_FACT: Final = 32_000
"""Characters of a fact that is noted after a call: a summary, not a transcript."""

FILE_NAME: Final = "journal.sqlite"

# Rows waiting for the disk, and as many in hand. A row is 1 to 50 KB; at 30 calls a second this is
# half a minute of a disk that does not answer. Beyond it a row goes to the log alone, and the loss
# is said there.
BACKLOG: Final = 1000

RETRY_S: Final = 2.0
"""Until rows are tried again: whoever frees the disk or the lock need not wait for us."""

_OURS: Final = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
"""Errors of SQLite that say something of a row, and nothing of the file."""

LAST_WRITE_S: Final = 3.0
"""Within which the last rows have to begin to be written when the daemon is cancelled. What has
begun is waited for: rows added twice would cost twice. With the file locked that is `BUSY_S`."""


class Journal:
    """The journal of one daemon. `run` is its only task and owns the database."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE_NAME
        self._send, self._receive = trio.open_memory_channel[Note](BACKLOG)
        self._closed = trio.Event()
        self.renewed: Callable[[], None] = lambda: None
        """Is called when another file stands in place of one that was taken away, a new one as a
        rule: who has rows of calls that still go on, or a day's sums, may write them again."""
        self._begun = False  # a new file, of which that has not been said yet
        self._file: tuple[int, int] | None = None  # which was written last
        self._other = False  # it is another one since, and whoever has sums was not told yet
        self._failing: str | None = None  # what kept the last rows from being written
        self._turn = trio.Lock()  # first come, first served: no writer waits for two batches
        self._pruner = Pruner(self.path, self._turn)

    def open(self) -> None:
        """Create or check the database and close the rows that a crash left open.

        Raises OSError or sqlite3.Error where the directory or the file cannot be used.
        """
        create(self.path)
        with closing(connect(self.path)) as database, database:
            cut = prepare(database, self.path)
        self._file = identity(self.path)
        if cut:
            log.warning("calls were cut by an earlier crash", calls=cut)

    def write(self, row: Row) -> None:
        """Queue a row; never blocks. Called at a call's start and again at its end."""
        self._queue(row, call=row.call_id, reason=row.reason)

    def annotate(self, call_id: str, name: str, value: Fact) -> None:
        """Queue a fact about a call that has ended; never blocks. Raises ValueError."""
        value = checked_fact(value)
        if isinstance(value, str):
            value = value[:MAX_FACT]
        self._queue(Annotation(call_id, name[:64], value), call=call_id, fact=name)

    def add(self, added: Added) -> None:
        """Queue what was used for a call whose row is complete; never blocks."""
        self._queue(added, call=added.call_id)

    def spend(self, spent: Spent | Charge | Struck | Sums) -> None:
        """Queue what a call, or a day, has cost by now, or that a cap has struck; never blocks."""
        self._queue(spent, day=spent.day)

    def _queue(self, entry: Note, **about: str | None) -> None:
        try:
            self._send.send_nowait(entry)
        except trio.WouldBlock:
            log.error("journal backlog is full, entry lost", **about)
        except trio.ClosedResourceError:
            log.error("journal is closed, entry lost", **about)

    def close(self) -> None:
        """No more rows will come; `run` returns once it has written those that wait, or cannot."""
        self._send.close()
        self._closed.set()

    def keep(self, days: float | Literal["forever"]) -> None:
        """Keep the rows of ended calls so many days; `run` removes older ones from now on."""
        self._pruner.keep(days)

    async def run(self) -> None:
        """Write rows until `close`, all that wait in one transaction; prune in between."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pruner.run)
            await self._write_rows()
            nursery.cancel_scope.cancel()

    async def _write_rows(self) -> None:
        rows: list[Note] = []
        try:
            async for row in self._receive:
                rows = [row, *self._waiting()]
                await self._write(rows)
                while rows:  # the others wait where their number is bounded
                    with trio.move_on_after(RETRY_S):
                        await self._closed.wait()
                        return
                    await self._write(rows)
        finally:
            # Cancelled, with rows of calls that the same cancellation has ended: they are owed. So
            # are those in hand, which `_write` empties once they are written: some of them add.
            if rows := [*rows, *self._waiting()]:
                with trio.move_on_after(LAST_WRITE_S, shield=True):
                    await self._write(rows)
            if rows:
                log.error("journal rows lost", file=str(self.path), rows=len(rows))
            self._receive.close()

    def _waiting(self) -> list[Note]:
        rows: list[Note] = []
        while len(rows) < BACKLOG:
            try:
                rows.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        return rows

    async def _write(self, rows: list[Note]) -> None:
        """Write `rows` and empty the list; it stays as it is where that may succeed later."""
        charges: list[tuple[Charge, str]] = []
        try:
            async with self._turn:
                charges = await trio.to_thread.run_sync(self._store, rows)
                rows.clear()
        except Exception as error:  # a disk, a lock, no thread to be had: the calls go on
            if str(error) != self._failing:  # once, and not at every try
                self._failing = str(error)
                log.error(
                    "journal cannot be written",
                    file=str(self.path),
                    error=self._failing,
                    remedy=remedy(error, self.path),
                )
            return
        if self._failing is not None:
            self._failing = None
            log.warning("journal is written again", file=str(self.path))
        if self._begun:
            self._begun = False
            log.error("journal was taken away, a new one is begun", file=str(self.path))
        if self._other:
            self._other = False
            self.renewed()
        for charge, number in charges:
            charge.told(number)

    def _store(self, rows: list[Note]) -> list[tuple[Charge, str]]:
        """Lay rows into the file, which is begun if it is not there; says who is told of what."""
        create(self.path)
        known = identity(self.path)
        with closing(connect(self.path)) as database:
            # One that is emptied keeps its identity.
            begun = begin(database, self.path)
            self._begun |= begun
            self._other |= begun or known != self._file
            self._file = known
            with database:
                kept = [row for row in rows if _is_stored(database, row)]
                charges = [row for row in kept if isinstance(row, Charge)]
                told = [(charge, called(database, charge.call_id)) for charge in charges]
                self._check_still(known)
            self._check_still(known)
        return told

    def _check_still(self, known: tuple[int, int] | None) -> None:
        """Raise MovedJournalError unless the file is the one that was there before."""
        if identity(self.path) != known:
            raise MovedJournalError(f"{self.path} was taken away")

    def days(self, since: str) -> list[str]:
        """The days from `since` on of which sums are kept, in order; blocks on the disk."""
        with closing(connect(self.path)) as database:
            found = database.execute(
                "SELECT day FROM spent WHERE day >= :since UNION "
                "SELECT day FROM struck WHERE day >= :since ORDER BY day",
                {"since": since},
            ).fetchall()
        return [str(day) for (day,) in found]

    def spent(self, day: str) -> list[Spent]:
        """What each call of a day has cost; blocks on the disk."""
        with closing(connect(self.path)) as database:
            found = database.execute("SELECT * FROM spent WHERE day = ?", (day,)).fetchall()
        return [Spent(*row) for row in found]

    def struck(self, day: str) -> list[Struck]:
        """The caps that have ended calls on a day; blocks on the disk."""
        with closing(connect(self.path)) as database:
            found = database.execute(
                "SELECT cap, called, usd FROM struck WHERE day = ?", (day,)
            ).fetchall()
        return [Struck(day, None if cap == "day" else called, usd) for cap, called, usd in found]

    def calls(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest rows, newest first, structures decoded; blocks on the disk."""
        with closing(connect(self.path)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                "SELECT * FROM call ORDER BY started_at DESC LIMIT ?", (limit,)
            ).fetchall()
        rows = [dict(row) for row in found]
        return [decoded(row) for row in rows]

    def call(self, beginning: str) -> list[dict[str, Any]]:
        """The rows whose id begins so, two at the most; blocks on the disk."""
        with closing(connect(self.path)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                "SELECT * FROM call WHERE call_id = :text OR substr(call_id, 1, :size) = :text "
                "ORDER BY call_id != :text LIMIT 2",
                {"text": beginning, "size": len(beginning)},
            ).fetchall()
        rows = [decoded(dict(row)) for row in found]
        return rows[:1] if rows and rows[0]["call_id"] == beginning else rows


def _is_stored(database: sqlite3.Connection, row: Note) -> bool:
    """Lay a row into the file; one that we made wrong is lost, and no other with it."""
    try:
        store(database, row)
    except Exception as error:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OURS):
            raise
        log.exception("journal row lost: a bug of voiced, please report it")
        return False
    return True
