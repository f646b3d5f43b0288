"""Is it the caller who speaks? The decision, from what the echo's analysis says of each frame.

A frame speaks for the caller if what the echo does not explain is loud enough beside the echo (a
path is never found exactly, and rooms ring on) and beside the line's noise, and voiced: periodic,
with a pitch that stays. Coughs, breath, clicks and noise are not; digit tones are told by their
frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from voiced.audio import EchoFrame

__all__ = ["Findings", "find"]

FRAME_MS: Final = 20
QUIETEST: Final = 30.0**2  # about -60 dBFS: below it nobody speaks
NOISE_MOST: Final = 60.0**2  # a floor above it is speech without pauses, not noise
ABOVE_NOISE: Final = 6.0
ECHO_REST: Final = 0.2  # of an echo's power may be left unexplained
RING: Final = 0.6  # how much of an echo's power may ring on a frame later
VOICED: Final = 0.6
TONE: Final = 0.75
RUN: Final = 2  # frames in a row, else chance


@dataclass(frozen=True, slots=True)
class Findings:
    """What a window holds, in ms."""

    voiced_ms: int  # of the caller's voice
    tone_ms: int  # of a digit tone
    rest_ms: int  # of anything that the echo does not explain
    echo_share: float  # of the power that came back, what the echo explains


def find(frames: Sequence[EchoFrame], count_from: int) -> Findings:
    """Judge `frames[count_from:]`; those before are heard for the noise and for what rings on."""
    quiet = sorted(frame.near for frame in frames)[len(frames) // 20] if frames else 0.0
    least = max(QUIETEST, ABOVE_NOISE * min(quiet, NOISE_MOST))
    ring = 0.0
    voiced = run = tone = rest = 0
    near_sum = echo_sum = 0.0
    period = 0
    for index, frame in enumerate(frames):
        ring = max(min(frame.echo, frame.near), ring * RING)
        if index < count_from:
            continue
        near_sum += frame.near
        echo_sum += min(frame.echo, frame.near)
        left = min(frame.rest, frame.near)  # a path that another moment gave may add
        loud = left > least and left > ECHO_REST * ring
        rest += loud
        tonal = loud and frame.tone > TONE
        tone += tonal
        if loud and not tonal and frame.voice > VOICED:
            steady = run and abs(frame.period - period) <= 2 + period // 4
            run = run + 1 if steady else 1
            period = frame.period
            if run == RUN:
                voiced += RUN
            elif run > RUN:
                voiced += 1
        else:
            run = 0
    share = echo_sum / near_sum if near_sum else 0.0
    return Findings(voiced * FRAME_MS, tone * FRAME_MS, rest * FRAME_MS, share)
