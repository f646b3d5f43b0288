"""What a telephone heard, compared with what was said to it."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voiced import clips
from voiced.audio import converter, ulaw_to_pcm
from voiced.formats import AudioFormat, Encoding

__all__ = ["Found", "Recording", "find", "of_clip", "of_ulaw", "read", "share", "words"]

Samples = np.ndarray[Any, np.dtype[np.float64]]

AUDIBLE = 200  # of PCM16
PIECE_MS = 500  # of speech: long enough to be like nothing else
DRIFT_MS = 30  # how far a piece is looked for from where it belongs


@dataclass(frozen=True, slots=True)
class Recording:
    """Mono, PCM16 values."""

    rate: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Found:
    """Where a clip was found: `alike` is its normalised correlation, -1 to 1."""

    first_ms: float  # its first audible sample
    last_ms: float
    alike: float
    slips_ms: float
    """How far the piece of the clip that lies most wrongly is from its place; a lost packet moves
    all that follow it by 20 ms."""
    gain_db: float


def read(paths: Iterable[Path]) -> Recording:
    """16-bit mono WAVs of one rate, one after the other."""
    rates, parts = set(), []
    for path in paths:
        with wave.open(str(path), "rb") as file:
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2), path
            rates.add(file.getframerate())
            parts.append(file.readframes(file.getnframes()))
    (rate,) = rates
    return Recording(rate, _samples(b"".join(parts)))


def of_clip(name: str, rate: int = 8000) -> Recording:
    """A bundled clip at another rate."""
    return Recording(rate, _samples(_converted(clips.load(name).pcm, rate)))


def of_ulaw(data: bytes) -> Recording:
    """G.711 mu-law at 8 kHz."""
    return Recording(8000, _samples(ulaw_to_pcm(data)))


def words(
    path: Path, plan: Sequence[str | float], rate: int = 8000
) -> dict[str, tuple[float, float]]:
    """Write a WAV of clips (names) and silences (seconds); returns where each clip is, in ms."""
    data, places = bytearray(), {}
    for each in plan:
        begin = len(data) * 500 / rate
        if isinstance(each, str):
            data += _converted(clips.load(each).pcm, rate)
            places[each] = (begin, len(data) * 500 / rate)
        else:
            data += bytes(2 * round(each * rate))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(data))
    return places


def find(heard: Recording, wanted: Recording) -> Found:
    """Where `wanted` is most alike; silence at its ends counts for nothing."""
    assert heard.rate == wanted.rate, (heard.rate, wanted.rate)
    rate = heard.rate
    loud = np.flatnonzero(np.abs(wanted.samples) > AUDIBLE)
    core = wanted.samples[loud[0] : loud[-1] + 1]
    at, alike = _best(heard.samples, core)
    within = heard.samples[at : at + len(core)]
    drift = DRIFT_MS * rate // 1000
    slips = [0.0]
    for begin, part in pieces_of(Recording(rate, core)):
        low = max(0, at + begin - drift)
        near = heard.samples[low : at + begin + len(part) + drift]
        if len(near) >= len(part):
            found, _ = _best(near, part)
            slips.append(abs(found + low - at - begin) * 1000 / rate)
    power = float(np.mean(within**2)) / float(np.mean(core**2)) if len(within) else 0.0
    return Found(
        at * 1000 / rate,
        (at + len(core)) * 1000 / rate,
        alike,
        max(slips),
        10 * float(np.log10(max(power, 1e-9))),
    )


def share(heard: Recording, wanted: Recording) -> float:
    """How much of `wanted` was heard in its order, 0 to 1; small pauses between the pieces count
    for nothing, as they are in the recording of a telephone that plays each packet as it comes."""
    assert heard.rate == wanted.rate
    pieces = pieces_of(wanted)
    found, place = 0, 0
    for _, part in pieces:
        at, alike = _best(heard.samples[place:], part)
        if alike > 0.9:
            found += 1
            place += at + len(part)
    return found / len(pieces)


def pieces_of(wanted: Recording) -> list[tuple[int, Samples]]:
    """Its pieces with the sample at which they begin; pauses between words are like any other."""
    size = PIECE_MS * wanted.rate // 1000
    cut = [
        (begin, wanted.samples[begin : begin + size])
        for begin in range(0, len(wanted.samples) - size + 1, size)
    ]
    return [(begin, part) for begin, part in cut if np.sqrt(np.mean(part**2)) >= AUDIBLE]


def _best(heard: Samples, wanted: Samples) -> tuple[int, float]:
    places = len(heard) - len(wanted) + 1
    if places < 1:
        return 0, -1.0
    size = 1 << (len(heard) + len(wanted)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size))
    correlation = np.fft.irfft(product, size)[:places]
    energy = np.concatenate([[0.0], np.cumsum(heard**2)])
    within = energy[len(wanted) :] - energy[:places]
    own = float(wanted @ wanted)
    alike = correlation / np.sqrt(np.maximum(within, 1e-3 * own) * own)
    best = int(np.argmax(alike))
    return best, float(alike[best])


def _samples(data: bytes) -> Samples:
    return np.frombuffer(data, "<i2").astype(np.float64)


def _converted(pcm: bytes, rate: int) -> bytes:
    """PCM16 of 8 kHz at another rate, by way of 24 kHz where there is no direct one."""
    at = 8000
    for step in {8000: (), 16000: (16000,)}[rate]:
        change = converter(AudioFormat(Encoding.PCM16, at), AudioFormat(Encoding.PCM16, step))
        assert change is not None
        pcm, at = change.convert(pcm) + change.flush(), step
    return pcm
