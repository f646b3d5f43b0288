"""Short calls, one after the other, through one daemon: does anything of them stay?

    python -m tests.bench churn [--calls 100] [--rounds 12] [--tables TOML] [--agent TOML]

Each round is `--calls` calls of some seconds, over one and the same daemon. After each the daemon's
memory, open files and threads are read; the rows should be the same from the second on.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from tests.bench import logs, systems
from tests.bench.load import Options, conduct, place_load
from tests.bench.processes import Cores, cost
from tests.bench.systems import System

__all__ = ["ChurnRow", "main", "run"]

SETTLE_S: Final = 0.5
TAIL_S: Final = 0.5
QUIET_S: Final = 3.0  # until what a call leaves behind for a moment is gone as well


class ChurnRow(msgspec.Struct, kw_only=True):
    """The daemon after a round."""

    calls: int  # in all rounds so far
    rss_kib: int
    files: int
    threads: int
    cpu_ms_per_call: float  # of this round
    dropped: int


async def run(options: Options, cores: Cores) -> list[ChurnRow]:
    """All rounds against one daemon; prints a row for each."""
    (calls,) = options.calls
    rows: list[ChurnRow] = []
    with tempfile.TemporaryDirectory(prefix="voiced-bench-") as name:
        folder = Path(name)
        async with trio.open_nursery() as nursery:
            timing = msgspec.json.encode(options.timing).decode()
            arguments = ["--log", str(folder / "model.log"), "--timing", timing]
            model, port = await systems.generator(nursery, cores, "model", arguments)
            system = await systems.start_voiced(
                nursery,
                cores,
                folder,
                url=f"ws://127.0.0.1:{port}/v1/realtime",
                max_calls=calls,
                pcm=False,
                trusted=None,
                tables=options.tables,
                agent=options.agent,
            )
            print(f"{'calls':>8} {'RSS MiB':>8} {'files':>6} {'threads':>8} {'CPU ms/call':>12}")
            for _ in range(options.rounds):
                before = rows[-1].calls if rows else 0
                rows.append(await _round(nursery, cores, folder, system, options, before))
                row = rows[-1]
                print(
                    f"{row.calls:>8} {row.rss_kib / 1024:>8.1f} {row.files:>6} {row.threads:>8} "
                    f"{row.cpu_ms_per_call:>12.1f}"
                    + (f"  ! {row.dropped} calls dropped or refused" if row.dropped else ""),
                    flush=True,
                )
            await systems.stop(system.process)
            await systems.stop(model)
            nursery.cancel_scope.cancel()
        for event, count in systems.complaints(system.log).items():
            print(f"    ! voiced logged {count} times: {event}")
    return rows


async def _round(
    nursery: trio.Nursery,
    cores: Cores,
    folder: Path,
    system: System,
    options: Options,
    calls_before: int,
) -> ChurnRow:
    (calls,) = options.calls
    pid = system.process.pid
    before = cost(pid)
    await place_load(
        nursery,
        cores,
        folder,
        system,
        generator="callers",
        arguments=["--calls", str(calls), "--webhook", system.webhook or ""],
        times={
            "--ramp": options.ramp_s(calls),
            "--settle": SETTLE_S,
            "--seconds": options.seconds,
            "--tail": TAIL_S,
        },
    )
    await trio.sleep(QUIET_S)
    after = cost(pid)
    proc = Path("/proc") / str(pid)
    log = msgspec.msgpack.decode((folder / "callers.log").read_bytes(), type=logs.CallerLog)
    used = after.user_s + after.system_s - before.user_s - before.system_s
    return ChurnRow(
        calls=calls_before + calls,
        rss_kib=after.rss_kib,
        files=len(list((proc / "fd").iterdir())),
        threads=len(list((proc / "task").iterdir())),
        cpu_ms_per_call=round(1000 * used / calls, 2),
        dropped=len(log.dropped) + len(log.refused),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when every round could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench churn", description=(__doc__ or "").partition("\n\n")[0]
    )
    add = parser.add_argument
    add("--calls", type=int, default=100, help="at a time (default: 100)")
    add("--rounds", type=int, default=12, help="(default: 12)")
    add("--seconds", type=float, default=2.0, help="how long they stay together (default: 2)")
    add("--tables", default="", help="more of the daemon's configuration: '[plugins.recorder]'")
    add("--agent", default="", help="more of its agent's table")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    given = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    options = Options(
        calls=(given.calls,),
        rounds=given.rounds,
        seconds=given.seconds,
        tables=given.tables,
        agent=given.agent,
    )
    return conduct(run, options, given.json)


if __name__ == "__main__":
    sys.exit(main())
