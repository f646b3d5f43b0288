"""The daemon under load: added delay, barge-in, CPU and memory per call, in real time.

    python -m tests.bench load [--calls 50 100 200] [--seconds 20] [--tls] [--pcm] [--json FILE] …

The measured process has a core to itself where there are two; callers and fake model, a process
each, share the others. Everything is on loopback, bounded in time, and gone at the end.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio
from msgspec import Struct

from tests.bench import analysis, logs, markers, report, systems
from tests.bench.model import Timing
from tests.bench.processes import Cores, Cost, cost, machine_busy_s, share_out
from tests.bench.report import Row
from tests.bench.systems import BenchFailed, System

__all__ = ["Measured", "Options", "conduct", "main", "measure", "place_load", "run", "until"]

IDLE_S: Final = 1.0  # after start-up, before idle memory is read
INVALID_LATE_PCT: Final = 1.0
"""Frames that the generator itself sent over 5 ms late: above this the delays are its own."""
MAX_SECONDS: Final = 600.0
MAX_ROUNDS: Final = 20
MIN_DELTA_MS: Final = 40  # a mark, its lead and a pause have to fit


class Options(Struct, frozen=True, kw_only=True):
    """One invocation. Times in seconds."""

    calls: tuple[int, ...] = (50, 100)
    seconds: float = 20.0
    settle: float = 3.0  # from the last call's start to the window
    tail: float = 2.5  # from the window to hanging up, so that the fate of all in it is known
    ramp: float | None = None  # None: 25 calls a second
    rounds: int = 1
    timing: Timing = Timing()
    pcm: bool = False
    tls: bool = False
    compare_command: str | None = None
    compare_url: str | None = None
    model_port: int = 0
    tables: str = ""
    """What else the daemon's configuration has."""
    agent: str = ""
    """And its agent's table."""

    def ramp_s(self, calls: int) -> float:
        """Over how long the calls begin."""
        return self.ramp if self.ramp is not None else max(1.0, calls / 25)

    def limit_s(self, calls: int) -> float:
        """Longer than any run that goes well."""
        length = self.ramp_s(calls) + self.settle + self.seconds + self.tail
        return length + 2 * systems.START_LIMIT_S + 3 * systems.STOP_LIMIT_S


async def run(options: Options, cores: Cores) -> list[Row]:
    """All runs, one after the other; prints each row when it is done.

    Raises BenchFailed where nothing could be measured.
    """
    print(report.heading(cores, tls=options.tls, pcm=options.pcm), flush=True)
    rows = []
    names = ["voiced", "other"] if options.compare_command else ["voiced"]
    for _ in range(options.rounds):
        for calls in options.calls:
            for name in names:
                with tempfile.TemporaryDirectory(prefix="voiced-bench-") as folder:
                    row = await measure(name, calls, options, cores, Path(folder))
                rows.append(row)
                print(report.line(row), flush=True)
    for text in report.ratios(rows):
        print(text)
    return rows


class Measured(Struct):
    """What the orchestrator itself saw of a run."""

    window: logs.Window
    idle: Cost
    before: Cost  # at the window's start
    after: Cost  # at its end
    busy_s: float  # of the measured core within it, on anything
    ended_early: bool


