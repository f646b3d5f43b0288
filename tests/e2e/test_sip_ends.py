"""A daemon with trunks is reloaded, drained and cut while calls live; mistakes at its start."""

from __future__ import annotations

import signal
import socket
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from tests.e2e.house import (
    SOON_S,
    Outcomes,
    Scenes,
    judge,
    nothing_more,
    played,
    run_strictly,
    until,
)
from tests.e2e.sip_peer import Peer, sip_peer
from tests.e2e.test_operator import mistaken
from tests.interop.sip.house import SipHouse, sip_house
from voiced import clips
from voiced.audio import pcm_to_ulaw

OFFLINE = """
[engine.offline]
kind = "emulator"
speech = "clips"

[agent.reception]
engine = "offline"
greeting = ""
silence_prompt_s = 0
silence_hangup_s = 0

[[number]]
match = "*"
agent = "reception"
"""

FAREWELL = pcm_to_ulaw(clips.load("farewell").pcm)

STARTED = "offline engine started"
"""What is logged before the daemon listens."""

starts: Scenes[Path] = Scenes()


def admin(here: SipHouse) -> httpx.AsyncClient:
    (listening,) = here.lines("listening")
    token = (here.here.state_dir / "admin.token").read_text("utf-8").strip()
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(
        base_url=f"http://{listening['admin']}", headers=headers, timeout=SOON_S
    )


async def asks(peer: Peer, here: SipHouse, method: str = "INVITE") -> int:
    """The status of an INVITE of this peer's; an answered call is left as it is."""
    await peer.invite(("127.0.0.1", here.port))
    response = await peer.status()
    await peer.ack(response)
    return response.status


async def test_drains_says_farewell_and_byes(tmp_path: Path) -> None:
    async with (
        sip_house(tmp_path, {"plain": ""}, text=OFFLINE) as here,
        sip_peer(here.addresses["plain"][0]) as peer,
        sip_peer(here.addresses["plain"][0]) as late,
        admin(here) as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        assert await asks(peer, here) == 200
        await here.live(peer.call_id)
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: bool(here.lines("draining")), "the drain")
        # Ready no more, and those who ask over SIP are sent elsewhere.
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["draining"]
        assert await asks(late, here) == 503
        assert late.log[-1].get("retry-after")
        bye = await peer.until_bye()
        assert bye.to_tag
        assert FAREWELL in peer.heard()
        await until(lambda: bool(here.lines("stopped")), "the end")
    (row,) = here.here.rows()
    assert row["reason"] == "shutdown"
    assert [state for state, _ in row["states"]][-2:] == ["ending", "ended"]
    assert not here.here.tracebacks()


async def test_a_call_that_ends_while_draining(tmp_path: Path) -> None:
    """The caller hangs up in time: nothing is said, the daemon ends at once."""
    async with (
        sip_house(tmp_path, {"plain": ""}, text=OFFLINE, drain_s=30) as here,
        sip_peer(here.addresses["plain"][0]) as peer,
    ):
        assert await asks(peer, here) == 200
        await here.live(peer.call_id)
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: bool(here.lines("draining")), "the drain")
        assert (await peer.hang_up()).status == 200
        await until(lambda: bool(here.lines("stopped")), "the end")
    assert [row["reason"] for row in here.here.rows()] == ["caller_hangup"]


async def test_told_twice_it_cuts_with_bye_and_cancel(tmp_path: Path) -> None:
    """A call that is up gets BYE, one of ours that rings CANCEL; both at once."""
    async with (
        sip_house(tmp_path, {"plain": ""}, text=OFFLINE, drain_s=30) as here,
        sip_peer(here.addresses["plain"][0]) as peer,
        sip_peer(here.addresses["plain"][0]) as rings,
    ):
        assert await asks(peer, here) == 200
        await here.live(peer.call_id)
        await here.dial(rings.uri)
        invite = await rings.called()
        await rings.respond(invite, 180)
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: bool(here.lines("draining")), "the drain")
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(20):  # the drain would take 30
            await peer.until_bye()
            cancel = await rings.comes("CANCEL")
            await rings.respond(cancel, 200)
            await rings.respond(invite, 487)
            await rings.comes("ACK")
            await until(lambda: bool(here.lines("stopped")), "the end")
        assert FAREWELL not in peer.heard()
    assert {row["reason"] for row in here.here.rows()} == {"shutdown"}
    assert not here.here.tracebacks()


