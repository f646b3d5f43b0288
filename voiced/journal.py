"""The journal: one row a call, in SQLite, in `state_dir`.

A row is written when the call begins and completed when it ends, so that after a crash the journal
says which calls were cut. One writer task owns the database and works in a thread; calls hand it
rows and never wait for a disk.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from voiced.text import encodable
from voiced.transcript import Entry

__all__ = ["Annotation", "Fact", "Journal", "Note", "Row", "Spent", "checked_fact"]

log = structlog.get_logger("voiced.journal")

Fact = str | int | float | bool | None

_LARGEST: Final = 2**63
"""Whole numbers beyond are none to those who read the JSON."""

MAX_FACT: Final = 32_000
"""Characters of a fact that is noted after a call: a summary, not a transcript."""

MAX_FACTS: Final = 128
"""Facts of a call, those that are noted after it included."""

FILE_NAME: Final = "journal.sqlite"

# Rows waiting for the disk. A row is 1 to 50 KB; at 30 calls a second this is half a minute of a
# disk that does not answer. Beyond it a row goes to the log alone, and the loss is said there.
BACKLOG: Final = 1000

LAST_WRITE_S: Final = 3.0  # for the last rows when the daemon is cancelled

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS call (
    call_id TEXT PRIMARY KEY,
    carrier TEXT NOT NULL,
    carrier_call_id TEXT NOT NULL,
    direction TEXT NOT NULL,
    caller TEXT NOT NULL,
    called TEXT NOT NULL,
    agent TEXT NOT NULL,
    engine TEXT NOT NULL,
    model TEXT NOT NULL,
    started_at REAL NOT NULL,      -- Unix time
    ended_at REAL,                 -- NULL: the call is live
    reason TEXT,                   -- why it ended
    duration_ms INTEGER,           -- from the first sign of the call
    media_ms INTEGER,              -- with audio flowing
    states TEXT,                   -- JSON: [[state, ms since started_at], …]
    latencies TEXT,                -- JSON: greeting_ms, answers_ms, barge_ins_ms, model_ready_ms
    usage TEXT,                    -- JSON: tokens
    cost_usd REAL,                 -- NULL: the price table lacks the model
    transcript TEXT,               -- JSON: [{role, text, cut}, …], as heard
    trunk TEXT,                    -- the [[sip.trunk]]; NULL with Twilio
    media TEXT,                    -- JSON: the leg's figures: loss, jitter, round trip, …
    facts TEXT                     -- JSON: what plugins noted: a recording's place, a summary, …
);
CREATE INDEX IF NOT EXISTS call_started_at ON call (started_at);
CREATE TABLE IF NOT EXISTS spent (
    day TEXT NOT NULL,             -- 2026-11-21, UTC
    call_id TEXT NOT NULL,
    called TEXT NOT NULL,
    usd REAL NOT NULL,             -- of this call on this day, written while it goes on
    PRIMARY KEY (day, call_id)
);
"""
SCHEMA_VERSION: Final = 3
_SINCE: Final = {1: ("trunk TEXT", "media TEXT"), 2: ("facts TEXT",)}
"""Columns that journals of a version, and older ones, lack."""
_JSON: Final = ("states", "latencies", "usage", "transcript", "media", "facts")


@dataclass(slots=True)
class Row:
    """What the journal keeps of a call; the columns' comments in the schema give the units."""

    call_id: str
    carrier: str
    carrier_call_id: str
    direction: str
    caller: str
    called: str
    agent: str
    engine: str
    model: str
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    reason: str | None = None
    duration_ms: int | None = None
    media_ms: int | None = None
    states: list[tuple[str, int]] = field(default_factory=list)
    latencies: Mapping[str, object] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    cost_usd: float | None = None
    transcript: list[Entry] = field(default_factory=list)
    trunk: str | None = None
    media: Mapping[str, object] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)

    def values(self) -> dict[str, object]:
        """Column to value, structures as JSON text."""
        row: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        row["transcript"] = [
            {"role": entry.role, "text": entry.text, "cut": entry.cut} for entry in self.transcript
        ]
        for name in _JSON:
            row[name] = json.dumps(row[name], ensure_ascii=False)
        # What a peer said need not be UTF-8, and a row that cannot be stored takes others with it.
        return {name: encodable(v) if isinstance(v, str) else v for name, v in row.items()}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call had cost on one day, so far."""

    day: str  # "2026-11-21", UTC
    call_id: str
    called: str
    usd: float


@dataclass(frozen=True, slots=True)
class Annotation:
    """A fact that became known after its call's row was complete."""

    call_id: str
    name: str
    value: Fact


Note = Row | Annotation | Spent
"""What can be written down."""


