"""kamailio as registrar with digest, and as a proxy that stays in the way of our calls."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.house import Scenes, run_strictly, sample, until
from tests.interop.sip.house import sip_house
from tests.interop.sip.peers import free_port
from tests.interop.sip.registrar import Kamailio, kamailio
from tests.interop.sip.talk import AGENTS, Played, Talk, settled
from voiced.sip.transaction import Timing
from voiced.web.operations import TrunkView

pytestmark = pytest.mark.interop

BRISK = Timing(t1=0.1, t2=0.8, t4=1.0)
"""A request that nobody answers is given up after 6.4 s."""

SHORT_S = 5
"""For which one of the registrars registers at the most."""

NUMBERS = """
[[number]]
match = "sip:alice@127.0.0.1"
agent = "reception"

[[number]]
match = "sip:dave@127.0.0.1"
agent = "reception"
"""


@dataclass
class Stage:
    """A daemon, its callers, and three kamailios by name."""

    talk: Talk
    proxies: dict[str, Kamailio]

    def trunk(self, name: str) -> TrunkView:
        """As the operator sees it."""
        (view,) = [view for view in self.talk.house.operations.trunks() if view.name == name]
        return view

    async def registers(self, name: str, state: str) -> TrunkView:
        """Wait for a state of a trunk's registration."""
        await until(lambda: self.trunk(name).registration == state, f"{name} {state}")
        return self.trunk(name)

    def passed(self, method: str, call: str) -> list[str]:
        """Who sent requests of a dialog through the proxy: `daemon` or `phone`, oldest first."""
        daemon = f" from 127.0.0.1:{self.talk.house.port} "
        return [
            "daemon" if daemon in line else "phone"
            for line in self.proxies["main"].seen(method)
            if f" {call} " in line
        ]


scenes: Scenes[Stage] = Scenes()


@scenes
async def registered(stage: Stage) -> None:
    view = await stage.registers("main", "registered")
    assert view.until is not None
    contacts = await stage.proxies["main"].contacts()
    assert "AoR: alice" in contacts
    assert f"sip:voiced@127.0.0.1:{stage.talk.house.port}" in contacts
    # One without an answer to the challenge, one with it: no more until it runs out.
    assert (
        len([each for each in stage.proxies["main"].seen("REGISTER") if "user alice" in each]) == 2
    )


@scenes
async def refreshed(stage: Stage) -> None:
    """A registrar grants what it likes: each time in good time before it runs out."""
    await stage.registers("short", "registered")
    began = trio.current_time()
    seen = stage.proxies["short"].seen
    while trio.current_time() < began + 2.5 * SHORT_S:
        assert stage.trunk("short").registration in ("registered", "registering")
        assert "AoR: carol" in await stage.proxies["short"].contacts()
        await trio.sleep(0.5)
    carols = [line for line in seen("REGISTER") if "user carol" in line]
    assert 4 <= len(carols) <= 8


@scenes
async def wrong_password(stage: Stage) -> None:
    """Refused, told to the operator, and not tried again every second."""
    view = await stage.registers("wrong", "failed")
    assert view.last_error is not None
    assert "trunk wrong is not registered" in stage.talk.house.operations.ready().degraded
    seen = stage.proxies["short"].seen
    tries = [line for line in seen("REGISTER") if "user bob" in line]
    assert len(tries) == 2
    await trio.sleep(8)
    assert [line for line in seen("REGISTER") if "user bob" in line] == tries
    assert "AoR: bob" not in await stage.proxies["short"].contacts()


