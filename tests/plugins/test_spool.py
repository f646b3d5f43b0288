"""The spool: order, bounds, owners, and what a crash leaves."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voiced_plugins._spool import FILE_NAME, Item, Spool


def spool_in(folder: Path, max_items: int = 1000, max_bytes: int = 10**6) -> Spool:
    return Spool(folder, max_items=max_items, max_bytes=max_bytes)


def item(name: str, lane: str = "a", body: bytes = b"{}") -> Item:
    return Item(lane, name, "kind", body, 1000.0)


def names(spool: Spool) -> list[str]:
    """Everything, lane by lane, removed on the way."""
    found = []
    for lane in spool.lanes():
        while (first := spool.first(lane)) is not None:
            found.append(first.item.name)
            spool.remove(first.id)
    return found


def test_items_come_back_as_they_were_and_in_their_order(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    items = [Item("a", "1", "x", b"\x00\xff", 1.5), item("2", "b"), item("3")]
    assert spool.add(items) == 0
    first = spool.first("a")
    assert first is not None
    assert (first.item, first.tries) == (items[0], 0)
    spool.failed(first.id)
    again = spool.first("a")
    assert again is not None
    assert again.tries == 1
    assert spool.lanes() == ["a", "b"]
    assert spool.fill() == (3, 6)
    assert names(spool) == ["1", "3", "2"]
    assert spool.first("a") is None
    spool.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o640


def test_what_is_added_twice_is_there_once(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.add([item("1")])
    spool.add([item("1"), item("2")])
    assert names(spool) == ["1", "2"]
    spool.close()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 300), max_size=6), max_size=8),
    st.integers(1, 12),
    st.integers(1, 1000),
)
def test_the_oldest_make_room(batches: list[list[int]], most: int, most_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = spool_in(Path(folder), most, most_bytes)
        model: list[tuple[str, int]] = []
        number = 0
        for batch in batches:
            items = []
            for size in batch:
                number += 1
                items.append(item(str(number), "ab"[number % 2], b"x" * size))
                model.append((str(number), size))
            gone = 0
            while len(model) > most or (sum(s for _, s in model) > most_bytes and len(model) > 1):
                model.pop(0)
                gone += 1
            assert spool.add(items) == gone
            assert spool.fill() == (len(model), sum(size for _, size in model))
        assert sorted(names(spool), key=int) == [name for name, _ in model]
        spool.close()


def test_owners_have_their_own_and_adopt_from_those_that_are_gone(tmp_path: Path) -> None:
    old = spool_in(tmp_path)
    old.add([item("1", "a"), item("2", "b")])
    new = spool_in(tmp_path)
    new.add([item("3", "c")])
    assert new.adopt() == 0
    assert new.lanes() == ["c"]
    assert new.first("a") is None
    old.close()
    assert new.adopt() == 2
    assert names(new) == ["1", "2", "3"]
    assert new.adopt() == 0
    assert len(list(tmp_path.glob("*.owner"))) == 1
    new.close()
    assert not list(tmp_path.glob("*.owner"))


KILLED = """
import os, signal, sys
from pathlib import Path
from voiced_plugins._spool import Item, Spool
spool = Spool(Path(sys.argv[1]), max_items=1000, max_bytes=10**6)
for number in range(60):
    spool.add([Item("a", str(number), "kind", b"{}", 1.0)])
    if number % 3 == 0:
        spool.remove(spool.first("a").id)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_all_of_it_is_there_after_a_kill(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ran.returncode == -signal.SIGKILL
    spool = spool_in(tmp_path)
    assert spool.adopt() == 40
    assert names(spool) == [str(number) for number in range(20, 60)]
    spool.close()


def test_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, but long enough to be read" * 99)
    spool = spool_in(tmp_path)
    spool.add([item("1")])
    assert names(spool) == ["1"]
    assert spool.set_aside is not None
    assert spool.set_aside.read_bytes().startswith(b"this is no database")
    spool.close()


def test_a_newer_file_is_refused_not_touched(tmp_path: Path) -> None:
    spool_in(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(sqlite3.OperationalError, match="newer"):
        spool_in(tmp_path)
    assert not list(tmp_path.glob("*.owner"))
    assert not list(tmp_path.glob("*.broken"))


def test_a_file_system_without_locks_is_named_not_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiced_plugins._spool.lock", lambda fd: False)
    with pytest.raises(OSError, match="no locks"):
        Spool(tmp_path, max_items=9, max_bytes=9)
    assert list(tmp_path.iterdir()) == []