def checked_fact(value: object) -> Fact:
    """A fact, if it is one; ValueError for what a row could not hold, whoever says it is typed."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a fact is no infinity, and no NaN")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError("a fact is a number of at most 64 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"a fact is a text, a number, true, false or None, not {type(value).__name__}")


class Journal:
    """The journal of one daemon. `run` is its only task and owns the database."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE_NAME
        self._send, self._receive = trio.open_memory_channel[Note](BACKLOG)

    def open(self) -> None:
        """Create or check the database and close the rows that a crash left open.

        Raises OSError or sqlite3.Error where the directory or the file cannot be used.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if not self.path.exists():
            # What callers said is in it: not for every user of the machine, whatever the umask.
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o640))
        with closing(self._connect()) as database, database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise sqlite3.DatabaseError(
                    f"{self.path} was written by a newer voiced (schema {version})"
                )
            if version:
                _add_columns(database, version)
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            cut = database.execute(
                "UPDATE call SET reason = 'daemon_crash', ended_at = started_at "
                "WHERE ended_at IS NULL"
            ).rowcount
        if cut:
            log.warning("calls were cut by an earlier crash", calls=cut)

    def write(self, row: Row) -> None:
        """Queue a row; never blocks. Called at a call's start and again at its end."""
        self._queue(row, reason=row.reason)

    def annotate(self, call_id: str, name: str, value: Fact) -> None:
        """Queue a fact about a call that has ended; never blocks. Raises ValueError."""
        value = checked_fact(value)
        if isinstance(value, str):
            value = value[:MAX_FACT]
        self._queue(Annotation(call_id, name[:64], value), fact=name)

    def spend(self, spent: Spent) -> None:
        """Queue what a call has cost by now; never blocks."""
        self._queue(spent, day=spent.day)

    def _queue(self, entry: Note, **about: str | None) -> None:
        try:
            self._send.send_nowait(entry)
        except trio.WouldBlock:
            log.error("journal backlog is full, entry lost", call=entry.call_id, **about)
        except trio.ClosedResourceError:
            log.error("journal is closed, entry lost", call=entry.call_id, **about)

    def close(self) -> None:
        """No more rows will come; `run` returns once it has written those that wait."""
        self._send.close()

    async def run(self) -> None:
        """Write rows until `close`, all that wait in one transaction."""
        rows: list[Note] = []
        try:
            async for row in self._receive:
                rows = [row, *self._waiting()]
                await self._write(rows)
                rows = []
        finally:
            # Cancelled, with rows of calls that the same cancellation has ended: they are owed. So
            # are those in hand: where they are written already, that they are again is no harm.
            if rows := [*rows, *self._waiting()]:
                with trio.move_on_after(LAST_WRITE_S, shield=True):
                    await self._write(rows)
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
        try:
            await trio.to_thread.run_sync(self._store, rows)
        except (sqlite3.Error, OSError) as error:
            log.error("journal cannot be written", file=str(self.path), error=str(error))
        except Exception:  # a row that we made wrong: the calls go on, and so does the journal
            log.exception("journal rows lost: a bug of voiced, please report it", rows=len(rows))

    def _store(self, rows: list[Note]) -> None:
        with closing(self._connect()) as database, database:
            for row in rows:
                if isinstance(row, Annotation):
                    _annotate(database, row)
                    continue
                if isinstance(row, Spent):
                    database.execute(
                        "INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?)",
                        (row.day, row.call_id, encodable(row.called), row.usd),
                    )
                    continue
                values = row.values()
                values["facts"] = _with_known_facts(database, row)
                columns = ", ".join(values)
                places = ", ".join(f":{name}" for name in values)
                database.execute(
                    f"INSERT OR REPLACE INTO call ({columns}) VALUES ({places})",  # noqa: S608
                    values,
                )

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=5.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def spent(self, day: str) -> list[Spent]:
        """What each call of a day has cost; blocks on the disk."""
        with closing(self._connect()) as database:
            found = database.execute("SELECT * FROM spent WHERE day = ?", (day,)).fetchall()
        return [Spent(*row) for row in found]

    def calls(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest rows, newest first, structures decoded; blocks on the disk."""
        with closing(self._connect()) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                "SELECT * FROM call ORDER BY started_at DESC LIMIT ?", (limit,)
            ).fetchall()
        rows = [dict(row) for row in found]
        return [_decoded(row) for row in rows]

    def call(self, beginning: str) -> list[dict[str, Any]]:
        """The rows whose id begins so, two at the most; blocks on the disk."""
        with closing(self._connect()) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                "SELECT * FROM call WHERE call_id = :text OR substr(call_id, 1, :size) = :text "
                "ORDER BY call_id != :text LIMIT 2",
                {"text": beginning, "size": len(beginning)},
            ).fetchall()
        rows = [_decoded(dict(row)) for row in found]
        return rows[:1] if rows and rows[0]["call_id"] == beginning else rows


def _add_columns(database: sqlite3.Connection, version: int) -> None:
    """Add what an older table lacks; each takes effect at once, so that some may be there."""
    known = {column[1] for column in database.execute("PRAGMA table_info(call)")}
    for since, columns in _SINCE.items():
        for column in columns if version <= since else ():
            if column.split()[0] not in known:
                database.execute(f"ALTER TABLE call ADD COLUMN {column}")


def _with_known_facts(database: sqlite3.Connection, row: Row) -> str:
    """The facts of a row that is written again, over those that were noted meanwhile."""
    query = "SELECT facts FROM call WHERE call_id = ?"
    found = database.execute(query, (row.call_id,)).fetchone()
    known = json.loads(found[0] or "{}") if found is not None else {}
    return encodable(json.dumps({**known, **row.facts}, ensure_ascii=False))


def _annotate(database: sqlite3.Connection, entry: Annotation) -> None:
    """Lay a fact over those of its call's row, if there is one."""
    query = "SELECT facts FROM call WHERE call_id = ?"
    found = database.execute(query, (entry.call_id,)).fetchone()
    if found is None:
        log.warning("fact of an unknown call", call=entry.call_id, fact=entry.name)
        return
    facts = json.loads(found[0] or "{}")
    if entry.name not in facts and len(facts) >= MAX_FACTS:
        log.warning("call has too many facts", call=entry.call_id, fact=entry.name)
        return
    facts[entry.name] = entry.value
    text = encodable(json.dumps(facts, ensure_ascii=False))
    database.execute("UPDATE call SET facts = ? WHERE call_id = ?", (text, entry.call_id))


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    for name in _JSON:
        row[name] = None if row[name] is None else json.loads(row[name])
    return row
