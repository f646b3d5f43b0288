"""Where to send a request: RFC 3263, without NAPTR, and the little DNS client that it needs.

NAPTR is left out: trunks name their transport in the configuration, which decides what NAPTR would
(section 4.1), and providers that publish it publish SRV too. Results come in the order in which
they are to be tried: SRV priority, then weight (RFC 2782), then the addresses of each target.

dnspython reads and writes the messages; it takes a tenth of a second to import, so that happens in
a thread when a name is looked up for the first time. Sockets and time limits are Trio's.
"""

from __future__ import annotations

import importlib
import random
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import structlog
import trio

from voiced.sip.hosts import (
    DEFAULT_PORTS,
    ResolveError,
    WatchedFile,
    is_address,
    parse_hosts,
    parse_resolv_conf,
    split_host_port,
)
from voiced.sip.transport import Target, TransportName
from voiced.sip.uri import SipUri

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rrset

__all__ = ["DEFAULT_PORTS", "ResolveError", "Resolver", "split_host_port"]

_log = structlog.get_logger("voiced.sip.resolver")

SERVICES: Final[dict[TransportName, str]] = {
    "udp": "_sip._udp",
    "tcp": "_sip._tcp",
    "tls": "_sips._tcp",
}

ATTEMPT_TIMEOUT: Final = 2.0
"""Seconds for one server to answer one question."""

ROUNDS: Final = 2
"""How often every server is asked: one datagram may be lost."""

MAX_TARGETS: Final = 16
"""Beyond that many, the caller has hung up before the last is tried."""

MAX_CACHED: Final = 512
"""Answers kept: the names of the trunks, and of the hosts in their Contact headers."""

MIN_TTL: Final = 1.0
MAX_TTL: Final = 3600.0
NEGATIVE_TTL: Final = 30.0
"""At most so long is "no such name" believed; a new trunk's name may be entered any minute."""

STALE_S: Final = 24 * 3600.0
"""So long an expired answer is used when no server answers (RFC 8767 says one to three days)."""

_PAYLOAD: Final = 1232  # EDNS size that is not fragmented (DNS flag day 2020)
_MAX_CNAMES: Final = 8

RecordType = Literal["A", "AAAA", "SRV"]

_TYPES: Final[dict[int, RecordType]] = {4: "A", 6: "AAAA"}

_MODULES: Final = ("dns.message", "dns.rdtypes.IN.A", "dns.rdtypes.IN.AAAA", "dns.rdtypes.IN.SRV")


@dataclass(frozen=True, slots=True)
class _Srv:
    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class _Answer:
    records: tuple[str | _Srv, ...]  # empty: there are none
    expires: float


