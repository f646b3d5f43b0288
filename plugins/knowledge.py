"""A folder of texts that the model can search.

    [plugins.knowledge]
    folder = "/etc/voiced/knowledge"

Texts are UTF-8, `.md` or `.txt`. What changes in the folder is taken in by itself. For agents that
know different things write a table for each, and name it in the agent's `[[number]]`:

    [plugins.hotel]
    plugin = "knowledge"
    folder = "hotel"
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import trio
from msgspec import Meta
from voiced_plugins._index import Index, Passage
from voiced_plugins._offering import offer

from voiced.plugin import Host, Plugin, PluginError, Service, Settings, Tool

__all__ = ["Knowledge", "KnowledgeSettings"]

_Result = TypeVar("_Result")

_MAX_QUERY: Final = 500  # characters

_START_S: Final = 10.0
"""How long a start waits for the first look, and each look takes. What is not read by then is taken
in while calls go on."""

_DESCRIPTION: Final = (
    "Search the knowledge base for facts, such as opening hours, prices or rules. Ask for the "
    "words that the answer would hold, in the language of the texts. Search before you say that "
    "you do not know, and say only what was found."
)


class KnowledgeSettings(Settings, frozen=True):
    """A folder of texts."""

    folder: Path
    """Where the texts are, in folders of their own too."""
    tool: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "search_knowledge"
    """What the model calls it."""
    description: str = _DESCRIPTION
    """What the model is told of it: say what the texts are about."""
    passages: Annotated[int, Meta(ge=1, le=20)] = 4
    """How many passages the model gets."""
    passage_chars: Annotated[int, Meta(ge=100, le=8000)] = 1000
    """The longest passage; texts are cut at headings and paragraphs."""
    max_files: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    """How many files are read; those beyond are named in the log."""
    max_kb: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    """The largest file that is read."""
    refresh_s: Annotated[float, Meta(ge=1)] = 30.0
    """How often the folder is looked at."""

    def mistakes(self) -> Iterator[str]:
        """A folder that is none."""
        if (why := _no_folder(self.folder)) is not None:
            yield why


def _no_folder(folder: Path) -> str | None:
    """Why there is nothing to look for in, and what to do; None where there may be."""
    try:
        if folder.is_dir():
            return None
        why = f"folder: {folder} is no folder"
    except OSError as error:
        why = f"folder: {folder}: {error.strerror}"
    return f"{why}; make it, or name the one that has the texts"


class KnowledgeService(Service):
    """The index, on disk, and what keeps it fresh. SQLite works in threads."""

    config: KnowledgeSettings

    def __init__(self, config: KnowledgeSettings, host: Host) -> None:
        super().__init__(config, host)
        self._index: Index | None = None
        # A connection is for one thread at a time, one that nobody waits for any more included.
        self._reading = threading.Lock()
        self._limiter = trio.CapacityLimiter(4)  # so that those who wait take no thread of others
        self._left_out: tuple[str, ...] = ()
        self._whole = True

    async def open(self) -> None:
        """Read the folder, as far as a start can wait for it. Raises PluginError."""
        folder = self.config.folder
        if (why := await self._in_thread(_no_folder, folder)) is not None:
            raise PluginError(why)
        try:
            self._index = await self._in_thread(self._open, self.host.state_dir)
            await self._refresh(self._index)
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise PluginError(f"the index of {folder} cannot be made: {error}") from error
        except trio.Cancelled:
            with trio.CancelScope(shield=True):  # a second at the most
                await self.close()
            raise

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Nobody waits for a disk when voiced is to end: the thread then ends by itself."""
        return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)

    def _open(self, state_dir: Path) -> Index:
        file = state_dir / "index.sqlite"
        make = partial(
            Index,
            self.config.folder,
            file,
            max_files=self.config.max_files,
            max_kb=self.config.max_kb,
            passage_chars=self.config.passage_chars,
        )
        try:
            return make()
        except sqlite3.OperationalError:
            raise  # the disk's fault, or somebody has it locked: it is none the worse
        except sqlite3.DatabaseError:
            # Nothing is lost: all of it is made from the folder.
            for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
                (state_dir / name).unlink(missing_ok=True)
            return make()

    async def run(self) -> None:
        """Take in what changes."""
        assert self._index is not None
        while True:
            if self._whole:
                await trio.sleep(self.config.refresh_s)
            try:
                await self._refresh(self._index)
            except (sqlite3.Error, OSError) as error:
                self._whole = True  # it is tried again later
                self.host.log.warning("folder not read", error=str(error))

    async def _refresh(self, index: Index) -> None:
        done = await self._in_thread(index.refresh, _START_S, trio.from_thread.check_cancelled)
        self._whole = done.whole
        if done.changed or done.removed:
            self.host.log.info(
                "texts taken in",
                changed=done.changed,
                removed=done.removed,
                passages=done.passages,
            )
        if done.left_out != self._left_out:  # said once, not every 30 s
            self._left_out = done.left_out
            for reason in done.left_out[:20]:
                self.host.log.warning("text left out", why=reason)

    async def close(self) -> None:
        """Close the index."""
        index, self._index = self._index, None
        if index is not None:
            await trio.to_thread.run_sync(self._locked, index.close, abandon_on_cancel=True)

    async def search(self, query: str) -> list[Passage]:
        """The best passages. Raises sqlite3.Error."""
        if self._index is None:
            return []
        search = partial(self._index.search, query[:_MAX_QUERY], self.config.passages)
        return await trio.to_thread.run_sync(
            self._locked, search, abandon_on_cancel=True, limiter=self._limiter
        )

    def _locked(self, function: Callable[[], _Result]) -> _Result:
        with self._reading:
            return function()


class Knowledge(Plugin):
    """The tool of one call."""

    Config = KnowledgeSettings
    Service = KnowledgeService
    config: KnowledgeSettings
    service: KnowledgeService

    async def on_call_start(self) -> None:
        """Offer the tool."""
        parameters = {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "Words to look for."}},
            "required": ["query"],
        }
        tool = Tool(self.config.tool, self.config.description, self._search, parameters)
        offer(self.call, [tool])

    async def _search(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            found = await self.service.search(arguments["query"])
        except sqlite3.Error as error:
            self.call.log.warning("knowledge not searched", error=str(error))
            return {"error": "the knowledge base cannot be searched now"}
        if not found:
            return {"passages": [], "note": "nothing was found; other words may find more"}
        return {
            "passages": [
                {"file": one.file, "heading": one.heading, "text": one.text} for one in found
            ]
        }
