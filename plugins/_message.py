"""A caller's message as it is written: a WAV file that can be played at any moment."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from voiced_plugins._keeping import thin
from voiced_plugins._wavfile import write_all

from voiced.plugin import PCM16_8K, Vad, wav_header

__all__ = ["IDLE_S", "Message", "clean_up"]

_WRITTEN_S: Final = 1.0
"""How much waits in memory: what a crash costs."""

_PAUSE_MS: Final = 300  # between words; what is longer is silence

IDLE_S: Final = 60.0
"""What has not grown for so long is no message under way: those grow every second."""

_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9A-Za-z]+\.wav")

_BYTES_PER_S: Final = PCM16_8K.bytes_per_ms * 1000


class Message:
    """One message: PCM16 at 8 kHz, to `max_s` or until `silence_s` after it.

    `limiter` is for the threads that write: a disk that hangs is left behind with its thread.
    """

    def __init__(
        self,
        folder: Path,
        call_id: str,
        max_s: float,
        silence_s: float,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.path = folder / f"{stamp}-{call_id}.wav"
        self.over = trio.Event()
        self._left = int(max_s * _BYTES_PER_S) // 2 * 2
        self._vad = Vad(rate=PCM16_8K.rate, silence_ms=_PAUSE_MS)
        self._speech = 0  # bytes
        self._quiet = 0  # bytes since the last of it
        self._patience = int(silence_s * _BYTES_PER_S)
        self._waiting = bytearray()
        self._written = 0
        self._lock = threading.Lock()  # one thread at a time
        self._limiter = limiter
        self.failed = False
        """The disk did not take all of it; what it took before can be played."""

    @property
    def duration_ms(self) -> int:
        """Its length so far."""
        waiting = 0 if self.failed else len(self._waiting)
        return (self._written + waiting) // PCM16_8K.bytes_per_ms

    async def add(self, pcm16: bytes) -> None:
        """Take what the caller said; sets `over` where that was all. Raises OSError."""
        if self.over.is_set():
            return
        pcm16 = pcm16[: self._left]
        self._left -= len(pcm16)
        self._waiting += pcm16
        self._vad.feed(pcm16)
        if self._vad.speaking:
            self._speech += len(pcm16)
            self._quiet = 0
        else:
            self._quiet += len(pcm16)
        if len(self._waiting) >= _WRITTEN_S * _BYTES_PER_S:
            await self._write()
        # Whoever has not begun to speak is still thinking of what to say.
        patience = self._patience if self._speech else 2 * self._patience
        if self._left == 0 or self._quiet >= patience:
            self.over.set()

    async def _write(self) -> None:
        self.failed = True  # also where it is cancelled: the disk hangs
        try:
            await self._in_thread(self._put)
            self.failed = False
        finally:
            if self.failed:
                self.over.set()

    def _put(self) -> None:
        """In a thread: write what waits."""
        with self._lock:
            if data := bytes(self._waiting):
                _append(self.path, self._written, data)
                self._written += len(data)
                del self._waiting[: len(data)]

    async def finish(self, min_s: float) -> bool:
        """Write the rest; False, and no file, where too little was said, or written.

        Whoever is cancelled in it may call it again.
        """
        self.over.set()
        enough = self._speech >= max(min_s * _BYTES_PER_S, 1)
        if enough and not self.failed:
            try:
                await self._in_thread(self._put)
            except OSError:
                self.failed = True
        kept = enough and self._written > 0
        if not kept:
            with suppress(OSError):
                await self.discard()
        return kept

    async def discard(self) -> None:
        """Remove the file. Raises OSError."""
        await self._in_thread(lambda: self.path.unlink(missing_ok=True))

    async def _in_thread(self, function: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._limiter)


def _append(path: Path, written: int, data: bytes) -> None:
    """Add to the file, then renew its header: in this order it never promises what is not there."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        header = wav_header(PCM16_8K, 1, written + len(data))
        write_all(file, data, len(header) + written)
        write_all(file, header, 0)
    finally:
        os.close(file)


def clean_up(folder: Path, max_age_s: float | None, max_bytes: float) -> int:
    """Delete messages older than `max_age_s` (None: none), then the oldest of too many bytes.

    Returns how many. With an age of 0 those go that a crash has left: a call removes its own.
    Files of other names, a prompt say, are not ours to delete.
    """
    found = (path for path in folder.glob("*.wav") if _NAME.fullmatch(path.name))
    older_than_s = None if max_age_s is None else max(max_age_s, IDLE_S)
    return thin(found, older_than_s=older_than_s, max_bytes=max_bytes, now=time.time()).files
