"""Calls over SIP, as callers and operators see them: what is heard, who is let in, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import parser as exposition
from prometheus_client.openmetrics import parser as openmetrics

from tests.e2e.house import SOON_S, Outcomes, judge, played, until
from tests.e2e.model import Conversation, engine, serve_models
from tests.e2e.sip_peer import sip_peer
from tests.interop.sip.house import SipHouse, SipScenes, sip_house
from voiced import clips
from voiced.audio import pcm_to_alaw, pcm_to_ulaw
from voiced.formats import PCMU_8K
from voiced.simulate import SCRIPTS, CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Hold,
    Pause,
    Resume,
    Say,
    SayWhileAgentSpeaks,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)
from voiced.simulate.sip_caller import Credentials, call
from voiced.talk.fading import fade_in
from voiced.web.operations import OperationRefused

LATE_MS = 2000
"""How late a machine with other things to do may be before a test takes it for a defect."""

GREETING = clips.load("greeting")
FAREWELL = clips.load("farewell")
STILL_THERE = clips.load("still_there")
PASSWORD = "a telephone's password"

TRUNKS = {
    "plain": "",
    "narrow": "max_calls = 1",
    "alaw": 'codecs = ["pcma"]',
    "desk": f'authenticate = true\nusername = "desk"\npassword = "{PASSWORD}"',
    "modern": 'authenticate = true\nusername = "modern"\ndigest = "sha-256"\n'
    f'password = "{PASSWORD}"',
}

agents: dict[str, str] = {}
rules: list[str] = []
scenes = SipScenes()


def settle(name: str, settings: str, engine: str = "offline", **rule: str) -> None:
    """An agent, and the rule that chooses it: by the name that is called, unless it says more."""
    agents[name] = f'[agent.{name}]\nengine = "{engine}"\n{settings}\n'
    match = rule.pop("match", f"sip:{name}@127.0.0.1")
    lines = [f"{key} = {value}" for key, value in rule.items()]
    rules.append("\n".join(["[[number]]", f'match = "{match}"', f'agent = "{name}"', *lines, ""]))


async def placed(
    here: SipHouse, script: Script, to: str, trunk: str = "plain", **more: Any
) -> CallResult:
    """A simulated call from a trunk's address, or from another `source`."""
    more.setdefault("source", here.addresses[trunk][0])
    return await call(script, uri=f"sip:{to}@127.0.0.1:{here.port}", deadline_s=60, **more)


async def held(
    here: SipHouse, script: Script, to: str, trunk: str = "plain", **more: Any
) -> tuple[CallResult, dict[str, Any]]:
    """A call that goes as planned, and its row."""
    reason = more.pop("reason", "caller_hangup")
    result = await placed(here, script, to, trunk, **more)
    assert (result.failure, result.violations) == (None, ()), (result.failure, result.violations)
    row = await here.here.row(result.call_sid)
    assert row["reason"] == reason, row["reason"]
    return result, row


BRIEF = Script("brief", "", (WaitForAgentSpeech(200), HangUp()))
QUIET = Script("quiet", "", (Pause(200), HangUp()))

# ---- conversations


settle("exact", f'greeting_text = "{GREETING.text}"')
settle("silence", 'greeting = ""\nsilence_prompt_s = 0.8\nsilence_hangup_s = 3.0')


@scenes
async def conversation(here: SipHouse) -> None:
    """Its row has all that a row has, and what only trunks have."""
    result, row = await held(here, SCRIPTS["conversation"], "exact", from_="+4930111")
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    assert (row["carrier"], row["direction"], row["trunk"]) == ("sip", "inbound", "plain")
    assert (row["caller"], row["called"]) == ("+4930111", "sip:exact@127.0.0.1")
    assert (row["agent"], row["engine"], row["model"]) == ("exact", "offline", "emulator")
    assert row["media_ms"] == pytest.approx(result.duration_ms, abs=LATE_MS)
    latencies = row["latencies"]
    assert len(latencies["barge_ins_ms"]) == 1
    assert len(latencies["answers_ms"]) == 3
    media = row["media"]
    assert (media["codec"], media["srtp"]) == ("PCMU", False)
    assert result.rtp is not None
    assert abs(media["packets"] - result.rtp.sent) <= 2
    assert abs(media["sent_packets"] - result.rtp.received) <= 2
    assert media["remote_lost"] == 0
    mishaps = ("lost", "late", "duplicated", "strangers", "malformed", "unexpected", "overrun_ms")
    assert not any(media[each] for each in mishaps), media


