"""sipp calls the daemon: what a caller may send, right and wrong, and what comes of it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly, until
from tests.interop.sip.house import SipHouse, SipScenes, sip_house
from tests.interop.sip.sipp import Sipp, sipp

pytestmark = pytest.mark.interop

TRUNKS = {
    "plain": "",
    "pcma": 'codecs = ["pcma"]',
    "hurried": "",
}

RTP_TIMEOUT_S = 6
"""More than any other scenario is without audio, but on hold."""

SIP = f"rtp_timeout_s = {RTP_TIMEOUT_S}"

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


async def held(house: SipHouse, scenario: str, trunk: str = "plain", **more: Any) -> Sipp:
    """A call that the caller ends; its signalling is seen by sipp, its end by the journal."""
    result = await sipp(house, scenario, trunk, **more)
    row = await house.here.row(result.call_id)
    assert row["reason"] == "caller_hangup"
    assert row["trunk"] == trunk
    assert not house.here.lines_of(result.call_id)
    return result


def statuses(result: Sipp) -> list[int]:
    """Of the responses that came, in their order."""
    return [int(each.split()[1]) for each in result.received("SIP/2.0 ")]


async def states(house: SipHouse, result: Sipp) -> list[str]:
    row = await house.here.row(result.call_id)
    return [state for state, _ in row["states"]]


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


@scenes
async def codec_change(house: SipHouse) -> None:
    """PCMU to PCMA by re-INVITE: the port stays, the description's version rises by one."""
    result = await held(house, "uac_codec_change")
    media = (await house.here.row(result.call_id))["media"]
    assert media["codec"] == "PCMA"
    assert media["sent_packets"] > 40
    described = [each for each in result.received("SIP/2.0 200") if "m=audio" in each]
    first, second = (
        [line for line in each.splitlines() if line[:2] in ("o=", "m=")]
        for each in dict.fromkeys(described)
    )
    assert first[1].split()[1] == second[1].split()[1]
    one, two = (line[0].split() for line in (first, second))
    assert (one[1], int(one[2]) + 1) == (two[1], int(two[2]))


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
scenes.add("options_in_dialog", held, scenario="uac_options_in_dialog")
scenes.add("bye_twice_481", held, scenario="uac_bye_twice")
scenes.add("cseq_too_low", held, scenario="uac_old_cseq")
scenes.add("bad_reoffer_488", held, scenario="uac_bad_reoffer")
scenes.add("reliable_180", held, scenario="uac_100rel")
scenes.add("timer_caller_refreshes", held, scenario="uac_timer_uac")
scenes.add("timer_we_refresh", held, scenario="uac_timer_uas")
scenes.add("refer_declined", held, scenario="uac_refer")
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


# ---- hold


@scenes
async def hold(house: SipHouse) -> None:
    """sendonly, inactive, 0.0.0.0: on hold each time, and back."""
    result = await held(house, "uac_hold")
    seen = await states(house, result)
    assert seen.count("on_hold") == 3
    first = seen.index("on_hold")
    assert [each for each in seen[first:] if each != "greeting"][:2] == ["on_hold", "listening"]


@scenes
async def hold_by_update(house: SipHouse) -> None:
    """The same without re-INVITE."""
    assert (await states(house, await held(house, "uac_update_hold"))).count("on_hold") == 1


@scenes
async def hold_by_late_reoffer(house: SipHouse) -> None:
    """The caller asks for our offer, and holds by its answer."""
    assert (await states(house, await held(house, "uac_late_reoffer"))).count("on_hold") == 1


@scenes
async def held_from_the_start(house: SipHouse) -> None:
    """An INVITE that offers sendonly: the agent holds its tongue at once."""
    result = await held(house, "uac_on_hold")
    began = (await house.here.row(result.call_id))["states"]
    assert [state for state, _ in began[:5]] == [
        "ringing",
        "answering",
        "media_ready",
        "greeting",
        "on_hold",
    ]
    assert began[4][1] - began[2][1] < 1000


