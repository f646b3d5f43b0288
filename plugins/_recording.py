"""One recording: a call's time line, on its way to a file in a worker thread.

Nothing here can hurt the call: what the disk refuses ends the recording, with one line in the log;
a disk that hangs is left behind with its thread, and the file is whole when it comes back.
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import trio
from voiced_plugins._shelf import SEALED, Place, places
from voiced_plugins._timeline import Timeline

from voiced.plugin import AudioFormat

__all__ = ["BATCH_S", "WINDOW_MS", "Limits", "Made", "Recording", "Sink"]

BATCH_S: Final = 2.0
"""How often the disk is written to: a thread's turn is a good part of what recording costs."""

WINDOW_MS: Final = 3000
"""What is younger is not written: the agent's audio comes up to 2 s after it was heard."""

MAX_BEHIND_MS: Final = 30_000
"""A disk that takes nothing for so long is given up; until then the memory holds it, 1 MB."""

_FREE_EVERY: Final = 15  # writes


_Result = TypeVar("_Result")


class Sink(Protocol):
    """A file being written, from a worker thread. Everything raises OSError."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def write(self, data: bytes) -> None:
        """Append audio."""

    def close(self) -> None:
        """End the file."""


class Full(OSError):
    """There is too little room on the disk to go on."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may take."""

    max_ms: int
    max_bytes: int
    min_free: int


@dataclass(frozen=True, slots=True)
class Made:
    """What has become of a recording; `path` is None where nothing was kept."""

    path: Path | None
    size: int
    duration_ms: int
    paused_ms: int
    late_ms: int
    ended: str | None  # why before its call: `max_duration`, `max_size`, `disk_full`, `disk_error`


class Recording:
    """Takes both sides' audio from `start_ms` on; `write` and `finish` put it on the disk."""

    def __init__(
        self,
        timeline: Timeline,
        target: AudioFormat,
        channels: int,
        limits: Limits,
        folder: Path,
        name: str,
        make: Callable[[Path], Sink],
        *,
        sealed: bool,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.timeline = timeline
        self._bytes_per_ms = target.bytes_per_ms * channels
        self._limits = limits
        self._folder, self._name = folder, name
        self._suffix = ".wav" + (SEALED if sealed else "")
        self._make = make
        self._limiter = limiter
        self._file: Sink | None = None
        self._place: Place | None = None
        self._taken = self._audio = 0  # bytes, and those of them that are on the disk
        self._writes = 0
        # What has been taken and is not written. Whoever is cancelled while it waits for a thread
        # leaves it to the next; bounded by `behind`.
        self._waiting: deque[bytes] = deque()
        self._lock = threading.Lock()  # one thread at a time
        self._finished = False
        self._made: Made | None = None
        self.ended: str | None = None
        """Why nothing more is recorded, although the call goes on."""
        self.error: OSError | None = None

    @property
    def behind(self) -> bool:
        """Whether the disk has been too slow for too long."""
        line = self.timeline
        end = max(line.caller.end, line.agent.end)
        return (end - line.caller.base) > MAX_BEHIND_MS * line.rate // 1000

    def give_up(self, why: str) -> None:
        """Record nothing more."""
        self.ended = self.ended or why

    async def write(self, until_ms: int) -> None:
        """Put on the disk what was heard before `until_ms`."""
        if self.ended is None:
            self._take(self.timeline.take(self._within(until_ms)))
            if self._waiting:
                await self._in_thread(self._write)

    async def finish(self, until_ms: int) -> Made:
        """The call, or the recording, has ended: close the file and give it its name.

        Whoever is cancelled in it may call it again: both get what one thread has made.
        """
        if not self._finished and self.ended in (None, "max_duration"):
            self._take(self.timeline.finish(self._within(until_ms)))
        self._finished = True
        return await self._in_thread(self._close)

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return await trio.to_thread.run_sync(
            function, abandon_on_cancel=True, limiter=self._limiter
        )

    def _within(self, until_ms: int) -> int:
        """`until_ms`, or where the longest recording ends."""
        end_ms = self.timeline.start_ms + self._limits.max_ms
        if until_ms < end_ms:
            return until_ms
        self.give_up("max_duration")
        return end_ms

    def _take(self, data: bytes) -> None:
        room = self._limits.max_bytes - self._taken
        if len(data) > room:
            self.give_up("max_size")
            data = data[:room]
        self._taken += len(data)
        if data:
            self._waiting.append(data)

    # ---- in a thread ----

    def _write(self) -> None:
        with self._lock:
            self._write_waiting()

    def _write_waiting(self) -> None:
        while self._waiting and self.error is None:
            self._append(self._waiting.popleft())

    def _append(self, data: bytes) -> None:
        try:
            if self._writes % _FREE_EVERY == 0:
                self._check_room()
            self._writes += 1
            if self._file is None:
                self._file = self._open()
            self._file.write(data)
            self._audio += len(data)
        except OSError as error:
            self.error = error
            full = isinstance(error, Full) or error.errno in (errno.ENOSPC, errno.EDQUOT)
            self.give_up("disk_full" if full else "disk_error")

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < self._limits.min_free:
            raise Full(f"{free // 2**20} MiB are free on the disk of {self._folder}")

    def _open(self) -> Sink:
        for place in places(self._folder, self._name, self._suffix):
            try:
                file = self._make(place.part)
            except FileExistsError:
                continue
            if place.final.exists():
                file.close()
                place.part.unlink()
                continue
            self._place = place
            return file
        raise OSError(f"there are a hundred recordings of the name {self._name} already")

    def _close(self) -> Made:
        with self._lock:
            if self._made is None:
                self._write_waiting()
                self._made = self._close_file()
            return self._made

    def _close_file(self) -> Made:
        path: Path | None = None
        size = 0
        if self._file is not None and self._place is not None:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error
                self.give_up("disk_error")
            size, path = self._file.size, self._place.part
            with suppress(OSError):
                path = path.replace(self._place.final)
            self._file = None
        return Made(
            path,
            size,
            self._audio // self._bytes_per_ms,
            self.timeline.paused_ms,
            self.timeline.late_ms,
            self.ended,
        )
