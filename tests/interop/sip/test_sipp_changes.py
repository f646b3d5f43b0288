"""sipp changes the call, or we do: hold, offers, refreshes, transfers, and when both do at once."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly, until
from tests.interop.sip.calls import held, states
from tests.interop.sip.house import SipHouse, SipScenes, sip_house
from tests.interop.sip.sipp import Sipp, sipp

pytestmark = pytest.mark.interop

RTP_TIMEOUT_S = 6
"""More than any other scenario is without audio, but on hold."""

SIP = f"rtp_timeout_s = {RTP_TIMEOUT_S}"

scenes = SipScenes()


# ---- changed by the caller


scenes.add("bad_reoffer_488", held, scenario="uac_bad_reoffer")
scenes.add("timer_caller_refreshes", held, scenario="uac_timer_uac")
scenes.add("timer_we_refresh", held, scenario="uac_timer_uas")
scenes.add("refer_declined", held, scenario="uac_refer")
scenes.add("cseq_too_low", held, scenario="uac_old_cseq")
scenes.add("options_in_dialog", held, scenario="uac_options_in_dialog")


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
        folder = tmp_path_factory.mktemp("changes")
        async with sip_house(folder, {"plain": ""}, sip=SIP) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_changes(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