async def test_reload_changes_trunks_under_live_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiced.log.configure", lambda *settings: None)  # the house keeps the log
    trunks = {"stays": "", "goes": "max_calls = 5", "shrinks": "max_calls = 5"}
    async with (
        sip_house(tmp_path, trunks, text=OFFLINE) as here,
        sip_peer(here.addresses["stays"][0]) as stays,
        sip_peer(here.addresses["goes"][0]) as goes,
        sip_peer(here.addresses["shrinks"][0]) as shrinks,
        sip_peer("127.0.9.77") as comes,
        admin(here) as client,
    ):
        for peer in (stays, goes, shrinks):
            assert await asks(peer, here) == 200
            await here.live(peer.call_id)
        await comes.invite(("127.0.0.1", here.port))
        with pytest.raises(trio.TooSlowError):  # a stranger hears nothing
            await comes.next(0.3)

        file = tmp_path / "voiced.toml"
        text = file.read_text("utf-8")
        good = text.replace('name = "goes"', 'name = "comes"').replace(
            f'"{here.addresses["goes"][0]}', '"127.0.9.77'
        )
        first, shrinks_on = good.split('name = "shrinks"')
        good = first + 'name = "shrinks"' + shrinks_on.replace("max_calls = 5", "max_calls = 1", 1)
        bad = text.replace('name = "stays"', 'name = "stays"\ncodecs = ["opus"]')
        file.write_text(bad, "utf-8")
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: bool(here.lines("configuration not reloaded")), "the mistake")
        assert [each.name for each in here.operations.trunks()] == ["stays", "goes", "shrinks"]
        file.write_text(good, "utf-8")
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: bool(here.lines("configuration reloaded")), "the reload")

        shown = (await client.get("/api/trunks")).json()["trunks"]
        found = {each["name"]: (each["calls"], each["max_calls"]) for each in shown}
        assert found == {"stays": (1, None), "comes": (0, 5), "shrinks": (1, 1)}
        # All three calls live on; whose trunk is gone may end its own, and begin no other.
        assert {call.facts.trunk for call in here.switchboard} == {"stays", "goes", "shrinks"}
        async with sip_peer(here.addresses["goes"][0]) as again:
            await again.invite(("127.0.0.1", here.port))
            with pytest.raises(trio.TooSlowError):
                await again.next(0.3)
        async with sip_peer(here.addresses["shrinks"][0]) as again:
            assert await asks(again, here) == 486
        assert await asks(comes, here) == 200
        for peer in (stays, goes, shrinks, comes):
            assert (await peer.hang_up()).status == 200
        await here.nothing_left()
        rows = {row["trunk"]: row["reason"] for row in here.here.rows()}
        assert rows == dict.fromkeys(("stays", "goes", "shrinks", "comes"), "caller_hangup")


# ---- mistakes at the start: one line, exit 1


async def wrong(folder: Path, name: str, sip: str, said: list[str]) -> None:
    head = '[daemon]\nstate_dir = "state"\n[http]\nlisten = "127.0.0.1:0"\n'
    trunk = '[[sip.trunk]]\nname = "plain"\nhost = "192.0.2.1"\n'
    await mistaken(folder, name, OFFLINE + sip + trunk, head, said)


for name, sip, said in (
    ("scheme", '[sip]\nlisten = ["sctp://127.0.0.1:5060"]\n', ["sctp"]),
    ("no_certificate", '[sip]\nlisten = ["tls://127.0.0.1:0"]\n', ["tls_cert"]),
    ("ports", '[sip]\nlisten = ["udp://127.0.0.1:0"]\nrtp_ports = "30000-20000"\n', ["rtp_ports"]),
    ("address", '[sip]\nlisten = ["udp://203.0.113.1:5060"]\n', [STARTED, "203.0.113.1"]),
):
    starts[name] = partial(wrong, name=name, sip=sip, said=said)


async def taken(folder: Path, transport: str) -> None:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(type=kind) as other:
        other.bind(("127.0.0.1", 0))
        if transport == "tcp":
            other.listen()
        address = f"{transport}://127.0.0.1:{other.getsockname()[1]}"
        sip = f'[sip]\nlisten = ["{address}"]\n'
        await wrong(
            folder,
            f"taken_{transport}",
            sip,
            [STARTED, f"listen on {address}: Address already in use"],
        )


starts["port_in_use_udp"] = partial(taken, transport="udp")
starts["port_in_use_tcp"] = partial(taken, transport="tcp")


@starts
async def another_key(folder: Path) -> None:
    """A certificate and a key that do not belong together."""
    authority = trustme.CA()
    here = folder / "another_key"
    here.mkdir()
    one, other = authority.issue_cert("127.0.0.1"), authority.issue_cert("127.0.0.1")
    one.cert_chain_pems[0].write_to_path(here / "cert.pem")
    other.private_key_pem.write_to_path(here / "key.pem")
    sip = '[sip]\nlisten = ["tls://127.0.0.1:0"]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    await wrong(folder, "another_key", sip, ["tls_key"])


@starts
async def no_pem(folder: Path) -> None:
    here = folder / "no_pem"
    here.mkdir()
    (here / "cert.pem").write_text("This is no certificate.\n", "utf-8")
    (here / "key.pem").write_text("This is no key.\n", "utf-8")
    sip = '[sip]\nlisten = ["tls://127.0.0.1:0"]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    await wrong(folder, "no_pem", sip, ["tls_key"])


async def all_of_it(folder: Path) -> Outcomes:
    return await starts.play(folder, nothing_more)


outcomes = played(all_of_it, run=run_strictly)


@pytest.mark.parametrize("name", starts)
def test_start(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
