"""Is it the caller who speaks? The decision, from what the echo's analysis says of each frame.

A frame speaks for the caller if, in the band of pitch, what the echo does not explain is loud
enough beside the echo (a path is never found exactly, and rooms ring on) and beside the line's
noise. What such frames hold together has to be a voice: periodic, with a pitch that glides and is
not the echo's, which distortion and a path that was found badly would leave. Coughs, breath, clicks
and noise are not; digit tones are told by their frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from voiced.audio import EchoFrame, EchoPath

__all__ = ["Findings", "find"]

FRAME_MS: Final = 20
QUIETEST: Final = 30.0**2  # about -60 dBFS: below it nobody speaks
NOISE_MOST: Final = 60.0**2  # a floor above it is speech without pauses, not noise
ABOVE_NOISE: Final = 6.0
REST_LEAST: Final = 0.05  # of an echo's power may be left unexplained, on the best of lines ...
REST_MOST: Final = 0.55  # ... and on the worst
TYPICAL: Final = 0.35
TIMES_TYPICAL: Final = 5.0
SOFTEST: Final = (
    0.006  # beside the loudest that was played: who speaks up is not 25 dB softer in ...
)
SYLLABLE: Final = 3  # ... all of so many frames before and after ...
SOFTEST_OVER_ECHO: Final = 0.01  # ... nor 20 dB in any, where an echo may do more than is known ...
HIDES: Final = 0.09  # ... and has no gain of -10.5 dB, at which it hides much of a caller already
RING: Final = 0.6  # how much of an echo's power may ring on a frame later
LATE: Final = 0.3  # of what rings on, heard once the echo is softer: a path's taps end early
AGAINST: Final = -0.5  # correlation of the rest with the echo: a path that takes off too much
AGAINST_LONG: Final = -0.35  # the same, of three frames
LOUD_LINE: Final = 0.16  # a gain of -8 dB: an echo hides so much of a caller that tails may count
ELSEWHERE: Final = 0.033  # over the gain, squared: of the loudest echo near by may come at another
# time; at -16 dB, where an echo is softer than callers, more than all, at -9 dB next to nothing ...
IF_GONE: Final = 2.0  # ... and so much if it did not come when it should have, ...
GONE: Final = 3.0  # ... which is to be so many times as loud as what came ...
AROUND: Final = 8  # ... so many frames before or after
WEAK: Final = 0.02  # of the loudest echo: errors of a path, not a caller
LOUD_PART: Final = 5  # of the frames, one in so many makes that up
OWN: Final = 6.0  # times what may be left: whatever its pitch, no echo
OWN_MOST: Final = 1.5
MISPLACED: Final = 2.5  # times an echo that is not quite where it was looked for: more is none
MOVED: Final = 4.0  # the same, where the line's delay has just changed
OWN_HIGH: Final = 12.0  # the same of envelopes, which are not compared with its pitch
OWN_HIGH_MOST: Final = 2.0
OTHER: Final = 0.5  # what the weaker of two measures of a voice adds to the other
OTHER_PITCH: Final = 1  # what `Echo.voice` takes for a frame
ANY_PITCH: Final = 2
ENVELOPE: Final = 3
SPARED: Final = 0.999  # of a frame's power is left where a path made it worse
HUM: Final = 0.01  # of the rest's power, in the band of pitch: else that holds but its noise
TONE: Final = 0.75
UNSETTLED: Final = 7  # frames: an echo whose delay has just changed is not yet known for one


@dataclass(frozen=True, slots=True)
class Findings:
    """What a window holds."""

    voice: float  # of the caller's, see `Echo.voice`
    settled: float  # the same, without what came last
    tone_ms: int  # of a digit tone
    rest_ms: int  # of anything that the echo does not explain
    echo_share: float  # of the power that came back, what the echo explains


@dataclass(frozen=True, slots=True)
class _Band:
    """One band's powers, and what of its echo may be left."""

    near: list[float]
    rest: list[float]
    echo: list[float]
    least: float  # below it is noise
    played: float  # the loudest
    may_echo: int  # frames before it may be an echo's by a path that is not known
    rings: list[float]  # of the echo, what still rings of it included
    left: float  # of a ring
    late: list[float]  # of a room's tail, where that is more
    elsewhere: float  # how much of the loudest echo near by may come at another time ...
    if_gone: float  # ... if it did not come when it should have

    @classmethod
    def of(
        cls, powers: list[tuple[float, float, float]], gain: float, played: float, may_echo: int
    ) -> _Band:
        """From (near, echo, rest) of each frame."""
        known = sorted(near for near, _, _ in powers if near)  # 0: before the call began
        noise = min(known[len(known) // 20], NOISE_MOST) if known else 0.0
        least = max(QUIETEST, ABOVE_NOISE * noise)
        rings, ring = [], 0.0
        late = []
        ratios = []
        for near, echo, rest in powers:
            heard = min(echo, near)
            ring = ring * RING + heard
            rings.append(ring)
            late.append(0.0 if gain > LOUD_LINE else LATE * max(0.0, ring - heard / (1 - RING)))
            if heard > 4 * least:
                ratios.append(min(rest, near) / ring)
        left = REST_LEAST
        if ratios:  # of the better half of the frames: in them the caller is silent
            ratios.sort()
            typical = TIMES_TYPICAL * ratios[int(len(ratios) * TYPICAL)]
            left = min(REST_MOST, max(REST_LEAST, typical))
        elsewhere = (ELSEWHERE / max(gain, ELSEWHERE / 2)) ** 2
        # A path that another moment gave may add.
        return cls(
            [near for near, _, _ in powers],
            [min(rest, near) for near, _, rest in powers],
            [echo for _, echo, _ in powers],
            least,
            played,
            may_echo if gain < HIDES else 0,
            rings,
            left,
            late,
            min(IF_GONE, elsewhere),
            0.0 if gain > LOUD_LINE else IF_GONE,
        )

    def loud(self, i: int) -> bool:
        """Whether frame `i` holds more than the echo may leave."""
        return self.rest[i] > max(self.least, self.left * self.rings[i], self.late[i])

    def own(self, i: int, uncertain: bool, fresh: int) -> bool:
        """Whether the rest of frame `i` is none of the echo's own, misplaced or taken off wrongly.

        `uncertain`: the echo's place is not known to the frame; `fresh` as in `EchoFrame`.
        """
        if self._against(i, i + 1, AGAINST) or self._against(max(0, i - 1), i + 2, AGAINST_LONG):
            return False
        if self._soft(i) or self.rest[i] < self._elsewhere(i):
            return False
        if not uncertain:
            return True
        before, after, times = (5, 3, MOVED) if fresh > 1 else (1, 1, MISPLACED)
        return self.rest[i] >= times * max(self.echo[max(0, i - before) : i + after])

    def _against(self, start: int, end: int, most: float) -> bool:
        """Whether the rest is mostly what taking off the echo has added: its opposite."""
        near, echo = sum(self.near[start:end]), sum(self.echo[start:end])
        rest = sum(self.rest[start:end])
        return near - echo - rest < 2 * most * math.sqrt(echo * rest)

    def _soft(self, i: int) -> bool:
        """Whether nobody is that soft who speaks up while, or after, the agent does."""
        if i < self.may_echo and self.rest[i] < SOFTEST_OVER_ECHO * self.played:
            return True
        syllable = self.rest[max(0, i - SYLLABLE) : i + SYLLABLE + 1]
        return max(syllable) < SOFTEST * self.played

    def _elsewhere(self, i: int) -> float:
        """What frame `i` may hold of an echo that comes up to 120 ms later, or 60 ms sooner.

        Much of it, if one that should be heard about that time is not.
        """
        around = range(max(0, i - AROUND), min(len(self.echo), i + AROUND + 1))
        gone = any(self.echo[j] > GONE * max(self.near[j], self.least) for j in around)
        return (self.if_gone if gone else self.elsewhere) * max(self.echo[max(0, i - 6) : i + 4])


def _both(low: float, high: float) -> float:
    """One measure of a voice in the band of pitch and one in the envelope above it.

    A cough may have either by chance; a word has both, unless an echo hides one.
    """
    return max(low, high) + OTHER * min(low, high)


def find(
    frames: Sequence[EchoFrame],
    count_from: int,
    voice: Callable[[bytes], float],
    path: EchoPath,
    may_echo: int,
) -> Findings:
    """Judge `frames[count_from:]`; those before are heard for the noise and for what rings on.

    `voice` and `path` are those of the `Echo` that analysed them. Frames before `may_echo` may hold
    more of an echo than it knows.
    """
    full = _Band.of([(f.near, f.echo, f.rest) for f in frames], path.gain, path.played, may_echo)
    low = _Band.of(
        [(f.low_near, f.low_echo, f.low_rest) for f in frames],
        path.gain,
        path.low_played,
        may_echo,
    )
    loudest = sorted(low.echo)[-(len(frames) // LOUD_PART + 1) :]
    least = max(low.least, WEAK * sum(loudest) / len(loudest)) if frames else 0.0
    own = max(full.left, min(OWN_MOST, OWN * low.left))
    own_high = min(OWN_HIGH_MOST, OWN_HIGH * full.left)
    counts = bytearray(len(frames))
    high = bytearray(len(frames))
    tone = rest = 0
    near_sum = echo_sum = 0.0
    for i in range(count_from, len(frames)):
        frame = frames[i]
        near_sum += frame.near
        echo_sum += min(frame.echo, frame.near)
        loud = full.loud(i)
        tonal = loud and frame.tone > TONE
        rest += loud
        tone += tonal
        if tonal:
            continue
        # Where a delay has changed, nobody knows to the frame which echo this is.
        uncertain = frame.fresh > 0 or frame.rest >= SPARED * frame.near
        if loud and full.rest[i] > own_high * full.rings[i] and full.own(i, uncertain, frame.fresh):
            high[i] = ENVELOPE
        power = low.rest[i]
        if power < least or power < HUM * full.rest[i] or not low.loud(i):
            continue
        if low.own(i, uncertain, frame.fresh):
            counts[i] = ANY_PITCH if power > own * low.rings[i] else OTHER_PITCH
    whole = _both(voice(bytes(counts)), voice(bytes(high)))
    counts[-UNSETTLED:] = high[-UNSETTLED:] = bytes(min(UNSETTLED, len(frames)))
    return Findings(
        whole,
        _both(voice(bytes(counts)), voice(bytes(high))),
        tone * FRAME_MS,
        rest * FRAME_MS,
        echo_sum / near_sum if near_sum else 0.0,
    )
