"""sipp calls the daemon: what a caller may send, right and wrong, and what comes of it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly, until
from tests.interop.sip.calls import held
from tests.interop.sip.house import SipHouse, SipScenes, sip_house
from tests.interop.sip.sipp import Sipp, sipp

pytestmark = pytest.mark.interop

TRUNKS = {
    "plain": "",
    "pcma": 'codecs = ["pcma"]',
    "hurried": "",
}

TEXT = """
[agent.reception]
engine = "offline"
greeting_text = "hello"
silence_prompt_s = 0
silence_hangup_s = 0

[agent.gold]
engine = "offline"

[agent.diverted]
engine = "offline"

[agent.hurried]
engine = "offline"
max_duration_s = 1

[engine.offline]
kind = "emulator"
speech = "clips"

[[number]]
match = "+1555*"
headers = { X-Customer = "gold*" }
agent = "gold"

[[number]]
match = "+1555*"
headers = { Diversion = "*" }
agent = "diverted"

[[number]]
match = "+1555*"
trunk = "hurried"
agent = "hurried"

[[number]]
match = "+1555*"
agent = "reception"
"""

scenes = SipScenes()


def statuses(result: Sipp) -> list[int]:
    """Of the responses that came, in their order."""
    return [int(each.split()[1]) for each in result.received("SIP/2.0 ")]


# ---- calls with audio


async def audio(house: SipHouse, scenario: str, codec: str, **more: Any) -> Sipp:
    """Audio flowed both ways, in this codec."""
    result = await held(house, scenario, **more)
    media = (await house.here.row(result.call_id))["media"]
    assert media["codec"] == codec
    assert media["packets"] > 20
    assert media["sent_packets"] > 20
    assert media["lost"] == media["unexpected"] == media["strangers"] == media["malformed"] == 0
    return result


@scenes
async def basic(house: SipHouse) -> None:
    """180 before 200, one To-tag, audio both ways, BYE answered."""
    result = await audio(house, "uac_basic", "PCMU")
    assert [each for each in statuses(result) if each != 100] == [180, 200, 200]
    assert len(tags(result)) == 1
    row = await house.here.row(result.call_id)
    assert (row["caller"], row["called"]) == ("+15550199", "+15550100")


def tags(result: Sipp) -> set[str]:
    """Our tags in the responses to INVITEs."""
    return {
        line.rpartition("tag=")[2]
        for each in result.received("SIP/2.0 ")
        if " INVITE\n" in each
        for line in each.splitlines()
        if line.startswith("To:") and "tag=" in line
    }


scenes.add("over_tcp", audio, scenario="uac_basic", codec="PCMU", transport="t1")


@scenes
async def own_codec(house: SipHouse) -> None:
    """The trunk's codec is chosen from an offer of several."""
    result = await held(house, "uac_codec", "pcma")
    assert (await house.here.row(result.call_id))["media"]["codec"] == "PCMA"


@scenes
async def video_rejected(house: SipHouse) -> None:
    """Three m-lines: the answer has them in their order, the two that are not ours at port 0."""
    result = await held(house, "uac_video")
    (answer,) = (each for each in result.received("SIP/2.0 200") if "m=audio" in each)
    lines = [line.split()[:2] for line in answer.splitlines() if line.startswith("m=")]
    assert [kind for kind, _ in lines] == ["m=video", "m=audio", "m=application"]
    assert [port == "0" for _, port in lines] == [True, False, True]


async def media_refused(house: SipHouse, scenario: str) -> None:
    """ACKs without the answer that was owed: the call cannot go on."""
    result = await sipp(house, scenario)
    assert (await house.here.row(result.call_id))["reason"] == "media_refused"


scenes.add("no_answer_in_the_ack", media_refused, scenario="uac_ack_without_answer")
scenes.add("bad_answer_in_the_ack", media_refused, scenario="uac_ack_bad_answer")
scenes.add("tel_uri", held, scenario="uac_tel")
scenes.add("multipart_body", held, scenario="uac_multipart")
scenes.add("late_offer", audio, scenario="uac_late_offer", codec="PCMA")


@scenes
async def delayed_ack(house: SipHouse) -> None:
    """Until the ACK comes the 200 is repeated and nobody talks."""
    result = await held(house, "uac_delayed_ack")
    answers = [each for each in result.received("SIP/2.0 200") if " INVITE\n" in each]
    assert len(answers) >= 2
    assert len(set(answers)) == 1
    row = await house.here.row(result.call_id)
    assert dict(row["states"])["media_ready"] >= 1500


@scenes
async def lost_200(house: SipHouse) -> None:
    """A repeated INVITE brings the same 200 again, no second call."""
    result = await held(house, "uac_lost_200", options=["-nr"])
    answers = [each for each in result.received("SIP/2.0 200") if " INVITE\n" in each]
    assert len(answers) >= 3
    assert len(set(answers)) == 1
    assert len(house.lines("call received", carrier_call=result.call_id)) == 1


