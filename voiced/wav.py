"""WAV files: PCM 16-bit and G.711, mono or stereo; read whole, bounded.

The standard library's `wave` reads PCM alone, and prompt files for telephones are often G.711
(WAVE_FORMAT_MULAW 7, WAVE_FORMAT_ALAW 6; RFC 2361).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from voiced.formats import AudioFormat, Encoding

__all__ = ["MAX_BYTES", "Wav", "WavError", "read", "write_stereo"]

MAX_BYTES: Final = 32 * 1024 * 1024  # more than an hour of 8 kHz G.711, minutes of anything else

_ENCODINGS: Final = {
    (1, 16): Encoding.PCM16,
    (6, 8): Encoding.PCMA,
    (7, 8): Encoding.PCMU,
}
_EXTENSIBLE: Final = 0xFFFE  # the real format stands in the first two bytes of the sub-format GUID
_RATES: Final = (8000, 16000, 24000, 48000)


class WavError(Exception):
    """Not a WAV file that voiced can play; the text says why and what would be."""


@dataclass(frozen=True, slots=True)
class Wav:
    """Mono audio of a file."""

    format: AudioFormat
    data: bytes

    @property
    def duration_ms(self) -> int:
        """Its length."""
        return len(self.data) // self.format.bytes_per_ms


def read(path: Path) -> Wav:
    """The audio of a mono WAV file.

    Raises WavError for a file that cannot be read, is too large, is no WAV, or is of a format
    other than mono 16-bit PCM, mu-law or A-law at 8, 16, 24 or 48 kHz.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WavError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise WavError(f"is larger than {MAX_BYTES // 2**20} MiB")
    return parse(content)


def parse(content: bytes) -> Wav:
    """The audio of a WAV file's bytes; raises WavError as `read` does."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise WavError("is not a WAV file")
    offset, audio_format = 12, None
    while offset + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, offset)
        offset += 8
        if kind == b"fmt ":
            audio_format = _format(content[offset : offset + size])
        elif kind == b"data":
            if audio_format is None:
                raise WavError("has no format before its data")
            data = content[
                offset : offset + size
            ]  # a crashed writer's size is cut to what is there
            return Wav(audio_format, data[: len(data) - len(data) % audio_format.sample_bytes])
        offset += size + size % 2  # chunks are padded to an even length
    raise WavError("has no audio data")


def _format(chunk: bytes) -> AudioFormat:
    if len(chunk) < 16:
        raise WavError("has a damaged format chunk")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or channels != 1 or rate not in _RATES:
        raise WavError(
            f"is format {tag}, {bits} bit, {channels} channel(s), {rate} Hz; convert it to mono "
            "16-bit PCM (or G.711) at 8000, 16000, 24000 or 48000 Hz"
        )
    return AudioFormat(encoding, rate)


def write_stereo(path: Path, interleaved: bytes, rate: int) -> None:
    """Write 16-bit stereo PCM, left and right sample in turn, as a WAV file."""
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(interleaved), b"WAVE"),
        *(b"fmt ", 16, 1, 2, rate, rate * 4, 4, 16),
        *(b"data", len(interleaved)),
    )
    path.write_bytes(header + interleaved)
