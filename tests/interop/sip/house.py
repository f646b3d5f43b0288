"""A daemon in this process with SIP trunks, for peers that run as programs of their own.

Each trunk has a loopback address of its own, so that peers with different settings call side by
side, and a free port there where a peer that is called can listen.
"""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.house import House, Scenes, house, until
from voiced import daemon, sipservice
from voiced.config.types import Config
from voiced.operations import DaemonOperations
from voiced.sip.resolver import Resolver
from voiced.sip.session import Session
from voiced.sip.transaction import Timing
from voiced.sipservice import SipService
from voiced.starting import start_admin
from voiced.switchboard import Switchboard
from voiced.web.operations import DialRequest

__all__ = ["AGENTS", "QUICK", "STRANGER", "SipHouse", "SipScenes", "free_port", "sip_house"]

STRANGER = "127.0.9.99"
"""On no trunk's list."""

QUICK = Timing(t1=0.05, t2=0.4, t4=0.5)
"""SIP's times at a tenth, for scenarios that wait for them to run out: 64*T1 is 3.2 s."""

AGENTS = """
[agent.reception]
engine = "offline"
silence_prompt_s = 0
silence_hangup_s = 0

[engine.offline]
kind = "emulator"
speech = "clips"

[[number]]
match = "*"
agent = "reception"
"""
"""Engine, agent and numbers of a house that does not say otherwise."""


_PORTS = range(10000, 19996, 4)
"""Below those that a system gives to whoever does not choose, and those of voiced's RTP."""


_given: set[tuple[str, int]] = set()  # to programs that may not have bound them yet


def free_port(host: str) -> int:
    """An even port that UDP and TCP may use at `host`, and UDP the next three; never told twice."""
    for port in random.sample(_PORTS, 200):
        if (host, port) in _given:
            continue
        with ExitStack() as stack:
            try:
                stack.enter_context(socket.socket()).bind((host, port))
                for more in range(4):
                    udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    udp.bind((host, port + more))
            except OSError:
                continue
            _given.add((host, port))
            return port
    raise AssertionError(f"no free ports at {host}")


