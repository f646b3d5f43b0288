"""Models of what a line sends back of what it plays: a path, a non-linearity, noise, mu-law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.interruption.recordings import Signal
from voiced import audio

__all__ = ["PATHS", "Line", "path_of", "ulaw"]

Paths = dict[str, Callable[[np.random.Generator], Signal]]


def _flat(_: np.random.Generator) -> Signal:
    return np.array([1.0])


def _low_pass(draw: np.random.Generator) -> Signal:
    """A handset's: little is left above 1 to 2.5 kHz."""
    t = np.arange(-24, 25)
    cut = draw.uniform(1000, 2500) / 4000
    taps: Signal = np.sinc(cut * t) * np.hamming(49)
    return taps


def _hybrid(draw: np.random.Generator) -> Signal:
    """A two-wire line's hybrid: some milliseconds of ringing, no low frequencies."""
    t = np.arange(96)
    ringing = np.zeros(96)
    for _ in range(3):
        wave = np.cos(2 * np.pi * draw.uniform(400, 3000) * t / 8000 + draw.uniform(0, 6.3))
        ringing += draw.uniform(0.3, 1) * wave * np.exp(-t / draw.uniform(6, 20))
    taps: Signal = ringing - ringing.mean()
    return taps


def _two_taps(draw: np.random.Generator) -> Signal:
    """A near and a far hybrid, 10 to 120 ms apart."""
    taps = np.zeros(1 + int(draw.uniform(80, 960)))
    taps[0], taps[-1] = 1, draw.choice([-1, 1]) * draw.uniform(0.3, 0.8)
    return taps


def _room(draw: np.random.Generator) -> Signal:
    """A loudspeaker telephone: the direct sound, then a tail of 60 dB in 150 to 300 ms."""
    length = int(draw.uniform(0.15, 0.3) * 8000)
    t = np.arange(length)
    tail = draw.normal(0, 0.12, length) * 10 ** (-3 * t / length)
    tail[0] = 1
    tail[1:16] *= 0.2
    return tail


PATHS: Final[Paths] = {
    "flat": _flat,
    "low pass": _low_pass,
    "hybrid": _hybrid,
    "two taps": _two_taps,
    "room": _room,
}


def path_of(name: str, draw: np.random.Generator, speech: Signal, echo_db: float) -> Signal:
    """The path `name` whose echo of `speech` is `echo_db` beside it."""
    taps = PATHS[name](draw)
    echo = np.convolve(speech, taps)
    gain = float(np.sqrt((speech**2).sum() / (echo**2).sum())) * 10 ** (echo_db / 20)
    return taps * gain


def ulaw(signal: Signal) -> bytes:
    """`signal` as a carrier sends it."""
    return audio.pcm_to_ulaw(np.clip(np.rint(signal), -32768, 32767).astype("<i2").tobytes())


@dataclass
class Line:
    """One call's line, 20 ms at a time.

    `distortion` is that of a loudspeaker driven at the level of its speech, third order: 0.1 makes
    products some 25 dB below the echo. `clip` limits what is played at so many times its root mean
    square. `holes`: (ms, length in ms) at which what is heard breaks off, and goes on later by
    that, as playout does whose buffer grows.
    """

    taps: Signal
    delay_ms: int
    distortion: float = 0.0
    clip: float = 100.0
    noise_dbfs: float = -65.0
    seed: int = 0
    holes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)
        self._past = np.zeros(len(self.taps) - 1 + self.delay_ms * 8)
        self._waiting = np.zeros(0)
        self._now = 0  # samples

    def back(self, heard: Signal) -> Signal:
        """What comes back, noise included, while `heard` is being heard; 8 kHz."""
        rms = 3276.8
        heard = self._playout(heard)
        driven = np.clip(heard, -self.clip * rms, self.clip * rms)
        driven = driven - self.distortion * rms * np.clip(driven / rms, -2, 2) ** 3 / 3
        self._past = np.concatenate([self._past, driven])
        length = len(heard)
        window = self._past[: len(self.taps) - 1 + length]
        echo = np.convolve(window, self.taps, "valid")
        self._past = self._past[length:]
        noise: Signal = self._draw.normal(0, 32768 * 10 ** (self.noise_dbfs / 20), length)
        back: Signal = echo + noise
        return back

    def _playout(self, heard: Signal) -> Signal:
        """What is heard by way of a buffer that grows at each hole."""
        length = len(heard)
        waiting = np.concatenate([self._waiting, heard])
        for at_ms, hole_ms in self.holes:
            if 0 <= at_ms * 8 - self._now < length:
                waiting = np.insert(waiting, at_ms * 8 - self._now, np.zeros(hole_ms * 8))
        self._now += length
        self._waiting = waiting[length:]
        return waiting[:length]
