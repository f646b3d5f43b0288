"""What the transaction layer asks of a transport (RFC 3261 section 18), and how it names peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from voiced.sip.grammar import format_host

__all__ = ["Flow", "Target", "Transport", "TransportName"]

TransportName = Literal["udp", "tcp", "tls"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request is to go: one result of RFC 3263 resolution."""

    transport: TransportName
    host: str  # an IP literal (IPv6 without brackets), or a name that the transport resolves
    port: int
    name: str | None = None  # whom a TLS certificate must name; None: `host`

    def __str__(self) -> str:
        return f"{self.transport}:{format_host(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a message came from: a connection, or a peer seen by one of our UDP sockets.

    Sending to a flow uses that very connection or socket. UDP sends to `remote` from the socket
    `key`, so that a flow with another `remote` is legal (see `towards`); a connection has one peer.
    """

    transport: TransportName
    local: tuple[str, int]
    remote: tuple[str, int]
    key: int  # identity of the connection or socket, never reused in a process
    reliable: bool

    def __str__(self) -> str:
        host, port = self.remote
        return f"{self.transport}:{format_host(host)}:{port}"

    def towards(self, host: str, port: int) -> Flow:
        """The same UDP socket, another address."""
        return self if self.remote == (host, port) else replace(self, remote=(host, port))


class Transport(Protocol):
    """Sends messages; what it receives it hands to `TransactionLayer.receive`."""

    def send(
        self, data: bytes, to: Target | Flow, failed: Callable[[str], None] | None = None
    ) -> None:
        """Send one whole message, or queue it; never blocks, never raises.

        `failed(why)`, with `why` for the log, is called at most once and never from within `send`,
        when it is known that the message cannot have arrived: no route, name not found, connection
        refused or lost with the message still queued, queue full.
        """

    def sent_by(self, to: Target | Flow) -> tuple[str, str, int]:
        """Of the Via of a request sent there: transport token ("UDP", "TCP", "TLS"), host, port."""

    def contact_address(self, to: Target | Flow) -> tuple[str, int]:
        """Host and port at which a peer there can reach us, for Contact and SDP."""

    def is_reliable(self, to: Target | Flow) -> bool:
        """Whether what is sent there arrives or fails, so that nothing is retransmitted."""
