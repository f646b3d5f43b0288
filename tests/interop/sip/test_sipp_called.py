"""The daemon calls sipp: answers, refusals, early audio, forks, credentials, transfers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly, until
from tests.interop.sip.house import AGENTS, SipHouse, SipScenes, free_port, sip_house
from tests.interop.sip.sipp import Listening, Sipp, listening
from voiced.web.operations import OperationRefused

pytestmark = pytest.mark.interop

ACCOUNT = 'username = "alice"\npassword = "wonderland"'

PAIR = free_port("127.0.0.1")

TRUNKS = {
    "plain": "",
    "other": "",
    "account": ACCOUNT,
    "proxied": ACCOUNT,
    "modern": ACCOUNT,
    "strict": ACCOUNT,
    "one": "max_calls = 1",
    "wrong": 'username = "alice"\npassword = "guess"',
    "pair": f'host = "pair.test:{PAIR}"',
}

HOSTS = "{pair} pair.test\n{other} pair.test\n"

scenes = SipScenes()


class Outgoing:
    """A call of ours to sipp."""

    def __init__(self, house: SipHouse, call_id: str, peer: Listening) -> None:
        self.house = house
        self.call_id = call_id
        self._peer = peer

    @property
    def sipp(self) -> Sipp:
        """Once the call is over."""
        assert self._peer.result is not None
        return self._peer.result

    async def answered(self) -> None:
        """Wait until there is audio."""
        view = self.house.operations.find(self.call_id)
        assert view is not None
        await self.house.live(view.carrier_call_id)

    def hang_up(self) -> None:
        self.house.operations.hangup(self.call_id, "operator")

    async def row(self) -> dict[str, Any]:
        return await self.house.row_of(self.call_id)

    async def states(self) -> list[str]:
        return [state for state, _ in (await self.row())["states"]]


@asynccontextmanager
async def calling(
    house: SipHouse,
    scenario: str,
    trunk: str = "plain",
    to: str | None = None,
    dial: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Outgoing]:
    """A call that sipp takes; leaving waits until sipp is done with it, and for the journal."""
    if not dial or "trunk" not in dial:
        # Otherwise it listens where the trunk's configuration says.
        more.setdefault("port", free_port(house.addresses[trunk][0]))
    async with listening(house, scenario, trunk, **more) as peer:
        tcp = str(more.get("transport", "u1")).startswith("t")
        uri = peer.uri + (";transport=tcp" if tcp else "")
        yield Outgoing(house, await house.dial(to or uri, **(dial or {})), peer)


# ---- answered


async def talk(house: SipHouse, scenario: str = "uas_basic", **more: Any) -> Outgoing:
    """Ringing, answered, audio both ways by sipp's echo, our BYE."""
    options = ["-rtp_echo"]
    async with calling(house, scenario, options=options, **more) as call:
        await call.answered()
        await trio.sleep(1)
        call.hang_up()
    row = await call.row()
    assert row["reason"] == "operator"
    assert row["direction"] == "outbound"
    states = await call.states()
    assert states[0] == "dialling"
    assert "media_ready" in states
    assert row["media"]["packets"] > 20
    assert row["media"]["sent_packets"] > 20
    assert row["media"]["strangers"] == row["media"]["malformed"] == 0
    return call


scenes.add("answered", talk)
scenes.add("answered_without_tag", talk, scenario="uas_no_tag")
scenes.add("answered_without_contact", talk, scenario="uas_no_contact")
scenes.add("answered_over_tcp", talk, transport="t1")


@scenes
async def early_audio(house: SipHouse) -> None:
    """183 with SDP is no answer: the agent speaks after the 200."""
    call = await talk(house, "uas_early")
    row = await call.row()
    assert dict(row["states"])["media_ready"] >= 800
    assert house.lines("ringing", call=call.call_id, status=183)


@scenes
async def early_audio_then_busy(house: SipHouse) -> None:
    """An announcement and 486: busy, never answered, nothing heard."""
    async with calling(house, "uas_early_busy") as call:
        pass
    row = await call.row()
    assert row["reason"] == "busy"
    assert not row["media_ms"]
    assert await call.states() == ["dialling", "ended"]


