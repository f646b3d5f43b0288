"""What to call ourselves: the address in Via and Contact, as the peer concerned can reach it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from voiced.sip.hosts import DEFAULT_PORTS, is_address, split_host_port
from voiced.sip.resolver import Resolver
from voiced.sip.socket import ListenAddress, LocalAddresses, UdpSocket
from voiced.sip.transport import Flow, Target, TransportName

__all__ = ["Addressing"]

_SOMEWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses of nobody (RFC 5737, RFC 3849): the way there is the default route."""


class Addressing:
    """Our addresses, by who asks.

    A listener on a wildcard address has the address of the route to the peer. `advertise` replaces
    it for peers outside local networks only: peers on loopback or in private networks are on our
    side of the NAT that `advertise` is about, and may not be able to reach its outside (few NATs
    let packets turn round). Its port stands for UDP and TCP, which share theirs by custom; TLS
    keeps its listener's.
    """

    def __init__(
        self, listen: Sequence[ListenAddress], advertise: str | None, resolver: Resolver
    ) -> None:
        """Raises ResolveError: `advertise` is neither a host nor `host:port`."""
        self._advertised = None if advertise is None else split_host_port(advertise)
        self._resolver = resolver
        self._routes = LocalAddresses()
        self._listen = tuple(listen)

    def listen(self, addresses: Sequence[ListenAddress]) -> None:
        """Learn the real ports."""
        self._listen = tuple(addresses)

    def towards(self, to: Target | Flow) -> tuple[str, int]:
        """Host and port for a peer."""
        known = self._resolver.cached(to.host) if isinstance(to, Target) else [to.remote[0]]
        # An unknown name is that of a provider far away, or its addresses would be in /etc/hosts.
        near = bool(known) and self._routes.towards(known[0]).near
        version = 6 if known and ":" in known[0] else 4
        ip = known[0] if known else _SOMEWHERE[self._version(version)]
        source = self._routes.towards(ip).source
        listener = self._listener(to.transport, ip, source) or self._any(ip, source)
        port = self._port(to.transport) if listener is None else listener.port
        if self._advertised is not None and not near and self._advertises(ip):
            host, advertised_port = self._advertised
            return host, (to.transport != "tls" and advertised_port) or port
        if listener is not None and not listener.wildcard:
            return listener.host, port
        if isinstance(to, Flow) and to.reliable:
            return to.local[0], port  # the connection knows
        return source or self._listen[0].host, port

    def socket_for(self, ip: str, sockets: Iterable[UdpSocket]) -> UdpSocket | None:
        """The UDP socket to send from."""
        listener = self._listener("udp", ip, None)
        if listener is not None and self._several("udp"):
            listener = self._listener("udp", ip, self._routes.towards(ip).source)
        return next((udp for udp in sockets if udp.address == listener), None)

    def bound_to(self, ip: str, transport: TransportName) -> str | None:
        """The address that a connection to `ip` comes from, where a listener fixes one.

        Carriers that know us by address expect the one that we listen on.
        """
        source = self._routes.towards(ip).source
        listener = self._listener(transport, ip, source) or self._listener("udp", ip, source)
        if listener is None or listener.wildcard or listener.host != source:
            return None
        return listener.host

    def _port(self, transport: TransportName) -> int:
        """For a peer of an IP version that we do not listen on, who may come by a gateway."""
        ports = (address.port for address in self._listen if address.transport == transport)
        return next(ports, DEFAULT_PORTS[transport])

    def _advertises(self, ip: str) -> bool:
        """Whether `advertise` is of any use to a peer there: an IPv4 address is not to IPv6."""
        host = self._advertised[0] if self._advertised else ""
        return not is_address(host) or (":" in host) == (":" in ip)

    def _several(self, transport: TransportName) -> bool:
        return sum(address.transport == transport for address in self._listen) > 1

    def _version(self, preferred: int) -> int:
        versions = {address.version for address in self._listen}
        return preferred if preferred in versions else min(versions)

    def _listener(
        self, transport: TransportName, ip: str, source: str | None
    ) -> ListenAddress | None:
        """The listener that a peer at `ip` should see: the route's own, a wildcard, any other."""
        candidates = [
            address
            for address in self._listen
            if address.transport == transport and address.version == (6 if ":" in ip else 4)
        ]
        return min(
            candidates,
            key=lambda address: 0 if address.host == source else 1 if address.wildcard else 2,
            default=None,
        )

    def _any(self, ip: str, source: str | None) -> ListenAddress | None:
        """For a transport without a listener: requests to another still reach us."""
        for transport in ("udp", "tcp", "tls"):
            listener = self._listener(transport, ip, source)
            if listener is not None:
                return listener
        return None
