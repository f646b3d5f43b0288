"""A folder of texts as the model's tool."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
import trio
from voiced_plugins._index import Index, Passage
from voiced_plugins.knowledge import Knowledge, KnowledgeService, KnowledgeSettings

from voiced.config import ConfigError
from voiced.plugin import PluginError
from voiced.testing import call_with, virtual_time
from voiced.testing import clock as scene_clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "hotel.md").write_text("# Parking\nA night costs 12 euros.", "utf-8")
    (texts / "店.md").write_text("# 営業時間\n午前九時から午後六時まで。", "utf-8")
    return texts


@virtual_time
async def test_the_model_searches(folder: Path) -> None:
    async with call_with(Knowledge, {"folder": str(folder)}) as call:
        assert call.tools == ["search_knowledge"]
        told = json.loads(await call.model_calls("search_knowledge", {"query": "parking cost"}))
        assert told == {
            "passages": [
                {"file": "hotel.md", "heading": "Parking", "text": "A night costs 12 euros."}
            ]
        }
        answer = await call.model_calls("search_knowledge", {"query": "営業時間"})
        assert "午前九時から午後六時まで。" in answer  # not as \\u escapes
        nothing = json.loads(await call.model_calls("search_knowledge", {"query": "sauna"}))
        assert nothing["passages"] == []
        wrong = json.loads(await call.model_calls("search_knowledge", {"words": "sauna"}))
        assert "query is missing" in wrong["error"]


@virtual_time
async def test_who_hangs_up_during_a_search_does_not_wait_for_it(folder: Path) -> None:
    """Nor does anybody else get the index before it is over."""
    search, close, go_on = Index.search, Index.close, threading.Event()
    began: list[str] = []
    seen: list[str] = []

    def slow(index: Index, query: str, most: int) -> list[Passage]:
        began.append(query)
        assert go_on.wait(10)
        found = search(index, query, most)
        seen.append(query)
        return found

    def closed(index: Index) -> None:
        seen.append("closed")
        close(index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_clock, "HANGS_S", 0.2)
        patch.setattr(Index, "search", slow)
        patch.setattr(Index, "close", closed)
        async with (
            call_with(Knowledge, {"folder": str(folder)}) as call,
            trio.open_nursery() as side,
        ):
            side.start_soon(call.model_calls, "search_knowledge", {"query": "parking"})
            await call.until(lambda: began)
            call.leg.hang_up_as_caller()
            await call.ended()
            await trio.sleep(1)
            assert call.failures == []
            go_on.set()
    assert seen == ["parking", "closed"]


@virtual_time
async def test_the_folder_is_looked_at_again(folder: Path) -> None:
    settings = {"folder": str(folder), "refresh_s": 5, "tool": "ask_hotel"}
    async with call_with(Knowledge, settings) as call:
        (folder / "sauna.txt").write_text("The sauna is open all night.", "utf-8")
        await trio.sleep(6)
        assert "all night" in await call.model_calls("ask_hotel", {"query": "sauna"})


@virtual_time
async def test_an_index_that_is_broken_is_made_anew(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    for _ in range(2):
        async with call_with(Knowledge, {"folder": str(folder)}, state_dir=state) as call:
            assert "12 euros" in await call.model_calls("search_knowledge", {"query": "parking"})
        (index,) = state.rglob("index.sqlite")
        index.write_bytes(b"this is no database" * 100)


@virtual_time
async def test_an_index_that_somebody_holds_is_not_removed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"folder": str(folder)}
    state = tmp_path / "state"
    state.mkdir()
    async with call_with(Knowledge, table, state_dir=state):
        pass
    (file,) = state.rglob("index.sqlite")
    before = file.stat().st_ino

    def held(*args: object, **settings: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("voiced_plugins.knowledge.Index", held)
    with pytest.raises(PluginError, match="locked"):
        async with call_with(Knowledge, table, state_dir=state):
            pass
    assert file.stat().st_ino == before


@virtual_time
async def test_texts_that_are_left_out_are_said_once(folder: Path) -> None:
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    with structlog.testing.capture_logs() as logs:
        async with call_with(Knowledge, {"folder": str(folder), "refresh_s": 1}):
            await trio.sleep(3)
    assert [log["why"] for log in logs if log["event"] == "text left out"] == [
        "latin.txt: not UTF-8"
    ]


@virtual_time
async def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder; make it"):
        async with call_with(Knowledge, {"folder": str(tmp_path / "none")}):
            pass


@dataclass
class Host:
    state_dir: Path
    name: str = "knowledge"
    log: Any = field(default_factory=lambda: structlog.get_logger("tests"))


def service(folder: Path, state_dir: Path) -> KnowledgeService:
    state_dir.mkdir(exist_ok=True)
    return KnowledgeService(KnowledgeSettings(folder=folder), cast("Any", Host(state_dir)))


async def test_a_folder_that_has_gone_since_stops_the_start(folder: Path, tmp_path: Path) -> None:
    made = service(folder, tmp_path / "state")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(PluginError, match="is no folder; make it"):
        await made.open()


async def test_a_start_that_is_given_up_waits_for_no_thread(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that takes a minute, as one on a slow disk: what was taken in stays."""
    monkeypatch.setattr("voiced_plugins.knowledge._START_S", 600.0)
    for number in range(2000):
        (folder / f"{number:04}.md").write_text("# A heading\n" + "Some words. " * 600, "utf-8")
    made = service(folder, tmp_path / "state")
    file = tmp_path / "state" / "index.sqlite"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.open)
        with trio.fail_after(60):  # a busy machine takes its time
            while taken_in(file) <= 2:
                await trio.sleep(0.02)
        given_up = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - given_up < 2
    assert made._index is None
    assert 2 < taken_in(file) < 2000
    again = Index(folder, file, max_files=2, max_kb=64, passage_chars=1000)
    assert again.refresh().removed > 0
    again.close()


def taken_in(file: Path) -> int:
    """How many texts another connection finds in the index, which may not be there yet."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            count: int = database.execute("SELECT count(*) FROM files").fetchone()[0]
            return count
    except sqlite3.OperationalError:
        return 0


async def test_a_disk_that_hangs_is_left_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(Index, "_look", lambda self, check: hangs.wait(30))
    made = service(folder, tmp_path / "state")
    began = trio.current_time()
    with trio.move_on_after(0.1) as scope:
        await made.open()
    assert scope.cancelled_caught
    assert trio.current_time() - began < 3
    hangs.set()