async def measure(name: str, calls: int, options: Options, cores: Cores, folder: Path) -> Row:
    """One run: start everything, let it pass, read both logs."""
    with trio.move_on_after(options.limit_s(calls)):
        async with trio.open_nursery() as nursery:
            trusted, more = None, ["--port", str(options.model_port)]
            if options.tls and name == "voiced":
                trusted, served = systems.certificate(folder)
                more += ["--cert", str(served)]
            timing = msgspec.json.encode(options.timing).decode()
            arguments = ["--log", str(folder / "model.log"), "--timing", timing, *more]
            model, port = await systems.generator(nursery, cores, "model", arguments)
            url = f"{'ws' if trusted is None else 'wss'}://127.0.0.1:{port}/v1/realtime"
            if name == "voiced":
                begin = partial(
                    systems.start_voiced,
                    max_calls=calls,
                    pcm=options.pcm,
                    trusted=trusted,
                    tables=options.tables,
                    agent=options.agent,
                )
            else:
                begin = partial(
                    systems.start_other,
                    command=options.compare_command or "",
                    stream=options.compare_url or "",
                )
            system = await begin(nursery, cores, folder, url=url)
            where = ["--webhook", system.webhook or ""]
            if system.webhook is None:
                where = ["--stream", str(system.stream)]
            measured = await place_load(
                nursery,
                cores,
                folder,
                system,
                generator="callers",
                arguments=["--calls", str(calls), *where],
                times={
                    "--ramp": options.ramp_s(calls),
                    "--settle": options.settle,
                    "--seconds": options.seconds,
                    "--tail": options.tail,
                },
            )
            await systems.stop(system.process)
            await systems.stop(model)
            nursery.cancel_scope.cancel()
        return _row(name, calls, options, folder, system, measured)
    raise BenchFailed("a run did not end in time")


async def place_load(
    nursery: trio.Nursery,
    cores: Cores,
    folder: Path,
    system: System,
    *,
    generator: str,
    arguments: Sequence[str],
    times: Mapping[str, float],
    during: Callable[[logs.Window], Awaitable[None]] | None = None,
) -> Measured:
    """Let the callers call, and read the costs at the window's ends; `during` runs beside it."""
    await trio.sleep(IDLE_S)
    pid = system.process.pid
    given = ["--log", str(folder / "callers.log"), *arguments]
    given += [text for key, value in times.items() for text in (key, str(value))]
    callers, text = await systems.generator(nursery, cores, generator, given)
    window = msgspec.json.decode(text, type=logs.Window)
    idle = cost(pid)  # now: PSS depends on who else has the same libraries loaded
    if during is not None:
        nursery.start_soon(during, window)
    await until(window.start_ns)
    before, busy = cost(pid), machine_busy_s(cores.system)
    await until(window.end_ns)
    after, busy = cost(pid), machine_busy_s(cores.system) - busy
    await callers.wait()
    ended_early = system.process.returncode is not None
    return Measured(window, idle, before, after, busy, ended_early)


async def until(moment_ns: int) -> None:
    """Sleep until a moment of the monotonic clock."""
    await trio.sleep(max(0.0, (moment_ns - time.monotonic_ns()) / 1e9))


def _row(
    name: str, calls: int, options: Options, folder: Path, system: System, measured: Measured
) -> Row:
    try:
        callers = msgspec.msgpack.decode((folder / "callers.log").read_bytes(), type=logs.CallerLog)
        model = msgspec.msgpack.decode((folder / "model.log").read_bytes(), type=logs.ModelLog)
    except OSError as error:
        raise BenchFailed(f"the load generator failed: {error}") from None
    idle, before, after = measured.idle, measured.before, measured.after
    length = after.at_s - before.at_s
    user, kernel = after.user_s - before.user_s, after.system_s - before.system_s
    used = user + kernel
    return Row(
        system=name,
        calls=calls,
        seconds=options.seconds,
        figures=analysis.analyse(callers, model, measured.window, calls),
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
        unknown_events=model.unknown,
        faults=_faults(name, calls, callers, model, system, measured),
    )


