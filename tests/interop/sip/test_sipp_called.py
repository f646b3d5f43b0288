"""The daemon calls sipp, which answers: early audio, forks, changes, keys, transfers."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly
from tests.interop.sip.calls import Outgoing, calling
from tests.interop.sip.house import AGENTS, SipHouse, SipScenes, sip_house

pytestmark = pytest.mark.interop

TRUNKS = {"plain": ""}

scenes = SipScenes()


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


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        folder = tmp_path_factory.mktemp("called")
        async with sip_house(folder, TRUNKS, text=AGENTS) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_called(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