@scenes
async def impatient(here: SipHouse) -> None:
    result, row = await held(here, SCRIPTS["impatient"], "exact")
    assert result.clean_barge_in()
    first = row["transcript"][0]
    assert first["cut"]
    assert GREETING.text.startswith(first["text"])
    assert len(row["latencies"]["barge_ins_ms"]) == 1


@scenes
async def digits(here: SipHouse) -> None:
    result, row = await held(here, SCRIPTS["digits"], "exact", "alaw")
    assert row["media"]["digits"] == 3
    assert row["media"]["codec"] == "PCMA"
    (ended,) = here.lines("call ended", call=row["call_id"])
    assert ended["digits"] == 3
    assert result.heard_greeting()


HELD = Script(
    "held",
    "",
    (
        WaitForAgentSpeech(300),
        WaitForAgentSilence(),
        Say("hours"),
        WaitForAgentSpeech(400),
        Hold(),
        Pause(1500),
        Resume(),
        SayWhileAgentSpeaks("interrupt", after_ms=400),
        WaitForAgentSpeech(300),
        WaitForAgentSilence(),
        HangUp(),
    ),
)


@scenes
async def hold(here: SipHouse) -> None:
    """Held in the middle of an answer: nothing is heard meanwhile, the rest of it comes then."""
    result, row = await held(here, HELD, "exact")
    names = [state for state, _ in row["states"]]
    at = names.index("on_hold")
    assert names[at - 1] == "speaking"
    assert names[at + 1 : at + 3] == ["listening", "speaking"]
    assert result.clean_barge_in()
    assert row["transcript"][-1]["text"] == clips.load("go_ahead").text
    assert row["media"]["filled_ms"] < 500  # the hold itself is no loss


