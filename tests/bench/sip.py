"""The daemon as a SIP endpoint under load: set-up, added delay, pacing, barge-in, CPU and memory.

    python -m tests.bench sip [--calls 50 100 200] [--seconds 20] [--rate 30] [--strangers 10000] …

The measured process has a core to itself where there are two; callers and fake model, a process
each, share the others. Everything is on loopback, bounded in time, and gone at the end.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import Struct

from tests.bench import logs, markers, sip_analysis, sip_logs, systems
from tests.bench.analysis import Spread
from tests.bench.load import INVALID_LATE_PCT, Measured, conduct, place_load, until
from tests.bench.model import Timing
from tests.bench.processes import Cores
from tests.bench.report import cells, percent, place, spread
from tests.bench.sip_analysis import SipFigures
from tests.bench.strangers import Crowd
from tests.bench.systems import BenchFailed, System

__all__ = ["Options", "SipRow", "main", "run"]

MAX_SECONDS: Final = 600.0
MAX_ROUNDS: Final = 20
FILL: Final = 0xFE  # the softest code of mu-law that is not silence

_TABLES: Final = """
[sip]
listen = ["udp://127.0.0.1:{port}"]
rtp_ports = "20000-29999"

[[sip.trunk]]
name = "bench"
host = "127.0.0.1"
allow = ["127.0.0.1/32"]
max_calls = {calls}
"""


class Options(Struct, frozen=True, kw_only=True):
    """One invocation. Times in seconds."""

    calls: tuple[int, ...] = (50, 100, 200)
    seconds: float = 20.0
    rate: float = 30.0  # new calls a second
    settle: float = 3.0  # from the last call's start to the window
    tail: float = 4.5  # from the window to hanging up: an answer is spoken for 4 s
    rounds: int = 1
    strangers: int = 0
    timing: Timing = Timing(fill=FILL)

    def limit_s(self, calls: int) -> float:
        """Longer than any run that goes well."""
        length = calls / self.rate + self.settle + self.seconds + self.tail
        return length + 2 * systems.START_LIMIT_S + 3 * systems.STOP_LIMIT_S


class SipRow(Struct, kw_only=True):
    """One run."""

    calls: int
    seconds: float
    rate: float
    figures: SipFigures
    crowd: Crowd | None
    start_ms: float  # spawned -> listening
    idle_rss_kib: int
    rss_per_call_kib: float
    pss_per_call_kib: float
    cpu_ms_per_call_s: float
    core_pct: float
    user_pct: float
    others_pct: float  # of the measured core, taken by anything else
    frames: int
    late_pct: float  # frames that the generator itself sent more than 5 ms late
    latest_ms: float
    generator_cpu_s: float  # callers and model, the whole run
    broken_marks: int
    faults: list[str]  # why these figures say little


def _tail(values: object) -> str:
    """p50, p99, p99.9 and the most of a spread."""
    if not isinstance(values, Spread):
        return "-"
    shown = (values.p50, values.p99, values.p999, values.max)
    return " ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in shown)


_COLUMNS: Final[tuple[tuple[str, str, int, Callable[[SipRow], str]], ...]] = (
    ("", "calls", 5, lambda r: str(r.calls)),
    ("CPU", "ms/call-s", 9, lambda r: f"{r.cpu_ms_per_call_s:.2f}"),
    ("", "core%", 5, lambda r: f"{r.core_pct:.0f}"),
    ("", "user%", 5, lambda r: f"{r.user_pct:.0f}"),
    ("INVITE>200 ms", "p50 p99 max", 14, lambda r: spread(r.figures.setup_ms)),
    ("caller>model ms", "p50 p99 p99.9 max", 20, lambda r: _tail(r.figures.to_model_ms)),
    ("", "lost%", 5, lambda r: percent(r.figures.to_model_missing_pct)),
    ("model>caller ms", "p50 p99 p99.9 max", 20, lambda r: _tail(r.figures.to_caller_ms)),
    ("own", "mean", 5, lambda r: percent(r.figures.to_caller_own_ms)),
    ("", "lost%", 5, lambda r: percent(r.figures.to_caller_missing_pct)),
    ("pacing late ms", "p50 p99 p99.9 max", 20, lambda r: _tail(r.figures.lateness_ms)),
    (
        "jitter",
        "p99",
        6,
        lambda r: f"{r.figures.jitter_ms.p99:.2f}" if r.figures.jitter_ms else "-",
    ),
    ("RTP", "lost", 4, lambda r: str(r.figures.packets_lost)),
    ("", "bursts", 6, lambda r: str(r.figures.bursts)),
    ("gap ms", "max", 6, lambda r: f"{r.figures.longest_gap_ms:.1f}"),
    ("barge-in ms", "p50 p99", 11, lambda r: spread(r.figures.barge_in_ms, most=False)),
    ("", "heeded", 9, lambda r: f"{r.figures.silenced}/{r.figures.barge_ins}"),
    ("stale", "ms", 5, lambda r: f"{r.figures.stale_ms:.0f}"),
    ("", "gaps", 4, lambda r: str(r.figures.gaps)),
    ("heard off ms", "p50 p99", 12, lambda r: spread(r.figures.heard_error_ms, most=False)),
    ("KiB/call", "RSS PSS", 8, lambda r: f"{r.rss_per_call_kib:.0f} {r.pss_per_call_kib:.0f}"),
    ("idle", "MiB", 5, lambda r: f"{r.idle_rss_kib / 1024:.1f}"),
    ("others", "core%", 6, lambda r: f"{r.others_pct:.0f}"),
    ("bench", "late%", 5, lambda r: percent(r.late_pct)),
)
_WIDTHS: Final = [column[2] for column in _COLUMNS]


def heading(cores: Cores, rate: float) -> str:
    """What the rows are about, and the columns' names."""
    lines = [cells([column[at] for column in _COLUMNS], _WIDTHS) for at in (0, 1)]  # type: ignore[misc]
    return "\n".join([f"SIP over UDP, PCMU, {rate:g} new calls/s; {place(cores)}", *lines])


