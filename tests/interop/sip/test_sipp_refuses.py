"""The daemon calls sipp, which refuses, rings, challenges, or is one of two addresses."""

from __future__ import annotations

import hashlib
import re

import pytest

from tests.e2e.house import Outcomes, judge, run_strictly, until
from tests.interop.sip.calls import Outgoing, calling
from tests.interop.sip.house import AGENTS, SipHouse, SipScenes, free_port, sip_house
from tests.interop.sip.sipp import listening
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
        folder = tmp_path_factory.mktemp("refuses")
        async with sip_house(folder, TRUNKS, text=AGENTS, hosts=HOSTS) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_refuses(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
