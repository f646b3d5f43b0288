"""Running sipp with scenarios of ours, written short: `{{name:words}}` stands for message parts."""

from __future__ import annotations

import itertools
import math
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from tests.interop.sip.house import SipHouse, free_port
from voiced.audio import pcm_to_ulaw

__all__ = ["SCENARIOS", "Sipp", "expand", "listening", "sipp", "tone_file"]

SCENARIOS = Path(__file__).parent / "scenarios"

TIMEOUT_S = 40
"""What no scenario takes, however slow the machine."""

_FRAGMENT = re.compile(r"\{\{([\w-]+)(?::([^}]*))?\}\}")
_numbers = itertools.count()

HEAD = """\
Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]
From: "Caller" <sip:+15550199@[local_ip]:[local_port]>;tag=[pid]t[call_number]
Call-ID: [call_id]
Max-Forwards: 70"""

TO = "To: <sip:[service]@[remote_ip]:[remote_port]>"
CONTACT = "Contact: <sip:peer@[local_ip]:[local_port];transport=[transport]>"
EMPTY = "Content-Length: 0\n"

_CODECS = {
    "0": "a=rtpmap:0 PCMU/8000",
    "8": "a=rtpmap:8 PCMA/8000",
    "18": "a=rtpmap:18 G729/8000",
    "96": "a=rtpmap:96 telephone-event/8000\na=fmtp:96 0-15",
    "101": "a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15",
}
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


def _invite(words: Sequence[str]) -> str:
    return "\n".join(
        [
            "INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0",
            HEAD,
            TO,
            f"CSeq: {words[0] if words else 1} INVITE",
            CONTACT,
        ]
    )


def _within(words: Sequence[str]) -> str:
    """`METHOD CSEQ`: a request of the caller's in the dialog that a recv with rrs has noted."""
    method, number = words
    via, sender, *rest = HEAD.splitlines()
    return "\n".join(
        [
            f"{method} [next_url] SIP/2.0",
            via,
            "[routes]",
            sender,
            f"{TO}[peer_tag_param]",
            *rest,
            f"CSeq: {number} {method}",
            CONTACT,
        ]
    )


def _sdp(words: Sequence[str]) -> str:
    """`[VERSION] [direction | zero] [payload types…]`, in this order, ends the message."""
    numbers = list(words)
    version = numbers.pop(0) if numbers and numbers[0].startswith("v") else "v1"
    direction = numbers.pop(0) if numbers and numbers[0] in (*_DIRECTIONS, "zero") else "sendrecv"
    types = numbers or ["0", "101"]
    address = "0.0.0.0" if direction == "zero" else "[media_ip]"
    lines = [
        "Content-Type: application/sdp",
        "Content-Length: [len]",
        "",
        "v=0",
        f"o=peer 1 {version[1:]} IN IP4 [local_ip]",
        "s=-",
        f"c=IN IP4 {address}",
        "t=0 0",
        f"m=audio {{{{port}}}} RTP/AVP {' '.join(types)}",
        *(_CODECS[number] for number in types),
        f"a={'sendrecv' if direction == 'zero' else direction}",
        "",
    ]
    return "\n".join(lines)


def _reply(words: Sequence[str]) -> str:
    """`STATUS Reason`: the called one's answer to the INVITE, with its tag."""
    return "\n".join(
        [
            f"SIP/2.0 {' '.join(words)}",
            "[last_Via:]",
            "[last_From:]",
            "[last_To:];tag=[pid]u[call_number]",
            "[last_Call-ID:]",
            "[last_CSeq:]",
            CONTACT,
        ]
    )


def _answer(words: Sequence[str]) -> str:
    """`STATUS Reason`: the answer to a request in the dialog."""
    return "\n".join(
        [
            f"SIP/2.0 {' '.join(words)}",
            "[last_Via:]",
            "[last_From:]",
            "[last_To:]",
            "[last_Call-ID:]",
            "[last_CSeq:]",
            CONTACT,
        ]
    )


def _remember(_: Sequence[str]) -> str:
    """In the recv of an INVITE: what `request` needs."""
    return (
        '<action><ereg regexp="[^ ].*" search_in="hdr" header="From:" assign_to="caller"/>'
        '<ereg regexp="[^ ].*" search_in="hdr" header="To:" assign_to="called"/>'
        '<ereg regexp="sip:[^>;]*" search_in="hdr" header="Contact:" assign_to="contact"/>'
        '<ereg regexp="[0-9]+" search_in="hdr" header="CSeq:" assign_to="cseq"/></action>'
    )


def _request(words: Sequence[str]) -> str:
    """`METHOD CSEQ`: a request of the called one's in the dialog."""
    method, number = words
    return "\n".join(
        [
            f"{method} [$contact] SIP/2.0",
            "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]",
            "From: [$called];tag=[pid]u[call_number]",
            "To: [$caller]",
            "Call-ID: [call_id]",
            f"CSeq: {number} {method}",
            "Max-Forwards: 70",
            CONTACT,
        ]
    )


