"""SIP as a part of the daemon: endpoint, RTP, user agent and trunks, kept alive together."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import structlog
import trio
from prometheus_client.registry import REGISTRY

from voiced import metrics
from voiced.call import Call
from voiced.config import parse_sip_listen
from voiced.config.types import Agent, Config, Sip, Trunk
from voiced.rtp.socket import RtpHub, RtpPorts
from voiced.sip.agent import UserAgent
from voiced.sip.endpoint import Endpoint, ListenAddress
from voiced.sip.errors import ParseError
from voiced.sip.grammar import format_host
from voiced.sip.guard import BAN_SCORE, Guard
from voiced.sip.hosts import ResolveError, is_address, split_host_port
from voiced.sip.identity import uri_of
from voiced.sip.message import Message, Response
from voiced.sip.options import Options
from voiced.sip.registration import Registration
from voiced.sip.resolver import Resolver
from voiced.sip.tls import client_context, server_context
from voiced.sip.transaction import Timing
from voiced.sip.transport import Flow, Target
from voiced.sip.uri import NameAddr, SipUri, escape_user, parse_uri
from voiced.sipcalls import CONTACT_USER, Line, SipCalls
from voiced.sipmetrics import SipMetrics
from voiced.switchboard import Switchboard
from voiced.trunks import Trunks, TrunkState

__all__ = ["SipService"]

log = structlog.get_logger("voiced.sip")

TIMING: Timing | None = None
"""SIP's own times; None: those of RFC 3261. Tests that wait for timers shorten them."""

RESOLVE_S: Final = 300.0
"""How often the addresses of a trunk without `allow` are looked up again."""

RETRY_RESOLVE_S: Final = 15.0

FAREWELL_S: Final = 2.0
"""At the end, for peers to answer a BYE, and again for registrars to forget us: time for two
copies over UDP. Calls and bindings expire by themselves."""

POLL_S: Final = 0.05


