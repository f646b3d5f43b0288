"""The journal on a real file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import structlog.testing
import trio

from voiced.journal import BACKLOG, SCHEMA_VERSION, Journal, Row
from voiced.transcript import Entry


def row(call_id: str = "c1", **fields: object) -> Row:
    return Row(call_id, "twilio", "CA1", "inbound", "+1", "+2", "a", "e", "m", **fields)  # type: ignore[arg-type]


async def write(journal: Journal, *rows: Row) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for each in rows:
            journal.write(each)
        journal.close()


async def test_row_is_completed_when_the_call_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.open()
    await write(
        journal,
        row(),
        row(
            reason="caller_hangup",
            ended_at=time.time(),
            duration_ms=1500,
            states=[("ringing", 0), ("ended", 1500)],
            latencies={"answers_ms": [700]},
            cost_usd=0.01,
            transcript=[Entry("agent", "i", "お電話ありがとう", cut=True)],
        ),
    )
    (stored,) = journal.calls()
    assert stored["reason"] == "caller_hangup"
    assert stored["states"] == [["ringing", 0], ["ended", 1500]]
    assert stored["latencies"] == {"answers_ms": [700]}
    assert stored["transcript"] == [{"role": "agent", "text": "お電話ありがとう", "cut": True}]


async def test_crash_leaves_a_row_that_the_next_start_closes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    await write(journal, row())
    assert journal.calls()[0]["ended_at"] is None
    with structlog.testing.capture_logs() as logs:
        again = Journal(tmp_path)
        again.open()
    assert again.calls()[0]["reason"] == "daemon_crash"
    assert logs[0]["calls"] == 1


def test_a_journal_of_the_first_version_is_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with closing(sqlite3.connect(journal.path)) as database, database:
        database.executescript(
            "CREATE TABLE call (call_id TEXT PRIMARY KEY, carrier TEXT NOT NULL, carrier_call_id "
            "TEXT NOT NULL, direction TEXT NOT NULL, caller TEXT NOT NULL, called TEXT NOT NULL, "
            "agent TEXT NOT NULL, engine TEXT NOT NULL, model TEXT NOT NULL, started_at REAL NOT "
            "NULL, ended_at REAL, reason TEXT, duration_ms INTEGER, media_ms INTEGER, states TEXT, "
            "latencies TEXT, usage TEXT, cost_usd REAL, transcript TEXT);"
            "INSERT INTO call VALUES ('old', 'twilio', 'CA1', 'inbound', '+1', '+2', 'a', 'e', "
            "'m', 1.0, 2.0, 'caller_hangup', 1000, 900, '[]', '{}', '{}', NULL, '[]');"
            "PRAGMA user_version = 1;"
        )
    journal.open()
    (row,) = journal.calls()
    assert (row["call_id"], row["trunk"], row["media"]) == ("old", None, None)
    journal.open()  # and once more, as at the next start


def test_calls_are_found_by_the_beginning_of_their_ids(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    for call_id in ("ab", "abc", "b%"):
        journal._store([Row(call_id, "sip", "x", "inbound", "", "", "a", "e", "m")])
    assert [row["call_id"] for row in journal.call("ab")] == ["ab"]
    assert len(journal.call("a")) == 2
    assert [row["call_id"] for row in journal.call("b")] == ["b%"]
    assert journal.call("%") == []


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    database = sqlite3.connect(journal.path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.commit()
    database.close()
    with pytest.raises(sqlite3.DatabaseError, match="newer voiced"):
        Journal(tmp_path).open()


async def test_disk_that_fails_is_a_log_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    journal.path.write_bytes(b"this is no database, and it is longer than a header" * 10)
    for extra in ("-wal", "-shm"):
        Path(f"{journal.path}{extra}").unlink(missing_ok=True)
    with structlog.testing.capture_logs() as logs:
        await write(journal, row())
    assert [line["event"] for line in logs] == ["journal cannot be written"]


def test_backlog_is_bounded_and_the_loss_is_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with structlog.testing.capture_logs() as logs:
        for n in range(BACKLOG + 1):
            journal.write(row(f"c{n}"))
        journal.close()
        journal.write(row("late"))
    assert [line["event"] for line in logs] == [
        "journal backlog is full, entry lost",
        "journal is closed, entry lost",
    ]


def test_a_row_written_again_keeps_what_was_noted_meanwhile(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    call = row("c1")
    call.facts = {"recording": "a.wav"}
    journal.write(call)
    journal.annotate("c1", "summary", "short")
    call.facts["recording"] = "b.wav"
    journal.write(call)
    journal.annotate("unknown", "summary", "lost")
    journal._store(journal._waiting())
    (found,) = journal.calls()
    assert found["facts"] == {"recording": "b.wav", "summary": "short"}


def test_a_row_has_room_for_so_many_facts(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    journal.write(row("c1"))
    for number in range(200):
        journal.annotate("c1", f"fact{number}", number)
    journal.annotate("c1", "fact0", "again")
    journal._store(journal._waiting())
    (found,) = journal.calls()
    assert len(found["facts"]) == 128
    assert found["facts"]["fact0"] == "again"