def line(row: SipRow) -> str:
    """One row, the crowd and its faults below it."""
    lines = [cells([column[3](row) for column in _COLUMNS], _WIDTHS)]
    crowd = row.crowd
    if crowd is not None:
        took = (crowd.end_ns - crowd.start_ns) / 1e6
        lines.append(
            f"    {crowd.sent} INVITEs from strangers in {took:.0f} ms, {crowd.answers} answers; "
            f"the longest gap in a call: {row.figures.longest_gap_ms:.1f} ms"
        )
    return "\n".join([*lines, *(f"    ! {fault}" for fault in row.faults)])


async def run(options: Options, cores: Cores) -> list[SipRow]:
    """All runs, one after the other; prints each row when it is done. Raises BenchFailed."""
    print(heading(cores, options.rate), flush=True)
    rows = []
    for _ in range(options.rounds):
        for calls in options.calls:
            with tempfile.TemporaryDirectory(prefix="voiced-bench-") as folder:
                row = await _measure(calls, options, cores, Path(folder))
            rows.append(row)
            print(line(row), flush=True)
    return rows


async def _measure(calls: int, options: Options, cores: Cores, folder: Path) -> SipRow:
    """One run: start everything, let it pass, read both logs."""
    with trio.move_on_after(options.limit_s(calls)):
        crowds: list[Crowd] = []
        async with trio.open_nursery() as nursery:
            timing = msgspec.json.encode(options.timing).decode()
            arguments = ["--log", str(folder / "model.log"), "--timing", timing]
            model, model_port = await systems.generator(nursery, cores, "model", arguments)
            port = free_port()
            system = await systems.start_voiced(
                nursery,
                cores,
                folder,
                url=f"ws://127.0.0.1:{model_port}/v1/realtime",
                max_calls=calls,
                pcm=False,
                trusted=None,
                tables=_TABLES.format(port=port, calls=calls),
            )
            address = f"127.0.0.1:{port}"

            async def crowd(window: logs.Window) -> None:
                await until(window.start_ns + (window.end_ns - window.start_ns) // 3)
                given = ["--sip", address, "--count", str(options.strangers)]
                _, text = await systems.generator(nursery, cores, "strangers", given)
                crowds.append(msgspec.json.decode(text, type=Crowd))

            measured = await place_load(
                nursery,
                cores,
                folder,
                system,
                generator="sip_callers",
                arguments=["--calls", str(calls), "--sip", address],
                times={
                    "--rate": options.rate,
                    "--settle": options.settle,
                    "--seconds": options.seconds,
                    "--tail": options.tail,
                },
                during=crowd if options.strangers else None,
            )
            await systems.stop(system.process)
            await systems.stop(model)
            nursery.cancel_scope.cancel()
        return _row(calls, options, folder, system, measured, crowds[0] if crowds else None)
    raise BenchFailed("a run did not end in time")


def free_port() -> int:
    """A UDP port that nobody uses at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _row(
    calls: int,
    options: Options,
    folder: Path,
    system: System,
    measured: Measured,
    crowd: Crowd | None,
) -> SipRow:
    try:
        callers = msgspec.msgpack.decode(
            (folder / "callers.log").read_bytes(), type=sip_logs.SipLog
        )
        model = msgspec.msgpack.decode((folder / "model.log").read_bytes(), type=logs.ModelLog)
    except OSError as error:
        raise BenchFailed(f"the load generator failed: {error}") from None
    idle, before, after = measured.idle, measured.before, measured.after
    length = after.at_s - before.at_s
    user, kernel = after.user_s - before.user_s, after.system_s - before.system_s
    used = user + kernel
    return SipRow(
        calls=calls,
        seconds=options.seconds,
        rate=options.rate,
        figures=sip_analysis.analyse(callers, model, measured.window, calls),
        crowd=crowd,
        start_ms=round(system.start_ms, 1),
        idle_rss_kib=idle.rss_kib,
        rss_per_call_kib=round((after.rss_kib - idle.rss_kib) / calls, 1),
        pss_per_call_kib=round((after.pss_kib - idle.pss_kib) / calls, 1),
        cpu_ms_per_call_s=round(1000 * used / length / calls, 3),
        core_pct=round(100 * used / length, 1),
        user_pct=round(100 * user / used, 1) if used else 0.0,
        others_pct=round(100 * max(0.0, measured.busy_s - used) / length, 1),
        frames=callers.frames,
        late_pct=round(100 * callers.late_5ms / max(1, callers.frames), 3),
        latest_ms=round(callers.latest_ms, 1),
        generator_cpu_s=round(callers.cpu_s + model.cpu_s, 2),
        broken_marks=callers.broken + model.broken,
        faults=_faults(calls, callers, model, system, measured),
    )


def _faults(
    calls: int,
    callers: sip_logs.SipLog,
    model: logs.ModelLog,
    system: System,
    measured: Measured,
) -> list[str]:
    """Why the run's figures say little, or what went wrong in it."""
    faults = []
    if callers.late_5ms > INVALID_LATE_PCT / 100 * callers.frames:
        faults.append(
            f"INVALID: the generator was over 5 ms late for "
            f"{100 * callers.late_5ms / callers.frames:.1f}% of its frames "
            f"(up to {callers.latest_ms:.0f} ms); the machine is too busy for these delays"
        )
    if callers.refused:
        faults.append(f"{len(callers.refused)} of {calls} calls refused: {callers.refused[0]}")
    if callers.dropped:
        dropped, how = len(callers.dropped), callers.dropped[0]
        faults.append(f"{dropped} of {calls} calls ended by the measured process: {how}")
    if callers.complaints:
        faults.append(f"{len(callers.complaints)} breaches of SIP: {callers.complaints[0]}")
    if model.unknown:
        faults.append(f"client events that the model does not know: {sorted(set(model.unknown))}")
    if measured.ended_early:
        faults.append(f"voiced ended in the run, exit code {system.process.returncode}")
    elif system.process.returncode != 0:
        faults.append(f"voiced stopped with exit code {system.process.returncode}")
    found = systems.complaints(system.log)
    found.pop("source banned", None)  # what strangers earn
    return faults + [f"voiced logged {count} times: {event}" for event, count in found.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when every run could be measured, valid or not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench sip", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--calls", type=int, nargs="+", default=[50, 100, 200], help="a row for each")
    add("--seconds", type=float, default=20.0, help="length of the window (default: 20)")
    add("--rate", type=float, default=30.0, help="new calls a second (default: 30)")
    add("--settle", type=float, default=3.0, help="before the window, after the last call began")
    add("--tail", type=float, default=4.5, help="after it, before the callers hang up")
    add("--rounds", type=int, default=1, help="all of it so many times")
    add("--strangers", type=int, default=0, help="so many INVITEs from 127.0.0.2 in each window")
    add("--timing", default="{}", help="fields of the model's script, as JSON")
    add("--nice", type=int, default=0, help="of all processes of the run; -10 outdoes neighbours")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    given = parser.parse_args(arguments)
    if not all(0 < calls <= markers.NUMBERS for calls in given.calls):
        parser.error(f"--calls: from 1 to {markers.NUMBERS}")
    if not 0 < given.seconds <= MAX_SECONDS or not 0 < given.rounds <= MAX_ROUNDS:
        parser.error(f"--seconds: up to {MAX_SECONDS:.0f}, --rounds: up to {MAX_ROUNDS}")
    if given.rate <= 0 or given.strangers < 0:
        parser.error("--rate must be above nought, --strangers not below it")
    try:
        os.nice(given.nice)  # whoever is started inherits it
    except PermissionError:
        parser.error("--nice: only root may go below 0")
    try:
        timing = msgspec.json.decode(given.timing, type=Timing)
    except msgspec.DecodeError as error:
        parser.error(f"--timing: {error}")
    options = Options(
        calls=tuple(given.calls),
        seconds=given.seconds,
        rate=given.rate,
        settle=given.settle,
        tail=given.tail,
        rounds=given.rounds,
        strangers=given.strangers,
        timing=msgspec.structs.replace(timing, fill=FILL),
    )
    # Every call is three sockets of the callers' and three of the daemon's.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return conduct(run, options, given.json)


if __name__ == "__main__":
    sys.exit(main())
