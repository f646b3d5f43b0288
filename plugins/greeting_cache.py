"""Keeps the greeting that the model once spoke, and greets later callers with it at once.

    [plugins.greeting_cache]

What is kept is the model's own voice, in `state_dir`, a small WAV file for each agent that greets.
Whatever shapes a greeting (engine, model, voice, language, instructions, greeting) makes it another
one. The first caller after a change hears the model itself; `voiced greeting make` spares them the
wait.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import struct
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import trio
from msgspec import Meta
from voiced_plugins._disk import make_folder

from voiced.plugin import (
    Audio,
    AudioFormat,
    Encoding,
    Greeting,
    Host,
    Plugin,
    PluginError,
    Service,
    Settings,
    WavError,
    convert,
    mean_squares,
    parse_wav,
    read_file,
    wav_header,
)

__all__ = ["GreetingCache", "GreetingCacheSettings", "Greetings", "key_of", "trimmed"]

VERSION: Final = "1"
"""Part of every key: with another, what an older voiced has kept is not taken for right."""

MEMORY_BYTES: Final = 16 * 2**20
"""Greetings that are ready to be played: half an hour of them at 8 kHz."""

STALE_S: Final = 600.0
"""What is half written for so long was left by a crash."""

MAX_FILE: Final = 8 * 2**20
TOUCH_S: Final = 3600.0
"""How exactly the last use of a greeting is known."""

QUIET: Final = 100.0**2
"""Mean square of what nobody hears, -50 dBFS."""
FRAME_MS: Final = 10
LEAD_MS: Final = 20  # silence that is left before the first sound
TAIL_MS: Final = 200  # and after the last


class GreetingCacheSettings(Settings, frozen=True):
    """How much is kept, and for how long."""

    folder: Path | None = None
    """Where greetings are kept. Left out: a folder in `state_dir`."""
    max_greetings: Annotated[int, Meta(ge=1)] = 200
    """How many are kept; of more, the one that was used longest ago goes."""
    max_mb: Annotated[int, Meta(ge=1)] = 50
    """What they may take, in MiB."""
    keep_days: Annotated[float, Meta(gt=0)] | None = None
    """Greetings are made anew after so many days. Left out: only when something has changed."""
    longest_s: Annotated[float, Meta(gt=0, le=60)] = 30.0
    """A longer greeting is not kept: the model has said more than that."""


def key_of(shaping: Mapping[str, str]) -> str:
    """The name of the greeting that is shaped so."""
    text = json.dumps([VERSION, sorted(shaping.items())], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def trimmed(audio: Audio) -> Audio | None:
    """`audio` without the silence at its ends; None where there is nothing else."""
    pcm = AudioFormat(Encoding.PCM16, audio.format.rate)
    levels = mean_squares(
        convert(audio.payload, audio.format, pcm), FRAME_MS * audio.format.rate // 1000
    )
    loud = [place for place, level in enumerate(levels) if level > QUIET]
    if not loud:
        return None
    begin = max(0, loud[0] * FRAME_MS - LEAD_MS) * audio.format.bytes_per_ms
    end = ((loud[-1] + 1) * FRAME_MS + TAIL_MS) * audio.format.bytes_per_ms
    return Audio(audio.payload[begin:end], audio.format, audio.text)


class Greetings(Service):
    """The greetings that there are, on the disk and ready in memory."""

    config: GreetingCacheSettings

    def __init__(self, config: GreetingCacheSettings, host: Host) -> None:
        super().__init__(config, host)
        self.folder = Path()
        self._ready: OrderedDict[str, tuple[Audio, datetime.datetime]] = OrderedDict()
        self._size = 0
        self._touched: dict[str, float] = {}
        # Of its own: a disk that hangs must not take the threads that others need.
        self._limiter = trio.CapacityLimiter(2)
        self._disk = threading.Lock()  # of what two calls write one is first

    async def open(self) -> None:
        """Read what there is, the last used first."""
        self.folder = self.config.folder or self.host.state_dir
        try:
            found = await trio.to_thread.run_sync(self._scan)
        except OSError as error:
            raise PluginError(f"folder: {self.folder}: {error.strerror or error}") from None
        for key, audio, made in reversed(found):
            self._keep(key, audio, made)

    async def get(self, key: str) -> Audio | None:
        """The greeting of that name, if there is one that is not too old."""
        if key not in self._ready:
            read = await trio.to_thread.run_sync(
                self._read, self._path(key), abandon_on_cancel=True, limiter=self._limiter
            )
            if read is None:
                return None
            self._keep(key, *read)
        audio, made = self._ready[key]
        if self._expired(made):
            return None
        self._ready.move_to_end(key)
        return audio

    async def put(self, key: str, audio: Audio) -> bool:
        """Keep a greeting; False where there is one already. Raises OSError.

        Of two first calls that make it at the same time either may be first: the other's is not
        kept, or takes its place whole.
        """
        now = datetime.datetime.now(datetime.UTC)
        if key in self._ready and not self._expired(self._ready[key][1]):
            return False
        self._keep(key, audio, now)
        await trio.to_thread.run_sync(
            self._write, key, audio, now, abandon_on_cancel=True, limiter=self._limiter
        )
        return True

    async def touch(self, key: str) -> None:
        """Note that it was used."""
        now = trio.current_time()
        if now - self._touched.get(key, -TOUCH_S) >= TOUCH_S:
            if len(self._touched) > 4 * self.config.max_greetings:
                self._touched.clear()
            self._touched[key] = now
            with suppress(OSError):
                await trio.to_thread.run_sync(
                    os.utime, self._path(key), abandon_on_cancel=True, limiter=self._limiter
                )

    # ---- memory ----

    def _keep(self, key: str, audio: Audio, made: datetime.datetime) -> None:
        if key in self._ready:
            self._size -= len(self._ready.pop(key)[0].payload)
        self._ready[key] = audio, made
        self._size += len(audio.payload)
        while self._size > MEMORY_BYTES and len(self._ready) > 1:
            self._size -= len(self._ready.popitem(last=False)[1][0].payload)

    def _expired(self, made: datetime.datetime) -> bool:
        days = self.config.keep_days
        age = datetime.datetime.now(datetime.UTC) - made
        return days is not None and age > datetime.timedelta(days=days)

    # ---- the disk, in a worker thread ----

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.wav"

    def _scan(self) -> list[tuple[str, Audio, datetime.datetime]]:
        make_folder(self.folder)
        for left in self.folder.glob(".*.tmp"):  # by a crash; another daemon may be at a new one
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE_S:
                    left.unlink()
        found, size = [], 0
        for path in self._by_use():
            if size > MEMORY_BYTES:
                break
            if (read := self._read(path)) is not None:
                found.append((path.stem, *read))
                size += len(read[0].payload)
        return found

    def _by_use(self) -> list[Path]:
        """All greetings, the last used first."""
        used = []
        for path in self.folder.glob(f"{'?' * 64}.wav"):  # others' files are not ours to remove
            with suppress(OSError):
                used.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(used, reverse=True)]

    def _read(self, path: Path) -> tuple[Audio, datetime.datetime] | None:
        """A greeting and when it was made; None of a file that is not whole, or is none."""
        try:
            content = read_file(path, MAX_FILE)
            wav = parse_wav(content)
            whole = struct.unpack_from("<I", content, 4)[0] + 8 == len(content)
            made = datetime.datetime.fromisoformat(wav.info["ICRD"])
            text = wav.info["ICMT"]
            if whole and made.tzinfo is not None and wav.data:
                return Audio(wav.data, wav.format, text), made
        except FileNotFoundError:
            return None
        except (OSError, WavError, KeyError, ValueError):
            pass
        self.host.log.warning("greeting is damaged and made anew", file=path.name)
        return None

    def _write(self, key: str, audio: Audio, made: datetime.datetime) -> None:
        size = len(audio.payload)
        info = {"ISFT": "voiced", "ICRD": made.isoformat(), "ICMT": audio.text}
        content = wav_header(audio.format, 1, size, info) + audio.payload + bytes(size % 2)
        path = self._path(key)
        with self._disk:
            # Not by the process's number: two in containers may both be number 1.
            temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
            try:
                with temporary.open("xb") as file:
                    os.fchmod(file.fileno(), 0o640)
                    if os.geteuid() == 0:  # for a daemon that runs as somebody else
                        owner = self.folder.stat()
                        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self._make_room()

    def _make_room(self) -> None:
        room, left = self.config.max_mb * 2**20, self.config.max_greetings
        for path in self._by_use():
            with suppress(OSError):
                room -= path.stat().st_size
                left -= 1
                if room < 0 or left < 0:
                    path.unlink()


class GreetingCache(Plugin):
    """Greets one caller."""

    Config = GreetingCacheSettings
    Service = Greetings
    config: GreetingCacheSettings
    service: Greetings

    def __init__(self, call: Any, config: Any, service: Any) -> None:
        super().__init__(call, config, service)
        # What differs in the encoding alone is the same greeting.
        self._key = key_of({**call.shaping, "format": str(call.format.rate)})
        self._engine = call.engine
        self._used = False

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """Supply it, where it is known and nobody else has."""
        if planned.audio is not None:
            return None
        audio = await self.service.get(self._key)
        if audio is None:
            return None
        self._used = True
        self.call.set_fact("greeting_cached", True)
        if audio.format != (target := self.call.format):  # of one rate: quickly done
            audio = Audio(convert(audio.payload, audio.format, target), target, audio.text)
        return Greeting(planned.before, audio)

    async def on_media(self) -> None:
        """Off the way of the greeting: it was used."""
        if self._used:
            await self.service.touch(self._key)

    async def on_greeting_made(self, audio: Audio) -> None:
        """Keep it for the next caller."""
        if self.call.engine != self._engine:
            self.call.log.info("greeting not kept: the fallback engine spoke it")
            return
        text = audio.text or self.call.shaping.get("greeting_text", "")
        seconds = len(audio.payload) / audio.format.bytes_per_ms / 1000
        if seconds > self.config.longest_s:
            self.call.log.info("greeting not kept: too long", seconds=round(seconds, 1))
            return
        if not text:  # a model that does not know what it said would greet again
            self.call.log.info("greeting not kept: its words are unknown")
            return
        target = self.call.format
        kept = await trio.to_thread.run_sync(_prepared, audio, text, target)
        if kept is None:
            self.call.log.info("greeting not kept: it is silent")
            return
        try:
            if await self.service.put(self._key, kept):
                self.call.set_fact("greeting_kept", True)
                self.call.log.info("greeting kept", seconds=round(seconds, 1))
        except OSError as error:  # this daemon has it in memory all the same
            self.call.log.error("greeting not written", error=str(error))


def _prepared(audio: Audio, text: str, target: AudioFormat) -> Audio | None:
    """As it will be played: in the call's format, without the wait before the first word."""
    return trimmed(Audio(convert(audio.payload, audio.format, target), target, text))