class Resolver:
    """Looks names up; `await resolve(...)` and `await addresses(...)`.

    `nameservers` are (address, port) pairs, None: those of `resolv_conf`, read again when it has
    changed. `families` are the IP versions to use, in the order of preference: those of the
    sockets that we have. `rng` orders SRV records of equal priority.
    """

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int]] | None = None,
        *,
        families: Sequence[Literal[4, 6]] = (4, 6),
        hosts: Path = Path("/etc/hosts"),
        resolv_conf: Path = Path("/etc/resolv.conf"),
        rng: random.Random | None = None,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self._nameservers = None if nameservers is None else tuple(nameservers)
        self._families = tuple(families)
        self._hosts = WatchedFile(hosts, parse_hosts)
        self._resolv_conf = WatchedFile(resolv_conf, parse_resolv_conf)
        self._rng = rng or random.SystemRandom()
        self._now = now
        self._cache: OrderedDict[tuple[str, RecordType], _Answer] = OrderedDict()

    async def resolve(
        self, where: SipUri | str, transport: TransportName | None = None
    ) -> list[Target]:
        """Targets for a URI, `host` or `host:port`, at least one, in the order to be tried.

        `transport` None: the URI's; where that says nothing, UDP, or TCP if only that has an SRV
        record. The name that a TLS certificate must show (RFC 5922) is that of the URI, whatever
        SRV record led on.

        Raises:
            ResolveError: no such name, no answer, or a transport that we have not.
        """
        if isinstance(where, SipUri):
            host = (where.parameters.get("maddr") or where.host).strip("[]")
            name, port = where.host, where.port
            if transport is None and (where.scheme == "sips" or "transport" in where.parameters):
                transport = _transport(where.transport)
        else:
            host, port = split_host_port(where)
            name = host
        if port is None and not is_address(host) and host.lower() not in self._hosts.read():
            for candidate in (transport,) if transport else ("udp", "tcp"):
                targets = await self._by_service(host, name, candidate)
                if targets:
                    return targets
        transport = transport or "udp"
        port = port or DEFAULT_PORTS[transport]
        return [Target(transport, address, port, name) for address in await self.addresses(host)]

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of `host`, at least one; raises ResolveError."""
        if is_address(host):
            return [host]
        known = self._from_hosts(host)
        if known:
            return known
        found: dict[RecordType, list[str]] = {}
        errors: list[ResolveError] = []

        async def ask(kind: RecordType) -> None:
            try:
                records = await self._ask(host, kind)
            except ResolveError as error:
                errors.append(error)
            else:
                found[kind] = [record for record in records if isinstance(record, str)]

        kinds = [_TYPES[family] for family in self._families]
        async with trio.open_nursery() as nursery:
            for kind in kinds:
                nursery.start_soon(ask, kind)
        addresses = [address for kind in kinds for address in found.get(kind, ())]
        if addresses:
            return addresses[:MAX_TARGETS]
        if errors:
            raise errors[0]
        raise ResolveError(f"{host} has no address")

    def cached(self, host: str) -> list[str]:
        """What `addresses` would return without asking anybody; empty: it would have to ask."""
        if is_address(host):
            return [host]
        addresses = self._from_hosts(host)
        if not addresses:
            for family in self._families:
                answer = self._cache.get((host.lower(), _TYPES[family]))
                if answer is not None and answer.expires > self._now():
                    addresses += [record for record in answer.records if isinstance(record, str)]
        return addresses

    def _from_hosts(self, host: str) -> list[str]:
        known = self._hosts.read().get(host.lower(), [])
        return [
            address
            for family in self._families
            for address in known
            if ip_address(address).version == family
        ]

    async def _by_service(self, host: str, name: str, transport: TransportName) -> list[Target]:
        try:
            records = await self._ask(f"{SERVICES[transport]}.{host}", "SRV")
        except ResolveError as error:
            # Servers that do not answer, or refuse, questions for SRV exist; the address may do.
            _log.warning("no answer about SRV records", host=host, error=str(error))
            return []
        services = [record for record in records if isinstance(record, _Srv)]
        if [record.target for record in services] == ["."]:
            raise ResolveError(f"{host} says that it has no {SERVICES[transport]}")  # RFC 2782
        targets: list[Target] = []
        why: ResolveError | None = None
        for record in order_services(services, self._rng)[:MAX_TARGETS]:
            try:
                addresses = await self.addresses(record.target)
            except ResolveError as error:
                why = error
                continue
            targets += [Target(transport, address, record.port, name) for address in addresses]
        if services and not targets:
            raise ResolveError(f"no target of {SERVICES[transport]}.{host}: {why}") from why
        return targets[:MAX_TARGETS]

    async def _ask(self, name: str, kind: RecordType) -> tuple[str | _Srv, ...]:
        key = name.lower(), kind
        answer = self._cache.get(key)
        if answer is not None:
            self._cache.move_to_end(key)
            if answer.expires > self._now():
                return answer.records
        try:
            records, ttl = await self._query(name, kind)
        except ResolveError:
            if answer is None or not answer.records or answer.expires + STALE_S < self._now():
                raise
            _log.warning("no name server answers, using an old answer", name=name, type=kind)
            return answer.records
        if not records:
            ttl = min(ttl, NEGATIVE_TTL)
        self._cache[key] = _Answer(records, self._now() + min(max(ttl, MIN_TTL), MAX_TTL))
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return records

    async def _query(self, name: str, kind: RecordType) -> tuple[tuple[str | _Srv, ...], float]:
        """The records, none if there are none, and for how many seconds that holds."""
        if _MODULES[0] not in sys.modules:
            await trio.to_thread.run_sync(_load)
        import dns.exception
        import dns.name
        import dns.rcode

        try:
            question = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ResolveError(f"not a name: {name}") from error
        ttl = MAX_TTL
        for _ in range(_MAX_CNAMES):
            reply = await self._exchange(question, kind)
            try:
                chain = reply.resolve_chaining()
            except dns.exception.DNSException as error:
                raise ResolveError(f"useless answer about {name}: {error}") from error
            ttl = min(ttl, chain.minimum_ttl)
            if chain.answer is not None:
                return _records(chain.answer), ttl
            if chain.canonical_name == question or reply.rcode() != dns.rcode.NOERROR:
                return (), ttl
            question = chain.canonical_name  # a server that does not follow aliases for us
        raise ResolveError(f"too many aliases: {name}")

    async def _exchange(self, name: dns.name.Name, kind: RecordType) -> dns.message.QueryMessage:
        import dns.message
        import dns.rcode

        servers = self._nameservers
        if servers is None:
            servers = tuple((address, 53) for address in self._resolv_conf.read()["nameserver"])
        why = "no answer"
        for _ in range(ROUNDS):
            for server in servers:
                query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD)
                reply = None
                with trio.move_on_after(ATTEMPT_TIMEOUT):
                    try:
                        reply = await _ask_server(query, server)
                    except (OSError, EOFError) as error:
                        why = f"no answer: {error}"
                if reply is None:
                    continue
                if reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return reply
                why = f"the name server says {dns.rcode.to_text(reply.rcode())}"
        raise ResolveError(f"cannot look up {name.to_text(True)} {kind}: {why}")


def order_services(services: Sequence[_Srv], rng: random.Random) -> list[_Srv]:
    """RFC 2782: by priority; within one, drawn one after the other with their weights."""
    ordered: list[_Srv] = []
    for priority in sorted({service.priority for service in services}):
        left = [service for service in services if service.priority == priority]
        # Those of weight 0 first, so that they are drawn too, if rarely.
        left.sort(key=lambda service: service.weight != 0)
        while left:
            drawn = rng.randint(0, sum(service.weight for service in left))
            index = total = 0
            for index, service in enumerate(left):  # noqa: B007
                total += service.weight
                if total >= drawn:
                    break
            ordered.append(left.pop(index))
    return ordered


def _transport(name: str) -> TransportName:
    match name:
        case "udp" | "tcp" | "tls":
            return name
        case _:
            raise ResolveError(f"transport {name} is not supported")


def _load() -> None:
    for module in _MODULES:
        importlib.import_module(module)


def _records(rrset: dns.rrset.RRset) -> tuple[str | _Srv, ...]:
    import dns.rdtypes.IN.SRV

    records: list[str | _Srv] = []
    for rdata in rrset:
        if isinstance(rdata, dns.rdtypes.IN.SRV.SRV):
            target = rdata.target.to_text(omit_final_dot=True)
            records.append(_Srv(rdata.priority, rdata.weight, rdata.port, target))
        else:
            records.append(rdata.to_text())
    return tuple(records)


async def _ask_server(
    query: dns.message.QueryMessage, server: tuple[str, int]
) -> dns.message.QueryMessage | None:
    """One question to one server, again over TCP if the answer was cut; None: not understood."""
    reply = await _ask_udp(query, server)
    import dns.flags

    if reply.flags & dns.flags.TC:
        return await _ask_tcp(query, server)
    return reply


async def _ask_udp(
    query: dns.message.QueryMessage, server: tuple[str, int]
) -> dns.message.QueryMessage:
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    # Connected, on a port of the kernel's choice: only the server's own datagrams come in, and
    # who forges one has to guess port and id (RFC 5452).
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect(server)
        await sock.send(query.to_wire())
        while True:
            reply = _read_reply(query, await sock.recv(65535))
            if reply is not None:
                return reply


async def _ask_tcp(
    query: dns.message.QueryMessage, server: tuple[str, int]
) -> dns.message.QueryMessage | None:
    stream = await trio.open_tcp_stream(*server)
    try:
        wire = query.to_wire()
        await stream.send_all(len(wire).to_bytes(2, "big") + wire)
        data = bytearray()
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            received = await stream.receive_some()
            if not received:
                raise EOFError("the name server closed the connection")
            data += received
        return _read_reply(query, bytes(data[2 : 2 + int.from_bytes(data[:2], "big")]))
    except trio.BrokenResourceError as error:
        raise EOFError("the name server broke the connection") from error
    finally:
        await trio.aclose_forcefully(stream)


def _read_reply(query: dns.message.QueryMessage, wire: bytes) -> dns.message.QueryMessage | None:
    import dns.exception
    import dns.message

    # What is no answer to this question may be forged: it is passed over, the real one may come.
    with suppress(dns.exception.DNSException, ValueError):
        reply = dns.message.from_wire(wire, ignore_trailing=True)
        if isinstance(reply, dns.message.QueryMessage) and query.is_response(reply):
            return reply
    return None