@scenes
async def callee_hangs_up(house: SipHouse) -> None:
    """BYE from the called one."""
    async with calling(house, "uas_hangs_up") as call:
        await call.answered()
    assert (await call.row())["reason"] == "callee_hangup"


@scenes
async def forked(house: SipHouse) -> None:
    """Early dialogs of two telephones; the 200 of the second: ACK and BYE go there."""
    async with calling(house, "uas_forked") as call:
        await call.answered()
        call.hang_up()
    (ack,) = call.sipp.received("ACK ")
    assert ack.startswith("ACK sip:two@")
    (bye,) = call.sipp.received("BYE ")
    assert bye.startswith("BYE sip:two@")


@scenes
async def wrong_branch(house: SipHouse) -> None:
    """Responses with a foreign branch, another method, two Vias: none is ours."""
    async with calling(house, "uas_wrong_branch") as call:
        await call.answered()
        call.hang_up()
    assert (await call.row())["reason"] == "operator"


@scenes
async def reliable_183(house: SipHouse) -> None:
    """Require: 100rel in a 183 with SDP: PRACK; the 200 has no SDP any more."""
    async with calling(house, "uas_100rel") as call:
        await call.answered()
        call.hang_up()
    row = await call.row()
    assert row["media"]["codec"] == "PCMU"
    assert row["media"]["sent_packets"] >= 0


@scenes
async def held_by_the_called_one(house: SipHouse) -> None:
    """re-INVITE from the called one: on hold and back."""
    async with calling(house, "uas_reinvites") as call:
        await call.answered()
    states = await call.states()
    assert states.count("on_hold") == 1
    assert (await call.row())["reason"] == "callee_hangup"


@scenes
async def keys_by_info(house: SipHouse) -> None:
    """Without telephone-event in the answer keys go by INFO."""
    async with calling(house, "uas_info") as call:
        await call.answered()
        house.operations.digits(call.call_id, "4#")
        await trio.sleep(0.5)
        call.hang_up()
    assert len(call.sipp.received("INFO ")) == 2


@scenes
async def keys_by_rfc_4733(house: SipHouse) -> None:
    """Ours come back by sipp's echo and are understood."""
    async with calling(house, "uas_basic", options=["-rtp_echo"]) as call:
        await call.answered()
        await trio.sleep(0.3)
        house.operations.digits(call.call_id, "42#")
        await trio.sleep(1.5)
        call.hang_up()
    (line,) = house.lines("call ended", call=call.call_id)
    assert line["digits"] == 3


@scenes
async def headers(house: SipHouse) -> None:
    """What the operator wants said in the INVITE."""
    dial = {"headers": {"X-Campaign": "spring 7"}, "caller": "+15550166"}
    async with calling(house, "uas_headers", dial=dial) as call:
        await call.answered()
        call.hang_up()
    row = await call.row()
    assert row["caller"] == "+15550166"


@scenes
async def no_answer_in_the_200(house: SipHouse) -> None:
    """A 200 without SDP."""
    async with calling(house, "uas_no_sdp") as call:
        pass
    assert (await call.row())["reason"] == "media_refused"


async def refresh_refused(house: SipHouse, status: str, reason: str) -> None:
    """What the peer says to our UPDATE decides whether the call goes on."""
    lives = reason == "operator"
    values = {"status": status, "ending": "{{hung-up}}" if lives else ""}
    async with calling(house, "uas_refuses_update", values=values) as call:
        await call.answered()
        view = house.operations.find(call.call_id)
        assert view is not None
        house.session(view.carrier_call_id).update()
        if lives:
            await trio.sleep(0.5)
            call.hang_up()
    assert (await call.row())["reason"] == reason


scenes.add(
    "refresh_refused_488", refresh_refused, status="488 Not Acceptable Here", reason="operator"
)
scenes.add("refresh_refused_501", refresh_refused, status="501 Not Implemented", reason="operator")
scenes.add("refresh_refused_481", refresh_refused, status="481 Gone", reason="carrier_lost")


