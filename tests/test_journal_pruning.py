"""What the journal removes, what it never does, and what happens meanwhile."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
import structlog.testing
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from voiced.journal import Journal, Row, Spent, Struck
from voiced.journal_file import connect
from voiced.journal_pruning import BATCH, GRACE_S, Pruner, give_back, remove_calls, remove_sums
from voiced.journal_rows import day_of

NOW = 1_790_000_000.0
DAY_S = 86_400.0


def row(call_id: str, started_at: float, ended_at: float | None) -> Row:
    return Row(
        call_id,
        "twilio",
        "CA1",
        "inbound",
        "+1",
        "+2",
        "reception",
        "offline",
        "emulator",
        started_at=started_at,
        ended_at=ended_at,
        reason=None if ended_at is None else "caller_hangup",
    )


def opened(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.open()
    return journal


def ids(journal: Journal) -> set[str]:
    with closing(connect(journal.path)) as database:
        return {each[0] for each in database.execute("SELECT call_id FROM call")}


def fill(journal: Journal, calls: int, ended_at: float, size: int = 0) -> None:
    """Old rows straight into the file, `size` characters in each."""
    with closing(connect(journal.path)) as database, database:
        database.executemany(
            "INSERT INTO call (call_id, carrier, carrier_call_id, direction, caller, called, "
            "agent, engine, model, started_at, ended_at, transcript) "
            "VALUES (?, 'sip', '', 'inbound', '', '', '', '', '', ?, ?, ?)",
            ((f"old{n}", ended_at - 60, ended_at, "x" * size) for n in range(calls)),
        )


def count(journal: Journal) -> int:
    with closing(connect(journal.path)) as database:
        return int(database.execute("SELECT count(*) FROM call").fetchone()[0])


ages = st.floats(-1, 10).map(lambda days: NOW - days * DAY_S)
lives = st.lists(st.tuples(ages, st.one_of(st.none(), st.floats(0, 3 * DAY_S))), max_size=250)


@given(lives, st.floats(0, 10))
@settings(max_examples=40, deadline=None)
def test_live_calls_and_young_ones_stay(
    calls: Sequence[tuple[float, float | None]], days: float
) -> None:
    """All others go, whatever order they come in and however many batches it takes."""
    rows = [
        row(str(n), at, None if lasted is None else at + lasted)
        for n, (at, lasted) in enumerate(calls)
    ]
    before = NOW - days * DAY_S
    stay = {each.call_id for each in rows if each.ended_at is None or each.ended_at >= before}
    with tempfile.TemporaryDirectory() as folder:
        journal = opened(Path(folder))
        journal._store(list(rows))
        with closing(connect(journal.path)) as database:
            removed = [remove_calls(database, before)]
            while removed[-1]:
                removed.append(remove_calls(database, before))
        assert ids(journal) == stay
    assert sum(removed) == len(rows) - len(stay)
    assert max(removed) <= BATCH


def test_sums_of_days_that_no_cap_asks_for_go(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    days = [day_of(NOW - n * DAY_S) for n in range(5)]
    journal._store([Spent(day, "c", "+1", 1.0) for day in days])
    journal._store([Struck(day, None, 1.0) for day in days])
    with closing(connect(journal.path)) as database:
        assert remove_sums(database, NOW) == 6
    assert [len(journal.spent(day)) for day in days] == [1, 1, 0, 0, 0]
    assert [len(journal.struck(day)) for day in days] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("days", "stay"),
    [
        (0, {"live", "just ended"}),
        (2, {"live", "just ended", "yesterday"}),
        ("forever", {"live", "just ended", "yesterday", "long ago"}),
        (None, {"live", "just ended", "yesterday", "long ago"}),
    ],
)
async def test_what_is_left_at_the_start(
    tmp_path: Path, days: float | Literal["forever"] | None, stay: set[str]
) -> None:
    journal = opened(tmp_path)
    now = time.time()
    ended = {"just ended": now, "yesterday": now - DAY_S, "long ago": now - 900 * DAY_S}
    journal._store([row(name, at - 60, at) for name, at in ended.items()])
    journal._store([row("live", now - 1000 * DAY_S, None), Spent("2020-01-01", "c", "+1", 1.0)])
    if days is not None:
        journal.keep(days)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        while days is not None and journal.spent("2020-01-01"):
            await trio.sleep(0.01)
        while ids(journal) != stay:
            await trio.sleep(0.01)
        journal.close()
    assert ids(journal) == stay
    assert bool(journal.spent("2020-01-01")) is (days is None)


async def test_a_setting_that_changes_takes_effect_at_once(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal._store([row("a", time.time() - 3 * DAY_S, time.time() - 2 * DAY_S)])
    journal.keep("forever")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await trio.testing.wait_all_tasks_blocked()
        journal.keep(1)
        with trio.fail_after(20):
            while ids(journal):
                await trio.sleep(0.01)
        journal.close()


def test_it_is_looked_at_daily_or_more_often_where_little_is_kept() -> None:
    pruner = Pruner(Path("unused"), trio.Lock())
    assert pruner.period_s == math.inf
    for days, period_s in ((90, DAY_S), (1, DAY_S / 24), (0, GRACE_S), ("forever", DAY_S)):
        pruner.keep(days)  # type: ignore[arg-type]
        assert pruner.period_s == period_s


async def test_the_next_day_takes_what_has_aged_meanwhile(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    journal = opened(tmp_path)
    journal._store([row("a", NOW - DAY_S / 2, NOW - DAY_S / 2)])
    began = trio.current_time()
    pruner = Pruner(
        journal.path,
        trio.Lock(),
        clock=lambda: NOW + trio.current_time() - began,
        elapsed=trio.current_time,
    )
    pruner.keep(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pruner.run)
        while ids(journal):
            await trio.sleep(600)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began >= DAY_S / 2


async def test_a_row_is_written_while_a_big_table_is_pruned(tmp_path: Path) -> None:
    """50,000 old rows: a writer waits for a batch of them, not for all."""
    journal = opened(tmp_path)
    fill(journal, 50_000, time.time() - 100 * DAY_S, size=200)
    journal.keep(90)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        while count(journal) == 50_000:
            await trio.sleep(0.001)
        for n in range(5):
            before = count(journal)
            journal.write(row(f"new{n}", time.time(), time.time()))
            while f"new{n}" not in ids(journal):
                await trio.sleep(0.001)
            gone = before + 1 - count(journal)
            assert gone < 25_000, "the row waited for the half of them"
        assert count(journal) > 5, "it is still at it"
        nursery.cancel_scope.cancel()
    assert {f"new{n}" for n in range(5)} <= ids(journal)


def test_space_beyond_a_fourth_goes_back_to_the_disk(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2000, NOW, size=4000)
    full = journal.path.stat().st_size
    with closing(connect(journal.path)) as database:
        assert give_back(database) == 0, "nothing is free yet"
        while remove_calls(database, NOW + 1):
            pass
        while give_back(database):
            pass
        free = database.execute("PRAGMA freelist_count").fetchone()[0]
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    assert free <= pages / 4 + 1
    assert journal.path.stat().st_size < full / 10


def test_a_file_of_an_older_version_keeps_its_free_pages_for_later_rows(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with closing(sqlite3.connect(journal.path)) as database:
        database.execute("CREATE TABLE other (text TEXT)")
        database.commit()
    journal.open()
    fill(journal, 500, NOW, size=4000)
    with closing(connect(journal.path)) as database:
        while remove_calls(database, NOW + 1):
            pass
        assert give_back(database) == 0
        assert database.execute("PRAGMA freelist_count").fetchone()[0] > 100


def test_what_was_said_is_not_left_in_the_file(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with closing(connect(journal.path)) as database, database:
        fill(journal, 1, NOW)
        database.execute("UPDATE call SET transcript = ?", ("my card number is 4711",))
    assert b"4711" in journal.path.read_bytes()
    with closing(connect(journal.path)) as database:
        remove_calls(database, NOW + 1)
    assert b"4711" not in journal.path.read_bytes()


async def test_a_file_that_cannot_be_pruned_is_a_log_line(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.path.write_bytes(b"this is no database, and it is longer than a header" * 10)
    journal.keep(1)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            while not logs:
                await trio.sleep(0.01)
            journal.close()
    assert [line["event"] for line in logs] == ["journal cannot be pruned"]


PRUNE = """
import sys, trio
from pathlib import Path
from voiced.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.keep(90)
print("begins", flush=True)
trio.run(journal.run)
"""


@contextlib.contextmanager
def pruning(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that prunes until it is killed."""
    command = [sys.executable, "-c", PRUNE, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_kill_in_the_middle_leaves_a_sound_file(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    now = time.time()
    fill(journal, 20_000, now - 100 * DAY_S, size=500)
    young = {f"young{n}" for n in range(50)}
    journal._store([row(name, now - DAY_S, now - DAY_S / 2) for name in sorted(young)])
    journal._store([row("live", now - 200 * DAY_S, None)])
    left = count(journal)
    chance = random.Random(5)
    for _ in range(3):
        with pruning(tmp_path) as process:
            deadline = time.monotonic() + 20
            while count(journal) > left - chance.randint(1, 2000):
                assert time.monotonic() < deadline, "it prunes nothing"
            process.send_signal(signal.SIGKILL)
        assert 0 < count(journal) < left
        left = count(journal)
        with closing(connect(journal.path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert young | {"live"} <= ids(journal)
    Journal(tmp_path).open()  # as the next start does
    assert journal.call("live")[0]["reason"] == "daemon_crash"
