"""The journal on a real file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import structlog.testing
import trio

from voiced import journal_file
from voiced.journal import (
    BACKLOG,
    SCHEMA_VERSION,
    Charge,
    Journal,
    Note,
    Row,
    Spent,
    Struck,
)
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
    assert [(line["event"], line.get("rows")) for line in logs] == [
        ("journal cannot be written", None),
        ("journal rows lost", 1),
    ]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and locks of the file do not follow a virtual clock."""
    monkeypatch.setattr(journal_file, "BUSY_S", 0.01)
    monkeypatch.setattr("voiced.journal.RETRY_S", 0.02)


class Locked:
    """A journal whose file another program has locked."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        self.journal.open()
        self.tries = 0
        self._store = self.journal._store
        self.journal._store = self._counted  # type: ignore[method-assign]
        self._other = sqlite3.connect(self.journal.path)
        self._other.execute("BEGIN EXCLUSIVE")

    def _counted(self, rows: list[Note]) -> list[tuple[Charge, str]]:
        self.tries += 1
        return self._store(rows)

    async def tried(self, more: int) -> None:
        wanted = self.tries + more
        while self.tries < wanted:
            await trio.sleep(0.01)

    def free(self) -> None:
        self._other.close()


@pytest.mark.usefixtures("impatient")
async def test_rows_wait_for_a_file_that_is_locked(tmp_path: Path) -> None:
    """Said once, however often it is tried, and once that all is well again."""
    locked = Locked(tmp_path)
    journal, told = locked.journal, list[str]()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            journal.write(row("c1"))
            await locked.tried(3)
            journal.write(row("c2"))
            journal.spend(Charge("2026-11-21", "c1", 0.5, told.append))
            await locked.tried(3)
            locked.free()
            while not told:
                await trio.sleep(0.01)
            assert {row["call_id"] for row in journal.calls()} == {"c1", "c2"}
            journal.close()
    assert [line["event"] for line in logs] == [
        "journal cannot be written",
        "journal is written again",
    ]
    assert told == ["+2"]
    assert [each.usd for each in journal.spent("2026-11-21")] == [0.5], "and only once"


@pytest.mark.usefixtures("impatient")
async def test_a_locked_file_does_not_keep_the_daemon(tmp_path: Path) -> None:
    locked = Locked(tmp_path)
    with structlog.testing.capture_logs() as logs, trio.fail_after(5):
        await write(locked.journal, row("c1"), row("c2"))
    locked.free()
    assert [(line["event"], line.get("rows")) for line in logs] == [
        ("journal cannot be written", None),
        ("journal rows lost", 2),
    ]


@pytest.mark.usefixtures("impatient")
async def test_rows_that_wait_for_the_disk_are_bounded(tmp_path: Path) -> None:
    locked = Locked(tmp_path)
    journal = locked.journal
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            journal.write(row("first"))
            await locked.tried(2)
            for n in range(BACKLOG + 3):
                journal.write(row(f"c{n}"))
            await locked.tried(2)
            journal.write(row("one more"))
            locked.free()
            journal.close()
    assert [line["event"] for line in logs].count("journal backlog is full, entry lost") == 4
    assert len(journal.calls(2 * BACKLOG)) == BACKLOG + 1


async def test_a_row_that_is_wrong_does_not_hold_up_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    wrong = row("wrong")
    wrong.called = None  # type: ignore[assignment]
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            journal.write(row("before"))
            journal.write(wrong)
            journal.spend(Spent("2026-11-21", "after", "+2", {}))  # type: ignore[arg-type]
            journal.write(row("after"))
            with trio.fail_after(5):
                while len(logs) < 2:
                    await trio.sleep(0.01)
            journal.write(row("later"))
            journal.close()
    lost = "journal row lost: a bug of voiced, please report it"
    assert [line["event"] for line in logs] == [lost, lost]
    assert {row["call_id"] for row in journal.calls()} == {"before", "after", "later"}


def test_a_call_that_a_crash_cut_has_cost_what_was_written_down(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    for call_id in ("c1", "c2"):
        journal.write(row(call_id))
    journal.spend(Spent("2026-11-21", "c1", "+2", 0.5))
    journal.spend(Spent("2026-11-22", "c1", "+2", 0.25))
    journal._store(journal._waiting())
    Journal(tmp_path).open()
    costs = {row["call_id"]: row["cost_usd"] for row in journal.calls()}
    assert costs == {"c1": 0.75, "c2": None}


def test_days_with_sums_are_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    for day in ("2026-11-22", "2026-11-20", "2026-11-21"):
        journal.spend(Spent(day, "c1", "+2", 0.5))
        journal.spend(Spent(day, "c2", "+2", 0.5))
    journal.spend(Struck("2026-11-23", None, 1.0))
    journal._store(journal._waiting())
    assert journal.days("2026-11-21") == ["2026-11-21", "2026-11-22", "2026-11-23"]


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