@scenes
async def unusable_answer(house: SipHouse) -> None:
    """A codec in the answer that nobody offered: ACK, then BYE at once."""
    async with calling(house, "uas_bad_answer") as call:
        pass
    assert (await call.row())["reason"] == "media_refused"


# ---- not answered


async def refused(house: SipHouse, status: str, reason: str, more: str = "") -> None:
    """The journal's word for it; nothing was ever said."""
    values = {"status": status, "more": more}
    async with calling(house, "uas_refuses", values=values) as call:
        pass
    row = await call.row()
    assert row["reason"] == reason
    assert await call.states() == ["dialling", "ended"]


for _status, _reason in (
    ("486 Busy Here", "busy"),
    ("600 Busy Everywhere", "busy"),
    ("603 Decline", "declined"),
    ("403 Forbidden", "declined"),
    ("480 Temporarily Unavailable", "no_answer"),
    ("404 Not Found", "unreachable"),
    ("484 Address Incomplete", "unreachable"),
    ("500 Server Internal Error", "carrier_error"),
):
    scenes.add(f"refused_{_status[:3]}", refused, status=_status, reason=_reason)
scenes.add(
    "refused_503",
    refused,
    status="503 Service Unavailable",
    reason="carrier_error",
    more="Retry-After: 5\n",
)
scenes.add(
    "redirected_302",
    refused,
    status="302 Moved Temporarily",
    reason="carrier_error",
    more="Contact: <sip:elsewhere@192.0.2.1>\n",
)


@scenes
async def no_answer(house: SipHouse) -> None:
    """Rings until our time is over: CANCEL, 487, ACK."""
    async with calling(house, "uas_rings_out", dial={"timeout_s": 1.0}) as call:
        pass
    assert (await call.row())["reason"] == "no_answer"
    (invite,), (cancel,) = call.sipp.received("INVITE "), call.sipp.received("CANCEL ")
    vias = [each.splitlines()[1] for each in (invite, cancel)]
    assert vias[0].startswith("Via:")
    assert vias[0] == vias[1]


@scenes
async def hung_up_while_it_rings(house: SipHouse) -> None:
    """An operator gives up: CANCEL as well."""
    async with calling(house, "uas_rings_out") as call:
        await until(lambda: bool(house.lines("ringing", call=call.call_id)), "180")
        call.hang_up()
    assert (await call.row())["reason"] == "operator"


@scenes
async def hung_up_at_once(house: SipHouse) -> None:
    """Nothing has come back yet: RFC 3261 9.1 has the CANCEL wait for a provisional response."""
    async with calling(house, "uas_slow_ringing") as call:
        call.hang_up()
    assert (await call.row())["reason"] == "operator"
    assert len(set(call.sipp.received("INVITE "))) == 1


@scenes
async def trunk_full(house: SipHouse) -> None:
    """The trunk's own limit holds for our calls, too."""
    async with calling(house, "uas_basic", "one", dial={"trunk": "one"}) as call:
        await call.answered()
        with pytest.raises(OperationRefused) as caught:
            await house.dial("+15550123", "one")
        assert caught.value.code == "full"
        call.hang_up()


# ---- credentials


async def challenged(house: SipHouse, trunk: str, scenario: str) -> str:
    """One more INVITE, which sipp lets pass; returns it."""
    values = {"user": "alice", "password": "wonderland"}
    async with calling(house, scenario, trunk, dial={"trunk": trunk}, values=values) as call:
        await call.answered()
        call.hang_up()
    assert (await call.row())["reason"] == "operator"
    first, second = call.sipp.received("INVITE ")
    assert "Digest" not in first
    return second


@scenes
async def challenged_401(house: SipHouse) -> None:
    """sipp verifies our Authorization."""
    await challenged(house, "account", "uas_digest")


