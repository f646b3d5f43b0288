"""What the journal is owed when it is cancelled, and half-way through a change of its tables."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import trio
import trio.testing

from voiced.journal import FILE_NAME, SCHEMA_VERSION, Journal, Row

FIRST = (
    "call_id TEXT PRIMARY KEY",
    *(f"{name} TEXT" for name in ("carrier", "carrier_call_id", "direction", "caller", "called")),
    *(f"{name} TEXT" for name in ("agent", "engine", "model", "reason", "states", "latencies")),
    *(f"{name} REAL" for name in ("started_at", "ended_at", "cost_usd")),
    *(f"{name} INTEGER" for name in ("duration_ms", "media_ms")),
    *(f"{name} TEXT" for name in ("usage", "transcript")),
)
"""The columns that there were at first."""


def row(call_id: str) -> Row:
    return Row(call_id, "twilio", "CA1", "inbound", "+1", "+2", "reception", "offline", "emulator")


async def test_rows_in_hand_when_it_is_cancelled_are_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await trio.testing.wait_all_tasks_blocked()
        journal.write(row("a"))  # it wakes with this row in its hand ...
        nursery.cancel_scope.cancel()  # ... and finds itself cancelled
    assert [each["call_id"] for each in journal.calls()] == ["a"]


def test_a_change_of_the_tables_that_was_cut_is_gone_on_with(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        columns = ", ".join(FIRST)
        database.execute(f"CREATE TABLE call ({columns}, trunk TEXT)")  # and a crash
        database.execute("PRAGMA user_version = 1")
    journal = Journal(tmp_path)
    journal.open()
    assert journal.calls() == []
    with closing(sqlite3.connect(journal.path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        found = {each[1] for each in database.execute("PRAGMA table_info(call)")}
    assert {"trunk", "media", "facts"} <= found