def _faults(
    name: str,
    calls: int,
    callers: logs.CallerLog,
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
    if model.unknown:
        faults.append(f"client events that the model does not know: {sorted(set(model.unknown))}")
    code = system.process.returncode
    if measured.ended_early:
        faults.append(f"the measured process ended in the run, exit code {code}")
    elif name == "voiced" and code != 0:
        faults.append(f"voiced stopped with exit code {code}")
    if name == "voiced":
        found = systems.complaints(system.log)
        faults += [f"voiced logged {count} times: {event}" for event, count in found.items()]
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when every run could be measured, valid or not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench load", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--calls", type=int, nargs="+", default=[50, 100], help="a row for each (default: 50 100)")
    add("--seconds", type=float, default=20.0, help="length of the window (default: 20)")
    add("--settle", type=float, default=3.0, help="before it, after the last call began")
    add("--tail", type=float, default=2.5, help="after it, before the callers hang up")
    add("--ramp", type=float, help="seconds over which the calls begin (default: 25 a second)")
    add("--rounds", type=int, default=1, help="all of it so many times")
    add("--pcm", action="store_true", help="PCM 24 kHz to and from the model instead of mu-law")
    add("--tls", action="store_true", help="wss to the model")
    add("--delta-ms", type=int, default=200, help="audio in one delta of the model's")
    add("--rate", type=float, default=4.0, help="the model's speed in times real time")
    add("--tables", default="", help="more of the daemon's configuration: '[plugins.recorder]'")
    add("--agent", default="", help="more of its agent's table: 'barge_in = \"confirm\"'")
    add("--timing", default="{}", help="other fields of the model's script, as JSON")
    add("--compare-cmd", help="another bridge, run in turn; {model} or $MODEL_URL is the model's")
    add("--compare-url", help="its ws:// address for media streams")
    add("--model-port", type=int, default=0, help="for a bridge that cannot be told another")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    given = parser.parse_args(arguments)
    if not all(0 < calls <= markers.NUMBERS for calls in given.calls):
        parser.error(f"--calls: from 1 to {markers.NUMBERS}")
    if not 0 < given.seconds <= MAX_SECONDS or not 0 < given.rounds <= MAX_ROUNDS:
        parser.error(f"--seconds: up to {MAX_SECONDS:.0f}, --rounds: up to {MAX_ROUNDS}")
    if given.delta_ms < MIN_DELTA_MS:
        parser.error(f"--delta-ms: at least {MIN_DELTA_MS}")
    if bool(given.compare_cmd) != bool(given.compare_url):
        parser.error("--compare-cmd and --compare-url belong together")
    try:
        timing = msgspec.json.decode(given.timing, type=Timing)
    except msgspec.DecodeError as error:
        parser.error(f"--timing: {error}")
    options = Options(
        calls=tuple(given.calls),
        seconds=given.seconds,
        settle=given.settle,
        tail=given.tail,
        ramp=given.ramp,
        rounds=given.rounds,
        timing=msgspec.structs.replace(timing, delta_ms=given.delta_ms, rate=given.rate),
        pcm=given.pcm,
        tls=given.tls,
        compare_command=given.compare_cmd,
        compare_url=given.compare_url,
        model_port=given.model_port,
        tables=given.tables,
        agent=given.agent,
    )
    # Every call is two sockets of the daemon's.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return conduct(run, options, given.json)


Asked = TypeVar("Asked")


def conduct(
    measure: Callable[[Asked, Cores], Awaitable[Sequence[object]]],
    options: Asked,
    json: Path | None,
) -> int:
    """Share out the cores, measure, write the document; returns the exit code."""
    code = 0
    rows: Sequence[object] = ()
    available = os.sched_getaffinity(0)
    cores = share_out(available)
    os.sched_setaffinity(0, cores.load)  # the orchestrator's too
    try:
        rows = trio.run(measure, options, cores)
    except* BenchFailed as failed:
        # Of a group within a group the leaves matter, and there is one.
        leaf: BaseException = failed
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        print(f"tests.bench: {leaf}", file=sys.stderr)
        code = 1
    except* KeyboardInterrupt:
        code = 130
    finally:
        os.sched_setaffinity(0, available)
    if code == 0 and json is not None:
        document = {"machine": machine(), "options": options, "rows": rows}
        json.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return code


def machine() -> dict[str, object]:
    """What a results file says of where it was made."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": sorted(os.sched_getaffinity(0)),
        "trio": trio.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
