"""Requests and callers that are refused, and how; digest authentication of callers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, judge, run_strictly, sample
from tests.interop.sip.house import SipHouse, SipScenes, sip_house
from tests.interop.sip.sipp import Sipp, sipp

pytestmark = pytest.mark.interop

TRUNKS = {
    "plain": "",
    "one": "max_calls = 1",
    "secret": 'srtp = "required"',
    "telephone": (
        'host = "192.0.2.50"\nauthenticate = true\nusername = "alice"\npassword = "wonderland"'
    ),
}

TEXT = """
[agent.reception]
engine = "offline"
silence_prompt_s = 0
silence_hangup_s = 0

[engine.offline]
kind = "emulator"
speech = "clips"

[[number]]
match = "+1555*"
agent = "reception"
"""

scenes = SipScenes()


async def not_called(house: SipHouse, result: Sipp) -> None:
    """It never became a call."""
    assert not house.lines("call received", carrier_call=result.call_id)


async def held(house: SipHouse, scenario: str, trunk: str, **more: Any) -> Sipp:
    """A call that the caller ends."""
    result = await sipp(house, scenario, trunk, **more)
    assert (await house.here.row(result.call_id))["reason"] == "caller_hangup"
    return result


async def refused(
    house: SipHouse, scenario: str, why: str | None = None, trunk: str = "plain", **more: Any
) -> Sipp:
    """No call comes of it; `why` is logged and counted."""
    before = sample("voiced_refused_total", what="call", why=why or "")
    result = await sipp(house, scenario, trunk, **more)
    await not_called(house, result)
    if why is not None:
        assert house.lines("call refused", why=why, carrier_call=result.call_id)
        assert sample("voiced_refused_total", what="call", why=why) > before
    return result


scenes.add("no_common_codec_488", refused, scenario="uac_no_codec", why="media refused")
scenes.add(
    "broken_sdp_400_or_488",
    refused,
    scenario="uac_broken_sdp",
    why="media refused",
    values={"status": 400},
)
scenes.add(
    "srtp_not_offered_488",
    refused,
    scenario="uac_refused",
    why="media refused",
    trunk="secret",
    values={"status": 488},
)
scenes.add("srtp_not_spoken_488", refused, scenario="uac_savp", why="media refused")
scenes.add("malformed_400", refused, scenario="uac_malformed")
scenes.add("unknown_scheme_416", refused, scenario="uac_scheme")
scenes.add(
    "unknown_number_404",
    refused,
    scenario="uac_refused",
    why="no number matches",
    service="+4930",
    values={"status": 404},
)
scenes.add("unknown_method_405", refused, scenario="uac_method")
scenes.add("register_405", refused, scenario="uac_register")
scenes.add("bad_body_415", refused, scenario="uac_bad_body")
scenes.add("unknown_extension_420", refused, scenario="uac_unknown_extension")
scenes.add("replaces_420", refused, scenario="uac_replaces")
scenes.add("short_interval_422", refused, scenario="uac_timer_small")
scenes.add("unmatched_bye_481", refused, scenario="uac_bye_unknown")
scenes.add("unmatched_cancel_481", refused, scenario="uac_cancel_unknown")
scenes.add("refer_outside_403", refused, scenario="uac_refer_outside")
scenes.add("options_200", refused, scenario="uac_options")


@scenes
async def trunk_busy_486(house: SipHouse) -> None:
    """The trunk's own limit, while another call of it lives."""
    async with trio.open_nursery() as nursery:
        first = await nursery.start(partial(sipp, house, "uac_hangs_on", "one"))
        call_id = await house.live(first)
        await refused(house, "uac_refused", "trunk max_calls", "one", values={"status": 486})
        house.operations.hangup(call_id, "operator")
    await held(house, "uac_basic", "one")


# ---- digest


SECRET = {"user": "alice", "password": "wonderland", "status": 403}


@scenes
async def digest(house: SipHouse) -> None:
    """The right password opens the door, from an address that nobody listed, again and again."""
    for _ in range(3):
        result = await held(house, "uac_digest", "telephone", values=SECRET)
        (challenge,) = result.received("SIP/2.0 401")
        assert 'realm="voiced"' in challenge
        assert "wonderland" not in str(house.logs)


async def guesses(house: SipHouse, user: str, password: str) -> None:
    """Refused, and told so: the challenge has told that somebody is here."""
    before = sample("voiced_refused_total", what="sip", why="credentials")
    values = {"user": user, "password": password, "status": 403}
    result = await sipp(house, "uac_digest_wrong", "telephone", address="127.0.9.77", values=values)
    await not_called(house, result)
    assert house.lines("wrong user name or password", source="127.0.9.77")
    assert sample("voiced_refused_total", what="sip", why="credentials") > before


scenes.add("digest_wrong_password", guesses, user="alice", password="guess")
scenes.add("digest_unknown_user", guesses, user="mallory", password="wonderland")


# ---- all of them


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        folder = tmp_path_factory.mktemp("refused")
        async with sip_house(folder, TRUNKS, text=TEXT) as house:
            return await scenes.play(house, SipHouse.nothing_left)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sipp_refused(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
