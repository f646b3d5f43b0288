"""voiced calls: another daemon whose emulator answers, telephones that do not, and transfers."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import Outcomes, Scenes, judge, run_strictly, until
from tests.e2e.sip_peer import Peer, sip_peer
from tests.e2e.test_operator import Daemon, running, write
from tests.interop.sip.house import QUICK, SipHouse, free_port, sip_house
from voiced import clips
from voiced.simulate import CallResult, Script
from voiced.simulate.script import Say, WaitForAgentSpeech, WaitForHangUp
from voiced.simulate.sip_caller import call

QUESTION, ANSWER = clips.load("hours"), clips.load("opening_hours")

OFFLINE = '[engine.offline]\nkind = "emulator"\nspeech = "clips"\n'
PATIENT = 'engine = "offline"\nsilence_prompt_s = 0\nsilence_hangup_s = 0\n'

HERE = f"""{OFFLINE}
[agent.asks]
{PATIENT}greeting_files = ["hours.wav"]

[agent.reception]
{PATIENT}greeting_text = "{clips.load("greeting").text}"

[[number]]
match = "*"
agent = "reception"
"""

THERE = f"""{OFFLINE}
[sip]
listen = ["udp://127.0.0.1:PORT"]

[[sip.trunk]]
name = "first"
host = "127.0.0.1"
options_s = 0

[agent.answers]
{PATIENT}greeting = ""
# A question into which a busy machine puts a pause is one question still.
turn_detection = {{ kind = "server_vad", silence_ms = 1000 }}

[[number]]
match = "*"
agent = "answers"
"""


@dataclass
class Two:
    """A daemon in this process, and another of its own that is its trunk `there`."""

    here: SipHouse
    there: Daemon
    port: int

    async def row_there(self, caller: str) -> dict[str, Any]:
        """The other's row of the call from this number, once it has ended."""
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            found[:] = [row for row in self.there.rows() if row["caller"] == caller]
            return bool(found) and found[0]["ended_at"] is not None

        await until(ended, f"the row of {caller}")
        assert len(found) == 1
        return found[0]


scenes: Scenes[Two] = Scenes()


def spoken(row: dict[str, Any], role: str) -> list[str]:
    return [each["text"] for each in row["transcript"] if each["role"] == role]


@scenes
async def two_emulators_converse(two: Two) -> None:
    """One asks, the other understands and answers; both journals tell the same of it."""
    call_id = await two.here.dial("+15550177", "there", agent="asks", caller="+49301")
    (ours,) = [each for each in two.here.switchboard if each.facts.call_id == call_id]
    await until(lambda: ours.record.state.value == "caller_speaking", "the other's answer")
    await trio.sleep(4)
    two.here.operations.hangup(call_id, "operator")
    here, there = await two.here.row_of(call_id), await two.row_there("+49301")
    assert (here["direction"], here["trunk"], here["called"]) == ("outbound", "there", "+15550177")
    assert (there["direction"], there["trunk"], there["called"]) == (
        "inbound",
        "first",
        "+15550177",
    )
    assert (here["reason"], there["reason"]) == ("operator", "caller_hangup")
    assert spoken(there, "caller") == [QUESTION.text]
    (answer,) = spoken(there, "agent")
    assert len(answer) > 10
    assert ANSWER.text.startswith(answer)
    assert [state for state, _ in here["states"]][:2] == ["dialling", "media_ready"]
    for one, other in ((here, there), (there, here)):
        # The other hears of the end later, and sends until then; nothing was lost between the two.
        assert 0 <= other["media"]["sent_packets"] - one["media"]["packets"] <= 50
        assert one["media"]["lost"] == one["media"]["strangers"] == 0
        assert one["carrier_call_id"] == other["carrier_call_id"]


