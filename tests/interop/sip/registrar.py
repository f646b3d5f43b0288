"""kamailio as a registrar with digest and as a proxy that stays in the way of calls."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from tests.interop.sip.peers import LOOPBACK, SOON_S, free_port, program, running

__all__ = ["Kamailio", "kamailio"]

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
        """The lines about requests of a method; one that was sent again has one line."""
        lines = [line.partition("SEEN ")[2] for line in self.log().splitlines()]
        return list(dict.fromkeys(line for line in lines if line.startswith(f"{method} ")))

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
        async with running(command, log) as process:
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
