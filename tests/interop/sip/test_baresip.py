"""baresip as caller and as called one: real audio both ways, keys, hold, transfers, both endings.

What it heard is compared with the clips that the offline model speaks, sample by sample; what the
model heard is in the journal. The recordings, and `measured.txt`, stay in the test's folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import Scenes, run_strictly, until
from tests.interop.sip.house import sip_house
from tests.interop.sip.peers import certificates, free_port
from tests.interop.sip.phones import Baresip
from tests.interop.sip.talk import AGENTS, Played, Talk, settled
from voiced import clips
from voiced.talk.dialogue import Dialogue

pytestmark = pytest.mark.interop

ELSEWHERE = "127.0.8.20"
"""On no trunk's list: who comes from here must know a password."""

SIX = "::1"

scenes: Scenes[Talk] = Scenes()


def talks(name: str, **more: Any) -> Callable[[Callable[[Talk, Baresip], Awaitable[None]]], None]:
    """A scene with a telephone of its own."""

    def add(scene: Callable[[Talk, Baresip], Awaitable[None]]) -> None:
        async def play(talk: Talk) -> None:
            async with talk.phone(name, **more) as phone:
                await scene(talk, phone)

        scenes[name] = play

    return add


@talks("pcmu-udp", question="hours")
async def long_answer(talk: Talk, phone: Baresip) -> None:
    """Fourteen seconds without a gap, over what most trunks are."""
    await talk.converses(phone, "hours")
    row = await talk.hangs_up(phone)
    talk.expect(phone, row, "hours", "opening_hours", codec="PCMU")
    assert row["media"]["rtt_ms"] < 200
    assert row["media"]["remote_lost"] == 0
    assert row["trunk"] == "phones"
    assert row["caller"] == f"sip:{phone.user}@127.0.0.1"


@talks("pcma-tcp", codecs="PCMA")
async def a_law_over_tcp(talk: Talk, phone: Baresip) -> None:
    """Here it is the operator who hangs up."""
    call = await talk.converses(phone, "hello", "tcp")
    talk.house.operations.hangup(await talk.house.live(call), "operator")
    await phone.told("CALL_CLOSED")
    row = await talk.row(call)
    assert row["reason"] == "operator"
    talk.expect(phone, row, "hello", "who", codec="PCMA")


@talks("g722-udp", codecs="G722/16000")
async def wideband(talk: Talk, phone: Baresip) -> None:
    await talk.converses(phone, "hello")
    row = await talk.hangs_up(phone)
    talk.expect(phone, row, "hello", "who", codec="G722")


@talks("preference", codecs="G722/16000,PCMA,PCMU")
async def the_offer_s_order_rules(talk: Talk, phone: Baresip) -> None:
    """A trunk that takes all three speaks what the caller wants most."""
    await talk.calls(phone, "hello")
    row = await talk.hangs_up(phone)
    assert row["media"]["codec"] == "G722"


@talks(
    "crowded",
    codecs="opus/48000/2,G726-32/8000/1,PCMA",
    more=("opus", "g726", "vp8", "fakevideo"),
)
async def much_that_we_do_not_speak(talk: Talk, phone: Baresip) -> None:
    """Other codecs first, and video: the one thing that we have in common is spoken."""
    await talk.converses(phone, "hello")
    row = await talk.hangs_up(phone)
    talk.expect(phone, row, "hello", "who", codec="PCMA")


@talks("dtls", account=";mediaenc=dtls_srtp", more=("dtls_srtp",))
async def dtls_alone(talk: Talk, phone: Baresip) -> None:
    """Keys of DTLS are none that we speak: refused, and the log says why."""
    await phone.command("dial", f"sip:hello@127.0.0.1:{talk.house.port}")
    closed = await phone.told("CALL_CLOSED")
    assert closed["param"].startswith("488"), closed
    assert "CALL_ESTABLISHED" not in phone.kinds()
    assert talk.house.lines("call refused", text="transport not supported")


@talks("echo", question="thanks")
async def own_words(talk: Talk, phone: Baresip) -> None:
    """Through the whole daemon and back: what it says is what it hears."""
    await talk.converses(phone, "echo")
    row = await talk.hangs_up(phone)
    talk.expect(phone, row, "thanks", "thanks", codec="PCMU", said="goodbye")


@talks("tls-srtp", account=";mediaenc=srtp")
async def encrypted_where_both_can(talk: Talk, phone: Baresip) -> None:
    """Keys in an offer of plain RTP/AVP, as baresip's `srtp` has it, are taken."""
    await talk.converses(phone, "hello", "tls")
    row = await talk.hangs_up(phone)
    talk.expect(phone, row, "hello", "who", codec="PCMU", srtp=True)


