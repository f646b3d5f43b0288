"""What has to leave this machine, kept in SQLite until it has: over restarts and crashes.

A file may have several owners: over a reload the old service and the new one share a folder, and
each sends what is its own. An owner holds a lock; what belongs to one whose lock is free, because
it is closed or has died, is adopted by another.

Everything here works on the disk, and runs in worker threads, one at a time.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from voiced_plugins._wavfile import lock

__all__ = ["FILE_NAME", "Item", "Spool", "Stored"]

FILE_NAME: Final = "spool.sqlite"

_LOCK: Final = ".owner"
_TRIES: Final = 10

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- their order
    owner TEXT NOT NULL,
    lane TEXT NOT NULL,                    -- those of one lane leave in order
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    added REAL NOT NULL,                   -- Unix time
    tries INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL                     -- last: the others are read without it
);
CREATE INDEX IF NOT EXISTS item_lane ON item (lane, id);
CREATE INDEX IF NOT EXISTS item_owner ON item (owner, lane);
"""
_VERSION: Final = 1

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be sent; `name` is its own for ever, whoever gets it twice knows by that."""

    lane: str
    name: str
    kind: str
    body: bytes
    added: float  # Unix time


@dataclass(frozen=True, slots=True)
class Stored:
    """An item on the disk; `tries` have failed."""

    id: int
    item: Item
    tries: int


class Spool:
    """See the module's text. Methods raise sqlite3.Error and OSError."""

    def __init__(self, folder: Path, *, max_items: int, max_bytes: int) -> None:
        """Open or make the spool of a folder; what cannot be read is set aside."""
        self._folder = folder
        self._max_items, self._max_bytes = max_items, max_bytes
        self._lock = threading.Lock()
        self.set_aside: Path | None = None
        """Where a file that was no spool is now."""
        self.owner, self._owner_fd = self._own()
        try:
            self._database = self._open(folder / FILE_NAME)
        except BaseException:
            self._disown()
            raise

    # ---- items ----

    def add(self, items: Iterable[Item]) -> int:
        """Keep items; returns how many of the oldest had to make room.

        One that is here already, by its name, is not kept twice: whoever was cancelled while it
        added does so again.
        """
        with self._lock, self._database as database:
            database.executemany(
                "INSERT OR IGNORE INTO item (owner, lane, name, kind, body, size, added) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (self.owner, one.lane, one.name, one.kind, one.body, len(one.body), one.added)
                    for one in items
                ],
            )
            return self._make_room(database)

    def _make_room(self, database: sqlite3.Connection) -> int:
        count, size = self._fill(database)
        gone = 0
        while count > self._max_items or (size > self._max_bytes and count > 1):
            one, bytes_of_it = database.execute(
                "SELECT id, size FROM item ORDER BY id LIMIT 1"
            ).fetchone()
            database.execute("DELETE FROM item WHERE id = ?", (one,))
            count, size, gone = count - 1, size - bytes_of_it, gone + 1
        return gone

    @staticmethod
    def _fill(database: sqlite3.Connection) -> tuple[int, int]:
        count, size = database.execute("SELECT COUNT(*), TOTAL(size) FROM item").fetchone()
        return count, int(size)

    def fill(self) -> tuple[int, int]:
        """How many items there are, of all owners, and how many bytes."""
        return self._locked(lambda: self._fill(self._database))

    def first(self, lane: str) -> Stored | None:
        """The oldest of a lane."""

        def read() -> Stored | None:
            row = self._database.execute(
                "SELECT id, lane, name, kind, body, added, tries FROM item "
                "WHERE lane = ? AND owner = ? ORDER BY id LIMIT 1",
                (lane, self.owner),
            ).fetchone()
            return None if row is None else Stored(row[0], Item(*row[1:6]), row[6])

        return self._locked(read)

    def remove(self, id: int) -> None:  # noqa: A002 - the column's name
        """It has been delivered, or never will be."""
        with self._lock, self._database as database:
            database.execute("DELETE FROM item WHERE id = ?", (id,))

    def failed(self, id: int) -> None:  # noqa: A002 - the column's name
        """A try has failed."""
        with self._lock, self._database as database:
            database.execute("UPDATE item SET tries = tries + 1 WHERE id = ?", (id,))

    def lanes(self) -> list[str]:
        """The lanes in which something waits, the oldest first."""

        def read() -> list[str]:
            return [
                lane
                for lane, _ in self._database.execute(
                    "SELECT lane, MIN(id) AS head FROM item WHERE owner = ? "
                    "GROUP BY lane ORDER BY head",
                    (self.owner,),
                )
            ]

        return self._locked(read)

    def _locked(self, function: Callable[[], _Result]) -> _Result:
        with self._lock:
            return function()

    # ---- owners ----

    def adopt(self) -> int:
        """Take over what belongs to nobody any more; returns how many items."""
        with self._lock:
            owners = {row[0] for row in self._database.execute("SELECT DISTINCT owner FROM item")}
            owners |= {path.stem for path in self._folder.glob(f"*{_LOCK}")}
            owners.discard(self.owner)
            return sum(self._adopt(owner) for owner in owners)

    def _adopt(self, owner: str) -> int:
        path = self._folder / f"{owner}{_LOCK}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            if not lock(fd):
                return 0  # alive
            with self._database as database:
                moved = database.execute(
                    "UPDATE item SET owner = ? WHERE owner = ?", (self.owner, owner)
                ).rowcount
            path.unlink(missing_ok=True)
            return moved
        finally:
            os.close(fd)

    def _own(self) -> tuple[str, int]:
        for _ in range(_TRIES):
            owner = uuid.uuid4().hex
            path = self._folder / f"{owner}{_LOCK}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            # Another, looking for orphans, may have been quicker than the lock.
            if lock(fd) and path.exists():
                return owner, fd
            os.close(fd)
            path.unlink(missing_ok=True)
        raise OSError(errno.ENOLCK, "its file system has no locks (flock); use another folder")

    def _disown(self) -> None:
        (self._folder / f"{self.owner}{_LOCK}").unlink(missing_ok=True)
        os.close(self._owner_fd)

    # ---- the file ----

    def _open(self, path: Path) -> sqlite3.Connection:
        if not path.exists():
            # What callers said is in it: not for every user of the machine, whatever the umask.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o640))
        try:
            return _connect(path)
        except sqlite3.OperationalError:
            raise  # the disk's fault, or somebody's who holds it
        except sqlite3.DatabaseError:
            self.set_aside = path.with_name(f"{path.name}.broken")
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").replace(f"{self.set_aside}{suffix}")
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o640))
            return _connect(path)

    def close(self) -> None:
        """Close the file; what waits in it is for the next owner."""
        with self._lock:
            self._database.close()
            self._disown()


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A crash of this process loses nothing; one of the machine the last moments.
        database.execute("PRAGMA synchronous = NORMAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise sqlite3.OperationalError(f"{path} was written by a newer voiced")
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        database.close()
        raise
    return database
