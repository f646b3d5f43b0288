"""A journal that cannot be used: one line, with what to do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from voiced import journal_file
from voiced.budget import Budget
from voiced.config.types import Config, Daemon
from voiced.daemon import _remember
from voiced.journal import FILE_NAME, SCHEMA_VERSION, Journal
from voiced.starting import StartError, open_journal


def damaged(file: Path) -> None:
    file.write_bytes(b"This is no database. " * 100)


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (damaged, "it is damaged: mv {file} {file}.damaged, and a new one is begun"),
        (newer, "run that version, or move the file away"),
        (folder, "make {folder} writable for this user, or name another folder as [daemon] "),
    ],
)
def test_what_to_do_is_said(tmp_path: Path, spoil: Callable[[Path], None], remedy: str) -> None:
    file = tmp_path / FILE_NAME
    spoil(file)
    with pytest.raises(StartError) as caught:
        open_journal(Config(daemon=Daemon(state_dir=tmp_path)))
    text = str(caught.value)
    assert text.startswith(f"the journal {file} cannot be used: ")
    assert remedy.format(file=file, folder=tmp_path) in text
    assert "\n" not in text


def test_a_program_that_has_it_open_is_to_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "BUSY_S", 0.01)
    Journal(tmp_path).open()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StartError, match="locked; close the program that has it open"):
            open_journal(Config(daemon=Daemon(state_dir=tmp_path)))


async def test_sums_that_cannot_be_read_are_no_traceback(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    damaged(journal.path)
    for extra in ("-wal", "-shm"):
        Path(f"{journal.path}{extra}").unlink(missing_ok=True)
    with pytest.raises(StartError, match="it is damaged"):
        await _remember(Budget(journal.spend), journal)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (sqlite3.SQLITE_FULL, "make room on the disk of "),
        (sqlite3.SQLITE_CORRUPT_INDEX, "it is damaged: mv "),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "close the program that has it open"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "make {folder} writable for this user"),
        (sqlite3.SQLITE_IOERR_WRITE, "make {folder} writable for this user"),
    ],
)
def test_errors_of_the_disk_have_their_remedies(tmp_path: Path, code: int, said: str) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    path = tmp_path / FILE_NAME
    assert journal_file.remedy(error, path).startswith(said.format(folder=tmp_path))
