"""Running sipp with the scenarios beside this file."""

from __future__ import annotations

import itertools
import math
import re
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.interop.sip.fragments import expand
from tests.interop.sip.house import SipHouse, free_port
from voiced.audio import pcm_to_ulaw

__all__ = ["SCENARIOS", "Listening", "Sipp", "listening", "sipp", "tone_file"]

SCENARIOS = Path(__file__).parent / "scenarios"

TIMEOUT_S = 40
"""What no scenario takes, however slow the machine."""

_numbers = itertools.count()


def tone_file(folder: Path, hertz: int = 440, ms: int = 1000) -> Path:
    """Raw mu-law of a sine, a whole number of periods, for `rtp_stream`."""
    path = folder / f"tone-{hertz}-{ms}.ul"
    if not path.exists():
        samples = (
            round(3000 * math.sin(2 * math.pi * hertz * index / 8000)) for index in range(8 * ms)
        )
        pcm = b"".join(value.to_bytes(2, "little", signed=True) for value in samples)
        path.write_bytes(pcm_to_ulaw(pcm))
    return path


@dataclass(frozen=True)
class Sipp:
    """What sipp did."""

    call_id: str
    status: int
    messages: str
    """All it sent and received, in its own words."""
    log: str
    """What the scenario's `<log>`s wrote."""
    errors: str

    def received(self, start: str) -> list[str]:
        """Messages received that begin so."""
        return [each for each in self._parts("received") if each.startswith(start)]

    def sent(self, start: str) -> list[str]:
        """Messages sent that begin so."""
        return [each for each in self._parts("sent") if each.startswith(start)]

    def _parts(self, what: str) -> list[str]:
        parts = re.split(r"^-{20,} .*\n", self.messages, flags=re.MULTILINE)
        return [
            part.partition("\n\n")[2].replace("\r\n", "\n")
            for part in parts
            if re.match(rf"\S+ message {what}", part)
        ]


async def sipp(
    house: SipHouse,
    scenario: str,
    trunk: str = "plain",
    *,
    service: str = "+15550100",
    transport: str = "u1",
    address: str | None = None,
    port: int | None = None,
    values: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
    media_port: int | None = None,
    called: bool = False,
    calls: int = 1,
    expect: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> Sipp:
    """Run a scenario, as the caller from `trunk`'s address or as its called one.

    `values`: what `{{name}}` in the scenario stands for, besides `port` (of audio), `tone` (a
    file), `daemon` (`host:port`). Raises AssertionError with sipp's logs if it exits otherwise
    than with `expect`, or is not installed. Several `calls` have `-1`, `-2`… at the end of their
    Call-IDs. `started` tells the Call-ID that a caller uses, when
    the process runs; for the called one see `listening`.
    """
    program = shutil.which("sipp")
    assert program is not None, "sipp is not installed: apt-get install sip-tester"
    name = f"{scenario}-{next(_numbers)}-{secrets.token_hex(3)}"
    folder = house.folder / name
    folder.mkdir()
    own, own_port = house.addresses.get(trunk, ("", 0))
    host = address or own
    local_port = port or (own_port if called else free_port(host))
    audio = media_port or free_port(host)
    daemon_port = house.ports["tcp" if transport.startswith("t") else "udp"]
    text = (SCENARIOS / f"{scenario}.xml").read_text("utf-8")
    facts: dict[str, object] = {
        "port": audio,
        "tone": tone_file(house.folder),
        "daemon": f"127.0.0.1:{daemon_port}",
        "call-id": name,
        **(values or {}),
    }
    file = folder / "scenario.xml"
    file.write_text(expand(text, facts), "utf-8")
    command = [program]
    if not called:
        command += [f"127.0.0.1:{daemon_port}"]
    command += ["-sf", str(file), "-i", host, "-p", str(local_port), "-bind_local", "-ci", host]
    command += ["-mi", host, "-mp", str(audio), "-s", service, "-t", transport]
    command += ["-m", str(calls), "-l", str(calls), "-r", "20"]
    command += ["-cid_str", name if calls == 1 else f"{name}-%u", "-nostdin", "-timer_resol", "5"]
    command += ["-timeout", f"{TIMEOUT_S}s", "-timeout_error", "-recv_timeout", "30000"]
    for kind, option in (("err", "error"), ("msg", "message"), ("logs", "log")):
        command += [f"-trace_{kind}", f"-{option}_file", str(folder / option)]
    command += options
    task_status.started(name)
    with trio.fail_after(TIMEOUT_S + 20):
        done = await trio.run_process(
            command, cwd=folder, check=False, capture_stdout=True, stderr=subprocess.STDOUT
        )
    result = Sipp(
        name, done.returncode, *(_text(folder / each) for each in ("message", "log", "error"))
    )
    if result.status != expect:
        raise AssertionError(
            f"sipp {scenario} exited with {result.status}, not {expect}\n{result.errors}\n"
            f"--- messages ---\n{result.messages[-12000:]}\n"
            f"--- screen ---\n{done.stdout.decode(errors='replace')[-1500:]}"
        )
    return result


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""


@dataclass
class Listening:
    """sipp, waiting to be called."""

    uri: str
    """Where it is called."""
    result: Sipp | None = None
    """Set once its call is over."""


@asynccontextmanager
async def listening(
    house: SipHouse, scenario: str, trunk: str = "plain", *, port: int | None = None, **more: Any
) -> AsyncIterator[Listening]:
    """Have sipp called meanwhile, at `port` of the trunk's address or at the trunk's own port.

    Entering waits until it listens; leaving, until its call is over. `more`: see `sipp`.
    """
    host, own_port = house.addresses[trunk]
    peer = Listening(f"sip:bob@{host}:{port or own_port}")

    async def serve() -> None:
        peer.result = await sipp(house, scenario, trunk, port=port, called=True, **more)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await _bound(host, port or own_port, peer)
        yield peer


async def _bound(host: str, port: int, peer: Listening) -> None:
    """Wait until a UDP socket, or a TCP listener, has this address.

    Where we send again and again, as a trunk that registers, all may be over before we look.
    """
    digits = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    wanted = f" {digits}:{port:04X} "
    with trio.move_on_after(20):
        while peer.result is None and not any(
            wanted in Path(f"/proc/net/{table}").read_text("ascii") for table in ("udp", "tcp")
        ):
            await trio.sleep(0.02)
        return
    raise AssertionError(f"sipp does not listen at {host}:{port}")
