"""The processes of a load run: voiced or another bridge, the fake model, the callers.

Each lives in the nursery of its run, so that none outlives it, whatever happens.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio
import trustme

from tests.bench.processes import Cores, pin

__all__ = ["BenchFailed", "System", "generator", "start_other", "start_voiced", "stop"]

PROJECT: Final = Path(__file__).resolve().parents[2]
START_LIMIT_S: Final = 30.0
STOP_LIMIT_S: Final = 10.0
_LOOK_S: Final = 0.002  # how often the log is looked at for "listening": the cold start's precision

_CONFIG: Final = """\
[daemon]
state_dir = "{folder}"
log_format = "json"
max_calls = {max_calls}
drain_s = 2

[http]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[engine.bench]
kind = "realtime"
url = "{url}"
api_key = "bench"
{more}

[agent.reception]
engine = "bench"
greeting = ""
{agent}

[[number]]
match = "*"
agent = "reception"
{tables}
"""


class BenchFailed(Exception):
    """There is nothing to measure; the text says why."""


class System(msgspec.Struct):
    """What is measured, running. Exactly one of `webhook` and `stream` says where calls go."""

    process: trio.Process
    start_ms: float  # spawned -> listening
    log: Path
    webhook: str | None = None
    stream: str | None = None


async def _spawn(
    nursery: trio.Nursery, command: list[str], cores: frozenset[int], **options: object
) -> trio.Process:
    process: trio.Process = await nursery.start(
        partial(trio.run_process, command, check=False, cwd=PROJECT, **options)
    )
    pin(process.pid, cores)
    return process


async def generator(
    nursery: trio.Nursery, cores: Cores, name: str, arguments: list[str]
) -> tuple[trio.Process, str]:
    """Start `tests.bench.NAME`; returns it with its first line."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    process = await _spawn(nursery, command, cores.load, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = b""
    with trio.fail_after(START_LIMIT_S):
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some()
            if not data:
                raise BenchFailed(f"tests.bench.{name} did not start")
            line += data
    return process, line.decode().strip()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate for loopback: what to trust, and what to serve with."""
    authority = trustme.CA()
    trusted, served = folder / "ca.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(str(trusted))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(served))
    return trusted, served


async def start_voiced(
    nursery: trio.Nursery,
    cores: Cores,
    folder: Path,
    *,
    url: str,
    max_calls: int,
    pcm: bool,
    trusted: Path | None,
    tables: str = "",
    agent: str = "",
) -> System:
    """`voiced run` with an engine at `url`, and whatever else of configuration is in `tables`.

    `agent`: lines of its agent's table.
    """
    more = 'input_format = "pcm"\noutput_format = "pcm"\n' if pcm else ""
    if trusted is not None:
        more += f'ca_file = "{trusted}"\n'
    config, path = folder / "voiced.toml", folder / "system.log"
    text = _CONFIG.format(
        folder=folder, url=url, max_calls=max_calls, more=more, tables=tables, agent=agent
    )
    config.write_text(text)
    config.chmod(0o600)  # it holds a key, and voiced warns of those that all can read
    # The log goes to a file: reading a pipe would be work for the generator's core.
    with path.open("wb") as log:
        begun = time.monotonic()
        command = [sys.executable, "-m", "voiced", "run", "-c", str(config)]
        process = await _spawn(nursery, command, cores.system, stderr=log)
    while (address := _listening(path)) is None:
        _check_start(process, begun, path)
        await trio.sleep(_LOOK_S)
    start_ms = (time.monotonic() - begun) * 1000
    return System(process, start_ms, path, webhook=f"{address}/twilio/voice")


async def start_other(
    nursery: trio.Nursery, cores: Cores, folder: Path, *, url: str, command: str, stream: str
) -> System:
    """Another bridge, told the model's address as `{model}` in its command and `MODEL_URL`."""
    path, parts = folder / "system.log", urlsplit(stream)
    with path.open("wb") as log:
        begun = time.monotonic()
        process = await _spawn(
            nursery,
            shlex.split(command.replace("{model}", url)),
            cores.system,
            stdout=log,
            stderr=log,
            env={**os.environ, "MODEL_URL": url},
        )
    while True:
        _check_start(process, begun, path)
        try:
            await (await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)).aclose()
        except OSError:
            await trio.sleep(_LOOK_S)
        else:
            start_ms = (time.monotonic() - begun) * 1000
            return System(process, start_ms, path, stream=stream)


async def stop(process: trio.Process) -> None:
    """SIGTERM as an operator would, and SIGKILL to what does not heed it."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_LIMIT_S):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def complaints(path: Path) -> dict[str, int]:
    """The warnings and errors in voiced's log, counted by event."""
    counts: dict[str, int] = {}
    for raw in path.read_bytes().splitlines():
        try:
            line = msgspec.json.decode(raw, type=dict[str, object])
        except msgspec.DecodeError:
            line = {"level": "error", "event": raw.decode("utf-8", "replace")}
        if line.get("level") in ("warning", "error", "critical"):
            event = str(line.get("event"))
            counts[event] = counts.get(event, 0) + 1
    return counts


def _listening(path: Path) -> str | None:
    for raw in path.read_bytes().splitlines():
        if b'"listening"' in raw and raw.endswith(b"}"):
            return str(msgspec.json.decode(raw)["address"])
    return None


def _check_start(process: trio.Process, begun: float, log: Path) -> None:
    late = time.monotonic() - begun > START_LIMIT_S
    if late or process.returncode is not None:
        why = "did not listen in time" if late else f"ended with {process.returncode}"
        tail = log.read_bytes()[-1000:].decode("utf-8", "replace")
        raise BenchFailed(f"the system to measure {why}: {tail or 'it said nothing'}")
