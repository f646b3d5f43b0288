"""Where to send a request: RFC 3263, without NAPTR; what the name servers said is kept here.

NAPTR is left out: trunks name their transport in the configuration, which decides what NAPTR would
(section 4.1), and providers that publish it publish SRV too. Results come in the order in which
they are to be tried: SRV priority, then weight (RFC 2782), then the addresses of each target.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

import structlog
import trio

from voiced.sip.hosts import (
    DEFAULT_PORTS,
    ResolveError,
    WatchedFile,
    is_address,
    parse_hosts,
    split_host_port,
)
from voiced.sip.stub_resolver import MAX_TTL, Record, RecordType, Srv, StubResolver
from voiced.sip.transport import Target, TransportName
from voiced.sip.uri import SipUri

__all__ = ["DEFAULT_PORTS", "ResolveError", "Resolver", "split_host_port"]

_log = structlog.get_logger("voiced.sip.resolver")

SERVICES: Final[dict[TransportName, str]] = {
    "udp": "_sip._udp",
    "tcp": "_sip._tcp",
    "tls": "_sips._tcp",
}

MAX_TARGETS: Final = 16
"""Beyond that many, the caller has hung up before the last is tried."""

MAX_CACHED: Final = 512
"""Answers kept: the names of the trunks, and of the hosts in their Contact headers."""

MIN_TTL: Final = 1.0
NEGATIVE_TTL: Final = 30.0
"""At most so long is "no such name" believed; a new trunk's name may be entered any minute."""

STALE_S: Final = 24 * 3600.0
"""So long an expired answer is used when no server answers (RFC 8767 says one to three days)."""

_TYPES: Final[dict[int, RecordType]] = {4: "A", 6: "AAAA"}


@dataclass(frozen=True, slots=True)
class _Answer:
    records: tuple[Record, ...]  # empty: there are none
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
        self._families = tuple(families)
        self._hosts = WatchedFile(hosts, parse_hosts)
        self._servers = StubResolver(nameservers, resolv_conf)
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
        services = [record for record in records if isinstance(record, Srv)]
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

    async def _ask(self, name: str, kind: RecordType) -> tuple[Record, ...]:
        key = name.lower(), kind
        answer = self._cache.get(key)
        if answer is not None:
            self._cache.move_to_end(key)
            if answer.expires > self._now():
                return answer.records
        try:
            records, ttl = await self._servers.query(name, kind)
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


def order_services(services: Sequence[Srv], rng: random.Random) -> list[Srv]:
    """RFC 2782: by priority; within one, drawn one after the other with their weights."""
    ordered: list[Srv] = []
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