def _refused(words: Sequence[str]) -> str:
    """`STATUS CSEQ`: the caller is refused finally, and acknowledges in the same transaction."""
    status, number = words
    return f"""<recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="{status}"/>
  {_send(_NACK + f"CSeq: {number} ACK", EMPTY)}"""


_NACK = """ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
Max-Forwards: 70
"""


def _send(*parts: str, attributes: str = "") -> str:
    return f"<send{attributes}><![CDATA[\n" + "\n".join(parts) + "\n]]></send>"


def _ack(words: Sequence[str]) -> str:
    """`CSEQ`: the caller's ACK to a 2xx."""
    return _send(_within(["ACK", *words]), EMPTY)


def _hangup(words: Sequence[str]) -> str:
    """`CSEQ`: the caller's BYE and its answer."""
    return "\n  ".join(
        [
            _send(_within(["BYE", *words]), EMPTY, attributes=' retrans="500"'),
            '<recv response="200"/>',
        ]
    )


def _call(words: Sequence[str]) -> str:
    """The caller's INVITE, with a body as `sdp` makes it, up to its ACK."""
    return "\n  ".join(
        [
            _send(_invite([]), _sdp(words), attributes=' retrans="500"'),
            '<recv response="100" optional="true"/>',
            '<recv response="180"/>',
            '<recv response="200" rrs="true"/>',
            _ack(["1"]),
        ]
    )


def _ok(_: Sequence[str]) -> str:
    """200 to a request of ours in the caller's dialog."""
    return '<recv response="100" optional="true"/>\n  <recv response="200"/>'


def _called(words: Sequence[str]) -> str:
    """The called one rings and answers, with a body as `sdp` makes it, up to the ACK."""
    return "\n  ".join(
        [
            f'<recv request="INVITE">{_remember([])}</recv>',
            _send(_reply(["180", "Ringing"]), EMPTY),
            _send(_reply(["200", "OK"]), _sdp(words), attributes=' retrans="500"'),
            '<recv request="ACK"/>',
            '<Reference variables="caller,called,contact,cseq"/>',
        ]
    )


def _hung_up(_: Sequence[str]) -> str:
    """The daemon's BYE, answered."""
    return f'<recv request="BYE"/>\n  {_send(_answer(["200", "OK"]), EMPTY)}'


_FRAGMENTS = {
    "ack": _ack,
    "answer": _answer,
    "call": _call,
    "called": _called,
    "contact": lambda words: CONTACT,
    "empty": lambda words: EMPTY,
    "hangup": _hangup,
    "head": lambda words: HEAD,
    "hung-up": _hung_up,
    "invite": _invite,
    "ok": _ok,
    "refused": _refused,
    "remember": _remember,
    "reply": _reply,
    "request": _request,
    "sdp": _sdp,
    "to": lambda words: TO,
    "within": _within,
}


def expand(text: str, values: Mapping[str, object]) -> str:
    """A scenario as sipp reads it: `{{name}}` of `values`, then fragments, put in."""
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", str(value))

    def part(match: re.Match[str]) -> str:
        return expand(_FRAGMENTS[match[1]]((match[2] or "").split()), values)

    return _FRAGMENT.sub(part, text)


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
    expect: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> Sipp:
    """Run a scenario for one call, as the caller from `trunk`'s address or as its called one.

    `values`: what `{{name}}` in the scenario stands for, besides `port` (of audio), `tone` (a
    file), `daemon` (`host:port`). Raises AssertionError with sipp's logs if it exits otherwise
    than with `expect`, or is not installed. `started` tells the Call-ID that a caller uses, when
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
    command += ["-m", "1", "-nostdin", "-cid_str", name, "-timer_resol", "5"]
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


class listening:  # noqa: N801 (used as a function)
    """`async with listening(house, scenario, trunk) as peer`: sipp is called meanwhile.

    Entering waits until it listens; leaving, until its call is over. `peer.result` is set then.
    """

    def __init__(self, house: SipHouse, scenario: str, trunk: str = "plain", **more: object):
        self._house = house
        self._trunk = trunk
        self._run = partial(sipp, house, scenario, trunk, called=True, **more)  # type: ignore[arg-type]
        self._port = more.get("port")
        self.result: Sipp | None = None

    @property
    def uri(self) -> str:
        """Where it is called."""
        host, port = self._house.addresses[self._trunk]
        return f"sip:bob@{host}:{self._port or port}"

    async def __aenter__(self) -> listening:
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        nursery.start_soon(self._serve)
        host, port = self._house.addresses[self._trunk]
        await _bound(host, int(str(self._port or port)))
        return self

    async def _serve(self) -> None:
        self.result = await self._run()

    async def __aexit__(self, *error: object) -> bool | None:
        return await self._manager.__aexit__(*error)  # type: ignore[arg-type]


async def _bound(host: str, port: int) -> None:
    """Wait until a UDP socket, or a TCP listener, has this address."""
    digits = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    wanted = f" {digits}:{port:04X} "
    with trio.move_on_after(20):
        while not any(
            wanted in Path(f"/proc/net/{table}").read_text("ascii") for table in ("udp", "tcp")
        ):
            await trio.sleep(0.02)
        return
    raise AssertionError(f"sipp does not listen at {host}:{port}")
