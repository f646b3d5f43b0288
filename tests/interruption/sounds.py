"""What callers' lines carry that is not speech, synthesised at 8 kHz; at the level of -20 dBFS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from tests.interruption.recordings import Signal, level

__all__ = ["COUGHS", "OTHERS", "dtmf"]

Draw = np.random.Generator
ROWS: Final = (697, 770, 852, 941)
COLUMNS: Final = (1209, 1336, 1477, 1633)


def _levelled(signal: Signal) -> Signal:
    return signal * (3276.8 / level(signal))


def _coloured(
    draw: Draw, length: int, tilt_db: float, formants: list[tuple[float, float]]
) -> Signal:
    """Noise that falls by `tilt_db` per octave above 300 Hz, with resonances (Hz, Q)."""
    f = np.fft.rfftfreq(length, 1 / 8000)
    gain = np.maximum(f, 300) / 300
    shape = gain ** (tilt_db / 6.02) * (f > 120)
    peaks = np.full(len(f), 0.3)
    for centre, quality in formants:
        peaks += 1 / (1 + (quality * (f / centre - centre / np.maximum(f, 1))) ** 2)
    spectrum = (draw.normal(size=len(f)) + 1j * draw.normal(size=len(f))) * shape * peaks
    return np.fft.irfft(spectrum, length)


def _envelope(length: int, attack_ms: float, decay: float) -> Signal:
    t = np.arange(length) / 8
    rise = np.minimum(1, t / attack_ms)
    shape: Signal = rise * np.exp(-decay * t / t[-1])
    return shape


def _burst(draw: Draw, ms: float) -> Signal:
    length = int(ms * 8)
    formants = [(draw.uniform(350, 900), draw.uniform(1, 4)), (draw.uniform(1000, 2200), 3.0)]
    noise = _coloured(draw, length, draw.uniform(-6, 0), formants)
    return noise * _envelope(length, draw.uniform(3, 15), draw.uniform(2, 5))


def _glottal(draw: Draw, length: int, pitch: float, roughness: float) -> Signal:
    """Pulses whose period and strength wander by `roughness`, through one formant."""
    out = np.zeros(length)
    at = 0.0
    while at < length:
        out[int(at)] = 1 + roughness * draw.normal()
        at += 8000 / pitch * (1 + roughness * draw.normal() / 2)
        at = max(at, 0)
    t = np.arange(120)
    formant = np.exp(-t / 25) * np.cos(2 * np.pi * draw.uniform(400, 700) * t / 8000)
    return np.convolve(out, formant)[:length]


def cough(draw: Draw) -> Signal:
    """One to three bursts of noise."""
    parts = []
    for _ in range(draw.integers(1, 4)):
        parts += [_burst(draw, draw.uniform(50, 300)), np.zeros(int(draw.uniform(30, 200) * 8))]
    return _levelled(np.concatenate(parts))


def cough_with_voice(draw: Draw) -> Signal:
    """The three phases of a cough: burst, hiss, and up to 80 ms of rough voice at its end."""
    burst = _burst(draw, draw.uniform(50, 150))
    hiss = 0.4 * _coloured(draw, int(draw.uniform(80, 200) * 8), -3, [(600, 2.0)])
    length = int(draw.uniform(40, 80) * 8)
    voice = _glottal(draw, length, draw.uniform(120, 300), 0.25) * np.hanning(length)
    voice *= 0.5 * np.abs(burst).max() / np.abs(voice).max()
    hiss *= 0.4 * burst.std() / hiss.std()
    return _levelled(np.concatenate([burst, hiss, voice]))


def throat(draw: Draw) -> Signal:
    """A throat cleared: noise gated by the folds' slow flutter at 25 to 60 Hz, twice."""
    parts = []
    for _ in range(2):
        length = int(draw.uniform(120, 280) * 8)
        phase = 2 * np.pi * np.cumsum(draw.uniform(25, 60) * (1 + 0.2 * draw.normal(size=length)))
        flutter = 0.4 + 0.6 * (np.cos(phase / 8000) > 0)
        noise = _coloured(draw, length, -4, [(draw.uniform(300, 600), 2.0)])
        parts += [noise * flutter * np.hanning(length), np.zeros(480)]
    return _levelled(np.concatenate(parts))


def breath(draw: Draw) -> Signal:
    """Breath into the microphone: weak hiss that swells and fades."""
    length = int(draw.uniform(300, 900) * 8)
    noise = _coloured(draw, length, draw.uniform(-6, 0), [(draw.uniform(500, 1500), 1.0)])
    return _levelled(noise * np.hanning(length))


def clicks(draw: Draw) -> Signal:
    """Crackle: two to eight clicks of some milliseconds in 60 to 300 ms."""
    out = np.zeros(int(draw.uniform(60, 300) * 8) + 80)
    for _ in range(draw.integers(2, 9)):
        at = draw.integers(0, len(out) - 80)
        t = np.arange(80)
        out[at : at + 80] += draw.normal() * np.exp(-t / draw.uniform(2, 15))
    return _levelled(out)


def rumble(draw: Draw) -> Signal:
    """Wind, a chair, a passing lorry: noise below 500 Hz."""
    length = int(draw.uniform(200, 800) * 8)
    return _levelled(
        _coloured(draw, length, -12, [(draw.uniform(150, 400), 1.0)]) * np.hanning(length)
    )


def hiss(draw: Draw) -> Signal:
    """A steady noise that begins."""
    return _levelled(_coloured(draw, 12_000, draw.uniform(-6, 3), [(1000, 0.5)]))


def dtmf(digit: int, twist_db: float, ms: int) -> Signal:
    """Key 4 * row + column; `twist_db` is how much stronger the column's tone is."""
    t = np.arange(ms * 8) / 8000
    row, column = ROWS[digit // 4], COLUMNS[digit % 4]
    both = np.sin(2 * np.pi * row * t) + 10 ** (twist_db / 20) * np.sin(2 * np.pi * column * t)
    return _levelled(both)


COUGHS: Final[dict[str, Callable[[Draw], Signal]]] = {
    "cough": cough,
    "cough with voice": cough_with_voice,
    "throat": throat,
    "breath": breath,
    "clicks": clicks,
}
OTHERS: Final[dict[str, Callable[[Draw], Signal]]] = {"rumble": rumble, "hiss": hiss}