scenes.add("cancel_crosses_200", held, scenario="uac_cancel_race")
scenes.add("compact_forms", held, scenario="uac_compact")
scenes.add("max_forwards_0", held, scenario="uac_last_hop")
scenes.add("bye_twice_481", held, scenario="uac_bye_twice")
scenes.add("reliable_180", held, scenario="uac_100rel")
scenes.add("merged_482", held, scenario="uac_merged")


@scenes
async def spiral(house: SipHouse) -> None:
    """Another Request-URI: a call of its own, not 482."""
    result = await sipp(house, "uac_spiral")
    await until(
        lambda: (
            len(
                [
                    row
                    for row in house.here.rows()
                    if row["carrier_call_id"] == result.call_id and row["ended_at"]
                ]
            )
            == 2
        ),
        "two calls",
    )
    called = {
        row["called"] for row in house.here.rows() if row["carrier_call_id"] == result.call_id
    }
    assert called == {"+15550100", "+15550111"}


# ---- digits


async def digits(house: SipHouse, scenario: str, wanted: int, **more: Any) -> None:
    if scenario == "uac_telephone_event":
        assert os.geteuid() == 0, "sipp plays recordings by a raw socket: run this as root"
    result = await held(house, scenario, **more)
    row = await house.here.row(result.call_id)
    (line,) = house.lines("call ended", call=row["call_id"])
    assert line["digits"] == wanted


scenes.add("digits_by_info", digits, scenario="uac_info", wanted=3)
scenes.add(
    "digits_by_rfc_4733",
    digits,
    scenario="uac_telephone_event",
    wanted=3,
    values={"port": "[media_port]"},
)


# ---- ended by us


@scenes
async def operator_hangs_up(house: SipHouse) -> None:
    """BYE from us; it follows the recorded route."""
    async with trio.open_nursery() as nursery:
        call_id = await nursery.start(partial(sipp, house, "uac_record_route"))
        house.operations.hangup(await house.live(call_id), "operator")
    assert (await house.here.row(call_id))["reason"] == "operator"


async def ended_by_us(house: SipHouse, scenario: str, **more: Any) -> None:
    async with trio.open_nursery() as nursery:
        call_id = await nursery.start(partial(sipp, house, scenario, **more))
        house.operations.hangup(await house.live(call_id), "operator")
    assert (await house.here.row(call_id))["reason"] == "operator"


scenes.add(
    "our_bye_by_the_callers_connection", ended_by_us, scenario="uac_hangs_on", transport="t1"
)
scenes.add("our_bye_through_a_nat", ended_by_us, scenario="uac_nat")


@scenes
async def max_duration(house: SipHouse) -> None:
    """The longest call ends with a farewell and our BYE."""
    result = await sipp(house, "uac_hangs_on", "hurried")
    row = await house.here.row(result.call_id)
    assert row["reason"] == "max_duration"
    assert row["agent"] == "hurried"
    assert "ending" in [state for state, _ in row["states"]]


# ---- facts


@scenes
async def headers(house: SipHouse) -> None:
    """X- headers choose the agent and can be seen; an asserted identity is the caller."""
    async with trio.open_nursery() as nursery:
        name = await nursery.start(partial(sipp, house, "uac_headers"))
        view = house.operations.find(await house.live(name))
        assert view is not None
        assert view.agent == "gold"
        assert view.parameters["X-Customer"] == "gold 4711"
        assert view.parameters["User-to-User"] == "48656c6c6f;encoding=hex"
        assert "reason=no-answer" in view.parameters["Diversion"]
    row = await house.here.row(name)
    assert (row["agent"], row["caller"]) == ("gold", "+15550133")


@scenes
async def diverted(house: SipHouse) -> None:
    """A rule that wants a Diversion, whatever it says."""
    result = await held(house, "uac_diverted")
    assert (await house.here.row(result.call_id))["agent"] == "diverted"


@scenes
async def anonymous(house: SipHouse) -> None:
    """RFC 3323: a caller that hides."""
    result = await held(house, "uac_anonymous")
    assert (await house.here.row(result.call_id))["caller"] == "anonymous"


# ---- cancelled


async def cancelled(house: SipHouse, scenario: str) -> None:
    """Between 180 and 200, which a 180 that waits for its PRACK makes long enough."""
    result = await sipp(house, scenario)
    row = await house.here.row(result.call_id)
    assert row["reason"] == "caller_cancelled"
    assert "media_ready" not in [state for state, _ in row["states"]]


scenes.add("cancel_487", cancelled, scenario="uac_cancel")
scenes.add("bye_before_the_answer", cancelled, scenario="uac_bye_early")


# ---- all of them


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        folder = tmp_path_factory.mktemp("calls")
        async with sip_house(folder, TRUNKS, text=TEXT) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_calls(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
