"""Audio that voiced plays itself: the connection tone, recorded files, bundled messages.

Files are read and converted in a worker thread, once, and kept as they are played.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Final

import trio

from voiced import clips, wav
from voiced.audio import convert
from voiced.config.types import Agent
from voiced.formats import PCM16_8K, AudioFormat, Encoding
from voiced.plugin import Audio, Clip

__all__ = ["MESSAGES", "Prompts", "tone"]

MESSAGES: Final = ("one_moment", "still_there", "farewell", "unavailable")
"""What a call says without its model; an agent may have a file of its own for each."""

TONE_HZ: Final = 440
TONE_MS: Final = 400
_TONE_LEVEL: Final = 0.25  # -12 dBFS: plainly heard, not startling
_TONE_FADE_MS: Final = 10  # no click at either end

_CACHE_BYTES: Final = (
    16 * 1024 * 1024
)  # half an hour of G.711; the least recently played goes first


class Prompts:
    """The daemon's store of prompts, in the legs' formats."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._size = 0

    async def file(self, path: Path, target: AudioFormat) -> bytes:
        """The audio of a WAV file in `target`; raises wav.WavError where it cannot be played."""
        try:
            modified = (await trio.Path(path).stat()).st_mtime_ns
        except OSError as error:
            raise wav.WavError(f"cannot be read: {error.strerror or error}") from None
        key = (str(path), modified, target)  # a replaced file is read anew
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        data = await trio.to_thread.run_sync(_read, path, target)
        return self._keep(key, data)

    async def sound(self, clip: Clip, target: AudioFormat, language: str = "en") -> bytes:
        """The audio of whatever a plugin wants played; `language`: of a bundled message.

        Raises wav.WavError, also for what only claims to be a clip; KeyError for a message that
        there is not.
        """
        try:
            if isinstance(clip, Audio):
                if clip.format == target:
                    return bytes(clip.payload)
                return await trio.to_thread.run_sync(convert, clip.payload, clip.format, target)
            if isinstance(clip, Path):
                return await self.file(clip, target)
            if isinstance(clip, str):
                return self.clip(clip, target, language)
        except (wav.WavError, KeyError):
            raise
        except Exception as error:  # plugins are written by others, who may be wrong
            raise wav.WavError(f"cannot be played: {error}") from error
        raise wav.WavError(f"is a {type(clip).__name__}, and no path, audio or name")

    async def messages(self, agent: Agent, target: AudioFormat) -> dict[str, bytes | wav.WavError]:
        """The agent's own `MESSAGES`, as far as it has files; an error for one that has none."""
        own: dict[str, bytes | wav.WavError] = {}
        for name in MESSAGES:
            path: Path | None = getattr(agent, f"{name}_file")
            if path is not None:
                try:
                    own[name] = await self.file(path, target)
                except wav.WavError as error:
                    own[name] = error
        return own

    def clip(self, name: str, target: AudioFormat, language: str = "en") -> bytes:
        """A bundled message in `target`, in an agent's `language` where there is one, else English.

        Small and local: read at once, without a thread. Raises KeyError.
        """
        name = clips.translated(name, language)
        key = ("clip", name, target)
        if key in self._cache:
            return self._cache[key]
        return self._keep(key, convert(clips.load(name).pcm, PCM16_8K, target))

    def _keep(self, key: tuple[object, ...], data: bytes) -> bytes:
        if key not in self._cache:
            self._cache[key] = data
            self._size += len(data)
        while self._size > _CACHE_BYTES and len(self._cache) > 1:
            self._size -= len(self._cache.popitem(last=False)[1])
        return data


@cache
def tone(target: AudioFormat) -> bytes:
    """The connection tone: 440 Hz for 400 ms, faded in and out over 10 ms."""
    rate = target.rate
    total, fade = rate * TONE_MS // 1000, rate * _TONE_FADE_MS // 1000
    samples = (
        round(
            32767
            * _TONE_LEVEL
            * min(1.0, n / fade, (total - 1 - n) / fade)
            * math.sin(2 * math.pi * TONE_HZ * n / rate)
        )
        for n in range(total)
    )
    pcm = struct.pack(f"<{total}h", *samples)
    return convert(pcm, AudioFormat(Encoding.PCM16, rate), target)


def _read(path: Path, target: AudioFormat) -> bytes:
    content = wav.read(path)
    return convert(content.data, content.format, target)
