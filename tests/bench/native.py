"""What the native audio costs, a 20 ms frame at a time, beside its peers; and how good it is.

    python -m tests.bench.native [--json FILE] [--quick]

Times are the least of several runs, in ns per frame, the call from Python included: other load on
the machine only ever adds. Peers: `audioop` (to Python 3.12), `g711` (float32 in and out), `soxr`
(a stream at quality HQ; its delay is the most
that it has held back after a frame).
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import sys
import timeit
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import g711
import numpy as np
import soxr

from tests.bench.sweep import ours, soxr_hq, sweep
from voiced import audio
from voiced.formats import (
    PCM16_8K,
    PCM16_16K,
    PCM16_24K,
    PCM16_48K,
    PCMA_8K,
    PCMU_8K,
    AudioFormat,
    Encoding,
)

audioop: ModuleType | None = None
if sys.version_info < (3, 13):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop

RATES: Final = (PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K)
FUSED: Final = [
    (a, b) for law in (PCMU_8K, PCMA_8K) for a, b in ((law, PCM16_24K), (PCM16_24K, law))
]

Row = dict[str, Any]


def nanoseconds(call: Callable[[], object], *, quick: bool) -> float:
    """The least time of one call, as the mean of a run short enough to be left in peace."""
    number, repeat = (500, 30) if quick else (500, 300)
    return min(timeit.repeat(call, number=number, repeat=repeat)) / number * 1e9


def frame(audio_format: AudioFormat) -> bytes:
    """20 ms of noise."""
    return random.Random(1).randbytes(audio_format.frame_bytes)


def codec_calls() -> dict[str, dict[str, Callable[[], object]]]:
    """Each codec step with its peers; before them, what the call from Python costs by itself."""
    nothing = converter_call(PCMU_8K, PCM16_24K, "fir", data=b"")
    codes, pcm = frame(PCMU_8K), frame(PCM16_8K)
    floats = (np.frombuffer(pcm, "<i2") / 32768).astype(np.float32)
    calls: dict[str, dict[str, Callable[[], object]]] = {
        "nothing converted": {"voiced": nothing},
        "mu-law decode": {
            "voiced": lambda: audio.ulaw_to_pcm(codes),
            "g711": lambda: g711.decode_ulaw(codes),
        },
        "mu-law encode": {
            "voiced": lambda: audio.pcm_to_ulaw(pcm),
            "g711": lambda: g711.encode_ulaw(floats),
        },
        "A-law decode": {
            "voiced": lambda: audio.alaw_to_pcm(codes),
            "g711": lambda: g711.decode_alaw(codes),
        },
        "A-law encode": {
            "voiced": lambda: audio.pcm_to_alaw(pcm),
            "g711": lambda: g711.encode_alaw(floats),
        },
        "mu-law to A-law": {"voiced": lambda: audio.ulaw_to_alaw(codes)},
        "energy": {"voiced": lambda: audio.energy(pcm)},
        "mix": {"voiced": lambda: audio.mix(pcm, pcm)},
        "interleave": {"voiced": lambda: audio.interleave(pcm, pcm)},
    }
    if (old := audioop) is not None:
        calls["mu-law decode"]["audioop"] = lambda: old.ulaw2lin(codes, 2)
        calls["mu-law encode"]["audioop"] = lambda: old.lin2ulaw(pcm, 2)
        calls["A-law decode"]["audioop"] = lambda: old.alaw2lin(codes, 2)
        calls["A-law encode"]["audioop"] = lambda: old.lin2alaw(pcm, 2)
        calls["energy"]["audioop"] = lambda: old.rms(pcm, 2)
        calls["mix"]["audioop"] = lambda: old.add(pcm, pcm, 2)
    return calls


def converter_call(
    source: AudioFormat, target: AudioFormat, quality: audio.Quality, *, data: bytes | None = None
) -> Callable[[], object]:
    """One frame, or `data`, through a stream of our own."""
    convert = audio.Converter(source, target, quality).convert
    given = frame(source) if data is None else data
    return lambda: convert(given)


def ratecv_call(old: ModuleType, source: AudioFormat, target: AudioFormat) -> Callable[[], object]:
    """One frame through `audioop`: decode, resample, encode, as far as needed."""
    state: list[Any] = [None]
    data = frame(source)

    def call() -> object:
        pcm = data
        if source.encoding is not Encoding.PCM16:
            pcm = (old.ulaw2lin if source.encoding is Encoding.PCMU else old.alaw2lin)(pcm, 2)
        pcm, state[0] = old.ratecv(pcm, 2, 1, source.rate, target.rate, state[0])
        if target.encoding is not Encoding.PCM16:
            pcm = (old.lin2ulaw if target.encoding is Encoding.PCMU else old.lin2alaw)(pcm, 2)
        return pcm

    return call


def soxr_call(source: AudioFormat, target: AudioFormat) -> Callable[[], object]:
    """One frame of PCM16 through a soxr stream, bytes to bytes."""
    stream = soxr.ResampleStream(source.rate, target.rate, 1, dtype="int16", quality="HQ")
    data = frame(source)
    return lambda: stream.resample_chunk(np.frombuffer(data, "<i2")).tobytes()


def cost(*, quick: bool) -> list[Row]:
    """A row for each step: its name and ns per 20 ms frame of each implementation."""
    rows: list[Row] = []
    for name, calls in codec_calls().items():
        rows.append({"step": name} | {k: nanoseconds(v, quick=quick) for k, v in calls.items()})
    for source, target in [*itertools.permutations(RATES, 2), *FUSED]:
        calls = {
            "voiced": converter_call(source, target, "fir"),
            "voiced linear": converter_call(source, target, "linear"),
        }
        if audioop is not None:
            calls["audioop"] = ratecv_call(audioop, source, target)
        if source.encoding is target.encoding is Encoding.PCM16:
            calls["soxr"] = soxr_call(source, target)
        step = f"{source} to {target}"
        rows.append({"step": step} | {k: nanoseconds(v, quick=quick) for k, v in calls.items()})
    return rows


def soxr_held_ms(source: AudioFormat, target: AudioFormat) -> float:
    """The most audio missing after any of a second's 20 ms frames."""
    stream = soxr.ResampleStream(source.rate, target.rate, 1, dtype="int16", quality="HQ")
    samples, came, held = np.zeros(source.rate // 50, "<i2"), 0, 0
    for frames in range(1, 51):
        came += len(stream.resample_chunk(samples))
        held = max(held, frames * target.rate // 50 - came)
    return held * 1000 / target.rate


def quality() -> list[Row]:
    """A row for each direction and implementation: ripple, images or aliases, delay."""
    rows: list[Row] = []
    for source, target in itertools.permutations(RATES, 2):
        for name, resample in (
            ("voiced fir", ours("fir")),
            ("voiced linear", ours("linear")),
            ("soxr HQ", soxr_hq),
        ):
            figures = sweep(resample, source.rate, target.rate)
            delay_ms = soxr_held_ms(source, target)
            if name.startswith("voiced"):
                stream = audio.Converter(source, target, "fir" if "fir" in name else "linear")
                delay_ms = stream.delay_ms
            rows.append(
                {
                    "step": f"{source.rate} to {target.rate}",
                    "by": name,
                    "ripple_db": figures.ripple_db,
                    "unwanted_db": figures.unwanted_db,
                    "delay_ms": delay_ms,
                }
            )
    return rows


def show(costs: list[Row], qualities: list[Row]) -> None:
    """Print both tables."""
    columns = ("voiced", "voiced linear", "audioop", "g711", "soxr")
    print(f"{'ns per 20 ms frame':<28}" + "".join(f"{name:>15}" for name in columns))
    for row in costs:
        cells = (f"{row[name]:.0f}" if name in row else "-" for name in columns)
        print(f"{row['step']:<28}" + "".join(f"{cell:>15}" for cell in cells))
    print()
    print(f"{'tone sweep':<16}{'':<16}{'ripple dB':>10}{'unwanted dB':>13}{'delay ms':>10}")
    for row in qualities:
        figures = f"{row['ripple_db']:>10.2f}{row['unwanted_db']:>13.1f}{row['delay_ms']:>10.2f}"
        print(f"{row['step']:<16}{row['by']:<16}{figures}")


def main() -> int:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description="cost and quality of the native audio")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, more noise")
    arguments = parser.parse_args()
    costs, qualities = cost(quick=arguments.quick), quality()
    show(costs, qualities)
    if arguments.json is not None:
        machine = {"machine": platform.machine(), "python": platform.python_version()}
        document = {**machine, "ns_per_frame": costs, "quality": qualities}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
