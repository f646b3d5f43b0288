"""What SIP's timers are for: lost messages, silent peers, crossing requests; at a tenth of T1."""

from __future__ import annotations

import re
import time

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly, until
from tests.interop.sip.house import QUICK, SipHouse, SipScenes, free_port, sip_house
from tests.interop.sip.sipp import Sipp, listening, sipp
from voiced.web.operations import TrunkView

pytestmark = pytest.mark.interop

DEAD = free_port("127.0.0.1")

TRUNKS = {
    **dict.fromkeys(("plain", "first", "second", "third", "fourth"), ""),
    "dead": f'host = "dead.test:{DEAD}"',
    "asked": "options_s = 0.5",
    "registered": 'register = true\nusername = "alice"\npassword = "wonderland"',
}

HOSTS = "{dead} dead.test\n{plain} dead.test\n"

scenes = SipScenes()


@scenes
async def lost_ack(house: SipHouse) -> None:
    """The 200 is repeated until 64*T1 is over, then the call ends with our BYE."""
    result = await sipp(house, "uac_lost_ack")
    answers = [each for each in result.received("SIP/2.0 200") if " INVITE\n" in each]
    assert len(answers) >= 6
    assert len(set(answers)) == 1
    row = await house.here.row(result.call_id)
    assert row["reason"] == "ack_timeout"
    assert row["duration_ms"] >= 3000
    assert "media_ready" not in [state for state, _ in row["states"]]


@scenes
async def lost_ack_to_a_reinvite(house: SipHouse) -> None:
    """The same later in the call."""
    result = await sipp(house, "uac_lost_ack_again")
    row = await house.here.row(result.call_id)
    assert row["reason"] == "ack_timeout"
    assert row["media_ms"] >= 3000


@scenes
async def lost_prack(house: SipHouse) -> None:
    """The 180 is repeated until 64*T1 is over, then the call is refused."""
    result = await sipp(house, "uac_no_prack")
    rings = result.received("SIP/2.0 180")
    assert len(rings) >= 5
    assert len(set(rings)) == 1
    row = await house.here.row(result.call_id)
    assert row["reason"] == "timeout"
    assert "media_ready" not in [state for state, _ in row["states"]]


@scenes
async def bye_repeated(house: SipHouse) -> None:
    """Until its answer comes our BYE is repeated; the call is over at once."""
    results: list[Sipp] = []

    async def caller(*, task_status: trio.TaskStatus[str]) -> None:
        results.append(await sipp(house, "uac_forgetful", task_status=task_status))

    async with trio.open_nursery() as nursery:
        name = await nursery.start(caller)
        house.operations.hangup(await house.live(name), "operator")
    byes = results[0].received("BYE ")
    assert len(byes) >= 3
    assert len(set(byes)) == 1


# ---- calls of ours


async def ended(house: SipHouse, call_id: str, *reasons: str) -> None:
    row = await house.row_of(call_id)
    assert row["reason"] in reasons
    assert "media_ready" not in [state for state, _ in row["states"]]


@scenes
async def nobody_listens(house: SipHouse) -> None:
    """Told by ICMP where that is seen, by the end of timer B where not."""
    port = free_port("127.0.0.1")
    await ended(house, await house.dial(f"sip:bob@127.0.0.1:{port}"), "unreachable", "timeout")


@scenes
async def silent_peer(house: SipHouse) -> None:
    """A socket that answers nothing: timer B, INVITE repeated meanwhile."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as peer:
        await peer.bind(("127.0.0.1", 0))
        call_id = await house.dial(f"sip:bob@127.0.0.1:{peer.getsockname()[1]}")
        await ended(house, call_id, "timeout")
        seen = [await peer.recv(4096) for _ in range(5)]
    assert len(set(seen)) == 1


@scenes
async def repeated_200(house: SipHouse) -> None:
    """Each 200 gets an ACK, the same but for its branch."""
    async with listening(house, "uas_repeats_200", "first", options=["-nr"]) as peer:
        call_id = await house.dial(peer.uri)
        name = house.operations.find(call_id)
        assert name is not None
        await house.live(name.carrier_call_id)
        await trio.sleep(0.5)
        house.operations.hangup(call_id, "operator")
    assert peer.result is not None
    acks = peer.result.received("ACK ")
    assert len(acks) == 3
    assert len({re.sub("branch=[^;]*", "", each) for each in acks}) == 1


@scenes
async def answer_crosses_cancel(house: SipHouse) -> None:
    """The called one answers while we give up: its 200 is acknowledged and the call ended."""
    async with listening(house, "uas_answers_cancel", "second") as peer:
        call_id = await house.dial(peer.uri, timeout_s=1)
    await ended(house, call_id, "no_answer")


@scenes
async def cancelled_without_487(house: SipHouse) -> None:
    """A peer that forgets the INVITE when it is cancelled."""
    async with listening(house, "uas_no_487", "fourth") as peer:
        call_id = await house.dial(peer.uri, timeout_s=1)
    await ended(house, call_id, "no_answer")


@scenes
async def two_answers(house: SipHouse) -> None:
    """A proxy forked: the second 200 gets an ACK and a BYE of its own, the first keeps the call."""
    async with listening(house, "uas_two_answers", "third") as peer:
        call_id = await house.dial(peer.uri)
        view = house.operations.find(call_id)
        assert view is not None
        await house.live(view.carrier_call_id)
        await trio.sleep(0.5)
        house.operations.hangup(call_id, "operator")
    assert (await house.row_of(call_id))["reason"] == "operator"


@scenes
async def next_address_when_nobody_listens(house: SipHouse) -> None:
    """The first of two addresses is dead: the second is tried when timer B has run out."""
    async with listening(house, "uas_basic", "plain", port=DEAD):
        call_id = await house.dial("+15550123", "dead")
        view = house.operations.find(call_id)
        assert view is not None
        await house.live(view.carrier_call_id)
        house.operations.hangup(call_id, "operator")
    assert (await house.row_of(call_id))["reason"] == "operator"


@scenes
async def options_keepalive(house: SipHouse) -> None:
    """A trunk that is asked and answers is reachable, one that does not is degraded."""
    complaint = "trunk asked does not answer"
    await until(lambda: complaint in house.operations.ready().degraded, complaint)
    async with listening(house, "uas_options", "asked"):
        await until(lambda: bool(house.lines("trunk answers", trunk="asked")), "an answer")
    await until(lambda: complaint in house.operations.ready().degraded, complaint)


@scenes
async def registered(house: SipHouse) -> None:
    """423 raises what we ask for, 401 is answered, of several Contacts ours counts."""

    def view() -> TrunkView:
        (found,) = (each for each in house.operations.trunks() if each.name == "registered")
        return found

    async with listening(house, "uas_registrar", "registered", port=None) as peer:
        await until(lambda: view().registration == "registered", "the registration")
    until_when = view().until
    assert until_when is not None
    assert 7000 < until_when - time.time() <= 7200
    assert peer.result is not None
    numbers = [
        line
        for each in peer.result.received("REGISTER ")
        for line in each.splitlines()
        if line.startswith("CSeq:")
    ]
    assert len(set(numbers)) == 3


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        folder = tmp_path_factory.mktemp("timers")
        async with sip_house(folder, TRUNKS, timing=QUICK, hosts=HOSTS) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_timers(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