class SipService:
    """Everything SIP of one daemon. `run` it, `close` it, then cancel `run`."""

    def __init__(self, config: Config, switchboard: Switchboard) -> None:
        """Prepare. Raises SipError, ValueError or OSError for what cannot be listened on."""
        sip = config.sip
        self._sip = sip
        self.guard = Guard(
            now=trio.current_time,
            count=_count,
            rate=sip.stranger_rate,
            burst=4 * sip.stranger_rate,
            ban_s=sip.ban_s,
            ban_score=BAN_SCORE if sip.ban_s else math.inf,
        )
        self.hub = RtpHub(RtpPorts(sip.rtp_ports))
        listen = [ListenAddress(*parse_sip_listen(text)) for text in sip.listen]
        self.endpoint = Endpoint(
            listen,
            guard=self.guard,
            on_message=self._received,
            on_malformed=self._malformed,
            resolver=Resolver(families=_families(listen)),
            advertise=sip.advertise,
            server_tls=_server_tls(sip),
            client_tls=None if sip.ca_file is None else client_context(sip.ca_file),
            count=_count,
        )
        self.calls = SipCalls(sip, switchboard, self.hub, self._media_address)
        self.trunks = Trunks(sip, self.guard, switchboard, self.calls, trio.current_time)
        self.agent = UserAgent(
            self.endpoint,
            self.endpoint.timers,
            self.trunks,
            Options(
                contact_user=CONTACT_USER,
                session_expires_s=sip.session_expires_s,
                # Those that end hold a place for up to 32 s when their peer is silent.
                max_sessions=4 * config.daemon.max_calls,
            ),
            timing=TIMING,
        )
        self._nursery: trio.Nursery | None = None
        self._cares: dict[str, trio.CancelScope] = {}
        self._leaving: dict[str, Registration] = {}  # of trunks that a reload has changed
        self._advertised: str | None = None  # the address of `advertise`, where that is a name

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises SipError where an address cannot be listened on."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self.hub.run)
            await self._nursery.start(self.endpoint.serve)
            if self._sip.advertise is not None:
                self._nursery.start_soon(self._resolve_advertised, self._sip.advertise)
            for state in self.trunks:
                self._nursery.start_soon(self._care, state)
            figures = SipMetrics(self)
            REGISTRY.register(figures)
            try:
                log.info("sip listening", addresses=[str(each) for each in self.endpoint.addresses])
                task_status.started()
                await trio.sleep_forever()
            finally:
                REGISTRY.unregister(figures)

    def reload(self, sip: Sip) -> None:
        """Take the trunks of a new configuration; listeners and ports need a restart."""
        before = {state.name: state for state in self.trunks}
        fresh = self.trunks.load(sip)
        kept = {state.name for state in self.trunks} - {state.name for state in fresh}
        for name, state in before.items():
            if name not in kept:
                if state.registration is not None:
                    state.registration.stop()
                    self._leaving[name] = state.registration
                if scope := self._cares.pop(name, None):
                    scope.cancel()
        if self._nursery is not None:
            for state in fresh:
                self._nursery.start_soon(self._care, state)

    async def close(self) -> None:
        """Say goodbye to peers and registrars; whoever does not answer is not waited for long."""
        self.agent.shutdown()
        registrations = [state.registration for state in self.trunks if state.registration]
        for registration in registrations:
            registration.stop()
        await _while(lambda: self.agent.sessions > 0)
        await _while(lambda: any(each.state == "unregistering" for each in registrations))

    # ---- our own address

    def _media_address(self, to: Target | Flow) -> str:
        """The IP address that a peer is told in SDP. Raises OSError while it is unknown."""
        host = self.endpoint.contact_address(to)[0]
        if is_address(host):
            return host
        if self._advertised is None:
            raise OSError(f"the address of {host}, which [sip] advertise names, is not known")
        return self._advertised

    async def _resolve_advertised(self, advertise: str) -> None:
        """Keep the address of a name: audio is sent to addresses only."""
        host, _ = split_host_port(advertise)
        while not is_address(host):
            found = True
            try:
                self._advertised = (await self.endpoint.resolver.addresses(host))[0]
            except ResolveError as error:
                found = False
                log.warning("[sip] advertise has no address", host=host, why=str(error))
            await trio.sleep(RESOLVE_S if found else RETRY_RESOLVE_S)

    # ---- a trunk's upkeep

    async def _care(self, state: TrunkState) -> None:
        with trio.CancelScope() as scope:
            self._cares[state.name] = scope
            try:
                await self._care_for(state)
            except* Exception:
                # Calls, of this trunk and of others, go on without it.
                state.last_error = "its upkeep has failed"
                log.exception(
                    "trunk neglected: a bug of voiced, please report it", trunk=state.name
                )

    async def _care_for(self, state: TrunkState) -> None:
        async with trio.open_nursery() as nursery:
            if state.trunk.register:
                await self._left(state.name)
                state.registration = self._registration(state)
                state.registration.start()
            if not state.trunk.allow:
                nursery.start_soon(self._resolve, state)
            if state.trunk.options_s:
                nursery.start_soon(self._ask, state)
            await trio.sleep_forever()

    async def _left(self, name: str) -> None:
        """Wait for an older registration's end: it would take the new binding with it."""
        older = self._leaving.pop(name, None)
        await _while(lambda: older is not None and older.state == "unregistering")

    async def _resolve(self, state: TrunkState) -> None:
        """Keep the addresses of a trunk that names no networks."""
        while True:
            found: list[str] = []
            for uri in {str(state.domain): state.domain, "hop": state.next_hop}.values():
                try:
                    for target in await self.endpoint.resolver.resolve(uri):
                        found += await self.endpoint.resolver.addresses(target.host)
                except ResolveError as error:
                    state.last_error = str(error)
                    log.warning("trunk has no address", trunk=state.name, why=str(error))
            if found and state.last_error and not state.trunk.options_s:
                state.last_error = ""
            if found and state.resolved != (resolved := tuple(dict.fromkeys(found))):
                state.resolved = resolved
                self.trunks.allow()
                log.info("trunk addresses", trunk=state.name, addresses=list(resolved))
            await trio.sleep(RESOLVE_S if found else RETRY_RESOLVE_S)

    async def _ask(self, state: TrunkState) -> None:
        """Ask a trunk whether it lives, spread over time so that many are not asked at once."""
        while True:
            try:
                targets = await self.endpoint.resolver.resolve(state.next_hop)
            except ResolveError as error:
                self.trunks.heard_from(state, None)
                state.last_error = str(error)
            else:
                answered = trio.Event()
                answers: list[Response | None] = []

                def done(
                    response: Response | None,
                    answers: list[Response | None] = answers,
                    answered: trio.Event = answered,
                ) -> None:
                    answers.append(response)
                    answered.set()

                self.agent.options(
                    state.domain,
                    targets,
                    done,
                    from_=state.address(),
                    authenticator=state.authenticator,
                )
                await answered.wait()
                self.trunks.heard_from(state, answers[0])
            await trio.sleep(state.trunk.options_s * random.uniform(0.8, 1.2))  # noqa: S311

    def _registration(self, state: TrunkState) -> Registration:
        def contact(target: Target) -> SipUri:
            host, port = self.endpoint.contact_address(target)
            parameters = "" if target.transport == "udp" else f";transport={target.transport}"
            uri = parse_uri(f"sip:{CONTACT_USER}@{format_host(host)}:{port}{parameters}")
            assert isinstance(uri, SipUri)
            return uri

        def find(take: Callable[[Sequence[Target]], None]) -> None:
            # Not in the trunk's own nursery, which a reload ends before the goodbye is said.
            assert self._nursery is not None
            self._nursery.start_soon(self._find, state, take)

        registration = Registration(
            self.agent.layer,
            registrar=state.domain,
            aor=state.address(state.trunk.username),
            contact=contact,
            find_targets=find,
            authenticator=state.authenticator,
            expires_s=state.trunk.register_s,
            count=lambda event, detail: metrics.REGISTRATIONS.labels(state.name, detail).inc(),
        )
        shown: list[str] = [registration.state]

        def changed() -> None:
            if registration.state != shown[0]:
                shown[0] = registration.state
                level = log.warning if registration.state in ("retrying", "failed") else log.info
                level(
                    "registration",
                    trunk=state.name,
                    state=registration.state,
                    **({"why": registration.why} if registration.why else {}),
                )

        registration.changed = changed
        return registration

    async def _find(self, state: TrunkState, take: Callable[[Sequence[Target]], None]) -> None:
        try:
            targets = await self.endpoint.resolver.resolve(state.next_hop)
        except ResolveError as error:
            state.last_error = str(error)
            targets = []
        take(targets)

    # ---- calls of ours

    async def dial(
        self,
        to: str,
        state: TrunkState | None,
        agent_name: str,
        agent: Agent,
        *,
        caller: str | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Call:
        """Call `to` through a trunk; without one a `sip:` address is called where it says.

        Raises ValueError for a target that is none, ResolveError, NoRoom, NoPortsLeft, OSError.
        """
        if state is None:
            uri = uri_of(to, "")
            line = Line(Trunk(name="direct", host=uri.host))
            targets = await self.endpoint.resolver.resolve(uri)
            host = self.endpoint.contact_address(targets[0])[0]
            user = escape_user(caller or CONTACT_USER)
            from_ = NameAddr(None, parse_uri(f"sip:{user}@{format_host(host)}"), {})
            authenticator = None
        else:
            uri = uri_of(to, state.trunk.host)
            line = state
            targets = await self.endpoint.resolver.resolve(state.next_hop)
            from_ = state.address(caller)
            authenticator = state.authenticator
        return self.calls.dial(
            self.agent,
            uri,
            targets,
            from_,
            line,
            agent_name,
            agent,
            authenticator=authenticator,
            headers=headers,
            timeout_s=timeout_s,
            called=to,
        )

    # ---- from the endpoint

    def _received(self, message: Message, flow: Flow) -> None:
        self.agent.layer.receive(message, flow)

    def _malformed(self, error: ParseError, flow: Flow) -> None:
        self.agent.malformed(error, flow)


async def _while(true: Callable[[], bool]) -> None:
    """Wait for the machines below, which know no Trio; not longer than `FAREWELL_S`."""
    with trio.move_on_after(FAREWELL_S):
        while true():  # noqa: ASYNC110 - a few times in a daemon's life
            await trio.sleep(POLL_S)


def _count(what: str, why: str) -> None:
    if what in ("received", "sent"):
        return  # counted by the endpoint, and told by `collect`
    metrics.SIP_EVENTS.labels(what, metrics.code(why)).inc()


def _families(listen: Sequence[ListenAddress]) -> list[Literal[4, 6]]:
    """The IP versions that we can send from."""
    families: list[Literal[4, 6]] = []
    if any(":" not in address.host for address in listen):
        families.append(4)
    if any(":" in address.host for address in listen):
        families.append(6)
    return families


def _server_tls(sip: Sip) -> ssl.SSLContext | None:
    if sip.tls_cert is None or sip.tls_key is None:
        return None
    return server_context(sip.tls_cert, sip.tls_key)
