"""Real SIP programs as peers: baresip telephones, a kamailio, sipvicious. Debian's packages.

Each gets a folder with a configuration written here, ports that are free, and a process that ends
with its `async with`. What it recorded and logged stays in the folder.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
import trustme

__all__ = [
    "LOOPBACK",
    "Baresip",
    "Certificates",
    "Kamailio",
    "baresip",
    "certificates",
    "free_port",
    "kamailio",
    "program",
    "scan",
]

LOOPBACK: Final = "127.0.0.1"

SOON_S: Final = 15.0
"""How long anything may take that is done at once: the machine may be busy."""

_PACKAGES: Final = {
    "baresip": "baresip-core",
    "kamailio": "kamailio",
    "kamcmd": "kamailio",
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


# ---- certificates


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


# ---- baresip


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
        """What it decoded, WAVs of its codec's rate; a hold begins a new one."""
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
        async with _running([binary, "-v", "-f", str(folder)], log) as process:
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


@asynccontextmanager
async def _running(command: Sequence[str], log: Any) -> AsyncIterator[trio.Process]:
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


# ---- kamailio

_KAMAILIO: Final = """\
#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children=1
tcp_children=1
listen=udp:{address}:{port}
listen=tcp:{address}:{port}
auto_aliases=no
user_agent_header="User-Agent: registrar"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "sanity.so"
loadmodule "auth.so"
loadmodule "ctl.so"
modparam("ctl", "binrpc", "unix:{control}")
modparam("auth", "qop", "auth")
modparam("auth", "nonce_count", 1)
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", {expires})
modparam("registrar", "min_expires", 1)
modparam("rr", "enable_full_lr", 1)
modparam("rr", "append_fromtag", 1)

request_route {{
    xlog("L_NOTICE", "SEEN $rm user $fU over $proto from $si:$sp $ci cseq $cs route [$hdr(Route)] "
        "expires [$hdr(Expires)]\\n");
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (!sanity_check("1511", "7")) exit;
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
        if (!is_method("ACK")) sl_send_reply("404", "Not here");
        exit;
    }}
    if (is_method("REGISTER")) {{
        if (!pv_auth_check("$fd", "{password}", "0", "0")) {{
            auth_challenge("$fd", "1");
            exit;
        }}
        consume_credentials();
        save("location");
        exit;
    }}
    if (is_method("OPTIONS") && uri == myself) {{ sl_send_reply("200", "OK"); exit; }}
    if (is_method("INVITE")) record_route();
    if (uri == myself) {{
        if (lookup("location")) {{ t_relay(); exit; }}
        if ($rU =~ "^out-") {{
            if (!pv_proxy_authenticate("$fd", "{password}", "0")) {{
                proxy_challenge("$fd", "1");
                exit;
            }}
            consume_credentials();
            $ru = "{onward}";
            t_relay();
            exit;
        }}
        sl_send_reply("404", "Unknown here");
        exit;
    }}
    t_relay();
}}
"""


@dataclass
class Kamailio:
    """A registrar and proxy. Calls to `out-…` at its address go to `onward`, for a password."""

    folder: Path
    address: str
    port: int

    @property
    def host(self) -> str:
        """Address and port."""
        return f"{self.address}:{self.port}"

    def log(self) -> str:
        """What it has printed: a line `SEEN METHOD …` for each request."""
        return (self.folder / "kamailio.log").read_text("utf-8", "replace")

    def seen(self, method: str) -> list[str]:
        """The lines about requests of a method."""
        return [line for line in self.log().splitlines() if f"SEEN {method} " in line]

    async def contacts(self) -> str:
        """Its table of locations, as `kamcmd` prints it."""
        command = [program("kamcmd"), "-s", f"unix:{self.folder / 'ctl'}", "ul.dump"]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        return bytes(done.stdout).decode("utf-8", "replace")


@asynccontextmanager
async def kamailio(
    folder: Path,
    *,
    password: str = "s3cret",
    port: int | None = None,
    onward: str = "sip:nobody@127.0.0.1:9",
    expires: int = 3600,
) -> AsyncIterator[Kamailio]:
    """A kamailio that knows one password for all users and grants at most `expires` seconds.

    `port`: that of an earlier one, which comes back. It answers when this returns.
    """
    binary = program("kamailio")
    folder.mkdir(parents=True, exist_ok=True)
    here = Kamailio(folder, LOOPBACK, port or free_port())
    file = folder / "kamailio.cfg"
    file.write_text(
        _KAMAILIO.format(
            address=here.address,
            port=here.port,
            control=folder / "ctl",
            password=password,
            onward=onward,
            expires=expires,
        )
    )
    command = [binary, "-f", str(file), "-DD", "-E", "-Y", str(folder), "-m", "32", "-M", "4"]
    with (folder / "kamailio.log").open("ab") as log:
        async with _running(command, log) as process:
            await _answers(here, process)
            yield here


async def _answers(here: Kamailio, process: trio.Process) -> None:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        await probe.bind((LOOPBACK, 0))
        own = probe.getsockname()
        text = (
            f"OPTIONS sip:{here.host} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {own[0]}:{own[1]};branch=z9hG4bKprobe\r\n"
            f"From: <sip:probe@{own[0]}>;tag=1\r\nTo: <sip:{here.host}>\r\n"
            f"Call-ID: probe{own[1]}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 5\r\n"
            f"Contact: <sip:probe@{own[0]}:{own[1]}>\r\nContent-Length: 0\r\n\r\n"
        )
        with trio.move_on_after(SOON_S):
            while process.poll() is None:
                await probe.sendto(text.encode(), (here.address, here.port))
                with trio.move_on_after(0.2):
                    try:
                        answer = await probe.recv(65536)
                    except ConnectionError:  # nobody listens yet
                        await trio.sleep(0.1)
                        continue
                    assert answer.startswith(b"SIP/2.0 200"), answer
                    return
    raise AssertionError(f"kamailio does not start:\n{here.log()}")


# ---- sipvicious


async def scan(tool: str, *arguments: str, timeout_s: float = 30.0) -> str:
    """Run `svmap` or `svwar`; returns what it printed. One that does not end is ended."""
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