@talks("tls-plain")
async def plain_where_one_cannot(talk: Talk, phone: Baresip) -> None:
    await talk.converses(phone, "hello", "tls")
    row = await talk.hangs_up(phone)
    talk.expect(phone, row, "hello", "who", codec="PCMU")


@talks("keys-hold", question="hello")
async def keys_hold_and_a_refused_transfer(talk: Talk, phone: Baresip) -> None:
    """On hold the answer stops where it is and goes on there; we call nobody for a caller."""
    call = await talk.calls(phone, "hello")
    await talk.comes_to(call, "speaking")
    await phone.command("sndcode", "159#")
    await until(lambda: talk.pressed[call] == "159#", "the keys")
    await phone.command("hold")
    await talk.comes_to(call, "on_hold")
    await trio.sleep(1.5)
    assert talk.state(call) == "on_hold"
    await phone.command("resume")
    await talk.answer(call)
    await phone.command("transfer", "sip:expensive@127.0.0.1:9")
    refused = await phone.told("TRANSFER_FAILED")
    assert refused["param"] == "603 Decline"
    row = await talk.row(call)  # baresip hangs up when a transfer fails
    assert row["reason"] == "caller_hangup"
    assert row["media"]["digits"] == 4
    states = [(state, at, until) for (state, at), (_, until) in pairwise(row["states"])]
    names = [state for state, _, _ in states]
    held = names.index("on_hold")
    assert (names[held - 1], names[held + 1 : held + 3]) == ("speaking", ["listening", "speaking"])
    spoken_ms = sum(until - at for state, at, until in states if state == "speaking")
    slack_ms = 300 + row["media"]["skipped_ms"]
    assert abs(spoken_ms - clips.load("who").duration_ms) < slack_ms, row["states"]
    # Its recorder stops at a hold, its counter does not.
    assert abs(phone.packets()[1] - row["media"]["sent_packets"]) <= 2


@scenes
async def transfer(talk: Talk) -> None:
    """The operator hands a caller on: baresip calls the other telephone, and they talk."""
    async with (
        talk.phone("transfer.to", account=";answermode=auto", question="thanks") as other,
        talk.phone("transfer.from", question="hello") as phone,
    ):
        call = await talk.calls(phone, "hello")
        with trio.fail_after(20):
            result = await talk.house.operations.transfer(await talk.house.live(call), other.uri())
        assert (result.done, result.status) == (True, 200), result
        row = await talk.row(call)
        assert row["reason"] == "transferred"
        await other.told("CALL_ESTABLISHED")
        await phone.told("CALL_ESTABLISHED", 2)
        await phone.told("CALL_CLOSED")  # ours
        await trio.sleep(4)
        assert phone.kinds().count("CALL_CLOSED") == 1
        assert "CALL_CLOSED" not in other.kinds()
        await phone.command("hangup")
        await other.told("CALL_CLOSED")
        talk.hears(other, "hello")


@scenes
async def transfer_to_nobody(talk: Talk) -> None:
    """The target refuses: the operator hears why, and the conversation goes on."""
    async with talk.phone("transfer_to_nobody", question="hello") as phone:
        call = await talk.calls(phone, "hello")
        with trio.fail_after(20):
            result = await talk.house.operations.transfer(
                await talk.house.live(call), f"sip:x@127.0.0.1:{talk.house.port}"
            )
        # Our own port refuses: `x` is somebody whom no [[number]] names.
        assert (result.done, result.status) == (False, 404), result
        await talk.answer(call)
        row = await talk.hangs_up(phone)
        assert row["transcript"][-1]["text"] == clips.load("who").text


@scenes
async def dialled(talk: Talk) -> None:
    """We call: it hears the greeting, asks, is answered, and hangs up."""
    async with talk.phone(
        "dialled", codecs="PCMA", account=";answermode=auto", port=talk.ports["udp"], lead_s=6.0
    ) as phone:
        call_id = await talk.house.dial(phone.uri(), "desk", agent="greeter")
        established = await phone.told("CALL_ESTABLISHED")
        assert established["direction"] == "incoming"
        await talk.answer(established["id"])
        await phone.command("hangup")
        row = await talk.row_of(call_id)
        assert (row["reason"], row["direction"]) == ("callee_hangup", "outbound")
        assert row["states"][0][0] == "dialling"
        talk.hears(phone, "greeting", before_ms=2000)
        talk.expect(phone, row, "hello", "who", codec="PCMA")