@scenes
async def called_by_registration(stage: Stage) -> None:
    """A call to the address of record comes to us; To says whom it was for. Hold, resume, BYE."""
    await stage.registers("main", "registered")
    talk, proxy = stage.talk, stage.proxies["main"]
    async with talk.phone("called_by_registration") as phone:
        call = await talk.calls(phone, f"alice@{proxy.host}")
        await talk.answer(call)
        await phone.command("hold")
        await talk.comes_to(call, "on_hold")
        await phone.command("resume")
        await talk.comes_to(call, "listening")
        row = await talk.hangs_up(phone)
        assert (row["called"], row["trunk"]) == ("sip:alice@127.0.0.1", "main")
        talk.expect(phone, row, "hello", "who", codec="PCMU")
        assert stage.passed("INVITE", call) == ["phone"] * 3
        assert stage.passed("ACK", call) == ["phone"] * 3
        assert stage.passed("BYE", call) == ["phone"]
        assert f"sip:127.0.0.1:{proxy.port};" in proxy.seen("BYE")[0]  # by its Route


@scenes
async def over_tcp(stage: Stage) -> None:
    """The telephone speaks UDP, we TCP; kamailio stands with one foot on either side."""
    await stage.registers("wire", "registered")
    talk, proxy = stage.talk, stage.proxies["main"]
    assert f"sip:voiced@127.0.0.1:{talk.house.ports['tcp']};transport=tcp" in await proxy.contacts()
    async with talk.phone("over_tcp") as phone:
        call = await talk.calls(phone, f"dave@{proxy.host}")
        await talk.answer(call)
        await phone.command("hold")
        await talk.comes_to(call, "on_hold")
        await phone.command("resume")
        await talk.comes_to(call, "listening")
        talk.house.operations.hangup(await talk.house.live(call), "operator")
        await phone.told("CALL_CLOSED")
        row = await talk.row(call)
        assert row["called"] == "sip:dave@127.0.0.1"
        talk.expect(phone, row, "hello", "who", codec="PCMU")
        assert stage.passed("INVITE", call) == ["phone"] * 3
        (bye,) = [line for line in proxy.seen("BYE") if f" {call} " in line]
        assert "over tcp" in bye


@scenes
async def hung_up_by_us(stage: Stage) -> None:
    """Our BYE takes the way that the INVITE came."""
    await stage.registers("main", "registered")
    talk, proxy = stage.talk, stage.proxies["main"]
    async with talk.phone("hung_up_by_us") as phone:
        call = await talk.calls(phone, f"alice@{proxy.host}")
        await trio.sleep(0.5)
        talk.house.operations.hangup(await talk.house.live(call), "operator")
        await phone.told("CALL_CLOSED")
        row = await talk.row(call)
        assert row["reason"] == "operator"
        assert stage.passed("BYE", call) == ["daemon"]


@scenes
async def dialled_through_a_proxy(stage: Stage) -> None:
    """`proxy`: the request is for the telephone, the way is kamailio's, in both directions."""
    talk = stage.talk
    async with talk.phone(
        "dialled_through_a_proxy", account=";answermode=auto", port=talk.ports["behind"]
    ) as phone:
        call_id = await talk.house.dial(phone.uri(), "behind")
        call = (await phone.told("CALL_ESTABLISHED"))["id"]
        await talk.answer(call)
        await phone.command("hold")
        await talk.comes_to(call, "on_hold")
        await phone.command("resume")
        await talk.comes_to(call, "listening")
        talk.house.operations.hangup(call_id, "operator")
        await phone.told("CALL_CLOSED")
        row = await talk.row_of(call_id)
        assert row["reason"] == "operator"
        talk.expect(phone, row, "hello", "who", codec="PCMU")
        assert stage.passed("INVITE", call) == ["daemon", "phone", "phone"]
        assert stage.passed("ACK", call) == ["daemon", "phone", "phone"]
        assert stage.passed("BYE", call) == ["daemon"]


@scenes
async def dialled_with_a_password(stage: Stage) -> None:
    """As providers do it: 407 to the INVITE, then the call; the other side hangs up."""
    talk, proxy = stage.talk, stage.proxies["main"]
    async with talk.phone(
        "dialled_with_a_password", account=";answermode=auto", port=talk.ports["onward"]
    ) as phone:
        call_id = await talk.house.dial(f"sip:out-bell@{proxy.host}", "main")
        call = (await phone.told("CALL_ESTABLISHED"))["id"]
        await talk.answer(call)
        await phone.command("hangup")
        row = await talk.row_of(call_id)
        assert (row["reason"], row["trunk"]) == ("callee_hangup", "main")
        talk.expect(phone, row, "hello", "who", codec="PCMU")
        assert stage.passed("INVITE", call) == ["daemon"] * 2
        assert stage.passed("BYE", call) == ["phone"]


