"""The sockets under the endpoint: UDP, the way out to a peer, and connections that we open."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import trio

from voiced.sip.errors import SipError
from voiced.sip.grammar import format_host
from voiced.sip.tls import names_server
from voiced.sip.transport import TransportName
from voiced.socket import TcpTransport, TlsTransport

__all__ = [
    "ListenAddress",
    "ListenError",
    "LocalAddresses",
    "Route",
    "UdpSocket",
    "connect",
    "is_local",
    "keep_alive",
    "new_key",
    "shake_hands",
]

RECEIVE_BUFFER: Final = 4 * 1024 * 1024
"""Asked of the kernel, which clamps it (net.core.rmem_max): half a second of a flood."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for one address; a second SYN goes out after one, a third after three."""

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for TLS, either role: four round trips to the other side of the world, and thinking."""

KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)
"""A peer that has vanished is noticed in three minutes, in 20 s (ms here) with data on its way:
before timer B or F (32 s) gives the request up."""

ROUTE_TTL: Final = 60.0
"""Seconds until the way to a peer is looked up again: interfaces come and go."""

MAX_ROUTES: Final = 1024
"""Peers whose way is remembered, 200 KB."""

_NETWORKS: Final = tuple(
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)

new_key: Final[Callable[[], int]] = itertools.count(1).__next__
"""The identity of a socket or connection, never used again in this process."""


class ListenError(SipError):
    """An address cannot be listened on; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: `host` is an IP address, perhaps the wildcard; port 0 takes a free one."""

    transport: TransportName
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.transport}://{format_host(self.host)}:{self.port}"

    @property
    def wildcard(self) -> bool:
        """Whether it stands for every address of this machine."""
        return ip_address(self.host).is_unspecified

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4


class UdpSocket:
    """One bound UDP socket, non-blocking.

    It asks for no ICMP errors (IP_RECVERR): a server that restarts is unreachable for a second,
    which a retransmission survives and an error would not; and whoever can forge a UDP packet can
    forge the ICMP for it.
    """

    __slots__ = ("address", "key", "socket")

    def __init__(self, address: ListenAddress) -> None:
        """Bind; raises ListenError."""
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if address.version == 6:  # IPv4 has its own listeners, and no mapped addresses
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address.host, address.port))
        except OSError as error:
            sock.close()
            raise ListenError(f"cannot listen on {address}: {error.strerror}") from error
        self.socket = sock
        self.address = ListenAddress("udp", address.host, sock.getsockname()[1])
        self.key = new_key()

    def send(self, data: bytes, remote: tuple[str, int]) -> str | None:
        """Send or lose it; returns why it is known not to have gone out, and will not.

        A full buffer is loss like any on the way: SIP sends again.
        """
        for _ in range(2):
            try:
                self.socket.sendto(data, remote)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return None
                if error.errno == errno.ECONNREFUSED:
                    continue  # about an earlier datagram; reported once
                return error.strerror or "cannot send"
            else:
                return None
        return None

    def close(self) -> None:
        """Close; who waits for it is told."""
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a peer: our address on it (None: no way), whether the peer is near."""

    source: str | None
    near: bool


class LocalAddresses:
    """Which address of this machine a peer sees, as the kernel's routing table has it."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._known: OrderedDict[str, tuple[float, Route]] = OrderedDict()

    def towards(self, ip: str) -> Route:
        """The route to an IP address; sends nothing."""
        now = self._now()
        known = self._known.get(ip)
        if known is not None and known[0] > now:
            return known[1]
        route = Route(_source_address(ip), is_local(ip))
        self._known[ip] = now + ROUTE_TTL, route
        self._known.move_to_end(ip)
        if len(self._known) > MAX_ROUTES:
            self._known.popitem(last=False)
        return route


def _source_address(ip: str) -> str | None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 5060))  # of a UDP socket: chooses the route, sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])


def is_local(ip: str) -> bool:
    """Whether a peer there is on our side of a NAT: loopback, link-local, private (RFC 1918, 4193).

    Addresses of a provider's NAT (RFC 6598, 100.64.0.0/10) are not: that NAT is not ours.
    """
    address: IPv4Address | IPv6Address = ip_address(ip)
    return any(network.version == address.version and address in network for network in _NETWORKS)


async def connect(
    addresses: Sequence[str],
    port: int,
    *,
    source: str | None,
    tls: tuple[ssl.SSLContext, str] | None,
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109  per address, several are tried in order
) -> TcpTransport:
    """A connection to the first of `addresses` that has one to give.

    `source` is the local address to come from; `tls` the context and whom the certificate must
    name. Raises OSError, trio.BrokenResourceError, trio.TooSlowError: the last address's.
    """
    for index, address in enumerate(addresses):
        try:
            with trio.fail_after(timeout):
                transport = await _connect_tcp(address, port, source)
        except (OSError, trio.TooSlowError):
            if index == len(addresses) - 1:
                raise
            continue
        if tls is None:
            return transport
        context, name = tls
        try:
            return await shake_hands(SipTls(transport.socket, context, server_hostname=name), name)
        except BaseException as error:
            transport.close()
            if isinstance(error, Exception) and index < len(addresses) - 1:
                continue
            raise
    raise OSError(errno.EHOSTUNREACH, "no address to connect to")


async def _connect_tcp(address: str, port: int, source: str | None) -> TcpTransport:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        if source is not None:
            await sock.bind((source, 0))
        await sock.connect((address, port))
        return TcpTransport(
            socket.socket(family, socket.SOCK_STREAM, sock.proto, fileno=sock.detach())
        )
    finally:
        sock.close()


def keep_alive(transport: TcpTransport) -> None:
    """Have the kernel find out whether the peer is still there."""
    for level, option, value in KEEP_ALIVE:
        with contextlib.suppress(OSError):  # gone, or a system without it
            transport.socket.setsockopt(level, option, value)


class SipTls(TlsTransport):
    """TLS whose peer's certificate can be looked at."""

    __slots__ = ()

    def names(self, name: str) -> bool:
        """Whether the peer's verified certificate speaks for `name`."""
        return names_server(self._tls.getpeercert() or {}, name)


async def shake_hands(transport: SipTls, name: str | None) -> SipTls:
    """Finish the handshake; a client names whom it wants to speak with.

    Raises BrokenResourceError, trio.TooSlowError.
    """
    with trio.fail_after(HANDSHAKE_TIMEOUT):
        await transport.handshake()
    if name is not None and not transport.names(name):
        raise trio.BrokenResourceError(f"the certificate is not for {name}")
    return transport
