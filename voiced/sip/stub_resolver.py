"""A stub resolver (RFC 1034 section 5.3.1): asks the system's name servers, keeps nothing.

dnspython reads and writes the messages; it takes a tenth of a second to import, so that happens in
a thread when a name is looked up for the first time. Sockets and time limits are Trio's.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import trio

from voiced.sip.hosts import ResolveError, WatchedFile, parse_resolv_conf

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rrset

__all__ = ["MAX_TTL", "Record", "RecordType", "Srv", "StubResolver"]

ATTEMPT_TIMEOUT: Final = 2.0
"""Seconds for one server to answer one question."""

ROUNDS: Final = 2
"""How often every server is asked: one datagram may be lost."""

MAX_TTL: Final = 3600.0

_PAYLOAD: Final = 1232  # EDNS size that is not fragmented (DNS flag day 2020)
_MAX_CNAMES: Final = 8

RecordType = Literal["A", "AAAA", "SRV"]

_MODULES: Final = ("dns.message", "dns.rdtypes.IN.A", "dns.rdtypes.IN.AAAA", "dns.rdtypes.IN.SRV")


@dataclass(frozen=True, slots=True)
class Srv:
    """A host that has a service (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


Record = str | Srv
"""An address, or a service."""


class StubResolver:
    """Asks; `nameservers` are (address, port) pairs.

    None: those of `resolv_conf`, read again when it has changed.
    """

    def __init__(self, nameservers: Sequence[tuple[str, int]] | None, resolv_conf: Path) -> None:
        self._nameservers = None if nameservers is None else tuple(nameservers)
        self._resolv_conf = WatchedFile(resolv_conf, parse_resolv_conf)

    async def query(self, name: str, kind: RecordType) -> tuple[tuple[Record, ...], float]:
        """The records, none if there are none, and for how many seconds that holds.

        Raises:
            ResolveError: no answer, or a useless one.
        """
        if _MODULES[-1] not in sys.modules:  # loaded last: then all are
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


def _load() -> None:
    for module in _MODULES:
        importlib.import_module(module)


def _records(rrset: dns.rrset.RRset) -> tuple[Record, ...]:
    import dns.rdtypes.IN.SRV

    records: list[Record] = []
    for rdata in rrset:
        if isinstance(rdata, dns.rdtypes.IN.SRV.SRV):
            target = rdata.target.to_text(omit_final_dot=True)
            records.append(Srv(rdata.priority, rdata.weight, rdata.port, target))
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
