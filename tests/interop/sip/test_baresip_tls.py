"""baresip and a trunk that takes nothing but TLS and SRTP: both ways, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.house import Scenes, run_strictly
from tests.interop.sip.house import sip_house
from tests.interop.sip.peers import Certificates, certificates, free_port
from tests.interop.sip.talk import AGENTS, Played, Talk, settled
from voiced import clips

pytestmark = pytest.mark.interop

scenes: Scenes[Talk] = Scenes()


@scenes
async def calls_us(talk: Talk) -> None:
    async with talk.phone("calls_us", account=";mediaenc=srtp-mand") as phone:
        await talk.converses(phone, "hello", "tls")
        row = await talk.hangs_up(phone)
        talk.expect(phone, row, "hello", "who", codec="PCMU", srtp=True)
        assert row["media"]["rtt_ms"] < 200  # reports are encrypted too
        assert "CALL_MENC" in phone.kinds()


@scenes
async def is_called(talk: Talk) -> None:
    """In wideband; its certificate is verified (baresip 1.0 itself asks nobody for one)."""
    async with talk.phone(
        "is_called",
        codecs="G722/16000",
        account=";answermode=auto;mediaenc=srtp-mand",
        port=talk.ports["called"],
    ) as phone:
        call_id = await talk.house.dial(phone.uri("tls"), "safe")
        await talk.answer((await phone.told("CALL_ESTABLISHED"))["id"])
        await phone.command("hangup")
        row = await talk.row_of(call_id)
        assert row["reason"] == "callee_hangup"
        talk.expect(phone, row, "hello", "who", codec="G722", srtp=True)


@scenes
async def held(talk: Talk) -> None:
    """Hold and resume are new offers; the keys' counters go on (RFC 3711 3.3.1)."""
    async with talk.phone("held", account=";mediaenc=srtp-mand") as phone:
        call = await talk.calls(phone, "hello", "tls")
        await talk.comes_to(call, "speaking")
        await phone.command("hold")
        await talk.comes_to(call, "on_hold")
        await trio.sleep(0.5)
        await phone.command("resume")
        await talk.answer(call)
        row = await talk.hangs_up(phone)
        assert row["transcript"][-1]["text"] == clips.load("who").text
        media = row["media"]
        assert media["srtp"]
        assert media["undecryptable"] <= 1  # baresip's first report is not encrypted
        assert abs(phone.packets()[1] - media["sent_packets"]) <= 2


@scenes
async def unencrypted(talk: Talk) -> None:
    """Audio without keys is refused."""
    async with talk.phone("unencrypted") as phone:
        address = f"sip:hello@127.0.0.1:{talk.house.ports['tls']};transport=tls"
        await phone.command("dial", address)
        closed = await phone.told("CALL_CLOSED")
        assert closed["param"].startswith("488"), closed
        assert "CALL_ESTABLISHED" not in phone.kinds()
        assert talk.house.lines("call refused", text="SRTP is required")


@scenes
async def certificate_of_nobody(talk: Talk) -> None:
    """Whom we call shows a certificate of an authority that we do not know: no call."""
    own = certificates(talk.house.folder / "forger")
    async with talk.phone(
        "certificate_of_nobody",
        account=";answermode=auto;mediaenc=srtp-mand",
        port=talk.ports["forger"],
        certificate=own.both,
    ) as phone:
        call_id = await talk.house.dial(phone.uri("tls"), "forged")
        row = await talk.row_of(call_id)
        assert row["reason"] == "unreachable"
        assert not phone.kinds()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("baresip-tls")
    (folder / "forger").mkdir()
    return run_strictly(partial(play, folder, certificates(folder)))


async def play(folder: Path, papers: Certificates) -> Played:
    ports = {"called": free_port(), "forger": free_port()}  # TLS is at the next ones
    trunks = {
        "safe": f'host = "127.0.0.1:{ports["called"] + 1}"\nallow = ["127.0.0.1"]\n'
        'transport = "tls"\nsrtp = "required"\ncodecs = ["pcmu", "pcma", "g722"]',
        "forged": f'host = "127.0.0.1:{ports["forger"] + 1}"\ntransport = "tls"\nsrtp = "required"',
    }
    async with sip_house(
        folder, trunks, sip=papers.settings, text=AGENTS, listen=("udp", "tls")
    ) as here:
        talk = Talk(here, papers, ports)
        return Played(await scenes.play(talk, lambda talk: settled(talk.house)), talk)


@pytest.mark.parametrize("name", scenes.names)
def test_baresip_tls(name: str, played: Played) -> None:
    played.judge(name)
