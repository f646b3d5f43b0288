"""What a caller heard, found again in the recording."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from voiced import clips
from voiced.audio import ulaw_to_pcm
from voiced.simulate import CallResult

__all__ = ["find", "heard_ms", "locate", "samples", "tone"]

ALIKE = 0.9
"""Normalised correlation: 0.99 for mu-law of the same, 0.9 after linear resampling both ways, 0.3
for another clip of the same voice."""

AUDIBLE = 100  # of PCM16: -50 dBFS

Samples = np.ndarray[Any, np.dtype[np.float64]]


def samples(result: CallResult) -> Samples:
    """What the caller heard, 8 kHz."""
    return np.frombuffer(ulaw_to_pcm(result.agent_ulaw), "<i2").astype(np.float64)


def find(result: CallResult, clip: str) -> float | None:
    """When a clip begins in what was heard, in ms; None where it was not heard to its last word.

    Silence at its ends need not have been heard, nor the part of a frame (20 ms) at which the
    call ended: the recording has whole ones. `unheard_ms` of the result tells of that. A hole in
    the midst of it is a defect, but for one in which the caller itself, in the same process, was
    kept waiting at least as long: no server can speak while nothing runs.
    """
    wanted = np.frombuffer(clips.load(clip).pcm, "<i2").astype(np.float64)
    loud = np.flatnonzero(np.abs(wanted) > AUDIBLE)
    heard, holes = samples(result), []
    for gap in reversed(result.gaps):
        if gap.duration_ms <= result.lag_ms:
            begin = math.ceil(8 * gap.start_ms)
            end = math.ceil(8 * (gap.start_ms + gap.duration_ms))
            heard = np.delete(heard, slice(begin, end))
            holes.append((begin / 8, (end - begin) / 8))
    at = locate(heard, wanted[loud[0] : loud[-1] + 1 - 160])
    if at is None:
        return None
    found: float = at
    for start_ms, length_ms in reversed(holes):
        if start_ms <= found:
            found += length_ms
    return found - float(loud[0]) / 8


def tone(result: CallResult, hertz: int, ms: int) -> float | None:
    """When a tone begins in what was heard, in ms."""
    wanted = np.sin(2 * np.pi * hertz / 8000 * np.arange(8 * ms))
    return locate(samples(result), wanted)


def heard_ms(result: CallResult) -> float:
    """How long the agent was heard."""
    return sum(said.end_ms - said.start_ms for said in result.agent)


def locate(heard: Samples, wanted: Samples) -> float | None:
    """When a sound begins in what was heard, in ms; None where it is not in it."""
    if len(heard) < len(wanted):
        return None
    size = 1 << (len(heard) + len(wanted)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size))
    places = len(heard) - len(wanted) + 1
    correlation = np.fft.irfft(product, size)[:places]
    energy = np.concatenate([[0.0], np.cumsum(heard**2)])
    within = energy[len(wanted) :] - energy[:places]
    floor = 1e-3 * float(wanted @ wanted)
    alike = correlation / np.sqrt(np.maximum(within, floor) * float(wanted @ wanted))
    best = int(np.argmax(alike))
    return best / 8 if alike[best] >= ALIKE else None
