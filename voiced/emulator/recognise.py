"""Recognises the bundled callers' lines, and nothing else, in telephone audio.

Each 20 ms frame gives the logarithm of its power in a few bands, estimated from the first lags of
its autocorrelation (Blackman-Tukey: cheap without an FFT). Two utterances are alike when these
envelopes correlate at some small offset. The mean is taken out, so that gain does not matter, and
what lies 35 dB below the loudest frame counts as silence, so that codec noise does not either.

A sender that was kept from its processor goes on where it stopped: nothing of the line is missing,
but there are silences in it that nobody spoke, and 60 ms of them undo the likeness. What is not
known as it is therefore gets a second chance, with silences left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Final

import trio

from voiced import clips

__all__ = [
    "SIMILAR",
    "SIMILAR_WITHOUT_GAPS",
    "Ear",
    "likeness",
    "likeness_without_gaps",
    "prepare",
    "recognise",
]

FRAME: Final = 160  # 20 ms at 8 kHz
LAGS: Final = 6
BAND_HZ: Final = (250, 800, 1400, 2000, 2700, 3400)
RANGE: Final = 3.5  # decades of power below the loudest frame, 35 dB
SHIFT: Final = 12  # frames; trimming leaves utterances aligned to within 240 ms
LENGTHS: Final = 0.25  # by how much the lengths of the same line may differ
SIMILAR: Final = 0.76  # see tests/emulator/test_recognise.py for what lies on either side
GAPS: Final = 50  # frames; a second in all, of which no half may be in one piece: it ends the turn
GAP_COST: Final = 2.0  # of leaving out what is not silent, against what matching it could gain
SIMILAR_WITHOUT_GAPS: Final = 0.87  # it makes all lines more alike; see the tests here, too
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


def likeness(one: Envelope, other: Envelope) -> float:
    """Return the best correlation at any small offset; -1 where the lengths differ much."""
    short, long = sorted((one, other), key=lambda e: e.frames)
    if not short.frames or short.frames < long.frames * (1 - LENGTHS):
        return -1.0
    padded = _padded(long)
    best = max(
        sum(map(mul, short.heights, padded[at : at + short.frames * BANDS]))
        for at in range(0, len(padded) - short.frames * BANDS + 1, BANDS)
    )
    return _correlation(best, short, long)


def likeness_without_gaps(heard: Envelope, known: Envelope) -> float:
    """Return the best correlation where `heard` may have more silence in it than `known`.

    At any frame of `known` the match may go on at a later one of `heard`: 3 ms of work for a line.
    """
    offsets = heard.frames + 2 * SHIFT - known.frames + 1
    shortest, longest = known.frames * (1 - LENGTHS), known.frames * (1 + LENGTHS) + GAPS
    if not heard.frames or offsets < 1 or not shortest <= heard.frames <= longest:
        return -1.0
    padded = _padded(heard)
    rows = (padded[at : at + BANDS] for at in range(0, len(padded), BANDS))
    costs = [0.0, *accumulate(GAP_COST * sum(map(mul, row, row)) for row in rows)]
    best = [0.0] * offsets  # the most that the frames so far share, by offset of the last
    for frame in range(known.frames):
        wanted = known.heights[frame * BANDS : (frame + 1) * BANDS]
        most = -math.inf
        for offset, shared in enumerate(best):
            after = frame + offset + 1
            there = padded[(after - 1) * BANDS : after * BANDS]
            most = max(most, shared + sum(map(mul, wanted, there)) + costs[after])
            best[offset] = most - costs[after]  # costs from there to here
    return _correlation(max(best), known, heard)


def _padded(envelope: Envelope) -> list[float]:
    silence = [0.0] * (SHIFT * BANDS)
    return [*silence, *envelope.heights, *silence]


def _correlation(shared: float, one: Envelope, other: Envelope) -> float:
    """Of two envelopes whose products sum up to `shared`; -1 where one of them is flat."""
    total = (max(one.frames, other.frames) + SHIFT) * BANDS
    mean_a, mean_b = sum(one.heights) / total, sum(other.heights) / total
    spread_a = sum(map(mul, one.heights, one.heights)) - total * mean_a**2
    spread_b = sum(map(mul, other.heights, other.heights)) - total * mean_b**2
    if spread_a <= 0 or spread_b <= 0:
        return -1.0
    return (shared - total * mean_a * mean_b) / math.sqrt(spread_a * spread_b)


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

    Gives other tasks their turn every 20 frames, about a millisecond of work, and between lines.
    """
    if len(pcm) > LONGEST_S * 16000:
        return None
    await prepare()
    heard = (await _analyse(pcm)).envelope()
    score, name = max((likeness(heard, known), name) for name, known in _registered)
    if score >= SIMILAR:
        return name
    scores = []
    for name, known in _registered:
        scores.append((likeness_without_gaps(heard, known), name))
        await trio.lowlevel.checkpoint()
    score, name = max(scores)
    return name if score >= SIMILAR_WITHOUT_GAPS else None
