"""What was played and what came back, each where it belongs in time, at the echo's rate.

Played audio is told when it is sent and may be heard later; it waits outside until its time is
near, since a `clear` may take it back and the native memory is short. What came back is one stream,
whatever the jitter of its arrival: its place in time is that of the pieces that travelled fastest.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final, final

from voiced import audio
from voiced.formats import PCM16_8K, AudioFormat

__all__ = ["MS", "RATE", "Timeline"]

RATE: Final = audio.ECHO_FORMAT.rate
MS: Final = RATE // 1000  # samples

_JOINED: Final = 40 * MS  # told times jitter; pieces nearer to each other than this adjoin
_AHEAD: Final = 1000 * MS  # of the 4 s remembered, 2 s lie behind what is analysed
_HELD: Final = 25_000 * MS  # of audio that waits: more than any carrier is sent ahead
_LATE: Final = 500 * MS  # a pause in the stream, not jitter
_BLOCK: Final = 1000 * MS


@final
class _Narrowing:
    """From a leg's format to `ECHO_FORMAT`."""

    def __init__(self, leg_format: AudioFormat) -> None:
        steps = [leg_format]
        if leg_format.rate == 2 * PCM16_8K.rate:
            steps.append(PCM16_8K)
        steps.append(audio.ECHO_FORMAT)
        made = (audio.converter(a, b) for a, b in pairwise(steps))
        self._converters = [converter for converter in made if converter is not None]

    def convert(self, data: bytes) -> bytes:
        for converter in self._converters:
            data = converter.convert(data)
        return data


@final
class Timeline:
    """Both signals of one call. Times are seconds of one clock, never negative."""

    def __init__(self, leg_format: AudioFormat) -> None:
        self.echo: Final = audio.Echo()
        self._played = _Narrowing(leg_format)
        self._came = _Narrowing(leg_format)
        self._origin_s: float | None = None
        self._waiting: deque[tuple[int, bytes]] = deque()  # no more than _HELD, see played
        self._next_far: int | None = None  # where what is told next adjoins
        self._now = 0
        self._anchored = False
        self._block_least = 0
        self._block_end = 0
        self.offset = 0  # what came back as sample i came at the time i + offset

    def played(self, payload: bytes, at_s: float) -> None:
        """`payload`, in the leg's format, is heard from `at_s` on."""
        at = self._index(at_s)
        if self._next_far is not None and abs(at - self._next_far) <= _JOINED:
            at = self._next_far
        pcm = self._played.convert(payload)
        self._next_far = at + len(pcm) // 2
        self._waiting.append((at, pcm))
        self._release(max(self._now + _AHEAD, at - _HELD))

    def cleared(self, at_s: float) -> None:
        """Nothing of what was to be heard after `at_s` will be."""
        at = self._index(at_s)
        while self._waiting and self._waiting[-1][0] >= at:
            self._waiting.pop()
        if self._waiting:
            start, pcm = self._waiting[-1]
            self._waiting[-1] = (start, pcm[: 2 * (at - start)])
        self.echo.clear(at)
        self._next_far = None

    def caller(self, payload: bytes, at_s: float) -> None:
        """`payload`, in the leg's format, has just arrived."""
        self.echo.near(self._came.convert(payload))
        at = self._index(at_s)
        self._now = max(self._now, at)
        self._release(self._now + _AHEAD)
        offset = at - self.echo.near_end
        if not self._anchored or offset < self.offset or offset > self.offset + _LATE:
            self._anchored = True
            self.offset = self._block_least = offset
            self._block_end = at + _BLOCK
        elif at >= self._block_end:  # the fastest of the last second: samples may have been lost
            self.offset = min(self._block_least, offset)
            self._block_least = offset
            self._block_end = at + _BLOCK
        else:
            self._block_least = min(self._block_least, offset)

    def _index(self, at_s: float) -> int:
        if self._origin_s is None:
            self._origin_s = at_s - 1  # so that what was told out of order has a place too
        return max(0, round((at_s - self._origin_s) * RATE))

    def _release(self, until: int) -> None:
        while self._waiting and self._waiting[0][0] <= until:
            self.echo.far(*self._waiting.popleft())
