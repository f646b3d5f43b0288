"""Caps on what calls cost, over both carriers: heard, kept in the journal, and kept over a crash.

The emulator costs ten cents a second here, so that a day's budget is spent in one.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.ears import find
from tests.e2e.house import (
    TRUNK,
    House,
    Outcomes,
    Scenes,
    announcement,
    house,
    judge,
    nothing_is_left,
    played,
    sample,
    sip_address,
    until,
)
from tests.e2e.test_operator import Daemon, running, write
from voiced import clips
from voiced.budget import day_of
from voiced.journal import Journal
from voiced.simulate import CallResult, Script, call, sip_caller
from voiced.simulate.script import HangUp, Pause, WaitForAgentSpeech, WaitForHangUp
from voiced.simulate.wire import Identifiers

USD_S = 0.1
HEAD = f"""
[engine.offline]
kind = "emulator"
speech = "clips"

[price.emulator]
per_minute = 6.0
{TRUNK}
[agent.reception]
engine = "offline"
"""
CAP = 1.2
CAPPED = (
    "[cost]\n"
    + f"call_usd = {CAP}\n"
    + HEAD
    + f"""
[[number]]
match = "+15550101"
agent = "reception"

[[number]]
match = "+15550102"
agent = "reception"
call_usd = 100.0
number_usd = {CAP}

