"""Simulated SIP callers and a daemon on the emulator, over real sockets: what is heard is right.

All of them call one daemon side by side, some through a network that loses, repeats and shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import (
    House,
    Outcomes,
    Scenes,
    agent,
    house,
    judge,
    nothing_is_left,
    played,
    sip_address,
)
from tests.impairment import Network, sip_path
from voiced.simulate.result import CallResult
from voiced.simulate.script import (
    SCRIPTS,
    Hold,
    Pause,
    Press,
    Resume,
    Say,
    Script,
    WaitForAgentSilence,
    WaitForAgentSpeech,
)
from voiced.simulate.sip_caller import Credentials, call

CONFIG = """
[engine.emulated]
kind = "emulator"

[sip]
listen = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]

[[sip.trunk]]
name = "carrier"
host = "127.0.0.1"
allow = ["127.0.0.1/32"]

[[sip.trunk]]
name = "telephones"
host = "192.0.2.7"
username = "alice"
password = "s3cret"
authenticate = true
digest = "sha-256"
""" + agent("reception", "emulated", 'greeting_text = "Hello, this is the reception."').replace(
    'match = "sip:reception@voiced.test"', 'match = "*"'
)
GREETED = (WaitForAgentSpeech(300), WaitForAgentSilence())

scenes: Scenes[House] = Scenes()


def address(here: House, transport: str = "udp") -> tuple[str, int]:
    """Where the daemon listens for SIP."""
    host, _, port = sip_address(here.logs, transport).rpartition(":")
    return host, int(port)


async def place(here: House, script: Script, transport: str = "udp", **more: Any) -> CallResult:
    host, port = address(here, transport)
    suffix = "" if transport == "udp" else f";transport={transport}"
    return await call(script, uri=f"sip:+15550100@{host}:{port}{suffix}", deadline_s=60, **more)


async def said(here: House, result: CallResult, words: Sequence[str] = ()) -> Mapping[str, Any]:
    """The call's row, with `words` in its transcript."""
    row = await here.row(result.call_sid)
    found = [each["text"] for each in row["transcript"] if each["role"] == "caller"]
    assert found == list(words)
    return row


WORDS = [
    "What are your opening hours?",
    "Stop, wait a moment, please.",
    "Thank you very much. Goodbye.",
]


def without_a_flaw(result: CallResult) -> None:
    """Nothing was lost on the way, nor sent twice."""
    assert (result.failure, result.violations) == (None, ())
    assert result.rtp is not None
    assert result.sip is not None
    assert result.rtp.lost == result.rtp.duplicated == result.rtp.unexpected == 0
    assert (result.rtp.sources, result.sip.retransmissions) == (1, 0)
    assert result.rtp.goodbye


@scenes
async def a_conversation_over_udp(here: House) -> None:
    result = await place(here, SCRIPTS["conversation"])
    without_a_flaw(result)
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    row = await said(here, result, WORDS)
    assert (row["carrier"], row["reason"], row["trunk"]) == ("sip", "caller_hangup", "carrier")
    assert row["media"]["lost"] == 0
    assert row["media"]["codec"] == "PCMU"
    assert result.rtp is not None
    assert result.rtp.remote_lost == 0


@scenes
async def a_conversation_over_tcp_in_a_law(here: House) -> None:
    result = await place(here, SCRIPTS["interruption"], "tcp", codecs=("pcma",))
    without_a_flaw(result)
    assert result.clean_barge_in()
    row = await said(here, result, WORDS[:2])
    assert row["media"]["codec"] == "PCMA"


@scenes
async def keys_are_counted_once(here: House) -> None:
    script = Script("keys", "", (*GREETED, Press("4"), Press("2"), Press("#"), Pause(1000)))
    result = await place(here, script)
    without_a_flaw(result)
    row = await said(here, result)
    assert row["media"]["digits"] == 3


@scenes
async def a_held_call_is_quiet_and_comes_back(here: House) -> None:
    steps = (*GREETED, Hold(), Pause(1500), Resume(), Say("hello"), WaitForAgentSpeech(300))
    result = await place(here, Script("hold", "", steps))
    without_a_flaw(result)
    row = await said(here, result, ["Hello, who am I talking to?"])
    assert "on_hold" in [state for state, _ in row["states"]]


@scenes
async def a_bad_network_both_ways(here: House) -> None:
    """5 % of loss with copies and packets out of order: every word is understood all the same."""
    media = Network(
        loss=0.05, duplicate=0.01, reorder=0.05, reorder_s=0.03, delay_s=0.02, jitter_s=0.01
    )
    async with sip_path(address(here), media=media, seed=1) as path:
        result = await call(SCRIPTS["conversation"], uri=path.uri("+15550100"), deadline_s=60)
    assert (result.failure, result.violations) == (None, ())
    assert result.heard_greeting()
    assert result.heard_answer()
    assert result.clean_barge_in()
    row = await said(here, result, WORDS)
    seen, rtp = row["media"], result.rtp
    assert rtp is not None
    assert path.rtp_to_daemon.lost > 20
    # Those lost at the very end cannot be known; those that come too late count as lost, too.
    assert seen["lost"] - seen["late"] == pytest.approx(path.rtp_to_daemon.lost, abs=3)
    assert seen["duplicated"] == pytest.approx(path.rtp_to_daemon.duplicated, abs=1)
    assert seen["reordered"] > 10
    assert 20 * 0.7 * path.rtp_to_daemon.lost < seen["filled_ms"] < 20 * 2 * seen["lost"]
    assert seen["rtt_ms"] > 40
    assert rtp.lost == pytest.approx(path.rtp_to_caller.lost, abs=3)


@scenes
async def signalling_that_is_lost_is_sent_again(here: House) -> None:
    async with sip_path(address(here), signalling=Network(loss=0.3), seed=6) as path:
        result = await call(
            SCRIPTS["listener"], uri=path.uri("+15550100"), deadline_s=60, linger_s=5
        )
    assert (result.failure, result.violations) == (None, ())
    assert path.to_daemon.lost + path.to_caller.lost > 0
    assert result.sip is not None
    assert result.sip.retransmissions + result.sip.repeats > 0
    await said(here, result)


@scenes
async def a_telephone_that_proves_who_it_is(here: House) -> None:
    """From an address that no trunk names; both ends' digests were written apart."""
    alice, mallory = Credentials("alice", "s3cret"), Credentials("alice", "guess")
    result = await place(here, SCRIPTS["listener"], credentials=alice, source="127.0.0.2")
    without_a_flaw(result)
    assert result.sip is not None
    assert result.sip.authenticated
    assert (await said(here, result))["trunk"] == "telephones"
    refused = await place(here, SCRIPTS["listener"], credentials=mallory, source="127.0.0.3")
    assert refused.sip is not None
    assert (refused.sip.status, refused.ended_by) == (403, None)


async def all_of_it(folder: Path) -> Outcomes:
    async with house(folder, CONFIG) as here:
        return await scenes.play(here, nothing_is_left)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_sip_calls(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