@scenes
async def silent(here: SipHouse) -> None:
    """Asked once, then the end: BYE after the last word."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked_by_hand, here)
        result, row = await held(here, SCRIPTS["silent"], "silence", reason="caller_silence")
    assert (result.ended_by, len(result.agent)) == ("agent", 2)
    assert [state for state, _ in row["states"]][-2:] == ["ending", "ended"]


async def asked_by_hand(here: SipHouse) -> None:
    """The same, sample by sample."""
    async with sip_peer(here.addresses["plain"][0]) as peer:
        await peer.call(("127.0.0.1", here.port), "silence")
        await peer.until_bye()
        heard = peer.heard()
    asked, bade = (heard.find(pcm_to_ulaw(each.pcm)) for each in (STILL_THERE, FAREWELL))
    assert 0 < asked < bade
    row = await here.here.row(peer.call_id)
    assert row["reason"] == "caller_silence"


# ---- to the sample


settle("short", f'greeting_text = "{GREETING.text}"\nmax_duration_s = 6')


async def whole(here: SipHouse, trunk: str, payload_type: int) -> None:
    """The greeting from its first sample, the farewell to its last one, then BYE."""
    encoded = pcm_to_alaw if payload_type else pcm_to_ulaw
    async with sip_peer(here.addresses[trunk][0]) as peer:
        await peer.call(("127.0.0.1", here.port), "short", formats=(payload_type,))
        await peer.until_bye()
        heard = peer.heard(payload_type)
    row = await here.here.row(peer.call_id)
    assert row["reason"] == "max_duration"
    assert encoded(GREETING.pcm) in heard
    farewell = encoded(FAREWELL.pcm)
    at = heard.find(farewell)
    assert at > 0, "the farewell was not heard to its last sample"
    # BYE follows at once: the rest of the last frame, and what the clock sent until then.
    assert len(heard) - at - len(farewell) < 160 + 8 * LATE_MS


scenes.add("whole_mu_law", whole, trunk="plain", payload_type=0)
scenes.add("whole_a_law", whole, trunk="alaw", payload_type=8)


@scenes
async def held_in_the_midst(here: SipHouse) -> None:
    """What was not heard before a hold is heard after it, from the next sample on; it rises."""
    async with sip_peer(here.addresses["plain"][0]) as peer:
        await peer.call(("127.0.0.1", here.port), "exact")
        await until(lambda: len(peer.packets) > 60, "the greeting")
        assert b"a=recvonly" in (await peer.reinvite("sendonly")).body
        await trio.sleep(0.1)
        count = len(peer.packets)
        await trio.sleep(0.4)
        assert len(peer.packets) == count
        assert b"a=sendrecv" in (await peer.reinvite("sendrecv")).body
        await until(lambda: len(peer.packets) > count + 150, "the rest")
        await peer.hang_up()
        heard = peer.heard()
    greeting = pcm_to_ulaw(GREETING.pcm)
    begun = heard.find(greeting[:1600])
    assert heard.count(greeting[:1600]) == 1
    at_hold = 160 * count - begun
    assert 5000 < at_hold < len(greeting) - 1600
    # Silence may stand where the hold was, on the frame that was the last or one before it.
    frames = range(at_hold - 480, at_hold + 1, 160)
    assert greeting in heard or any(
        heard.startswith(greeting[: frames.start], begun)
        and fade_in(greeting[part:], PCMU_8K) in heard
        for part in frames
    )
    assert (await here.here.row(peer.call_id))["reason"] == "caller_hangup"


# ---- rules and facts


settle("by_trunk", 'greeting = ""', match="+1555*", trunk='"narrow"')
settle("by_caller", 'greeting = ""', match="+1555*", caller='"+4930*"')
settle("by_header", 'greeting = ""', match="+1555*", headers='{ X-Tier = "gold*" }')
settle("by_diversion", 'greeting = ""', match="+1555*", headers='{ diversion = "*" }')


@scenes
async def rules_choose(here: SipHouse) -> None:
    found = {}
    for name, trunk, more in (
        ("trunk", "narrow", {}),
        ("caller", "plain", {"from_": "+49301234"}),
        ("header", "plain", {"headers": [("X-Tier", "golden")]}),
        ("diversion", "plain", {"headers": [("Diversion", "<sip:+1@x.example>;reason=busy")]}),
    ):
        _, row = await held(here, QUIET, "+15550100", trunk, **more)
        found[name] = row["agent"]
    assert found == {name: f"by_{name}" for name in found}


@scenes
async def no_rule_fits(here: SipHouse) -> None:
    result = await placed(here, QUIET, "nobody")
    assert result.sip is not None
    assert result.sip.status == 404
    assert here.lines("call refused", why="no number matches", carrier_call=result.call_sid)
    assert not [row for row in here.here.rows() if row["carrier_call_id"] == result.call_sid]


settle(
    "informed",
    'greeting = ""\ninstructions = "Be brief."\n'
    'facts = ["caller", "called", "trunk", "X-Customer", "Diversion", "X-Absent"]',
    engine="remembers",
)
told: list[str] = []


async def remembers(session: Conversation) -> None:
    """Speaks when it knows everything, so that the caller knows when to hang up."""
    await session.send("session.created", session={"id": "sess_1", "type": "realtime"})
    update = await session.until("session.update")
    told.append(update["session"]["instructions"])
    await session.send("session.updated", session=update["session"])
    await session.speak()
    await session.listen()


@scenes
async def facts_reach_the_model(here: SipHouse) -> None:
    told.clear()
    headers = [("X-Customer", '7 "the good"'), ("Diversion", "<sip:+4930999@x.example>")]
    _, row = await held(here, BRIEF, "informed", from_="+4930222", headers=headers)
    (text,) = told
    first, *lines = text.splitlines()
    assert first == "Be brief."
    assert '- caller: "+4930222"' in lines
    assert '- called: "sip:informed@127.0.0.1"' in lines
    assert '- trunk: "plain"' in lines
    assert '- X-Customer: "7 \\"the good\\""' in lines
    assert '- Diversion: "<sip:+4930999@x.example>"' in lines
    assert "X-Absent" not in text
    assert row["agent"] == "informed"


# ---- who is let in


async def proves(here: SipHouse, trunk: str, source: str) -> None:
    """A telephone without a known address."""
    result, row = await held(
        here, BRIEF, "exact", source=source, credentials=Credentials(trunk, PASSWORD)
    )
    assert result.sip is not None
    assert result.sip.authenticated
    assert row["trunk"] == trunk


scenes.add("digest_md5", proves, trunk="desk", source="127.0.8.1")
scenes.add("digest_sha_256", proves, trunk="modern", source="127.0.8.2")


async def cannot_prove(
    here: SipHouse, credentials: Credentials | None, status: int, source: str
) -> None:
    result = await placed(here, BRIEF, "exact", source=source, credentials=credentials)
    assert result.sip is not None
    assert result.sip.status == status
    assert not [row for row in here.here.rows() if row["carrier_call_id"] == result.call_sid]


scenes.add("no_password", cannot_prove, credentials=None, status=401, source="127.0.8.3")
scenes.add(
    "wrong_password",
    cannot_prove,
    credentials=Credentials("desk", "guessed"),
    status=403,
    source="127.0.8.4",
)


@scenes
async def trunk_full(here: SipHouse) -> None:
    """A trunk's own limit: 486 for the second, calls of ours count, others are not concerned."""
    async with sip_peer(here.addresses["narrow"][0]) as peer:
        # `rules_choose` has a call of its own there for a moment.
        with trio.fail_after(SOON_S):
            while True:
                await peer.invite(("127.0.0.1", here.port), "exact")
                response = await peer.status()
                await peer.ack(response)
                if response.status == 200:
                    break
                assert response.status == 486
                await trio.sleep(0.1)
        (view,) = [each for each in here.operations.trunks() if each.name == "narrow"]
        assert (view.calls, view.max_calls) == (1, 1)
        result = await placed(here, BRIEF, "exact", "narrow")
        assert result.sip is not None
        assert result.sip.status == 486
        with pytest.raises(OperationRefused, match="trunk max_calls"):
            await here.dial("+15550100", "narrow", agent="exact")
        await held(here, BRIEF, "exact")
        assert (await peer.hang_up()).status == 200
    await here.here.row(peer.call_id)
    await until(
        lambda: not any(each.calls for each in here.operations.trunks() if each.name == "narrow"),
        "the trunk's place",
    )


