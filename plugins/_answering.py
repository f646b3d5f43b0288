"""When an answering machine has said its announcement: after its beep, or once it is silent.

Pure: PCM16 of one channel in, a verdict out; the only clock is the audio.
"""

from __future__ import annotations

import math
from array import array
from operator import mul
from typing import Final, Literal

from voiced.plugin import Vad, VadStopped

__all__ = ["Announcement", "Beep"]

_FRAME_MS: Final = 20
_LEAST_FRAMES: Final = 7  # 140 ms; beeps of machines last 200 ms and more
_MOST_FRAMES: Final = 150  # 3 s; what lasts longer is a dial tone or a fax
_QUIETEST: Final = 100.0**2  # mean square, about -50 dBFS; machines beep far louder
_IMPURITY: Final = 0.05
"""How much of a frame may be something else than one sinusoid: noise 20 dB below it."""
_PITCH_STEP: Final = 0.02  # a voice's pitch moves by more from frame to frame, a beep's does not
_LEVEL_STEP: Final = 1.6  # of the mean square, 2 dB
_LOWEST_HZ: Final = 350.0  # below it a hum is as pure as a beep
_HIGHEST_HZ: Final = 2200.0


class Beep:
    """Finds a steady tone that ends: a sinusoid obeys x[n+1] + x[n-1] = 2 cos(w) x[n]."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._frame = rate * _FRAME_MS // 1000
        self._samples = array("h")
        self._run = 0  # frames of one tone so far
        self._hz = self._power = 0.0
        self._doubtful = False

    def feed(self, pcm16: bytes) -> bool:
        """Take audio of whole samples; True once a beep has ended in it."""
        self._samples.frombytes(pcm16)
        ended = False
        while len(self._samples) >= self._frame:
            frame = self._samples[: self._frame]
            del self._samples[: self._frame]
            ended = self._take(frame) or ended
        return ended

    def _take(self, frame: array[int]) -> bool:
        hz, power = self._tone(frame)
        if hz and self._run and abs(hz - self._hz) <= _PITCH_STEP * self._hz:
            if power > self._power * _LEVEL_STEP:
                self._run, self._hz, self._power = 1, hz, power  # it only begins
            elif power >= self._power / _LEVEL_STEP:
                self._run += 1
                if self._run == 2:  # the first frame may be the tone's in part, and its pitch off
                    self._hz, self._power = hz, power
            return False  # else it fades within this frame
        long_enough = _LEAST_FRAMES <= self._run <= _MOST_FRAMES
        if long_enough and power < self._power / _LEVEL_STEP:
            ended = True
        elif long_enough and not self._doubtful and power <= self._power * _LEVEL_STEP:
            # It may end within this frame, and what is left not tell its pitch; the next decides.
            self._doubtful = True
            return False
        else:
            ended = False
        self._doubtful = False
        self._run, self._hz, self._power = int(hz > 0), hz, power
        return ended

    def _tone(self, frame: array[int]) -> tuple[float, float]:
        """The frequency of a frame that is one tone, else 0; and its mean square."""
        middle = frame[1:-1]
        beside = [one + other for one, other in zip(frame, frame[2:], strict=False)]
        squares = sum(map(mul, middle, middle))
        power = squares / len(middle)
        if power < _QUIETEST:
            return 0.0, power
        slope = sum(map(mul, beside, middle)) / squares  # 2 cos(w) that fits best
        rest = sum(map(mul, beside, beside)) - slope * slope * squares
        if abs(slope) >= 2.0 or rest > _IMPURITY * squares:
            return 0.0, power
        hz = math.acos(slope / 2) * self._rate / math.tau
        return (hz if _LOWEST_HZ <= hz <= _HIGHEST_HZ else 0.0), power


class Announcement:
    """Waits for the end of an announcement: a beep, or so much silence after speech."""

    def __init__(self, rate: int, silence_ms: int) -> None:
        self._beep = Beep(rate)
        self._vad = Vad(rate=rate, silence_ms=silence_ms)

    def feed(self, pcm16: bytes) -> Literal["beep", "silence"] | None:
        """Take audio of whole samples; says what ended the announcement, once it has."""
        stopped = any(isinstance(event, VadStopped) for event in self._vad.feed(pcm16))
        if self._beep.feed(pcm16):
            return "beep"
        return "silence" if stopped else None
