"""voiced's own endpointing, for `turn_detection = { kind = "none" }`. Sans-I/O.

Silence is held back: only what belongs to a turn reaches the server's buffer, so that an item is a
turn and not the minutes of quiet before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from voiced.audio import alaw_to_pcm, ulaw_to_pcm
from voiced.config.types import OwnVad
from voiced.formats import AudioFormat, Encoding
from voiced.vad import Vad, VadStarted, VadStopped

__all__ = ["MIN_COMMIT_MS", "TO_PCM", "OwnTurns"]

MIN_COMMIT_MS: Final = 100  # the service refuses to commit less
# Speech is recognised a few frames after it began; the held audio must reach back so far.
DETECTION_MS: Final = 200


def _same(payload: bytes) -> bytes:
    return payload


TO_PCM: Final[dict[Encoding, Callable[[bytes], bytes]]] = {
    Encoding.PCMU: ulaw_to_pcm,
    Encoding.PCMA: alaw_to_pcm,
    Encoding.PCM16: _same,
}


@final
class OwnTurns:
    """Splits the caller's audio into turns."""

    def __init__(self, audio: AudioFormat, settings: OwnVad) -> None:
        self._to_pcm = TO_PCM[audio.encoding]
        self._vad = Vad(
            rate=audio.rate,
            threshold=settings.threshold,
            prefix_padding_ms=settings.prefix_padding_ms,
            silence_ms=settings.silence_ms,
        )
        self._bytes_per_ms = audio.bytes_per_ms
        self._keep = (settings.prefix_padding_ms + DETECTION_MS) * audio.bytes_per_ms
        self._held = bytearray()  # not passed on
        self._start = 0  # position of the first held byte, in bytes fed
        self._in_turn = False

    def feed(self, payload: bytes) -> list[bytes | VadStarted | VadStopped]:
        """Return turn boundaries and, between a start and its stop, the audio of the turn."""
        out: list[bytes | VadStarted | VadStopped] = []
        self._held += payload
        for event in self._vad.feed(self._to_pcm(payload)):
            piece = self._take(event.at_ms * self._bytes_per_ms - self._start)
            if isinstance(event, VadStopped) and piece:
                out.append(piece)
            out.append(event)
            self._in_turn = isinstance(event, VadStarted)
        if self._in_turn:
            if self._held:
                out.append(self._take(len(self._held)))
        elif len(self._held) > self._keep:
            excess = len(self._held) - self._keep
            self._take(excess + -excess % self._bytes_per_ms)
        return out

    def _take(self, size: int) -> bytes:
        size = min(max(size, 0), len(self._held))
        piece = bytes(self._held[:size])
        del self._held[:size]
        self._start += size
        return piece
