"""Real SIP programs as peers, Debian's packages: what their tests share, and sipvicious.

`phones` has baresip, `registrar` kamailio. Each gets a folder with a configuration written here,
ports that are free, and a process that ends with its `async with`. What it recorded and logged
stays in the folder.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import trio
import trustme

__all__ = [
    "LOOPBACK",
    "SOON_S",
    "Certificates",
    "certificates",
    "free_port",
    "program",
    "running",
    "scan",
]

LOOPBACK: Final = "127.0.0.1"

SOON_S: Final = 15.0
"""How long anything may take that is done at once: the machine may be busy."""

_PACKAGES: Final = {
    "baresip": "baresip-core",
    "kamailio": "kamailio",
    "kamcmd": "kamailio",
    "svcrack": "sipvicious",
    "svmap": "sipvicious",
    "svwar": "sipvicious",
}
_NEAR: Final = range(2600, 9990)  # halves: below what the kernel and the daemon's RTP take
_given: set[int] = set()


def program(name: str) -> str:
    """The path of a peer's program. Its absence fails the test: these tests are the proof."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found is not None, f"{name} is not installed: apt-get install {_PACKAGES[name]}"
    return found


def free_port(address: str = LOOPBACK) -> int:
    """A port whose UDP and TCP, and those of the next one (TLS), nobody has now.

    Given out once: who asked for it may begin to listen later.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(200):
        port = 2 * random.choice(_NEAR)
        if port in _given:
            continue
        try:
            for number in (port, port + 1):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    with socket.socket(family, kind) as probe:
                        probe.bind((address, number))
        except OSError:
            continue
        _given.add(port)
        return port
    raise AssertionError(f"no free port on {address}")


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority and of a server at 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path
    both: Path
    """Key and certificate in one file."""

    @property
    def settings(self) -> str:
        """The lines of `[sip]`."""
        return f'tls_cert = "{self.certificate}"\ntls_key = "{self.key}"\nca_file = "{self.ca}"\n'


def certificates(folder: Path, name: str = LOOPBACK) -> Certificates:
    """An authority that nobody knows, and what it says of `name`."""
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    made = Certificates(
        *(folder / f"{each}-{name}.pem" for each in ("ca", "certificate", "key", "both"))
    )
    authority.cert_pem.write_to_path(made.ca)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(made.certificate, append=True)
    for path, pem in (
        (made.key, issued.private_key_pem),
        (made.both, issued.private_key_and_cert_chain_pem),
    ):
        path.touch(0o600)
        pem.write_to_path(path)
    return made


@asynccontextmanager
async def running(command: Sequence[str], log: IO[bytes]) -> AsyncIterator[trio.Process]:
    """A process with its output in `log`; it ends with the `async with`."""
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.terminate()
                with trio.move_on_after(5):
                    await process.wait()
            if process.poll() is None:
                process.kill()
                await process.wait()


async def scan(tool: str, *arguments: str, timeout_s: float = 30.0) -> str:
    """Run `svmap`, `svwar` or `svcrack`, and end it in the end; returns what it printed."""
    printed = b""
    with trio.move_on_after(timeout_s):
        done = await trio.run_process(
            [program(tool), *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        printed = bytes(done.stdout) + bytes(done.stderr)
    return printed.decode("utf-8", "replace")