@scenes
async def challenged_407(house: SipHouse) -> None:
    """sipp cannot verify a Proxy-Authorization: what is right is computed here."""
    invite = await challenged(house, "proxied", "uas_digest_proxy")
    (line,) = (each for each in invite.splitlines() if each.startswith("Proxy-Authorization:"))
    given = {name: quoted or bare for name, quoted, bare in FIELD.findall(line)}
    parts = (md5("alice:peer:wonderland"), "c0ffee", given["nc"], given["cnonce"], "auth")
    assert given["uri"] == invite.split()[1]
    assert given["response"] == md5(":".join([*parts, md5("INVITE:" + given["uri"])]))


FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^," ]+))')


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@scenes
async def bye_challenged(house: SipHouse) -> None:
    """A trunk that wants credentials inside the dialog gets them."""
    async with calling(house, "uas_challenges_bye", "strict", dial={"trunk": "strict"}) as call:
        await call.answered()
        call.hang_up()
    assert len(call.sipp.received("BYE ")) == 2


@scenes
async def challenged_for_ever(house: SipHouse) -> None:
    """A password that is refused is not tried again and again."""
    async with calling(house, "uas_digest_never", "wrong", dial={"trunk": "wrong"}) as call:
        pass
    assert (await call.row())["reason"] == "unauthorized"


@scenes
async def unknown_algorithm(house: SipHouse) -> None:
    """A challenge that we cannot answer ends the call."""
    async with calling(house, "uas_unknown_digest", "modern", dial={"trunk": "modern"}) as call:
        pass
    assert (await call.row())["reason"] == "unauthorized"


# ---- transfers


async def transferred(house: SipHouse, outcome: str, status: int) -> None:
    """REFER, NOTIFY 100 and the last one: BYE at once if it went well, else we talk on."""
    ending = "{{hung-up}}"
    async with calling(
        house, "uas_referred", values={"outcome": outcome, "ending": ending}
    ) as call:
        await call.answered()
        result = await house.operations.transfer(call.call_id, "+15550177")
        assert (result.done, result.status) == (status == 200, status)
        if status != 200:
            await trio.sleep(0.3)
            call.hang_up()
    row = await call.row()
    assert row["reason"] == ("transferred" if status == 200 else "operator")
    states = await call.states()
    after = states[states.index("transferring") + 1]
    assert after == ("ended" if status == 200 else "listening")


scenes.add("transfer", transferred, outcome="200 OK", status=200)
scenes.add("transfer_busy", transferred, outcome="486 Busy Here", status=486)


@scenes
async def transfer_ends_with_bye(house: SipHouse) -> None:
    """A peer that takes the REFER and hangs up."""
    async with calling(house, "uas_hangs_up_referred") as call:
        await call.answered()
        result = await house.operations.transfer(call.call_id, "+15550177")
        assert (result.done, result.status) == (True, 202)
    assert (await call.row())["reason"] == "transferred"


@scenes
async def transfer_declined(house: SipHouse) -> None:
    """603 to REFER."""
    async with calling(house, "uas_refer_refused") as call:
        await call.answered()
        result = await house.operations.transfer(call.call_id, "+15550177")
        assert (result.done, result.status) == (False, 603)
    assert (await call.row())["reason"] == "callee_hangup"


# ---- which address


@scenes
async def next_address_after_503(house: SipHouse) -> None:
    """The name has two addresses: the first says 503, the second takes the call."""
    values = {"status": "503 Service Unavailable", "more": ""}
    async with (
        listening(house, "uas_refuses", "pair", port=PAIR, values=values) as first,
        listening(house, "uas_basic", "other", port=PAIR) as second,
    ):
        call = Outgoing(house, await house.dial("+15550123", "pair"), second)
        await call.answered()
        call.hang_up()
    assert (await call.row())["reason"] == "operator"
    assert first.result is not None
    (one,), (two,) = first.result.received("INVITE "), call.sipp.received("INVITE ")
    assert one.splitlines()[1].startswith("Via:")
    assert one.splitlines()[1] != two.splitlines()[1], "the branch has to be another"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        folder = tmp_path_factory.mktemp("called")
        async with sip_house(folder, TRUNKS, text=AGENTS, hosts=HOSTS) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_called(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
