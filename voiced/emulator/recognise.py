"""Recognises the bundled callers' lines, and nothing else, in telephone audio.

Each 20 ms frame gives the logarithm of its power in a few bands, estimated from the first lags of
its autocorrelation (Blackman-Tukey: cheap without an FFT). Two utterances are alike when these
envelopes correlate at some small offset. The mean is taken out, so that gain does not matter, and
what lies 35 dB below the loudest frame counts as silence, so that codec noise does not either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

import trio

from voiced import clips

__all__ = ["SIMILAR", "Ear", "likeness", "prepare", "recognise"]

FRAME: Final = 160  # 20 ms at 8 kHz
LAGS: Final = 6
BAND_HZ: Final = (250, 800, 1400, 2000, 2700, 3400)
RANGE: Final = 3.5  # decades of power below the loudest frame, 35 dB
SHIFT: Final = 12  # frames; trimming leaves utterances aligned to within 240 ms
LENGTHS: Final = 0.25  # by how much the lengths of the same line may differ
SIMILAR: Final = 0.76  # see tests/emulator/test_recognise.py for what lies on either side
SLICE: Final = 20 * FRAME * 2
LONGEST_S: Final = 12  # no registered line is nearly so long; longer speech is not analysed

# Power in a band = r0 + 2 * sum(bartlett(k) * r_k * cos(w k)); never far below zero.
_KERNELS: Final = tuple(
    (
        1.0,
        *(
            2 * (1 - k / (LAGS + 1)) * math.cos(2 * math.pi * hz / 8000 * k)
            for k in range(1, LAGS + 1)
        ),
    )
    for hz in BAND_HZ
)
BANDS: Final = len(BAND_HZ)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The trimmed band envelopes, frame after frame, as heights above the floor."""

    frames: int
    heights: Sequence[float]


class Ear:
    """Analyses an utterance piece by piece: 60 us a frame, which a busy daemon takes in slices."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []
        self._powers: list[float] = []

    def feed(self, pcm: bytes) -> None:
        """Analyse PCM16 at 8 kHz; a piece is a whole number of frames, but for the last."""
        with memoryview(pcm) as view, view[: len(pcm) // 2 * 2].cast("h") as samples:
            for start in range(0, len(samples) - FRAME + 1, FRAME):
                frame = samples[start : start + FRAME]
                lags: list[int] = [sum(map(mul, frame, frame[k:])) for k in range(LAGS + 1)]
                self._powers.append(lags[0])
                self._rows.append([max(1.0, sum(map(mul, kernel, lags))) for kernel in _KERNELS])

    def envelope(self) -> Envelope:
        """Return what has been heard, without the silence around it."""
        if not self._rows:
            return Envelope(0, ())
        loudest = max(self._powers)
        active = [i for i, power in enumerate(self._powers) if power >= loudest * 10**-2.5]
        rows = self._rows[active[0] : active[-1] + 1]
        floor = math.log10(max(max(row) for row in rows)) - RANGE
        heights = [max(0.0, math.log10(value) - floor) for row in rows for value in row]
        return Envelope(len(rows), heights)

    def recognise(self) -> str | None:
        """Return the name of the caller's line that this was, or None; needs `prepare`."""
        heard = self.envelope()
        score, name = max((likeness(heard, known), name) for name, known in _registered)
        return name if score >= SIMILAR else None


def likeness(one: Envelope, other: Envelope) -> float:
    """Return the best correlation at any small offset; -1 where the lengths differ much."""
    short, long = sorted((one, other), key=lambda e: e.frames)
    if not short.frames or short.frames < long.frames * (1 - LENGTHS):
        return -1.0
    total = (long.frames + SHIFT) * BANDS
    best = -1.0
    padded = [0.0] * (SHIFT * BANDS) + list(long.heights) + [0.0] * (SHIFT * BANDS)
    mean_a, mean_b = sum(short.heights) / total, sum(long.heights) / total
    spread_a = sum(map(mul, short.heights, short.heights)) - total * mean_a**2
    spread_b = sum(map(mul, long.heights, long.heights)) - total * mean_b**2
    if spread_a <= 0 or spread_b <= 0:
        return -1.0
    for offset in range(len(padded) // BANDS - short.frames + 1):
        window = padded[offset * BANDS : (offset + short.frames) * BANDS]
        shared = sum(map(mul, short.heights, window)) - total * mean_a * mean_b
        best = max(best, shared / math.sqrt(spread_a * spread_b))
    return best


_registered: Final[list[tuple[str, Envelope]]] = []


async def prepare() -> None:
    """Analyse the callers' lines, 40 ms of work, in slices; the first recognition needs them."""
    for name in clips.names("caller")[len(_registered) :]:
        pcm = clips.load(name).pcm
        known = await _analyse(pcm)
        if all(name != other for other, _ in _registered):  # two may prepare at a time
            _registered.append((name, known.envelope()))


async def _analyse(pcm: bytes) -> Ear:
    ear = Ear()
    for start in range(0, len(pcm), SLICE):
        ear.feed(pcm[start : start + SLICE])
        await trio.lowlevel.checkpoint()
    return ear


async def recognise(pcm: bytes) -> str | None:
    """Return the name of the caller's line that this is, or None. PCM16 at 8 kHz, one utterance.

    Gives other tasks their turn every 20 frames, about a millisecond of work.
    """
    if len(pcm) > LONGEST_S * 16000:
        return None
    await prepare()
    return (await _analyse(pcm)).recognise()