# ---- what operators see


FAMILIES = {
    "voiced_sip_messages",
    "voiced_sip_sessions",
    "voiced_sip_connections",
    "voiced_sip_banned",
    "voiced_sip_reachable",
    "voiced_sip_registered",
    "voiced_rtp_lateness_seconds",
}


def admin(here: SipHouse) -> httpx.AsyncClient:
    (listening,) = here.lines("listening")
    token = (here.here.state_dir / "admin.token").read_text("utf-8").strip()
    return httpx.AsyncClient(
        base_url=f"http://{listening['admin']}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=SOON_S,
    )


@scenes
async def metrics(here: SipHouse) -> None:
    """Both forms of the exposition are valid, and have SIP's families while a call is live."""
    async with sip_peer(here.addresses["plain"][0]) as peer, admin(here) as client:
        await peer.call(("127.0.0.1", here.port), "exact")
        await until(lambda: len(peer.packets) > 10, "audio")
        plain = await client.get("/metrics")
        accept = {"Accept": "application/openmetrics-text"}
        modern = await client.get("/metrics", headers=accept)
        await peer.hang_up()
    read: Callable[[str], Any] = exposition.text_string_to_metric_families
    modern_read: Callable[[str], Any] = openmetrics.text_string_to_metric_families
    for families in (
        list(read(plain.text)),
        list(modern_read(modern.text)),
    ):
        found = {each.name: each for each in families}
        assert found.keys() >= FAMILIES, FAMILIES - found.keys()
        samples = {
            (each.name, *each.labels.values()): each.value
            for family in families
            for each in family.samples
        }
        assert samples["voiced_sip_messages_total", "received"] > 2
        assert samples["voiced_sip_sessions",] >= 1
        buckets = "voiced_rtp_lateness_seconds_bucket"
        counts = [value for (name, *_), value in samples.items() if name == buckets]
        assert counts == sorted(counts)
        assert counts[-1] > 10


@scenes
async def live_calls_are_shown(here: SipHouse) -> None:
    async with sip_peer(here.addresses["plain"][0]) as peer, admin(here) as client:
        await peer.call(("127.0.0.1", here.port), "exact", headers=(("X-Ticket", "12"),))
        call_id = await here.live(peer.call_id)
        shown: Mapping[str, Any] = (await client.get(f"/api/calls/{call_id}")).json()
        assert (shown["trunk"], shown["direction"]) == ("plain", "inbound")
        assert shown["parameters"] == {"X-Ticket": "12"}
        assert shown["statistics"]["codec"] == "PCMU"
        said = await client.post(
            f"/api/calls/{call_id}/say", json={"text": FAREWELL.text, "exactly": True}
        )
        assert said.status_code == 200, said.text
        await until(lambda: pcm_to_ulaw(FAREWELL.pcm) in peer.heard(), "the words of the operator")
        assert (await client.post(f"/api/calls/{call_id}/hangup", json={})).status_code == 200
        await peer.until_bye()
    row = await here.here.row(peer.call_id)
    assert row["reason"] == "operator"


async def all_of_it(folder: Path) -> Outcomes:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_models, {"remembers": remembers})
        text = '[engine.offline]\nkind = "emulator"\nspeech = "clips"\n'
        text += engine("remembers", port) + "".join(agents.values()) + "".join(rules)
        async with sip_house(folder, TRUNKS, text=text) as here:
            outcomes = await scenes.play(here, SipHouse.nothing_left)
        nursery.cancel_scope.cancel()
    return outcomes


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_sip(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