@scenes
async def dialled_over_tls(talk: Talk) -> None:
    """Its certificate is verified; it offers no encryption of its own, and answers ours."""
    async with talk.phone(
        "dialled_over_tls", account=";answermode=auto;mediaenc=srtp", port=talk.ports["tls"]
    ) as phone:
        call_id = await talk.house.dial(phone.uri("tls"), "safe")
        await talk.answer((await phone.told("CALL_ESTABLISHED"))["id"])
        talk.house.operations.hangup(call_id, "operator")
        await phone.told("CALL_CLOSED")
        row = await talk.row_of(call_id)
        assert row["reason"] == "operator"
        talk.expect(phone, row, "hello", "who", codec="PCMU", srtp=True)


@scenes
async def password(talk: Talk) -> None:
    """From an unknown address, with the password; its audio comes from another one than it says."""
    async with talk.phone(
        "password", address=ELSEWHERE, account=";auth_user=alice;auth_pass=wonder"
    ) as phone:
        await talk.converses(phone, "hello")
        row = await talk.hangs_up(phone)
        assert row["trunk"] == "home"
        talk.expect(phone, row, "hello", "who", codec="PCMU")


@scenes
async def calls_over_ipv6(talk: Talk) -> None:
    async with talk.phone("calls_over_ipv6", address=SIX) as phone:
        call = await talk.calls(phone, f"hello@[{SIX}]:{talk.ports['six']}")
        await talk.answer(call)
        row = await talk.hangs_up(phone)
        assert (row["called"], row["trunk"]) == (f"sip:hello@[{SIX}]", "six")
        talk.expect(phone, row, "hello", "who", codec="PCMU")


@scenes
async def dialled_over_ipv6(talk: Talk) -> None:
    async with talk.phone(
        "dialled_over_ipv6", address=SIX, account=";answermode=auto", port=talk.ports["there"]
    ) as phone:
        call_id = await talk.house.dial(phone.uri(), "six")
        await talk.answer((await phone.told("CALL_ESTABLISHED"))["id"])
        talk.house.operations.hangup(call_id, "operator")
        await phone.told("CALL_CLOSED")
        row = await talk.row_of(call_id)
        talk.expect(phone, row, "hello", "who", codec="PCMU")


@scenes
async def wrong_password(talk: Talk) -> None:
    async with talk.phone(
        "wrong_password", address="127.0.8.21", account=";auth_user=alice;auth_pass=wrong"
    ) as phone:
        await phone.command("dial", f"sip:hello@127.0.0.1:{talk.house.port}")
        closed = await phone.told("CALL_CLOSED")
        assert closed["param"] == "403 Forbidden"
        assert "CALL_ESTABLISHED" not in phone.kinds()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("baresip")
    return run_strictly(partial(play, folder))


async def play(folder: Path) -> Played:
    papers = certificates(folder)
    ports = {"udp": free_port(), "tls": free_port(), "there": free_port(SIX), "six": free_port(SIX)}
    trunks = {
        "phones": 'allow = ["127.0.0.1"]\ncodecs = ["pcmu", "pcma", "g722"]\nsrtp = "optional"',
        "desk": f'host = "127.0.0.1:{ports["udp"]}"\ncodecs = ["pcma"]',
        "safe": f'host = "127.0.0.1:{ports["tls"] + 1}"\ntransport = "tls"\nsrtp = "optional"',
        "six": f'host = "[{SIX}]:{ports["there"]}"\nallow = ["{SIX}"]',
        "home": 'authenticate = true\nusername = "alice"\npassword = "wonder"\nallow = []',
    }
    pressed: defaultdict[str, str] = defaultdict(str)
    press = Dialogue.digit

    def digit(dialogue: Dialogue, key: str) -> None:
        pressed[dialogue._record.row.carrier_call_id] += key
        press(dialogue, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dialogue, "digit", digit)
        async with sip_house(
            folder,
            trunks,
            sip=papers.settings,
            text=AGENTS,
            listen=("udp", "tcp", "tls"),
            also=[f"udp://[{SIX}]:{ports['six']}"],
        ) as here:
            talk = Talk(here, papers, ports, pressed)
            return Played(await scenes.play(talk, lambda talk: settled(talk.house)), talk)


@pytest.mark.parametrize("name", scenes.names)
def test_baresip(name: str, played: Played) -> None:
    played.judge(name)
