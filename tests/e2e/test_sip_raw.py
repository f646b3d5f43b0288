"""A daemon against a SIP peer written by hand: what no well-behaved telephone would send."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.house import SOON_S, House, agent, house, nothing_is_left, sip_address, until

pytestmark = pytest.mark.usefixtures("virtual_time")

CONFIG = """
[engine.emulated]
kind = "emulator"
[sip]
listen = ["udp://127.0.0.1:0"]
{sip}
[[sip.trunk]]
name = "carrier"
host = "127.0.0.1:{port}"
options_s = 0
{trunk}
""" + agent("reception", "emulated", 'greeting_text = "Hello."').replace(
    'match = "sip:reception@voiced.test"', 'match = "*"'
)


class Peer:
    """A UDP socket for SIP; its audio would come from `rtp`."""

    def __init__(self) -> None:
        self.sip = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.rtp = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.port = 0
        self.to = ("", 0)
        self.sdp = ""
        self.got: list[str] = []

    async def bind(self) -> None:
        await self.sip.bind(("127.0.0.1", 0))
        await self.rtp.bind(("127.0.0.1", 0))
        self.port = self.sip.getsockname()[1]
        self.sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.rtp.getsockname()[1]} RTP/AVP 0\r\n"
        )

    async def request(
        self,
        method: str,
        call_id: str,
        *,
        number: int = 1,
        to_tag: str = "",
        more: str = "",
        body: str = "",
        kind: str = "application/sdp",
    ) -> None:
        host, port = self.to
        tag = f";tag={to_tag}" if to_tag else ""
        content = f"Content-Type: {kind}\r\n" if body else ""
        await self.say(
            f"{method} sip:+15550100@{host}:{port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{call_id}{method}{number}\r\n"
            f"From: <sip:+15550199@127.0.0.1>;tag=peer\r\nTo: <sip:+15550100@{host}>{tag}\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\n"
            f"Contact: <sip:peer@127.0.0.1:{self.port}>\r\n{more}{content}",
            body,
        )

    async def answer(self, request: str, status: str, body: str = "", more: str = "") -> None:
        kept = [
            line + (";tag=peer" if line.startswith("To:") and ";tag=" not in line else "")
            for line in request.split("\r\n")
            if line.split(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq")
        ]
        head = "\r\n".join([f"SIP/2.0 {status}", *kept])
        content = "Content-Type: application/sdp\r\n" if body else ""
        contact = f"Contact: <sip:peer@127.0.0.1:{self.port}>\r\n"
        await self.say(f"{head}\r\n{contact}{more}{content}", body)

    async def say(self, head: str, body: str = "") -> None:
        text = f"{head}Content-Length: {len(body)}\r\n\r\n{body}"
        await self.sip.sendto(text.encode("utf-8", "surrogateescape"), self.to)

    async def hears(self, start: str) -> str:
        """Wait for a message that begins so; what comes before it is dropped."""
        with trio.fail_after(SOON_S):
            while True:
                data, _ = await self.sip.recvfrom(65535)
                self.got.append(data.decode("utf-8", "surrogateescape"))
                if self.got[-1].startswith(start):
                    return self.got[-1]

    async def hung_up(self) -> None:
        """voiced says BYE, which is answered."""
        await self.answer(await self.hears("BYE "), "200 OK")


def tag_of(message: str) -> str:
    found = re.search(r"\r\nTo:[^\r]*;tag=([^\r;]+)", message)
    assert found is not None
    return found[1]


@asynccontextmanager
async def scene(
    folder: Path, *, sip: str = "", trunk: str = 'allow = ["127.0.0.1"]', facts: str = ""
) -> AsyncIterator[tuple[House, Peer]]:
    peer = Peer()
    with peer.sip, peer.rtp:
        await peer.bind()
        text = CONFIG.format(sip=sip, port=peer.port, trunk=trunk)
        text = text.replace("[agent.reception]", f"[agent.reception]\n{facts}")
        async with house(folder, text) as here:
            peer.to = ("127.0.0.1", int(sip_address(here.logs).rpartition(":")[2]))
            yield here, peer


async def ask(here: House, method: str, path: str, **request: Any) -> httpx.Response:
    (listening,) = (line for line in here.logs if line["event"] == "listening")
    token = (here.state_dir / "admin.token").read_text().strip()
    async with httpx.AsyncClient(timeout=SOON_S) as client:
        return await client.request(
            method,
            f"http://{listening['admin']}{path}",
            json=request or None,
            headers={"Authorization": f"Bearer {token}"},
        )


async def dial(here: House, **request: Any) -> str:
    answer = await ask(here, "POST", "/api/calls", **request)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_body_that_may_be_ignored_is_no_offer(tmp_path: Path) -> None:
    async with scene(tmp_path) as (here, peer):
        optional = "Content-Disposition: render;handling=optional\r\n"
        await peer.request("INVITE", "one", body="hello", kind="text/plain", more=optional)
        answer = await peer.hears("SIP/2.0 200")
        assert "\r\nm=audio " in answer  # ours is the offer then
        tag = tag_of(answer)
        await peer.request("ACK", "one", to_tag=tag, body=peer.sdp)
        await peer.request("BYE", "one", to_tag=tag, number=2)
        row = await here.row("one")
        assert row["reason"] == "caller_hangup"
        await nothing_is_left(here)


async def test_patience_for_audio_begins_with_the_answer(tmp_path: Path) -> None:
    """A 183 may describe audio long before the telephone is picked up, and bring none."""
    async with scene(tmp_path, sip="rtp_timeout_s = 1") as (here, peer):
        await dial(here, to="+4930", trunk="carrier")
        invite = await peer.hears("INVITE ")
        await peer.answer(invite, "183 Session Progress", peer.sdp)
        await trio.sleep(1.2)
        began = trio.current_time()
        await peer.answer(invite, "200 OK", peer.sdp)
        await peer.hung_up()
        assert trio.current_time() - began > 0.9
        await until(lambda: here.rows()[0]["ended_at"] is not None, "the end")
        assert here.rows()[0]["reason"] == "media_timeout"


async def test_bytes_that_are_no_characters(tmp_path: Path) -> None:
    """They reach the model, the journal, the log and the operator, and harm none of these."""
    odd = "X-Odd: a\udcff\x1b[2Jb\r\nSubject: \udced\udca0\udc80\r\n"
    async with scene(tmp_path, facts='facts = ["X-Odd", "Subject"]') as (here, peer):
        await peer.request("INVITE", "one\udcff", body=peer.sdp, more=odd)
        answer = await peer.hears("SIP/2.0 200")
        await peer.request("ACK", "one\udcff", to_tag=tag_of(answer))
        await trio.sleep(0.2)
        (shown,) = (await ask(here, "GET", "/api/calls")).json()["calls"]
        shown = (await ask(here, "GET", f"/api/calls/{shown['id']}")).json()
        assert shown["parameters"] == {"X-Odd": "a\ufffd\ufffd[2Jb", "Subject": "\ufffd" * 3}
        await peer.request("BYE", "one\udcff", to_tag=tag_of(answer), number=2)
        row = await here.row("one\ufffd")
        assert row["reason"] == "caller_hangup"
        await nothing_is_left(here)


async def test_a_reload_with_an_address_for_its_network(tmp_path: Path) -> None:
    async with scene(tmp_path) as (here, peer):
        await peer.request("INVITE", "one", body=peer.sdp)
        answer = await peer.hears("SIP/2.0 200")
        await peer.request("ACK", "one", to_tag=tag_of(answer))
        file = tmp_path / "voiced.toml"
        text = file.read_text().replace('allow = ["127.0.0.1"]', 'allow = ["127.0.0.1/8"]')
        file.write_text(text)
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep(0.5)
        await peer.request("INVITE", "two", body=peer.sdp)
        other = await peer.hears("SIP/2.0 200")
        assert "Call-ID: two" in other
        await peer.request("ACK", "two", to_tag=tag_of(other))
        for call_id, message in (("one", answer), ("two", other)):
            await peer.request("BYE", call_id, to_tag=tag_of(message), number=2)
            assert (await here.row(call_id))["reason"] == "caller_hangup"


@pytest.mark.parametrize("username", ["alice@example.com", "al ice", "50%", "\u00fc<x>"])
async def test_a_user_name_of_any_kind(tmp_path: Path, username: str) -> None:
    trunk = f'register = true\nusername = "{username}"\npassword = "secret"'
    async with scene(tmp_path, trunk=trunk) as (here, peer):
        register = await peer.hears("REGISTER ")
        assert "\r\nTo: <sip:" in register
        assert f"<sip:{username}@" not in register
        assert register.count("@127.0.0.1") >= 2
        assert not here.tracebacks()


async def test_a_target_that_makes_no_invite_keeps_no_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voiced.rtp.socket import RtpHub
    from voiced.sip.audio import CallAudio
    from voiced.sip.errors import SipError

    pairs: list[Any] = []
    opened = RtpHub.open

    def remember(hub: RtpHub, host: str) -> Any:
        pairs.append(opened(hub, host))
        return pairs[-1]

    def refuse(self: CallAudio, held: bool, *, full: bool = False) -> bytes:
        raise SipError("no offer")

    monkeypatch.setattr(RtpHub, "open", remember)
    monkeypatch.setattr(CallAudio, "offer", refuse)
    async with scene(tmp_path) as (here, _):
        with pytest.raises(AssertionError, match="carrier_refused"):
            await dial(here, to="+4930", trunk="carrier")
        (pair,) = pairs
        assert pair.readers()[0][0] == -1  # closed


async def test_a_fault_in_taking_a_call_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voiced.sipcalls import SipCalls

    def fail(*_: Any) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(SipCalls, "invited", fail)
    async with scene(tmp_path) as (here, peer):
        await peer.request("INVITE", "one", body=peer.sdp)
        await peer.hears("SIP/2.0 500")
        (line,) = here.tracebacks()
        assert "a bug" in line["exception"]


async def test_a_name_of_ours_is_an_address_in_sdp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`advertise` may be a name; audio is sent to addresses alone."""
    from voiced.sip.addressing import Addressing

    towards = Addressing.towards

    def named(self: Addressing, to: Any) -> tuple[str, int]:
        return "localhost", towards(self, to)[1]

    monkeypatch.setattr(Addressing, "towards", named)
    async with scene(tmp_path, sip='advertise = "localhost"') as (here, peer):
        await trio.sleep(0.1)
        await peer.request("INVITE", "one", body=peer.sdp)
        answer = await peer.hears("SIP/2.0 200")
        assert "\r\nContact: <sip:voiced@localhost:" in answer
        assert "\r\nc=IN IP4 127.0.0.1\r\n" in answer
        await peer.request("ACK", "one", to_tag=tag_of(answer))
        await peer.request("BYE", "one", to_tag=tag_of(answer), number=2)
        await here.row("one")
        await nothing_is_left(here)