@dataclass
class SipHouse:
    """A running daemon that listens for SIP at 127.0.0.1."""

    here: House
    folder: Path
    ports: Mapping[str, int]
    """By transport: where it listens."""
    addresses: Mapping[str, tuple[str, int]]
    """By trunk: where its requests come from, and where it is called."""
    service: SipService
    operations: DaemonOperations
    switchboard: Switchboard
    logs: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def port(self) -> int:
        """Where it listens over UDP."""
        return self.ports["udp"]

    async def dial(self, to: str, trunk: str | None = None, **more: Any) -> str:
        """Have the agent call somebody; returns the call's id. Raises OperationRefused."""
        more.setdefault("agent", "reception")
        return await self.operations.dial(DialRequest(to=to, trunk=trunk, **more))

    async def row_of(self, call_id: str) -> dict[str, Any]:
        """The journal row of a call by voiced's id, once the call has ended."""
        found: list[dict[str, Any]] = []

        def complete() -> bool:
            found[:] = [
                row
                for row in self.here.rows()
                if row["call_id"] == call_id and row["ended_at"] is not None
            ]
            return bool(found)

        await until(complete, f"the journal row of {call_id}")
        return found[0]

    async def live(self, carrier_call_id: str) -> str:
        """The id of the live call with this Call-ID, once there is one with audio."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [
                call.facts.call_id
                for call in self.switchboard
                if call.facts.carrier_call_id == carrier_call_id and call.has_media
            ]
            return bool(found)

        await until(there, f"the call {carrier_call_id}")
        return found[0]

    def session(self, carrier_call_id: str) -> Session:
        """The SIP session with this Call-ID, for what operators cannot ask for."""
        (found,) = (
            session
            for session in self.service.agent._sessions.values()
            if session.call_id == carrier_call_id
        )
        return found

    def lines(self, event: str, **data: Any) -> list[Mapping[str, Any]]:
        """Log lines of this event with these data."""
        return [
            line for line in self.logs if line["event"] == event and data.items() <= line.items()
        ]

    async def nothing_left(self) -> None:
        """Wait until no call, session or RTP port is in use; no bug of ours came to light."""
        await until(lambda: not len(self.switchboard), "the end of all calls")
        await self.here.idle()
        await until(lambda: self.service.agent.sessions == 0, "the end of all SIP sessions")
        await until(lambda: self.service.hub.in_use == 0, "the release of all RTP ports")
        assert not any(state.calls for state in self.service.trunks), "a trunk counts ended calls"
        assert not self.here.tracebacks(), self.here.tracebacks()[0]["exception"]


class SipScenes(Scenes[SipHouse]):
    """Scenarios that share a house."""

    def add(
        self, scenario_name: str, action: Callable[..., Awaitable[object]], **arguments: Any
    ) -> None:
        """Add one that is `action(house, **arguments)`."""

        async def play(house: SipHouse) -> None:
            await action(house, **arguments)

        self[scenario_name] = play


@asynccontextmanager
async def sip_house(
    folder: Path,
    trunks: Mapping[str, str],
    *,
    sip: str = "",
    text: str = AGENTS,
    timing: Timing | None = None,
    listen: Sequence[str] = ("udp", "tcp"),
    also: Sequence[str] = (),
    max_calls: int = 100,
    hosts: str = "127.0.0.1 localhost\n",
    drain_s: float = 1,
) -> AsyncIterator[SipHouse]:
    """A daemon with `trunks`, by name what their tables say besides `name`, `host` and `allow`.

    One that sets `host` or `allow` itself keeps its own. `sip`: more lines of `[sip]`. `also`: more
    addresses to listen at, such as `udp://[::1]:5060`. `text`: the
    rest of the configuration. `timing`: other times than SIP's own. `hosts`: instead of /etc/hosts;
    `{NAME}` stands for the address of the trunk NAME.
    """
    ports = {transport: free_port("127.0.0.1") for transport in listen}
    addresses = {name: f"127.0.9.{index}" for index, name in enumerate(trunks, 1)}
    where = {name: (address, free_port(address)) for name, address in addresses.items()}
    lines = ["[sip]", "listen = ["]
    lines += [f'"{transport}://127.0.0.1:{port}",' for transport, port in ports.items()]
    lines += [*(f'"{address}",' for address in also), "]", sip]
    for name, more in trunks.items():
        address, port = where[name]
        lines += ["[[sip.trunk]]", f'name = "{name}"']
        if "host =" not in more:
            lines.append(f'host = "{address}:{port}"')
        if "allow =" not in more and "authenticate = true" not in more:
            lines.append(f'allow = ["{address}"]')
        if "options_s" not in more:
            lines.append("options_s = 0")
        lines.append(more)
    names = folder / "hosts"
    names.write_text(hosts.format_map(addresses), "ascii")
    drop_ins = folder / "conf.d"
    drop_ins.mkdir()
    (drop_ins / "drain.toml").write_text(f"[daemon]\ndrain_s = {drain_s}\n", "ascii")
    caught: list[DaemonOperations] = []
    services: list[tuple[SipService, Switchboard]] = []

    def sip_service(config: Config, switchboard: Switchboard) -> SipService:
        service = SipService(config, switchboard)
        services.append((service, switchboard))
        return service

    async def catch(
        config: Config, operations: DaemonOperations, nursery: trio.Nursery, stop: trio.Event
    ) -> str:
        caught.append(operations)
        return await start_admin(config, operations, nursery, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemon, "sip_service", sip_service)
        patch.setattr(daemon, "start_admin", catch)
        patch.setattr(sipservice, "TIMING", timing)
        patch.setattr(sipservice, "Resolver", partial(Resolver, hosts=names))
        async with house(folder, "\n".join(lines) + "\n" + text, max_calls=max_calls) as here:
            service, switchboard = services[0]
            yield SipHouse(here, folder, ports, where, service, caught[0], switchboard, here.logs)
