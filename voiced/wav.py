"""WAV files: PCM 16-bit and G.711; mono read whole, bounded; headers of any number of channels.

The standard library's `wave` reads PCM alone, and prompt files for telephones are often G.711
(WAVE_FORMAT_MULAW 7, WAVE_FORMAT_ALAW 6; RFC 2361).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from voiced.formats import AudioFormat, Encoding
from voiced.regular import open_regular

__all__ = ["MAX_BYTES", "MAX_DATA", "Wav", "WavError", "header", "parse", "read", "write_stereo"]

MAX_BYTES: Final = 32 * 1024 * 1024  # more than an hour of 8 kHz G.711, minutes of anything else

MAX_DATA: Final = 2**32 - 2**16
"""Bytes of audio that a file can hold: sizes have 32 bits, and the rest needs room too."""

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
    info: Mapping[str, str] = field(default_factory=dict)
    """What stands in its INFO list before the audio, by four-letter name: `ISFT`, `ICMT`."""

    @property
    def duration_ms(self) -> int:
        """Its length."""
        return len(self.data) // self.format.bytes_per_ms


def read(path: Path) -> Wav:
    """The audio of a mono WAV file.

    Raises WavError for what is no file, cannot be read, is too large, is no WAV, or is of a format
    other than mono 16-bit PCM, mu-law or A-law at 8, 16, 24 or 48 kHz.
    """
    try:
        with open_regular(path) as file:
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
    info: dict[str, str] = {}
    while offset + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, offset)
        offset += 8
        if kind == b"fmt ":
            audio_format = _format(content[offset : offset + size])
        elif kind == b"LIST" and content[offset : offset + 4] == b"INFO":
            info |= _info(content[offset + 4 : offset + size])
        elif kind == b"data":
            if audio_format is None:
                raise WavError("has no format before its data")
            data = content[
                offset : offset + size
            ]  # a crashed writer's size is cut to what is there
            data = data[: len(data) - len(data) % audio_format.sample_bytes]
            return Wav(audio_format, data, info)
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


def _info(chunk: bytes) -> dict[str, str]:
    found, offset = {}, 0
    while offset + 8 <= len(chunk):
        name, size = struct.unpack_from("<4sI", chunk, offset)
        text = chunk[offset + 8 : offset + 8 + size].rstrip(b"\0")
        found[name.decode("latin-1")] = text.decode("utf-8", "replace")
        offset += 8 + size + size % 2
    return found


def header(
    audio_format: AudioFormat, channels: int, data_bytes: int, info: Mapping[str, str] | None = None
) -> bytes:
    """All of a WAV file that stands before its audio, `data_bytes` of it.

    Its length does not depend on `data_bytes`, so that a file that grows can be given a new one.
    `info`: texts of the INFO list by four-letter name, in UTF-8. An odd number of bytes is to be
    followed by one of padding.
    """
    tag, bits = next(key for key, each in _ENCODINGS.items() if each is audio_format.encoding)
    width, rate = channels * audio_format.sample_bytes, audio_format.rate
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits)
    if tag != 1:  # what is not PCM says how long its extension is, and how many samples there are
        fact = struct.pack("<4sII", b"fact", 4, data_bytes // width)
        fmt += struct.pack("<H", 0)
    else:
        fact = b""
    chunks = _chunk(b"fmt ", fmt) + fact
    if info:
        texts = (_chunk(name.encode(), text.encode() + b"\0") for name, text in info.items())
        chunks += _chunk(b"LIST", b"INFO" + b"".join(texts))
    size = 4 + len(chunks) + 8 + data_bytes + data_bytes % 2
    head = struct.pack("<4sI4s", b"RIFF", size, b"WAVE")
    return head + chunks + struct.pack("<4sI", b"data", data_bytes)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + bytes(len(content) % 2)


def write_stereo(path: Path, interleaved: bytes, rate: int) -> None:
    """Write 16-bit stereo PCM, left and right sample in turn, as a WAV file."""
    form = AudioFormat(Encoding.PCM16, rate)
    path.write_bytes(header(form, 2, len(interleaved)) + interleaved)