@scenes
async def transferred_to_a_third(two: Two) -> None:
    """Our caller is sent to the other daemon, and is answered there."""
    target = f"sip:+15550178@127.0.0.1:{two.port}"
    results: list[CallResult] = []

    async def talk() -> None:
        script = Script("referred", "", (WaitForAgentSpeech(300), WaitForHangUp()))
        uri = f"sip:+15550100@127.0.0.1:{two.here.port}"
        source = two.here.addresses["plain"][0]
        results.append(await call(script, uri=uri, from_="+49302", source=source))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        found: list[str] = []

        def greets() -> bool:
            found[:] = [
                each.facts.call_id
                for each in two.here.switchboard
                if each.facts.caller == "+49302" and each.has_media
            ]
            return bool(found)

        await until(greets, "the call")
        outcome = await two.here.operations.transfer(found[0], target)
    assert (outcome.done, outcome.status) == (True, 200)
    (result,) = results
    assert result.sip is not None
    assert result.sip.transferred_to == target
    row = await two.here.row_of(found[0])
    assert row["reason"] == "transferred"
    assert "transferring" in [state for state, _ in row["states"]]

    # The simulated telephone does not call by itself whom it is sent to.
    said = Script("says", "", (Say("thanks"), WaitForAgentSpeech(300)))
    third = await call(said, uri=result.sip.transferred_to, from_="+49302")
    assert third.failure is None, third.failure
    assert third.heard_answer()
    assert (await two.row_there("+49302"))["reason"] == "caller_hangup"


@scenes
async def a_transfer_that_is_declined(two: Two) -> None:
    """The other daemon calls nobody for us: 603, and the conversation goes on."""
    call_id = await two.here.dial("+15550179", "there", agent="asks", caller="+49303")
    (ours,) = [each for each in two.here.switchboard if each.facts.call_id == call_id]
    await until(lambda: ours.record.state.value == "greeting", "the answer")
    outcome = await two.here.operations.transfer(call_id, "+4930999")
    assert (outcome.done, outcome.status) == (False, 603)
    await until(lambda: ours.record.state.value == "caller_speaking", "the other's answer")
    two.here.operations.hangup(call_id, "operator")
    assert spoken(await two.row_there("+49303"), "caller") == [QUESTION.text]


# ---- not answered, by the command and its exit code


async def busy(peer: Peer) -> None:
    await peer.respond(await peer.called(), 486)


async def declined(peer: Peer) -> None:
    await peer.respond(await peer.called(), 603)


async def unknown(peer: Peer) -> None:
    await peer.respond(await peer.called(), 404)


async def away(peer: Peer) -> None:
    await peer.respond(await peer.called(), 480)


async def rings(peer: Peer) -> None:
    """Until the caller gives up."""
    invite = await peer.called()
    await peer.respond(invite, 180)
    cancel = await peer.comes("CANCEL")
    await peer.respond(cancel, 200)
    await peer.respond(invite, 487)


async def early(peer: Peer) -> None:
    """Announcements before the answer are no answer; then busy."""
    invite = await peer.called()
    body = peer.description()
    await peer.respond(invite, 183, body=body)
    await peer.speak(b"\x10" * 8000)
    await peer.respond(invite, 486)


async def answers(peer: Peer) -> None:
    invite = await peer.called()
    await peer.respond(invite, 180)
    await peer.answer(invite)
    await until(lambda: len(peer.packets) > 10, "audio")
    await peer.hang_up()


async def is_silent(peer: Peer) -> None:
    """It takes the INVITE and says nothing at all."""
    await peer.called()


OUTCOMES = (
    (busy, "busy", "busy", 3),
    (declined, "declined", "declined", 4),
    (rings, "no_answer", "no_answer", 5),
    (away, "no_answer", "no_answer", 5),
    (unknown, "unreachable", "unreachable", 6),
    (is_silent, "timeout", "timeout", 6),
    (early, "busy", "busy", 3),
    (answers, "callee_hangup", "answered", 0),
)
# Half a second of a core for each. A telephone waits for its call from then on, not in the queue.
commands = trio.Semaphore(3)


