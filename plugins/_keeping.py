"""Files that calls leave in a folder: made ready at a start, cleaned up every hour."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import trio
from msgspec import Meta
from voiced_plugins._disk import make_folder, open_regular
from voiced_plugins._shelf import wrong_pattern
from voiced_plugins._wavfile import lock

from voiced.plugin import Host, PluginError, Service, Settings

__all__ = ["MIB", "SWEEP_S", "Days", "Keeper", "KeptSettings", "Swept", "age_s", "sweep", "thin"]

SWEEP_S: Final = 3600.0
"""How often old files are looked for."""

THREADS: Final = 4
"""For the disk, of all calls: one that hangs must not take those that others need."""

MIB: Final = 2**20


Days = Annotated[float, Meta(ge=0)] | Literal["forever"]
"""How long something is kept; 0: not beyond its call."""


def age_s(days: Days) -> float | None:
    """The age, in seconds, at which something goes; None: never."""
    return None if isinstance(days, str) else days * 86400


class KeptSettings(Settings, frozen=True):
    """Where files go, and how long they stay."""

    folder: Path | None = None
    """Where the files go. Left out: a folder in `state_dir`."""
    pattern: str = "{called}/{date}/{time}-{caller}-{call_id}"
    """Their names below it, without the end: `{called}`, `{caller}`, `{call_id}`, `{agent}`, \
`{carrier}`, `{direction}`, `{date}` and `{time}` (UTC). What file systems dislike becomes `_`."""
    keep_days: Days = 30.0
    """Older files are removed; 0: nothing is left behind when the call ends; `"forever"`: all of \
them stay."""
    max_total_mb: Annotated[int, Meta(ge=1)] | None = None
    """What all of them may take, in MiB: the oldest are removed. Left out: whatever there is."""

    def mistakes(self) -> Iterator[str]:
        """Patterns that cannot be filled in."""
        yield from wrong_pattern(self.pattern)


class Keeper(Service):
    """The folder, and who cleans it up. `kept` is what the log calls the files."""

    config: KeptSettings
    kept: ClassVar[str]

    def __init__(self, config: Any, host: Host) -> None:
        super().__init__(config, host)
        self.folder = Path()
        self.limiter = trio.CapacityLimiter(THREADS)

    def files(self) -> Iterator[Path]:
        """Files that may be removed. Runs in a worker thread."""
        raise NotImplementedError

    async def open(self) -> None:
        """Make the folder ready. Raises PluginError."""
        self.folder = self.config.folder or self.host.state_dir
        try:
            await trio.to_thread.run_sync(self.prepare, abandon_on_cancel=True)
        except OSError as error:
            raise PluginError(f"folder: {self.folder}: {error.strerror or error}") from None

    def prepare(self) -> None:
        """Find out whether files can be made there. Runs in a worker thread; raises OSError."""
        make_folder(self.folder)
        probe = self.folder / f".{self.host.name}.probe"
        probe.touch()
        probe.unlink()

    async def run(self) -> None:
        """Remove what is too old or too much, every hour."""
        while True:
            await self.sweep()
            await trio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Remove what is too old or too much."""
        total = self.config.max_total_mb
        removed = await trio.to_thread.run_sync(
            partial(
                self._sweep,
                older_than_s=age_s(self.config.keep_days),
                max_bytes=None if total is None else total * MIB,
            ),
            limiter=self.limiter,
        )
        if removed.files:
            self.host.log.info(f"{self.kept} removed", files=removed.files, bytes=removed.size)

    def _sweep(self, *, older_than_s: float | None, max_bytes: int | None) -> Swept:
        return sweep(
            self.files(),
            self.folder,
            older_than_s=older_than_s,
            max_bytes=max_bytes,
            now=time.time(),
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """What a clean-up removed."""

    files: int = 0
    size: int = 0


def sweep(
    found: Iterable[Path],
    folder: Path,
    *,
    older_than_s: float | None,
    max_bytes: float | None,
    now: float,
) -> Swept:
    """As `thin`, for files below `folder`; folders left empty go too."""
    swept = thin(found, older_than_s=older_than_s, max_bytes=max_bytes, now=now)
    for directory, folders, _ in os.walk(folder, topdown=False):
        for each in folders:
            with suppress(OSError):  # not empty
                Path(directory, each).rmdir()
    return swept


def thin(
    found: Iterable[Path],
    *,
    older_than_s: float | None,
    max_bytes: float | None,
    now: float,
) -> Swept:
    """Remove what is too old, then the oldest until the rest fits; never one that is written.

    With an age of 0 all of it is too old, whatever clock it was made by. Works on the disk, in a
    worker thread.
    """
    files: list[tuple[float, int, Path]] = []
    for path in found:
        with suppress(OSError):
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    count = gone = 0
    for modified, size, path in sorted(files):
        old = older_than_s is not None and (not older_than_s or modified <= now - older_than_s)
        much = max_bytes is not None and total - gone > max_bytes
        if not (old or much):
            break
        if _unlink(path):
            count, gone = count + 1, gone + size
    return Swept(count, gone)


def _unlink(path: Path) -> bool:
    """Whether it is gone; what is written is locked, and stays."""
    with suppress(OSError), open_regular(path) as file:
        if lock(file.fileno()):
            path.unlink()
            return True
    return False