@scenes
async def unknown_there(stage: Stage) -> None:
    """kamailio knows no such user: the journal says so."""
    proxy = stage.proxies["main"]
    call_id = await stage.talk.house.dial(f"sip:nobody@{proxy.host}", "main")
    assert (await stage.talk.row_of(call_id))["reason"] == "unreachable"


@scenes
async def comes_and_goes(stage: Stage) -> None:
    """OPTIONS tell whether it lives: the operator sees it, and calls go on being taken."""
    operations, folder = stage.talk.house.operations, stage.talk.house.folder / "alive"
    port = stage.talk.ports["alive"]
    degraded = "trunk alive does not answer"
    for _ in range(2):
        async with kamailio(folder, port=port) as there:
            await until(lambda: stage.trunk("alive").reachable is True, "an answer")
            assert degraded not in operations.ready().degraded
            assert sample("voiced_sip_reachable", trunk="alive") == 1
        assert there.seen("OPTIONS")
        await until(lambda: stage.trunk("alive").reachable is False, "the silence")
        assert degraded in operations.ready().degraded
        assert operations.ready().ready
        assert stage.trunk("alive").last_error == "does not answer OPTIONS"
        assert sample("voiced_sip_reachable", trunk="alive") == 0


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[tuple[Stage, dict[str, Exception | None]]]:
    ports = {name: free_port() for name in ("behind", "onward", "alive")}
    onward = f"sip:tester@127.0.0.1:{ports['onward']}"
    async with AsyncExitStack() as stack:
        main = await stack.enter_async_context(kamailio(folder / "main", onward=onward))
        short = await stack.enter_async_context(kamailio(folder / "short", expires=SHORT_S))
        login = 'register = true\nusername = "{}"\npassword = "{}"\n'.format
        trunks = {
            "main": f'host = "{main.host}"\nallow = ["127.0.0.1"]\n' + login("alice", "s3cret"),
            "wire": f'host = "{main.host}"\ntransport = "tcp"\n' + login("dave", "s3cret"),
            "short": f'host = "{short.host}"\n' + login("carol", "s3cret"),
            "wrong": f'host = "{short.host}"\n' + login("bob", "guess"),
            "alive": f'host = "127.0.0.1:{ports["alive"]}"\noptions_s = 1',
            "behind": f'host = "127.0.0.1:{ports["behind"]}"\nproxy = "{main.host}"',
        }
        outcomes: dict[str, Exception | None] = {}
        async with sip_house(folder, trunks, text=NUMBERS + AGENTS, timing=BRISK) as here:
            stage = Stage(Talk(here, None, ports), {"main": main, "short": short})
            yield stage, outcomes
        try:
            await _unregistered(main, short)
            outcomes[UNREGISTERED] = None
        except AssertionError as error:
            outcomes[UNREGISTERED] = error


UNREGISTERED = "unregistered"


async def _unregistered(main: Kamailio, short: Kamailio) -> None:
    """A daemon that stops takes its bindings with it."""
    assert "AoR:" not in await main.contacts()
    assert "AoR:" not in await short.contacts()
    last = main.seen("REGISTER")[-1]
    assert re.search(r"expires \[0\]", last), last


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return run_strictly(partial(play, tmp_path_factory.mktemp("kamailio")))


async def play(folder: Path) -> Played:
    async with staged(folder) as (stage, outcomes):
        outcomes |= await scenes.play(stage, lambda stage: settled(stage.talk.house))
    return Played(outcomes, stage.talk)


@pytest.mark.parametrize("name", [*scenes.names, UNREGISTERED])
def test_kamailio(name: str, played: Played) -> None:
    played.judge(name)
