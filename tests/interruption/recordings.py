"""Human speech from Debian's packages of Asterisk prompts, at 8 kHz, one array of floats a prompt.

The agent speaks English; callers are other people, and speak French, Italian and Russian. Prompts
are divided into two halves by their names' checksums. Constants were chosen on one half and with
two of the callers; the figures to quote are those of the other half, where two more people call.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from voiced import wav

__all__ = ["AGENT", "CALLERS", "MUSIC", "PACKAGES", "Half", "Signal", "level", "music", "prompts"]

Signal = npt.NDArray[np.float64]
Half = Literal["tuning", "held out"]

SOUNDS: Final = Path("/usr/share/asterisk/sounds")
MUSIC: Final = Path("/usr/share/asterisk/moh")
AGENT: Final = "en_US_f_Allison"
CALLERS: Final[dict[Half, tuple[str, ...]]] = {
    "tuning": ("it_IT_m_Carlo", "fr_CA_f_June"),
    "held out": ("ru_RU_f_IvrvoiceRU", "it_IT_f_Menardi", "it_IT_m_Carlo"),
}
PACKAGES: Final = (
    "asterisk-core-sounds-en-wav",
    "asterisk-core-sounds-fr-wav",
    "asterisk-core-sounds-it-wav",
    "asterisk-core-sounds-ru-wav",
    "asterisk-prompt-it-menardi-wav",
)
FRAME: Final = 160


def level(signal: Signal) -> float:
    """Root mean square of the frames in which somebody speaks: within 25 dB of the loudest."""
    frames = signal[: len(signal) // FRAME * FRAME].reshape(-1, FRAME)
    powers = (frames**2).mean(axis=1)
    return float(np.sqrt(powers[powers > powers.max(initial=0) * 10**-2.5].mean()))


def _load(path: Path) -> Signal:
    read = wav.read(path)
    assert read.format.rate == 8000, path
    signal = np.frombuffer(read.data, "<i2").astype(np.float64)
    if not len(signal):  # there is one such prompt
        return signal
    signal -= signal.mean()
    loud = np.flatnonzero(np.abs(signal) > 0.03 * np.abs(signal).max())
    return signal[loud[0] : loud[-1] + 1]


@functools.cache
def prompts(speaker: str, half: Half, least_ms: int, most_ms: int) -> tuple[Signal, ...]:
    """All prompts of a length, without the silence around them, at the level of -20 dBFS."""
    folder = SOUNDS / speaker
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: apt-get install {' '.join(PACKAGES)}")
    found = []
    for path in sorted(folder.rglob("*.wav")):
        name = str(path.relative_to(folder))
        odd = zlib.crc32(name.encode()) & 1
        if odd != (half == "held out") or "silence" in name or "tone" in name or "beep" in name:
            continue
        signal = _load(path)
        if least_ms * 8 <= len(signal) <= most_ms * 8:
            found.append(signal * (3276.8 / level(signal)))
    return tuple(found)


@functools.cache
def music() -> tuple[Signal, ...]:
    """Music on hold, ten seconds each."""
    found = [_load(path)[:80_000] for path in sorted(MUSIC.rglob("*.wav"))]
    return tuple(signal * (3276.8 / level(signal)) for signal in found)
