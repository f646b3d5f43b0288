"""The journal's file: its tables, how it is opened, what is laid into it and read from it.

Everything here works on the disk, and runs in a worker thread.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog

from voiced.journal_rows import (
    STRUCTURES,
    Added,
    Annotation,
    Charge,
    Note,
    Row,
    Spent,
    Struck,
    Sums,
    summed,
)
from voiced.text import encodable

__all__ = [
    "MAX_FACTS",
    "SCHEMA_VERSION",
    "MovedJournalError",
    "NewerJournalError",
    "begin",
    "called",
    "connect",
    "create",
    "decoded",
    "identity",
    "prepare",
    "remedy",
    "store",
]

log = structlog.get_logger("voiced.journal")

MAX_FACTS: Final = 128
"""Facts of a call, those that are noted after it included."""

LEAST_USD: Final = 1e-9  # below it, sums differ by the order in which they were added up

BUSY_S: Final = 5.0  # for another program that has the file locked

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
CREATE TABLE IF NOT EXISTS struck (
    day TEXT NOT NULL,             -- as in spent
    cap TEXT NOT NULL,             -- number, or day
    called TEXT NOT NULL,          -- whose cap; empty: that of all calls
    usd REAL NOT NULL,             -- the cap that has ended a call
    PRIMARY KEY (day, cap, called)
);
"""
SCHEMA_VERSION: Final = 3
"""A table that older versions pass over, as they do `struck`, needs no other number."""
_SINCE: Final = {1: ("trunk TEXT", "media TEXT"), 2: ("facts TEXT",)}
"""Columns that journals of a version, and older ones, lack."""


class NewerJournalError(sqlite3.DatabaseError):
    """The file was written by a version that is newer than this one."""


class MovedJournalError(Exception):
    """While something was written the file was taken away, or another was put in its place."""


_BROKEN: Final = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def remedy(error: Exception, path: Path) -> str:
    """Say what an operator can do about a file that cannot be used."""
    match error, getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest of it says more
        case NewerJournalError(), _:
            return "run that version, or move the file away"
        case MovedJournalError(), _:
            return "leave it where it is while voiced runs; a new one is begun"
        case _, code if code in _BROKEN:
            return f"it is damaged: mv {path} {path}.damaged, and a new one is begun"
        case _, sqlite3.SQLITE_BUSY:
            return "close the program that has it open"
        case _, sqlite3.SQLITE_FULL:
            return f"make room on the disk of {path.parent}"
    folder = path.parent
    return f"make {folder} writable for this user, or name another folder as [daemon] state_dir"


def create(path: Path) -> None:
    """Make the file, empty, unless it is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    if not path.exists():
        # What callers said is in it: not for every user of the machine, whatever the umask.
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o640))


def identity(path: Path) -> tuple[int, int] | None:
    """Tell one file from another that has its name; None where there is none. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path) -> sqlite3.Connection:
    """Open a file that is there; it has to be closed. Raises sqlite3.Error.

    The threads of a pool use a connection one after the other, never two at a time.
    """
    # A reader that finds no file makes none: it would be open to whom the umask lets in.
    uri = f"file://{quote(os.fsencode(path.absolute()))}?mode=rw"
    database = sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False)
    try:
        # Before anything is written; a file that has tables already keeps the mode that it has.
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        # What is removed is gone from the file too: it is what callers said.
        database.execute("PRAGMA secure_delete = ON")
    except sqlite3.Error:
        database.close()
        raise
    return database


def begin(database: sqlite3.Connection, path: Path) -> bool:
    """Create the tables, or bring them up; says whether there were none. Raises sqlite3.Error."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise NewerJournalError(f"{path} was written by a newer voiced (schema {version})")
    if version < SCHEMA_VERSION:
        if version:
            _add_columns(database, version)
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return version == 0


def prepare(database: sqlite3.Connection, path: Path) -> int:
    """`begin`, and close the rows that a crash left open; says how many."""
    begin(database, path)
    return database.execute(
        # What it had cost was written down as it was spent, if anything was.
        "UPDATE call SET reason = 'daemon_crash', ended_at = started_at, cost_usd = "
        "(SELECT sum(usd) FROM spent WHERE spent.call_id = call.call_id) WHERE ended_at IS NULL"
    ).rowcount


def store(database: sqlite3.Connection, note: Note) -> None:
    """Lay one note into the tables, within whatever transaction there is."""
    match note:
        case Row():
            values = note.values()
            values["facts"] = _with_known_facts(database, note)
            columns = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            database.execute(
                f"INSERT OR REPLACE INTO call ({columns}) VALUES ({places})",  # noqa: S608
                values,
            )
        case Annotation():
            _annotate(database, note)
        case Added():
            _add(database, note)
        case Sums():
            for number, usd in note.numbers.items():
                _make_up(database, note.day, encodable(number), usd)
        case Charge():
            database.execute(
                "INSERT INTO spent VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET usd = usd + excluded.usd",
                (note.day, note.call_id, called(database, note.call_id), note.usd),
            )
        case Spent():
            database.execute(
                "INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?)",
                (note.day, note.call_id, encodable(note.called), note.usd),
            )
        case Struck():
            cap = "day" if note.called is None else "number"
            database.execute(
                "INSERT OR REPLACE INTO struck VALUES (?, ?, ?, ?)",
                (note.day, cap, encodable(note.called or ""), note.usd),
            )


def _make_up(database: sqlite3.Connection, day: str, number: str, usd: float) -> None:
    """Add what the calls of a called number have cost beyond what stands there."""
    query = "SELECT total(usd) FROM spent WHERE day = ? AND called = ?"
    lacking = usd - float(database.execute(query, (day, number)).fetchone()[0])
    if lacking > LEAST_USD:
        database.execute(
            "INSERT INTO spent VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET usd = usd + excluded.usd",
            (day, f"earlier, {number}", number, lacking),
        )


def called(database: sqlite3.Connection, call_id: str) -> str:
    """The number that a call had called; empty for a call that is not there."""
    query = "SELECT called FROM call WHERE call_id = ?"
    found = database.execute(query, (call_id,)).fetchone()
    return "" if found is None else str(found[0])


def _add(database: sqlite3.Connection, entry: Added) -> None:
    """Add to the usage and the cost of a call's row, if there is one; no cost stays none."""
    query = "SELECT usage FROM call WHERE call_id = ?"
    found = database.execute(query, (entry.call_id,)).fetchone()
    if found is None:
        log.warning("usage of an unknown call", call=entry.call_id)
        return
    usage = summed(json.loads(found[0] or "{}"), entry.usage)
    database.execute(
        "UPDATE call SET usage = ?, cost_usd = cost_usd + ? WHERE call_id = ?",
        (json.dumps(usage), entry.usd, entry.call_id),
    )


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


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was read, its structures decoded in place."""
    for name in STRUCTURES:
        row[name] = None if row[name] is None else json.loads(row[name])
    return row
