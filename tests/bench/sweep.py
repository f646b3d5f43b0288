"""Tones through a resampler: how loud they come out, and what comes out beside them.

A tone of whole cycles per measured block needs no window: in the block's spectrum its own bin is
the tone and every other bin is an image, an alias or noise. Figures are in dB relative to the tone
that went in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr

from voiced.audio import Quality, converter
from voiced.formats import AudioFormat, Encoding

__all__ = ["Figures", "Resampler", "ours", "soxr_hq", "sweep"]

Resampler = Callable[[bytes, int, int], bytes]
"""PCM16, its rate, the rate wanted; the result is PCM16."""

AMPLITUDE: Final = 16384.0
SETTLE_MS: Final = 200
BLOCK_MS: Final = 100  # bins of 10 Hz
STEP_HZ: Final = 100  # between tones
SILENT_DB: Final = -200.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One direction. The band and the stop band are those of 8 kHz, 3.2 and 4.8 kHz, in proportion.

    `gain_db` has the gain of each tone of the pass band by its frequency in Hz. `unwanted_db` is
    the loudest single component that is not the tone, over all tones: images when the rate rises
    (tones of the pass band), aliases when it falls (tones of pass and stop band).
    """

    gain_db: dict[int, float]
    unwanted_db: float

    @property
    def ripple_db(self) -> float:
        """The farthest that the gain strays from 0 dB, either way."""
        return max(map(abs, self.gain_db.values()))


def ours(quality: Quality) -> Resampler:
    """voiced's own converter."""

    def resample(pcm: bytes, source: int, target: int) -> bytes:
        formats = [AudioFormat(Encoding.PCM16, rate) for rate in (source, target)]
        stream = converter(formats[0], formats[1], quality)
        return pcm if stream is None else stream.convert(pcm)

    return resample


def soxr_hq(pcm: bytes, source: int, target: int) -> bytes:
    """The reference: soxr at its high quality, over the whole signal."""
    samples = np.frombuffer(pcm, "<i2")
    return bytes(soxr.resample(samples, source, target, "HQ").tobytes())


def decibels(ratio: float) -> float:
    """A ratio of amplitudes."""
    return 20 * math.log10(ratio) if ratio > 0 else SILENT_DB


def sweep(resample: Resampler, source: int, target: int) -> Figures:
    """Measure one direction over its pass band and, where the rate falls, its stop band."""
    lower = min(source, target)
    passed = range(STEP_HZ, lower * 4 // 10 + 1, STEP_HZ)
    stopped = range(lower * 6 // 10, source // 2, STEP_HZ) if target < source else ()
    tones = {hz: _spectrum(resample, source, target, hz) for hz in (*passed, *stopped)}
    unwanted = max(_loudest_other(tones[hz], (hz,) if hz in passed else ()) for hz in tones)
    return Figures({hz: decibels(tones[hz][_bin(hz)]) for hz in passed}, decibels(unwanted))


def _spectrum(resample: Resampler, source: int, target: int, hz: int) -> list[float]:
    """Amplitudes, 1.0 being that of the tone that went in, in bins of 1000 / BLOCK_MS Hz."""
    count = source * (2 * SETTLE_MS + BLOCK_MS) // 1000
    tone = AMPLITUDE * np.sin(2 * np.pi * hz * np.arange(count) / source + 0.3)
    out = resample(np.round(tone).astype("<i2").tobytes(), source, target)
    start = target * SETTLE_MS // 1000
    block = np.frombuffer(out, "<i2")[start : start + target * BLOCK_MS // 1000]
    spectrum = np.abs(np.fft.rfft(block)) * 2 / len(block) / AMPLITUDE
    spectrum[[0, -1]] /= 2  # zero and half the rate have no second half elsewhere
    amplitudes: list[float] = spectrum.tolist()
    return amplitudes


def _bin(hz: int) -> int:
    return hz * BLOCK_MS // 1000


def _loudest_other(spectrum: list[float], wanted: Iterable[int]) -> float:
    bins = {_bin(hz) for hz in wanted}
    return max(amplitude for i, amplitude in enumerate(spectrum) if i not in bins)
