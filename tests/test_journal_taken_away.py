"""A journal whose file somebody takes away, replaces or spoils while it is written."""

from __future__ import annotations

import math
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog.testing
import trio

from tests.test_journal_unusable import damaged, folder, newer
from voiced import journal as journal_module
from voiced import journal_file
from voiced.budget import Budget, day_of
from voiced.config.types import Cost
from voiced.journal import Charge, Journal, Note, Row, Spent
from voiced.journal_pruning import DAY_S, Pruner

DAY = "2026-11-21"


def row(call_id: str) -> Row:
    return Row(call_id, "twilio", "CA1", "inbound", "+1", "+2", "a", "e", "m")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads do not follow a virtual clock."""
    monkeypatch.setattr(journal_module, "RETRY_S", 0.02)


class Running:
    """A journal at work, and what it has logged."""

    def __init__(self, journal: Journal, logs: list[dict[str, object]]) -> None:
        self.journal = journal
        self.logs = logs

    async def written(self, *call_ids: str) -> None:
        """Hand it rows and wait until the file has them."""
        for call_id in call_ids:
            self.journal.write(row(call_id))
        await self.until(lambda: set(call_ids) <= ids(self.journal))

    async def until(self, true: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not true():
                await trio.sleep(0.01)

    def said(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.logs if line["event"] == event]


def ids(journal: Journal) -> set[str]:
    """The calls in the file; none where there is none, or one that is just being begun."""
    try:
        return {str(each["call_id"]) for each in journal.calls()}
    except sqlite3.Error:
        return set()


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[Running]:
    journal = Journal(state_dir)
    journal.open()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            yield Running(journal, logs)  # type: ignore[arg-type]
            journal.close()


@pytest.mark.parametrize("all_of_it", [False, True], ids=["file", "folder"])
async def test_a_new_one_is_begun_and_that_is_said(tmp_path: Path, all_of_it: bool) -> None:
    async with running(tmp_path / "state") as at_work:
        journal = at_work.journal
        journal.renewed = lambda: journal.write(row("live"))
        await at_work.written("before")
        for file in journal.path.parent.iterdir():
            file.unlink()
        if all_of_it:
            journal.path.parent.rmdir()
        await at_work.written("after")
        await at_work.until(lambda: ids(journal) == {"after", "live"})
        await at_work.written("later")
    assert ids(journal) == {"after", "live", "later"}
    assert stat.S_IMODE(journal.path.stat().st_mode) & 0o137 == 0, "who may read it stays so"
    assert [(line["event"], line["log_level"]) for line in at_work.logs] == [
        ("journal was taken away, a new one is begun", "error")
    ]
    assert at_work.logs[0]["file"] == str(journal.path)


async def test_one_that_is_there_again_is_written_as_it_is(tmp_path: Path) -> None:
    """Who moves it away and back, or restores an old one, has its rows."""
    async with running(tmp_path) as at_work:
        journal = at_work.journal
        await at_work.written("before")
        journal.path.rename(tmp_path / "aside")
        await at_work.written("between")
        journal.path.unlink()
        (tmp_path / "aside").rename(journal.path)
        await at_work.written("after")
    assert ids(journal) == {"before", "after"}
    assert len(at_work.logs) == 1


@pytest.mark.parametrize("when", ["before it is done", "when it is done"])
async def test_what_was_just_being_written_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """And counted once: the lost file takes its sums with it."""
    told: list[str] = []
    looks = 0
    found = journal_file.identity

    def identity(path: Path) -> tuple[int, int] | None:
        nonlocal looks
        looks += 1
        if looks == (3 if when == "before it is done" else 4):
            path.rename(tmp_path / "aside")
        return found(path)

    monkeypatch.setattr(journal_module, "identity", identity)
    async with running(tmp_path) as at_work:
        journal = at_work.journal
        journal.spend(Charge(DAY, "", 0.5, told.append))
        journal.write(row("a"))
        await at_work.until(lambda: bool(told))
        assert ids(journal) == {"a"}
        assert journal.spent(DAY) == [Spent(DAY, "", "", 0.5)]
        assert told == [""], "once"
    (line,) = at_work.said("journal cannot be written")
    assert "was taken away" in str(line["error"])
    assert "leave it where it is" in str(line["remedy"])
    assert (tmp_path / "aside").exists()


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (damaged, "it is damaged: mv "),
        (newer, "run that version, or move the file away"),
        (folder, "make {folder} writable for this user"),
    ],
)
async def test_rows_wait_while_something_else_stands_there(
    tmp_path: Path, spoil: Callable[[Path], None], remedy: str
) -> None:
    async with running(tmp_path) as at_work:
        journal = at_work.journal
        await at_work.written("before")
        journal.path.unlink()
        spoil(journal.path)
        journal.write(row("waits"))
        await at_work.until(lambda: bool(at_work.said("journal cannot be written")))
        journal.path.rename(tmp_path / "journal.sqlite.damaged")  # as the remedy says
        await at_work.until(lambda: ids(journal) == {"waits"})
    (line,) = at_work.said("journal cannot be written")
    assert str(line["remedy"]).startswith(remedy.format(folder=tmp_path))
    assert at_work.said("journal is written again")


def test_who_reads_makes_no_file(tmp_path: Path) -> None:
    """It would be open to whomever the umask lets in."""
    journal = Journal(tmp_path)
    for read in (journal.calls, lambda: journal.call("a"), lambda: journal.days(DAY)):
        with pytest.raises(Exception, match="unable to open"):
            read()
    assert not journal.path.exists()


@pytest.mark.parametrize("name", ["a?mode=ro", "50%25", "a#b", "ı受 x"])
def test_a_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    journal = Journal(Path(f"/{tmp_path}") / name)  # with two slashes before it
    journal.open()
    notes: list[Note] = [row("a")]
    journal._store(notes)
    assert ids(journal) == {"a"}
    assert [each.name for each in (tmp_path / name).iterdir()] == ["journal.sqlite"]


class Clock:
    """Unix time that can be set, and seconds that cannot."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.set_by = 1_790_000_000.0

    def __call__(self) -> float:
        return self.elapsed + self.set_by


