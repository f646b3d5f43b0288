"""baresip as a telephone: its settings, its commands, what it tells and what it has recorded."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from tests.interop.sip.peers import LOOPBACK, SOON_S, free_port, program, running

__all__ = ["Baresip", "baresip"]


@dataclass
class Baresip:
    """A telephone. `events` are those that it told, oldest first."""

    folder: Path
    address: str
    port: int
    user: str
    events: list[dict[str, Any]] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)
    _stream: trio.SocketStream | None = None

    def uri(self, transport: str = "udp") -> str:
        """Where it is called."""
        if transport == "udp":
            return f"sip:{self.user}@{self.address}:{self.port}"
        port = self.port + (transport == "tls")
        return f"sip:{self.user}@{self.address}:{port};transport={transport}"

    async def command(self, command: str, params: str = "") -> None:
        """Give a command of its menu, such as `dial` with a URI."""
        assert self._stream is not None
        text = json.dumps({"command": command, "params": params, "token": "test"}).encode()
        await self._stream.send_all(b"%d:%b," % (len(text), text))

    async def told(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait until it has told of the event `kind` so often; returns the last of these."""
        with trio.move_on_after(SOON_S + 15):
            while True:
                found = [event for event in self.events if event["type"] == kind]
                if len(found) >= count:
                    return found[count - 1]
                await self._news.wait()
        raise AssertionError(f"baresip never told {kind}: {self.events}\n{self.log()}")

    def kinds(self) -> list[str]:
        """The kinds of its events."""
        return [event["type"] for event in self.events]

    def heard(self) -> list[Path]:
        """What it decoded, a WAV of its codec's rate for each call; it ends at a hold."""
        return sorted(self.folder.glob("dump-*-dec.wav"))

    def said(self) -> list[Path]:
        """What it encoded."""
        return sorted(self.folder.glob("dump-*-enc.wav"))

    def packets(self) -> tuple[int, int]:
        """Of its first call's audio, sent and received, as it printed them at the end."""
        counts = re.search(r"^packets: +(\d+) +(\d+)", self.log(), re.MULTILINE)
        assert counts is not None, self.log()
        return int(counts[1]), int(counts[2])

    def log(self) -> str:
        """What it has printed, but for its running count of bits."""
        text = (self.folder / "baresip.log").read_text("utf-8", "replace")
        lines = text.replace("\r", "\n").splitlines()
        return "\n".join(line for line in lines if line.strip() and "(bit/s)" not in line)

    async def _read(self) -> None:
        assert self._stream is not None
        waiting = b""
        async for data in self._stream:
            waiting += data
            while True:
                size, colon, rest = waiting.partition(b":")
                if not colon or len(rest) <= int(size):
                    break
                message = json.loads(rest[: int(size)])
                waiting = rest[int(size) + 1 :]  # a netstring ends in a comma
                if message.get("event"):
                    self.events.append(message)
                    self._news.set()
                    self._news = trio.Event()


_BARESIP: Final = """\
poll_method epoll
sip_listen {shown}:{port}
{tls}
call_local_timeout 60
call_max_calls 8
audio_path /usr/share/baresip
audio_player aufile,{folder}/played.wav
audio_source aufile,{voice}
audio_alert aufile,/dev/null
audio_buffer 20-160
rtp_ports 30000-32000
rtcp_mux no
jitter_buffer_type fixed
jitter_buffer_delay 1-5
rtp_stats yes
net_interface {address}
module_path {modules}
module g711.so
module g722.so
module aufile.so
module sndfile.so
module srtp.so
{more}module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
snd_path {folder}
"""


def _modules() -> str:
    for folder in ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"):
        if Path(folder).is_dir():
            return folder
    raise AssertionError("baresip has no modules: apt-get install baresip-core")


@asynccontextmanager
async def baresip(
    folder: Path,
    voice: Path,
    *,
    user: str = "tester",
    address: str = LOOPBACK,
    codecs: str = "PCMU",
    account: str = "",
    more: Sequence[str] = (),
    port: int | None = None,
    certificate: Path | None = None,
    ca: Path | None = None,
) -> AsyncIterator[Baresip]:
    """A telephone that says `voice` (a WAV of its codec's rate) in each of its calls.

    Args:
        folder: made; its recordings and its log end there.
        codecs: such as `"PCMA,G722/16000"`.
        account: more parameters of its account, such as `";answermode=auto"`.
        more: modules besides the usual ones, such as `"opus"`.
        certificate: PEM, key and certificate; it then takes TLS too.
        ca: PEM, of those whom it believes over TLS.
    """
    binary = program("baresip")
    folder.mkdir(parents=True)
    port, control = port or free_port(address), free_port()
    tls = [] if certificate is None else [f"sip_certificate {certificate}"]
    tls += [] if ca is None else [f"sip_cafile {ca}"]
    shown = f"[{address}]" if ":" in address else address
    text = _BARESIP.format(
        address=address,
        shown=shown,
        port=port,
        tls="\n".join(tls),
        folder=folder,
        voice=voice,
        modules=_modules(),
        more="".join(f"module {each}.so\n" for each in more),
        control=control,
    )
    (folder / "config").write_text(text)
    line = f"<sip:{user}@{shown}:{port}>;regint=0;audio_codecs={codecs}{account}\n"
    (folder / "accounts").write_text(line)
    (folder / "contacts").write_text("")
    here = Baresip(folder, shown, port, user)
    with (folder / "baresip.log").open("wb") as log:
        async with running([binary, "-v", "-f", str(folder)], log) as process:
            here._stream = await _connect(LOOPBACK, control, process, folder / "baresip.log")
            async with here._stream, trio.open_nursery() as nursery:
                nursery.start_soon(here._read)
                yield here
                await here.command("quit")
                with trio.move_on_after(SOON_S):
                    await process.wait()
                nursery.cancel_scope.cancel()


async def _connect(address: str, port: int, process: trio.Process, log: Path) -> trio.SocketStream:
    with trio.move_on_after(SOON_S):
        while process.poll() is None:
            try:
                return await trio.open_tcp_stream(address, port)
            except OSError:
                await trio.sleep(0.05)
    raise AssertionError(f"baresip does not start:\n{log.read_text('utf-8', 'replace')}")