[[number]]
match = "+15550103"
agent = "reception"
call_usd = 100.0
number_usd = {CAP}
"""
)
STAYS = Script("stays", "", (WaitForHangUp(),))

scenes: Scenes[House] = Scenes()


async def dial_sip(here: House, to: str) -> CallResult:
    return await sip_caller.call(STAYS, uri=f"sip:{to}@{sip_address(here.logs)}", deadline_s=60)


async def struck(here: House, result: CallResult, cap: str) -> None:
    """The call ended with a farewell, before its cap."""
    row = await here.row(result.call_sid)
    assert result.failure is None, result.failure
    assert result.ended_by == "agent"
    assert row["reason"] == f"cost_{cap}"
    farewell = result.agent[-1]
    assert not farewell.cut
    if result.rtp is None:
        assert find(result, "farewell") is not None
    else:  # a telephone without a buffer: a packet that is 1 ms late makes it another sound
        length_ms = clips.load("farewell").duration_ms
        heard_ms = farewell.end_ms - farewell.start_ms
        assert heard_ms == pytest.approx(length_ms, abs=150)
    # A farewell that fits in, at the rate of ten cents a second, and no minute thrown away.
    assert CAP / 2 <= row["cost_usd"] < CAP
    assert row["cost_usd"] == pytest.approx(USD_S * row["media_ms"] / 1000, abs=0.1)


@scenes
async def a_call_is_capped_over_twilio(here: House) -> None:
    result = await here.call(STAYS, "+15550101")
    await struck(here, result, "call")
    # The number itself is free for another.
    again = await here.call(Script("looks in", "", (WaitForAgentSpeech(), HangUp())), "+15550101")
    assert again.failure is None


@scenes
async def a_call_is_capped_over_sip(here: House) -> None:
    result = await dial_sip(here, "+15550101")
    await struck(here, result, "call")


async def refused(here: House, to: str, why: str) -> None:
    """Both carriers are told that the line is busy."""
    before = sample("voiced_refused_total", what="call", why=why)
    answer = await here.post(fields=announcement(Identifiers(), to))
    assert answer.status == 200
    assert b'<Reject reason="busy"/>' in answer.body
    result = await dial_sip(here, to)
    assert result.sip is not None
    assert result.sip.status == 486
    assert sample("voiced_refused_total", what="call", why=why) >= before + 2


@scenes
async def a_number_is_capped_over_twilio(here: House) -> None:
    result = await here.call(STAYS, "+15550102")
    await struck(here, result, "number")
    await refused(here, "+15550102", "cost_number")


@scenes
async def a_number_is_capped_over_sip(here: House) -> None:
    result = await dial_sip(here, "+15550103")
    await struck(here, result, "number")
    await refused(here, "+15550103", "cost_number")


async def afterwards(here: House) -> None:
    await nothing_is_left(here)
    rows = here.rows()
    counted = sample("voiced_cost_usd_total", model="emulator")
    assert counted >= sum(row["cost_usd"] for row in rows) - 0.001
    assert all(row["model"] == "emulator" for row in rows)


async def all_of_it(folder: Path) -> Outcomes:
    async with house(folder, CAPPED) as here:
        return await scenes.play(here, afterwards)


outcomes = played(all_of_it)


@pytest.mark.parametrize("name", scenes.names)
def test_caps(name: str, outcomes: Outcomes) -> None:
    judge(outcomes, name)


# ---- a day, as a process of its own

DAY = HEAD + (
    f'\n[[number]]\nmatch = "*"\nagent = "reception"\n\n[cost]\nday_usd = {CAP}\n'
    '\n[admin]\nlisten = "unix:{socket}"\ntoken = "for-this-test"\n'
)


def spent(daemon: Daemon) -> float:
    """What the journal says of today."""
    with closing(Journal(daemon.state_dir)) as journal:
        return sum(each.usd for each in journal.spent(day_of(time.time())))


def ended(daemon: Daemon, call_sid: str) -> Mapping[str, Any] | None:
    """The row of a call, as soon as it is over: the journal writes behind."""
    rows = (row for row in daemon.rows() if row["carrier_call_id"] == call_sid)
    return next((row for row in rows if row["reason"] is not None), None)


async def told(file: Path, *command: str) -> str:
    """What a command prints about the running daemon."""
    done = await trio.run_process(
        [sys.executable, "-m", "voiced", *command, "-c", str(file)], capture_stdout=True
    )
    return done.stdout.decode()


async def find_the_day_spent(daemon: Daemon) -> None:
    """A call over each carrier is refused, the first after a start too."""
    listening = await daemon.logged("listening")
    webhook = listening["address"] + "/twilio/voice"
    assert (await call(STAYS, webhook_url=webhook)).failure is not None
    uri = f"sip:+15550100@{sip_address(daemon.log)}"
    over_sip = (await sip_caller.call(STAYS, uri=uri)).sip
    assert over_sip is not None
    assert over_sip.status == 486
    refusals = [line["why"] for line in daemon.log if line["event"] == "call refused"]
    assert refusals == ["cost_day", "cost_day"]


async def test_a_day_is_remembered_over_a_crash(tmp_path: Path) -> None:
    file = write(tmp_path / "day", DAY.replace("{socket}", str(tmp_path / "admin")))
    file.chmod(0o600)
    async with running(file) as daemon, trio.open_nursery() as nursery:
        nursery.start_soon(daemon.call, STAYS, "+15550100")
        await until(lambda: spent(daemon) >= 0.25, "what the live call has cost so far")
        daemon.process.send_signal(signal.SIGKILL)
        assert await daemon.ended() == -signal.SIGKILL
    before = spent(daemon)
    assert 0.25 <= before < CAP / 2
    async with running(file) as daemon:
        result = await daemon.call(STAYS, "+15550100")
        await until(lambda: ended(daemon, result.call_sid) is not None, "the call's row")
        row = ended(daemon, result.call_sid)
        assert row is not None
        assert row["reason"] == "cost_day"
        assert row["cost_usd"] < CAP - before, "the earlier call counts"
        assert spent(daemon) == pytest.approx(before + row["cost_usd"], abs=0.001)
        await find_the_day_spent(daemon)
        shown = f"{row['cost_usd']:.4f}"
        assert shown in await told(file, "calls", "--all")
        assert f"{shown} USD" in await told(file, "show", row["call_id"])
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.ended() == 0
    async with running(file) as daemon:  # in order, too
        await find_the_day_spent(daemon)
        assert spent(daemon) == pytest.approx(before + row["cost_usd"], abs=0.001)


# ---- prices and caps that change under live calls

RELOADED = DAY.replace(f"[cost]\nday_usd = {CAP}\n", "CAPS").replace("= 6.0", "= PRICE")


def told_to(file: Path, price: float, caps: str) -> None:
    """Write the file with another price, and other caps or none."""
    text = RELOADED.replace("PRICE", str(price)).replace("CAPS", caps)
    write(file.parent, text.replace("{socket}", str(file.parent / "admin")))
    file.chmod(0o600)


async def test_prices_and_caps_are_reloaded_for_new_calls_alone(tmp_path: Path) -> None:
    """A cap that is set at noon counts what the morning has cost."""
    file = tmp_path / "prices" / "voiced.toml"
    file.parent.mkdir()
    told_to(file, 6.0, "")
    stays = Script("stays", "", (WaitForAgentSpeech(), Pause(4000), HangUp()))
    async with running(file) as daemon, trio.open_nursery() as nursery:
        results: list[CallResult] = []

        async def old() -> None:
            results.append(await daemon.call(stays, "+15550100"))

        nursery.start_soon(old)
        await daemon.logged("call received")
        told_to(file, 0.6, "[cost]\nday_usd = 100\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.logged("configuration reloaded")
        new = await daemon.call(stays, "+15550100")
        await until(lambda: ended(daemon, new.call_sid) is not None, "the later call's row")
        (first,) = results
        for result, usd_s in ((first, USD_S), (new, USD_S / 10)):
            row = ended(daemon, result.call_sid)
            assert row is not None
            assert row["cost_usd"] == pytest.approx(usd_s * row["media_ms"] / 1000, rel=0.2)
        both = sum(row["cost_usd"] for row in daemon.rows())
        assert spent(daemon) == pytest.approx(both, abs=0.001)

        told_to(file, 0.6, f"[cost]\nday_usd = {both / 2:.3f}\n")
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: reloads(daemon) == 2, "the second reload")
        await find_the_day_spent(daemon)


def reloads(daemon: Daemon) -> int:
    return sum(line["event"] == "configuration reloaded" for line in daemon.log)
