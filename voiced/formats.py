"""Audio formats: what a run of bytes means, and how many of them make a millisecond.

Pure values without the native module, so that every layer may name a format; `audio` converts
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "FRAME_MS",
    "PCM16_4K",
    "PCM16_8K",
    "PCM16_16K",
    "PCM16_24K",
    "PCM16_48K",
    "PCMA_8K",
    "PCMU_8K",
    "AudioFormat",
    "Encoding",
]

FRAME_MS = 20
"""One telephone frame, the de-facto packet time of RTP (RFC 3551 section 4.2) and of Twilio."""


class Encoding(Enum):
    """How one sample is written."""

    PCMU = "pcmu"  # G.711 mu-law, one byte
    PCMA = "pcma"  # G.711 A-law, one byte
    PCM16 = "pcm16"  # signed 16-bit little-endian, two bytes


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Mono audio: an encoding at a sampling rate in Hz."""

    encoding: Encoding
    rate: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return 2 if self.encoding is Encoding.PCM16 else 1

    @property
    def bytes_per_ms(self) -> int:
        """Bytes of one millisecond; every rate voiced speaks is a whole number of samples a ms."""
        return self.rate // 1000 * self.sample_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of one 20 ms frame."""
        return FRAME_MS * self.bytes_per_ms

    def silence(self, ms: int) -> bytes:
        """`ms` milliseconds of digital silence: code 0xFF in mu-law, 0xD5 in A-law, 0 in PCM."""
        code = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.PCM16: b"\x00"}
        return code[self.encoding] * (ms * self.bytes_per_ms)

    def __str__(self) -> str:
        return f"{self.encoding.value}/{self.rate}"


PCMU_8K = AudioFormat(Encoding.PCMU, 8000)
PCMA_8K = AudioFormat(Encoding.PCMA, 8000)
PCM16_4K = AudioFormat(Encoding.PCM16, 4000)
PCM16_8K = AudioFormat(Encoding.PCM16, 8000)
PCM16_16K = AudioFormat(Encoding.PCM16, 16000)
PCM16_24K = AudioFormat(Encoding.PCM16, 24000)
PCM16_48K = AudioFormat(Encoding.PCM16, 48000)
