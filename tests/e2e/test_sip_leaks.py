"""Hundreds of SIP calls, ended by either side in every state and way, leave nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import agent, open_files, sample, until
from tests.e2e.model import engine, serve_models
from tests.e2e.sip_peer import Peer, sip_peer
from tests.e2e.test_leaks import AGENTS, CONFIG, QUICK, STATES, never_commits, settled, tasks, words
from tests.interop.sip.house import SipHouse, sip_house
from voiced.simulate import Script
from voiced.simulate.script import (
    CutLine,
    HangUp,
    Hold,
    Pause,
    Resume,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForHangUp,
)
from voiced.simulate.sip_caller import call
from voiced.simulate.speech import SILENT_FRAME
from voiced.sip.transaction import Timing

CALLS = 240
WARM = 30
AT_A_TIME = 40
TIMING = Timing(t1=0.05, t2=0.2, t4=0.25)
"""A peer that says nothing is given up after 64 * T1 = 3.2 s."""

STRANGER = "127.0.8.99"

G729 = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 18\r\n"
)

WAYS = (
    "hangs_up",
    "hangs_up",
    "holds",
    "vanishes",
    "never_speaks",
    "cancels",
    "cancels_at_once",
    "never_acknowledges",
    "acknowledges_late",
    "refused",
    "not_acceptable",
    "stranger",
    "daemon",
    "operator",
    "dialled",
    "dialled",
)

CALLEES = ("answers", "busy", "rings", "silent", "vanishes", "answers_cancel")


class Crowd:
    """Makes callers and telephones that end their calls at random moments."""

    def __init__(self, here: SipHouse, rng: random.Random) -> None:
        self.here = here
        self.rng = rng
        self.ways: Counter[str] = Counter()
        self.call_ids: set[str] = set()
        """Of calls that have a row."""
        self.address = "127.0.0.1", here.port
        self.source = here.addresses["crowd"][0]

    def next(self) -> Callable[[], Awaitable[None]]:
        """Choose what one of them does; what it draws itself does not depend on when it runs."""
        way = self.rng.choice(WAYS)
        moment = self.rng.random()
        own = random.Random(self.rng.random())
        if way == "dialled":
            callee = self.rng.choice(CALLEES)
            self.ways[f"dialled_{callee}"] += 1
            return partial(self.dialled, callee, moment, own)
        self.ways[way] += 1
        match way:
            case "hangs_up" | "holds" | "vanishes" | "daemon" | "operator":
                return partial(self.talks, way, moment, own)
            case _:
                return partial(self.by_hand, way, moment)

    # ---- callers

    async def talks(self, way: str, moment: float, rng: random.Random) -> None:
        name = "closes" if way == "daemon" else rng.choice([*AGENTS, "waits", "greets"])
        part = words(rng.randrange(200, 1200))
        steps: tuple[Step, ...] = (Pause(rng.randrange(100)),)
        match name:
            case "greets" if rng.random() < 0.5:
                steps += (SayWhileAgentSpeaks(part, after_ms=200),)
            case "waits" | "thinks":
                steps += (Say(part),)
        last: tuple[Step, ...] = (HangUp(),)
        match way:
            case "holds":
                last = (Hold(), Pause(100), HangUp()) if moment < 0.5 else (Hold(), Resume())
            case "vanishes":
                last = (CutLine(),)
            case "daemon" | "operator":
                last = (WaitForHangUp(),)
        script = Script(way, "", (*steps, Pause(round(1000 * moment)), *last))
        from_ = f"+4930{rng.randrange(10**9):09d}"
        async with trio.open_nursery() as nursery:
            if way == "operator":
                nursery.start_soon(self._hang_up, from_, moment)
            uri = f"sip:{name}@127.0.0.1:{self.address[1]}"
            result = await call(
                script,
                uri=uri,
                from_=from_,
                source=self.source,
                record=False,
                deadline_s=30,
                linger_s=0.1,
            )
            nursery.cancel_scope.cancel()
        self.call_ids.add(result.call_sid)

    async def _hang_up(self, caller: str, after_s: float) -> None:
        """The operator ends the call from that number."""
        while True:
            for each in self.here.switchboard:
                if each.facts.caller == caller:
                    await trio.sleep(after_s)
                    each.end("operator")
                    return
            await trio.sleep(0.02)

    async def by_hand(self, way: str, moment: float) -> None:
        source = STRANGER if way == "stranger" else self.source
        async with sip_peer(source) as peer:
            to = "nobody" if way == "refused" else "waits"
            await peer.invite(self.address, to, offer=G729 if way == "not_acceptable" else None)
            match way:
                case "stranger":
                    with trio.move_on_after(0.2):
                        raise AssertionError(await peer.next())
                case "refused" | "not_acceptable":
                    response = await peer.status()
                    assert response.status == (404 if way == "refused" else 488), response
                    await peer.ack(response)
                case "cancels_at_once":
                    # It crosses the 200: the call is up and hung up, or never was.
                    await peer.cancel()
                    await self._after_cancel(peer)
                case "cancels":
                    await peer.next()
                    await trio.sleep(moment / 50)
                    await peer.cancel()
                    await self._after_cancel(peer)
                case "never_acknowledges":
                    self.call_ids.add(peer.call_id)
                    await peer.until_bye()
                case "acknowledges_late":
                    self.call_ids.add(peer.call_id)
                    response = await peer.status()
                    await trio.sleep(moment / 2)
                    await peer.ack(response)
                    await trio.sleep(moment / 2)
                    await peer.hang_up()
                case "never_speaks":
                    self.call_ids.add(peer.call_id)
                    response = await peer.status()
                    await peer.ack(response)
                    await peer.until_bye()

    async def _after_cancel(self, peer: Peer) -> None:
        statuses = {}
        while "INVITE" not in statuses:
            response = await peer.status()
            statuses[response.cseq[1]] = response
        final = statuses["INVITE"]
        if final.status == 200:  # answered first, as voiced does: acknowledge and hang up
            self.call_ids.add(peer.call_id)
            await peer.ack(final)
            await peer.hang_up()
        else:
            assert final.status == 487, final
            await peer.ack(final)

    # ---- calls of ours

    async def dialled(self, callee: str, moment: float, rng: random.Random) -> None:
        async with sip_peer(self.source) as peer:
            name = rng.choice(("waits", "greets", "lost", "closes"))
            call_id = await self.here.dial(peer.uri, agent=name, timeout_s=1)
            invite = await peer.called()
            self.call_ids.add(peer.call_id)
            match callee:
                case "answers":
                    await peer.respond(invite, 180)
                    await peer.answer(invite)
                    with trio.move_on_after(moment):
                        await peer.speak(SILENT_FRAME * 100)
                    await peer.hang_up()
                case "vanishes":
                    await peer.answer(invite)
                case "busy":
                    await peer.respond(invite, 486)
                    await peer.comes("ACK")
                case "rings" | "answers_cancel":
                    await peer.respond(invite, 180)
                    if moment < 0.5:
                        await trio.sleep(moment)
                        self.here.operations.hangup(call_id, "operator")
                    cancel = await peer.comes("CANCEL")
                    await peer.respond(cancel, 200)
                    if callee == "rings":
                        await peer.respond(invite, 487)
                    else:  # the two have crossed
                        await peer.respond(invite, 200, body=peer.description())
                        await peer.comes("BYE")
                case "silent":
                    if moment < 0.5:
                        await trio.sleep(moment)
                        self.here.operations.hangup(call_id, "operator")


async def test_nothing_is_left(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = await nursery.start(serve_models, {"commits": never_commits})
    text = CONFIG + engine("commits", port)
    text += "".join(agent(name, which, QUICK + more) for name, (which, more) in AGENTS.items())
    text = text.replace("@voiced.test", "@127.0.0.1")
    tasks_without = tasks()
    sip = "rtp_timeout_s = 1\nstranger_rate = 1000\nban_s = 0"
    async with sip_house(tmp_path, {"crowd": ""}, sip=sip, text=text, timing=TIMING) as house:
        warm = Crowd(house, random.Random(1))
        await held(warm, WARM)  # threads, caches and clips are made once
        await house.nothing_left()
        await quiet(house)
        await settled()
        baseline = tasks(), open_files()
        before = len(house.here.rows())

        crowd = Crowd(house, random.Random(20))
        await held(crowd, CALLS)
        await house.nothing_left()  # calls, sessions, RTP ports, places of trunks
        await quiet(house)
        await until(lambda: tasks() == baseline[0], "the tasks of the beginning")
        await until(lambda: open_files() == baseline[1], "the files of the beginning")
        assert sample("voiced_calls_live") == 0

        rows: list[dict[str, Any]] = house.here.rows()[: -before or None]
        assert Counter(row["carrier_call_id"] for row in rows) == Counter(crowd.call_ids)
        assert all(row["reason"] and row["ended_at"] for row in rows)
        assert all(row["states"][-1][0] == "ended" for row in rows)
        assert {row["trunk"] for row in rows} == {"crowd", "direct"}
        # Is the test what it says? Every state, every way.
        last = Counter(row["states"][-2][0] for row in rows)
        assert set(last) >= STATES | {"on_hold", "dialling"}, last
        ways = {*WAYS, *(f"dialled_{each}" for each in CALLEES)} - {"dialled"}
        assert set(crowd.ways) == ways, crowd.ways
        reasons = Counter(row["reason"] for row in rows)
        assert set(reasons) >= {
            "ack_timeout",
            "busy",
            "callee_hangup",
            "caller_hangup",
            "max_duration",
            "media_timeout",
            "no_answer",
            "operator",
            "timeout",
        }, reasons
        assert "internal_error" not in reasons
    assert tasks() == tasks_without
    assert house.service.hub.in_use == 0


async def held(crowd: Crowd, calls: int) -> None:
    limiter = trio.CapacityLimiter(AT_A_TIME)

    async def limited(part: Callable[[], Awaitable[None]]) -> None:
        async with limiter:
            await part()

    async with trio.open_nursery() as callers:
        for _ in range(calls):
            callers.start_soon(limited, crowd.next())


async def quiet(house: SipHouse) -> None:
    """Wait until no SIP transaction is left: their timers run out by themselves."""
    layer, timers = house.service.agent.layer, house.service.endpoint.timers
    await until(
        # One timer more: the endpoint's, for what it logs once a minute.
        lambda: not (layer.client_transactions or layer.server_transactions or len(timers) > 1),
        "the end of all transactions",
    )
