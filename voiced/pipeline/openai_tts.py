"""Text to speech at `/audio/speech`, as raw PCM that streams.

Source: OpenAI's API reference, "Create speech"; `pcm` is mono PCM16 at 24 kHz there, without a
header. Other servers have other rates, and some send a WAV file whatever they are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, final

from voiced.config import types
from voiced.pipeline.client import Http
from voiced.pipeline.providers import ProviderError

__all__ = ["HeaderlessPcm", "OpenAiTts"]

MAX_HEADER: Final = 4096  # bytes before a WAV file's samples; commonly 44
UNKNOWN_SIZE: Final = 0x7FFF0000  # from here on, or with 0, it was not known when it was written
_RAW: Final = frozenset({"", "audio/pcm", "audio/l16", "audio/raw", "application/octet-stream"})
_WAV: Final = frozenset({"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"})


@final
class HeaderlessPcm:
    """Takes a WAV file's header off, if there is one. Sans-I/O."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._held: bytearray | None = bytearray()  # until it is clear what it is
        self._left: int | None = None  # of the samples, where a header says how many

    def feed(self, received: bytes) -> bytes:
        """Return the samples among what has come. Raises ProviderError for another format."""
        if self._held is None:
            return self._samples(received)
        self._held += received
        begin = self._begin(self._held)
        if begin is None:
            if len(self._held) > MAX_HEADER:
                raise ProviderError("bad_audio", "a WAV file without samples", "terminal")
            return b""
        samples = bytes(self._held[begin:])
        self._held = None
        return self._samples(samples)

    def _samples(self, received: bytes) -> bytes:
        """What of `received` is no chunk behind the samples."""
        if self._left is None:
            return received
        samples = received[: self._left]
        self._left -= len(samples)
        return samples

    def _begin(self, held: bytearray) -> int | None:
        """Where the samples begin; None as long as nobody can tell."""
        if held[:4] != b"RIFF"[: len(held)]:
            return 0
        offset = 12
        while len(held) >= offset + 8:
            kind, size = struct.unpack_from("<4sI", held, offset)
            offset += 8
            if kind == b"data":
                if 0 < size < UNKNOWN_SIZE:
                    self._left = size
                return offset
            if kind == b"fmt " and len(held) >= offset + 16:
                self._check(*struct.unpack_from("<HHIIHH", held, offset))
            offset += size + size % 2
        return None

    def _check(self, tag: int, channels: int, rate: int, _: int, __: int, bits: int) -> None:
        if (tag, channels, bits) != (1, 1, 16) or rate != self._rate:
            found = f"format {tag}, {channels} channel(s), {bits} bit, {rate} Hz"
            wanted = f"mono 16-bit PCM at the {self._rate} Hz of `rate`"
            raise ProviderError("bad_audio", f"speech is {found}, not {wanted}", "terminal")


@final
class OpenAiTts:
    """A server's speech endpoint (`providers.TextToSpeech`)."""

    def __init__(self, config: types.TextToSpeech, http: Http) -> None:
        self._config = config
        self._http = http

    @property
    def rate(self) -> int:
        """What the configuration says."""
        return self._config.rate

    async def stream(
        self,
        text: str,
        *,
        voice: str,
        language: str | None,  # the server hears it from the text
    ) -> AsyncGenerator[bytes, None]:
        """Ask for one sentence."""
        request = {
            "model": self._config.model,
            "input": text,
            "voice": voice,
            "response_format": "pcm",
        }
        async with self._http.post(self._config, "/audio/speech", json=request) as answer:
            kind = answer.content_type
            # An unknown type is believed to be what was asked for; a known other one is noise.
            if kind not in _RAW | _WAV and kind.startswith(("audio/", "text/", "application/json")):
                message = f"speech comes as {kind}, not as raw PCM"
                raise ProviderError("bad_audio", message, "terminal")
            if answer.rate not in (None, self._config.rate):
                message = f"speech is {answer.rate} Hz, not the {self._config.rate} Hz of `rate`"
                raise ProviderError("bad_audio", message, "terminal")
            pcm = HeaderlessPcm(self._config.rate)
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    if samples := pcm.feed(piece):
                        yield samples