async def voiced(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command against the daemon of this folder."""
    done = await trio.run_process(
        [sys.executable, "-m", "voiced", *arguments, "-c", str(folder / "voiced.toml")],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def dialled(two: Two, behaviour: Any, reason: str, outcome: str, status: int) -> None:
    folder = two.here.folder
    async with commands, sip_peer("127.0.9.200") as peer, trio.open_nursery() as nursery:
        nursery.start_soon(behaviour, peer)
        more = ["--timeout", "1"] if behaviour is rings else []
        code, out, err = await voiced(
            folder, "dial", peer.uri, "--agent", "asks", "--json", "--header", "X-Round: 1", *more
        )
    assert code == status, (code, out, err)
    row = json.loads(out)
    assert (row["reason"], row["outcome"]) == (reason, outcome)
    assert row["direction"] == "outbound"
    (invite,) = [each for each in peer.log if each.method == "INVITE"]
    assert invite.get("x-round") == "1"
    assert "Traceback" not in err
    if behaviour is early:
        assert [state for state, _ in row["states"]] == ["dialling", "ended"]


for behaviour, reason, outcome, status in OUTCOMES:
    scenes[f"dial_{behaviour.__name__}"] = partial(
        dialled, behaviour=behaviour, reason=reason, outcome=outcome, status=status
    )


@scenes
async def dial_nobody_listens(two: Two) -> None:
    port = free_port("127.0.9.200")
    target = f"sip:bob@127.0.9.200:{port};transport=tcp"
    async with commands:
        code, out, err = await voiced(two.here.folder, "dial", target, "--agent", "asks")
    assert code == 6, (out, err)
    assert "unreachable" in err
    assert "Traceback" not in err


@scenes
async def dial_by_hand(two: Two) -> None:
    """The other commands on a call that the command began; a transfer that the peer takes."""
    folder = two.here.folder
    async with commands, sip_peer("127.0.9.200") as peer:
        code, out, err = await voiced(folder, "dial", peer.uri, "--agent", "asks", "--no-wait")
        assert code == 0, err
        call_id = out.split()[0]
        await peer.answer(await peer.called())
        await two.here.live(peer.call_id)
        for words, expected in (
            (("calls",), call_id[:6]),
            (("show", call_id), "outbound"),
            (("say", call_id, "We close in five minutes."), ""),
        ):
            code, out, err = await voiced(folder, *words)
            assert code == 0, err
            assert expected in out
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(peer.takes_transfer, "486 Busy Here"))
            code, out, err = await voiced(folder, "transfer", call_id, "+4930123")
        assert code != 0
        assert "486" in err + out
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.takes_transfer)
            code, out, err = await voiced(folder, "transfer", call_id, "+4930123")
        assert code == 0, err
        await peer.until_bye()
        code, out, err = await voiced(folder, "hangup", call_id)
        assert code == 1
        assert "no live call" in err
    assert (await two.here.row_of(call_id))["reason"] == "transferred"


@asynccontextmanager
async def two_daemons(folder: Path) -> AsyncIterator[Two]:
    port = free_port("127.0.0.1")
    file = write(folder / "there", THERE.replace("PORT", str(port)))
    async with running(file) as there:
        await there.logged("listening")
        here = folder / "here"
        here.mkdir()
        shutil.copy(Path(clips.__file__).with_name("hours.wav"), here)
        text = f'[admin]\nlisten = "127.0.0.1:{free_port("127.0.0.1")}"\n' + HERE
        trunks = {"plain": "", "there": f'host = "127.0.0.1:{port}"'}
        async with sip_house(here, trunks, text=text, timing=QUICK) as house:
            yield Two(house, there, port)
        there.process.terminate()
        assert await there.ended() == 0
        assert not [line for line in there.log if line["level"] == "error"], there.lines


async def settled(two: Two) -> None:
    await two.here.nothing_left()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def main() -> Outcomes:
        async with two_daemons(tmp_path_factory.mktemp("two")) as two:
            return await scenes.play(two, settled)

    return run_strictly(main)


@pytest.mark.parametrize("name", scenes.names)
def test_sip_dials(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)
