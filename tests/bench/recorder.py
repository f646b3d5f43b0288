"""What recording costs: the daemon under the same load without plugins, with one that hears nothing
(`greeting_cache`), and with `recorder`, in turn.

    python -m tests.bench recorder [--calls 100] [--seconds 20] [--rounds 3] [--json FILE]

The figure is CPU per call, of the daemon's process with its threads; of several rounds the median,
since what else a machine does only adds. Recording may add 15 %.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio
from voiced_plugins._recording import WINDOW_MS, Limits, Recording
from voiced_plugins._timeline import Timeline
from voiced_plugins._wavfile import WavFile

from tests.bench import load, markers, report
from tests.bench.processes import Cores
from tests.bench.report import Row
from voiced.formats import PCM16_8K, PCM16_16K, PCM16_24K, PCMU_8K, AudioFormat

__all__ = ["added_pct", "main"]

PLAIN: Final = "plain"
VARIANTS: Final = {
    PLAIN: "",
    "deaf": "\n[plugins.greeting_cache]\n",
    "recorder": "\n[plugins.recorder]\nmin_free_mb = 1\n",
}


async def alone(source: AudioFormat, target: AudioFormat, seconds: int) -> float:
    """CPU of recording one second of a call, in us: both sides' audio, a write, its thread."""
    piece = bytes(200 * source.bytes_per_ms)  # as the hooks hand it over
    with tempfile.TemporaryDirectory(prefix="voiced-bench-") as folder:
        recording = Recording(
            Timeline(source, target, 2),
            target,
            2,
            Limits(10**9, 10**9, 0),
            Path(folder),
            "bench",
            lambda path: WavFile(path, target, 2, "bench"),
            sealed=False,
            limiter=trio.CapacityLimiter(1),
        )
        began = time.process_time()
        for second in range(seconds):
            for part in range(5):
                at_ms = 1000 * second + 200 * part
                recording.timeline.said(piece, at_ms, at_ms + 200)
                recording.timeline.agent.add(piece, at_ms)
            await recording.write(1000 * second - WINDOW_MS)
        used = time.process_time() - began
        await recording.finish(1000 * seconds)
    return used / seconds * 1e6


async def run(options: load.Options, cores: Cores) -> list[Row]:
    """All variants in turn, as often as asked for; prints each row, then what each adds."""
    for source, target in ((PCMU_8K, PCM16_8K), (PCMU_8K, PCMU_8K), (PCM16_16K, PCM16_24K)):
        each_us = min([await alone(source, target, 1000) for _ in range(3)])
        print(f"alone, {source} to {target}: {each_us:.0f} us of CPU for a second of a call")
    print(report.heading(cores, tls=options.tls, pcm=options.pcm), flush=True)
    rows: list[Row] = []
    for _ in range(options.rounds):
        for calls in options.calls:
            for name, tables in VARIANTS.items():
                asked = msgspec.structs.replace(options, tables=tables)
                with tempfile.TemporaryDirectory(prefix="voiced-bench-") as folder:
                    row = await load.measure("voiced", calls, asked, cores, Path(folder))
                    recorded = sum(path.stat().st_size for path in Path(folder).rglob("*.wav"))
                rows.append(msgspec.structs.replace(row, system=name))
                print(report.line(rows[-1]), flush=True)
                if recorded:
                    print(f"{'':10} {recorded / 2**20:.0f} MiB recorded", flush=True)
    for calls in options.calls:
        for name in VARIANTS:
            if name != PLAIN:
                print(
                    f"{calls} calls: {name} adds {added_pct(rows, name, calls):.1f}% CPU per call"
                )
    return rows


def added_pct(rows: Sequence[Row], name: str, calls: int) -> float:
    """How much more CPU a call takes than in the plain daemon, in percent, by the medians."""
    plain, other = (
        statistics.median(
            row.cpu_ms_per_call_s for row in rows if row.system == each and row.calls == calls
        )
        for each in (PLAIN, name)
    )
    return 100 * (other / plain - 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when every run could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench recorder", description=(__doc__ or "").partition("\n\n")[0]
    )
    add = parser.add_argument
    add("--calls", type=int, nargs="+", default=[100], help="rows for each (default: 100)")
    add("--seconds", type=float, default=20.0, help="length of the window (default: 20)")
    add("--rounds", type=int, default=3, help="all of it so many times (default: 3)")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    given = parser.parse_args(arguments)
    if not all(0 < calls <= markers.NUMBERS for calls in given.calls):
        parser.error(f"--calls: from 1 to {markers.NUMBERS}")
    if not 0 < given.seconds <= load.MAX_SECONDS or not 0 < given.rounds <= load.MAX_ROUNDS:
        parser.error(f"--seconds: up to {load.MAX_SECONDS:.0f}, --rounds: up to {load.MAX_ROUNDS}")
    options = load.Options(calls=tuple(given.calls), seconds=given.seconds, rounds=given.rounds)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return load.conduct(run, options, given.json)


if __name__ == "__main__":
    sys.exit(main())
