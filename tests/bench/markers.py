"""Marks within the audio, by which a frame is known again at the other end of a bridge.

A mark is a burst of 22 two-level symbols of 6 samples at 8 kHz (16.5 ms): a start symbol, a number
of 10 bits, a sequence of 7, and the remainder of both by 13. All else is silence. Slow symbols far
above the threshold survive mu-law, PCM16 and the resampling between 8 and 24 kHz, so that a bridge
that transcodes is measured like one that passes bytes through, its filters' delay included.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from voiced.audio import pcm_to_ulaw, ulaw_to_pcm

__all__ = [
    "BURST",
    "FRAME",
    "LEAD",
    "NUMBERS",
    "SEQUENCES",
    "Detector",
    "Encoding",
    "Mark",
    "burst",
    "to_pcm24",
]

Encoding = Literal["pcmu", "pcm24"]
"""Mu-law at 8 kHz, or PCM16 little-endian at 24 kHz."""

FRAME: Final = 160
"""Samples at 8 kHz: 20 ms."""
LEAD: Final = 3
"""Samples of silence before the burst of an answer's delta, so that adjacent deltas stay apart."""

NUMBERS: Final = 1 << 10
SEQUENCES: Final = 1 << 7

_SYMBOL: Final = 6  # samples
_SYMBOLS: Final = 1 + 10 + 7 + 4
_MIDDLE: Final = 3  # where a symbol is read: two samples of edge jitter do no harm
BURST: Final = _SYMBOL * _SYMBOLS
"""Samples at 8 kHz."""
_ENOUGH: Final = _SYMBOL * (_SYMBOLS - 1) + _MIDDLE + 1  # samples up to the last symbol's middle
_SKIP: Final = BURST + 3  # a filter's edge after the burst is no burst of its own
_LEVEL: Final = 8000
_THRESHOLD: Final = 16  # of the high byte of a PCM16 sample: 4096

_HIGH, _LOW = (
    pcm_to_ulaw(struct.pack("<h", level)).decode("latin-1") for level in (_LEVEL, -_LEVEL)
)
_SPREAD: Final = {ord("1"): _HIGH * _SYMBOL, ord("0"): _LOW * _SYMBOL}
_QUIET: Final = b"."


def _class(high_byte: int) -> bytes:
    signed = high_byte - 256 if high_byte > 127 else high_byte
    return b"1" if signed >= _THRESHOLD else b"0" if signed < -_THRESHOLD else _QUIET


_PCM_LEVELS: Final = b"".join(_class(byte) for byte in range(256))
_ULAW_LEVELS: Final = b"".join(_class(ulaw_to_pcm(bytes([byte]))[1]) for byte in range(256))


class Mark(NamedTuple):
    """A burst found. `position` is its first sample, counted at 8 kHz from the stream's start."""

    number: int
    sequence: int
    position: int


def burst(number: int, sequence: int) -> bytes:
    """The mark as `BURST` bytes of mu-law. Both are taken modulo what fits."""
    value = number % NUMBERS * SEQUENCES + sequence % SEQUENCES
    return f"1{value:017b}{value % 13:04b}".translate(_SPREAD).encode("latin-1")


def to_pcm24(ulaw: bytes) -> bytes:
    """Mu-law as PCM16 at 24 kHz, each sample held for three."""
    pcm = ulaw_to_pcm(ulaw)
    return b"".join(pcm[i : i + 2] * 3 for i in range(0, len(pcm), 2))


class Detector:
    """Finds the marks of one stream, fed in parts of any size."""

    def __init__(self, encoding: Encoding) -> None:
        self._pcm = encoding == "pcm24"
        self._carry = b""  # PCM: less than three samples
        self._begun = b""  # levels since the start of a burst whose end is to come
        self._skip = 0
        self.position = 0  # samples at 8 kHz so far
        self.broken = 0  # bursts that do not add up

    def feed(self, data: bytes) -> list[Mark]:
        """Take the next part of the stream; returns the marks that it completed."""
        if self._pcm:
            data = self._carry + data
            whole = len(data) // 6 * 6
            self._carry = data[whole:]
            levels = data[1:whole:6].translate(_PCM_LEVELS)  # high byte of every third sample
        else:
            levels = data.translate(_ULAW_LEVELS)
        self.position += len(levels)
        if self._skip:
            skipped = min(self._skip, len(levels))
            self._skip -= skipped
            levels = levels[skipped:]
        rest = (self._begun + levels if self._begun else levels).lstrip(_QUIET)
        found: list[Mark] = []
        while len(rest) >= _ENOUGH:
            try:
                value = int(rest[_MIDDLE:_ENOUGH:_SYMBOL], 2)
            except ValueError:  # a quiet symbol
                value = 0
            value, check = divmod(value, 16)
            payload = value - NUMBERS * SEQUENCES  # without the start symbol
            if payload >= 0 and payload % 13 == check:
                number, sequence = divmod(payload, SEQUENCES)
                found.append(Mark(number, sequence, self.position - len(rest)))
            else:
                self.broken += 1
            self._skip = max(0, _SKIP - len(rest))
            rest = rest[_SKIP:].lstrip(_QUIET)
        self._begun = rest
        return found
