"""Makes the bundled speech again: `python -m tests.clips.make`. Needs espeak-ng, numpy and soxr.

Trimmed to the speech, low cut at 100 Hz as a telephone has, levelled to -20 dBFS RMS with peaks
below -1 dBFS, faded in and out over 20 ms.
"""

from __future__ import annotations

import io
import subprocess
import tomllib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

RATE = 8000
RMS = 10 ** (-20 / 20)
PEAK = 10 ** (-1 / 20)
FADE = 20 * RATE // 1000
HERE = Path(__file__).parents[2] / "voiced" / "clips"

Samples = npt.NDArray[np.float64]


def synthesise(entry: dict[str, Any], voice: dict[str, Any]) -> Samples:
    done = subprocess.run(
        [
            "espeak-ng",
            *("-v", f"{entry['language']}+{voice['variant']}"),
            *("-p", str(voice["pitch"]), "-s", str(voice["speed"])),
            *("--stdin", "--stdout"),
        ],
        input=entry.get("say", entry["text"]).encode(),
        capture_output=True,
        check=True,
    )
    with wave.open(io.BytesIO(done.stdout)) as wav:
        rate = wav.getframerate()
        raw = np.frombuffer(done.stdout[44:], "<i2").astype(np.float64) / 32768
    return np.asarray(soxr.resample(raw, rate, RATE, quality="VHQ"), dtype=np.float64)


def finish(audio: Samples) -> Samples:
    spectrum = np.fft.rfft(audio)
    hertz = np.fft.rfftfreq(len(audio), 1 / RATE)
    spectrum *= np.clip((hertz - 60) / 60, 0, 1)  # no DC, no rumble
    audio = np.fft.irfft(spectrum, len(audio))
    loud = np.flatnonzero(np.abs(audio) > np.abs(audio).max() * 0.02)
    audio = audio[max(0, loud[0] - FADE) : loud[-1] + FADE]
    audio *= min(RMS / np.sqrt(np.mean(audio**2)), PEAK / np.abs(audio).max())
    ramp = np.sin(np.linspace(0, np.pi / 2, FADE)) ** 2
    audio[:FADE] *= ramp
    audio[-FADE:] *= ramp[::-1]
    return audio


def main() -> None:
    index = tomllib.loads((HERE / "index.toml").read_text("utf-8"))
    for entry in index["clip"]:
        audio = finish(synthesise(entry, index["voices"][entry["role"]]))
        with wave.open(str(HERE / f"{entry['name']}.wav"), "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(RATE)
            wav.writeframes(np.round(audio * 32767).astype("<i2").tobytes())
        print(f"{entry['name']:18} {len(audio) * 1000 // RATE:6} ms")


if __name__ == "__main__":
    main()