@pytest.mark.parametrize(("days", "held_days"), [(90.0, 1.0), (0.5, 0.5), ("forever", 1.0)])
def test_a_clock_that_leaps_forward_does_not_make_all_calls_old(
    days: float | str, held_days: float
) -> None:
    clock = Clock()
    pruner = Pruner(Path("unused"), trio.Lock(), clock=clock, elapsed=lambda: clock.elapsed)
    keep_s = math.inf if isinstance(days, str) else days * DAY_S
    assert not pruner._held(keep_s)
    clock.elapsed += 30 * DAY_S  # days that have really passed
    clock.set_by += 0.9 * DAY_S  # and a machine that was put right
    assert not pruner._held(keep_s)
    clock.set_by += 400 * DAY_S
    with structlog.testing.capture_logs() as logs:
        assert pruner._held(keep_s)
        assert pruner._held(keep_s), "however often it is asked"
    assert [(line["event"], line["days"], line["for_s"]) for line in logs] == [
        ("clock was set forward, journal is not pruned", 400.0, round(held_days * DAY_S))
    ]
    clock.elapsed += held_days * DAY_S
    assert not pruner._held(keep_s), "nobody has set it back: it was right"


def test_a_clock_that_is_set_right_again_holds_nothing_up() -> None:
    clock = Clock()
    pruner = Pruner(Path("unused"), trio.Lock(), clock=clock, elapsed=lambda: clock.elapsed)
    clock.set_by += 400 * DAY_S
    assert pruner._held(90 * DAY_S)
    clock.set_by -= 400 * DAY_S
    assert not pruner._held(90 * DAY_S)


async def test_what_a_leap_has_made_old_stays(tmp_path: Path) -> None:
    journal, clock = Journal(tmp_path), Clock()
    journal.open()
    ended = row("ended")
    ended.started_at = ended.ended_at = clock() - DAY_S
    journal._store([ended])
    pruner = Pruner(journal.path, trio.Lock(), clock=clock, elapsed=lambda: clock.elapsed)
    clock.set_by += 400 * DAY_S
    pruner.keep(90)
    with structlog.testing.capture_logs() as logs, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pruner.run)
            while not logs:
                await trio.sleep(0.01)
            assert ids(journal) == {"ended"}
            clock.elapsed += DAY_S
            pruner.keep(91)  # looks again
            while ids(journal):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("other", ["none", "empty", "restored"])
async def test_what_the_day_has_cost_outlives_the_file(tmp_path: Path, other: str) -> None:
    """Of calls that have ended too, which the file that is there never saw: caps ask for it."""
    clock = Clock()
    day = day_of(clock())

    def begin(journal: Journal) -> Budget:
        budget = Budget(journal.spend, clock=clock, elapsed=clock)
        for known in journal.days(day):
            budget.remember(journal.spent(known), journal.struck(known))
        return budget

    async with running(tmp_path) as at_work:
        journal = at_work.journal
        await at_work.written("first")
        (tmp_path / "backup").write_bytes(journal.path.read_bytes())
        budget = begin(journal)
        journal.renewed = budget.write_down
        ended = budget.open("ended", "+2", None)
        ended.update(1.25)
        ended.close()
        budget.cost = Cost(number_usd=1.5)
        live = budget.open("live", "+2", None)
        assert live.update(0.5) == "number"
        await at_work.until(lambda: len(journal.spent(day)) == 2)
        if other == "empty":
            journal.path.write_bytes(b"")
        else:
            journal.path.unlink()
        if other == "restored":
            (tmp_path / "backup").rename(journal.path)
        # One that is under way while the file is found to be lost counts once.
        late = budget.open("late", "+3", None)
        late.update(0.25)
        late.close()

        def is_whole() -> bool:
            with suppress(sqlite3.Error):  # it is just being begun
                return len(journal.struck(day)) == 1
            return False

        await at_work.until(is_whole)
        live.update(0.75)
        live.close()
    again = begin(journal)
    assert again.spent_today("+2") == pytest.approx(2.0)
    assert again.spent_today("+3") == pytest.approx(0.25)
    assert again.spent_today() == pytest.approx(2.25)
    again.cost = Cost(number_usd=1.5)
    assert again.exhausted("+2", None) == "number"
    assert {each.call_id for each in journal.spent(day)} == {"live", "late", "earlier, +2"}
