"""A caller's line that echoes: what the telephone plays comes back into what it sends.

A two-wire line's hybrid, or a loudspeaker beside a microphone, returns a part of what is heard:
later, softer, without the upper end of the band, and through mu-law like all that is sent. Pure, on
the telephone's own samples: sample n of what goes out holds sample n - delay of what was heard.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from operator import mul
from typing import Final, final

from voiced.audio import mix, pcm_to_ulaw, ulaw_to_pcm
from voiced.formats import PCMU_8K

__all__ = ["DEFAULT_ECHO_MS", "LONGEST_MS", "LOUDEST_DB", "SOFTEST_DB", "Line", "LineEcho", "path"]

DEFAULT_ECHO_MS: Final = 120
LONGEST_MS: Final = 1000  # beyond it no call sounds like an echo, but like a second voice
SOFTEST_DB: Final = -60.0  # of speech at -20 dBFS mu-law keeps next to nothing at that level
LOUDEST_DB: Final = 0.0  # a line amplifies nothing: louder than itself no echo comes back

_RATE: Final = 1000 * PCMU_8K.bytes_per_ms
_CORNER_HZ: Final = 2200.0  # of a handset's loudspeaker and microphone in their case: -6 dB
_LEVEL_HZ: Final = 1000.0
_TAPS: Final = 13


@dataclass(frozen=True, slots=True)
class Line:
    """What comes back: `echo_db` beside what is heard, at 1 kHz, from `echo_ms` later on.

    Raises ValueError, with the remedy, for an echo that no line has.
    """

    echo_db: float
    echo_ms: int = DEFAULT_ECHO_MS

    def __post_init__(self) -> None:
        if not SOFTEST_DB <= self.echo_db <= LOUDEST_DB:
            raise ValueError(
                f"an echo is {SOFTEST_DB:g} to {LOUDEST_DB:g} dB beside what is heard, "
                f"such as -15, not {self.echo_db:g}"
            )
        if not 0 <= self.echo_ms <= LONGEST_MS:
            raise ValueError(f"an echo is 0 to {LONGEST_MS} ms late, not {self.echo_ms}")


def path(echo_db: float) -> tuple[float, ...]:
    """Return the echo's impulse response at 8 kHz with its gain: a low pass of 13 taps."""
    middle, corner = (_TAPS - 1) / 2, 2 * _CORNER_HZ / _RATE
    shape = []
    for tap in range(_TAPS):
        at = tap - middle
        window = 0.54 + 0.46 * math.cos(math.pi * at / (middle + 1))  # Hamming's
        shape.append(window * _sinc(corner * at))
    turn = 2 * math.pi * _LEVEL_HZ / _RATE
    in_phase = sum(value * math.cos(turn * tap) for tap, value in enumerate(shape))
    across = sum(value * math.sin(turn * tap) for tap, value in enumerate(shape))
    gain = 10 ** (echo_db / 20) / math.hypot(in_phase, across)
    return tuple(gain * value for value in shape)


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


@final
class LineEcho:
    """One call's echo, a piece at a time, of any length. mu-law in and out."""

    def __init__(self, line: Line) -> None:
        self._backwards = path(line.echo_db)[::-1]
        # What was heard and is still to come back: the delay, and what the path rings on.
        self._past = bytes(2 * (line.echo_ms * PCMU_8K.bytes_per_ms + _TAPS - 1))

    def back(self, heard: bytes, said: bytes) -> bytes:
        """Return what goes out while `heard` is played and `said` is said, all of one length.

        Raises ValueError where the lengths differ.
        """
        if len(heard) != len(said):
            raise ValueError(f"{len(heard)} samples were heard and {len(said)} said: not one time")
        past = self._past + ulaw_to_pcm(heard)
        self._past = past[2 * len(heard) :]
        window = past[: 2 * (len(said) + _TAPS - 1)]
        if not any(window):
            return said
        samples, backwards = memoryview(window).cast("h").tolist(), self._backwards
        echo = array("h", bytes(2 * len(said)))
        for at in range(len(said)):
            value = round(sum(map(mul, samples[at : at + _TAPS], backwards)))
            echo[at] = min(max(value, -32768), 32767)
        return pcm_to_ulaw(mix(ulaw_to_pcm(said), echo.tobytes())) if any(echo) else said
