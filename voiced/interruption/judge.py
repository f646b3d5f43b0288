"""Is it the caller who speaks? The decision, from what the echo's analysis says of each frame.

A frame speaks for the caller if what the echo does not explain is loud enough beside the echo (a
path is never found exactly, and rooms ring on) and beside the line's noise, and voiced: periodic,
with a pitch that stays and is not the echo's, which distortion and a path that was
found badly would leave. Coughs, breath, clicks and noise are not; digit tones are told by their
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
ECHO_REST_LEAST: Final = 0.12  # of an echo's power may be left unexplained, on the best of lines
ECHO_REST_MOST: Final = 0.45
TYPICAL: Final = 0.35
TIMES_TYPICAL: Final = 5.0
RING: Final = 0.6  # how much of an echo's power may ring on a frame later
VOICED: Final = 0.6
CLEAN: Final = 0.85
STRONG: Final = 0.8  # which a voice reaches, and narrow noise seldom
TONE: Final = 0.75
RUN: Final = 2  # frames in a row, else chance
ALIKE: Final = 0.8  # of its periodicity, kept at the echo's period: what is left of the echo
OWN: Final = 1.5  # of an echo and its ring: such a sound is louder, and somebody's own
CLEAR: Final = 0.5  # of an echo and its ring: more is not left by either


@dataclass(frozen=True, slots=True)
class Findings:
    """What a window holds, in ms."""

    voiced_ms: int  # of the caller's voice
    clear_ms: int  # thereof well above what an echo, or a room's tail, may leave
    clean_ms: int  # thereof nearly periodic: the end of a cough is rougher
    tone_ms: int  # of a digit tone
    rest_ms: int  # of anything that the echo does not explain
    echo_share: float  # of the power that came back, what the echo explains


_END: Final = EchoFrame(0, 0, 0, 0, 0, 0, 0, 0)


def find(frames: Sequence[EchoFrame], count_from: int) -> Findings:
    """Judge `frames[count_from:]`; those before are heard for the noise and for what rings on."""
    powers = sorted(frame.near for frame in frames if frame.near)  # 0: before the call began
    noise = min(powers[len(powers) // 20], NOISE_MOST) if powers else 0.0
    least = max(QUIETEST, ABOVE_NOISE * noise)
    rings, ring = [], 0.0
    for frame in frames:
        ring = ring * RING + min(frame.echo, frame.near)
        rings.append(ring)
    unexplained = _unexplained(frames, rings, least)
    voiced = clear = clean = tone = rest = 0
    near_sum = echo_sum = 0.0
    run: list[tuple[float, bool]] = []  # how periodic, whether clear
    period = 0
    for frame, ring in zip([*frames[count_from:], _END], [*rings[count_from:], 0.0], strict=True):
        near_sum += frame.near
        echo_sum += min(frame.echo, frame.near)
        left = min(frame.rest, frame.near)  # a path that another moment gave may add
        loud = left > least and left > unexplained * ring
        rest += loud
        tonal = loud and frame.tone > TONE
        tone += tonal
        echoes = frame.alike > ALIKE * frame.voice and left < OWN * ring
        speaks = loud and not tonal and not echoes and frame.voice > VOICED
        if not (speaks and _continues(period, frame.period)):
            if len(run) >= RUN and max(run)[0] > STRONG:
                voiced += len(run)
                clear += sum(is_clear for _, is_clear in run)
                clean += sum(is_clear and voice > CLEAN for voice, is_clear in run)
            run = []
        if speaks:
            run.append((frame.voice, left > CLEAR * ring and left > 2 * least))
            period = frame.period
    share = echo_sum / near_sum if near_sum else 0.0
    return Findings(
        voiced * FRAME_MS,
        clear * FRAME_MS,
        clean * FRAME_MS,
        tone * FRAME_MS,
        rest * FRAME_MS,
        share,
    )


def _continues(before: int, now: int) -> bool:
    """Whether a pitch is that of 20 ms before, or what an octave's error makes of it."""
    reach = 2 + before // 4
    return min(abs(now - before), abs(now - 2 * before) // 2, abs(2 * now - before)) <= reach


def _unexplained(frames: Sequence[EchoFrame], rings: Sequence[float], least: float) -> float:
    """How much of an echo a frame may hold beyond what is explained.

    From the better half of the frames in which there is an echo: in them the caller is silent.
    """
    ratios = sorted(
        min(frame.rest, frame.near) / ring
        for frame, ring in zip(frames, rings, strict=True)
        if min(frame.echo, frame.near) > 4 * least
    )
    if not ratios:
        return ECHO_REST_LEAST
    typical = ratios[int(len(ratios) * TYPICAL)]
    return min(ECHO_REST_MOST, max(ECHO_REST_LEAST, TIMES_TYPICAL * typical))