@scenes
async def held_for_long(house: SipHouse) -> None:
    """On hold no audio is waited for; without hold its absence ends the call."""
    values = {"ms": round(1500 * RTP_TIMEOUT_S)}
    seen = await states(house, await held(house, "uac_long_hold", values=values))
    assert "on_hold" in seen


@scenes
async def no_audio(house: SipHouse) -> None:
    """A caller that sends none is hung up on."""
    result = await sipp(house, "uac_silent")
    row = await house.here.row(result.call_id)
    assert row["reason"] == "media_timeout"
    assert row["duration_ms"] >= 1000 * RTP_TIMEOUT_S


@scenes
async def hung_up_on_hold(house: SipHouse) -> None:
    """BYE while on hold."""
    assert (await states(house, await held(house, "uac_hung_up_on_hold")))[-2:] == [
        "on_hold",
        "ended",
    ]


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
async def bye_to_new_contact(house: SipHouse) -> None:
    """A re-INVITE moves the caller: our BYE goes to its new Contact."""
    results: list[Sipp] = []

    async def caller(*, task_status: trio.TaskStatus[str]) -> None:
        results.append(await sipp(house, "uac_moves", task_status=task_status))

    async with trio.open_nursery() as nursery:
        name = await nursery.start(caller)
        call_id = await house.live(name)
        session = house.session(name)
        await until(
            lambda: session.dialog is not None and "moved@" in str(session.dialog.remote_target),
            "the new Contact",
        )
        house.operations.hangup(call_id, "operator")
    (bye,) = results[0].received("BYE ")
    assert bye.startswith("BYE sip:moved@")


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


# ---- changed by us


@scenes
async def we_refresh_by_update(house: SipHouse) -> None:
    """A refresh of the session timer, which sipp answers."""
    async with trio.open_nursery() as nursery:
        name = await nursery.start(partial(sipp, house, "uac_timer_refreshed"))
        await house.live(name)
        house.session(name)._refresh()
    assert (await house.here.row(name))["reason"] == "caller_hangup"


@scenes
async def glare(house: SipHouse) -> None:
    """Our re-INVITE crosses the caller's: 491 both ways, and ours comes again."""
    results: list[Sipp] = []

    async def caller(*, task_status: trio.TaskStatus[str]) -> None:
        results.append(await sipp(house, "uac_glare", task_status=task_status))

    async with trio.open_nursery() as nursery:
        name = await nursery.start(caller)
        await house.live(name)
        house.session(name).reinvite()
    numbers = {
        line
        for each in results[0].received("INVITE ")
        for line in each.splitlines()
        if line.startswith("CSeq:")
    }
    assert len(numbers) == 2
    assert (await house.here.row(name))["reason"] == "caller_hangup"


@scenes
async def transfer(house: SipHouse) -> None:
    """REFER, 202, NOTIFY 100 and 200: then our BYE at once."""
    async with trio.open_nursery() as nursery:
        name = await nursery.start(partial(sipp, house, "uac_referred"))
        outcome = await house.operations.transfer(await house.live(name), "+15550177")
        assert (outcome.done, outcome.status) == (True, 200)
    row = await house.here.row(name)
    assert row["reason"] == "transferred"
    assert "transferring" in [state for state, _ in row["states"]]


@scenes
async def transfer_refused(house: SipHouse) -> None:
    """REFER declined: the conversation goes on."""
    async with trio.open_nursery() as nursery:
        name = await nursery.start(partial(sipp, house, "uac_referred_no"))
        outcome = await house.operations.transfer(await house.live(name), "+15550177")
        assert (outcome.done, outcome.status) == (False, 603)
    row = await house.here.row(name)
    assert row["reason"] == "caller_hangup"


# ---- all of them


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        folder = tmp_path_factory.mktemp("calls")
        async with sip_house(folder, TRUNKS, sip=SIP, text=TEXT) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_calls(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
