"""What a user agent can be told about itself; plain values with defaults that suit a trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voiced.sip.transport import Target, TransportName

if TYPE_CHECKING:
    from voiced.sip.uri import SipUri

__all__ = ["ALLOW", "Options", "targets_of"]

ALLOW: Final = (
    "INVITE",
    "ACK",
    "CANCEL",
    "BYE",
    "OPTIONS",
    "PRACK",
    "UPDATE",
    "INFO",
    "NOTIFY",
    "REFER",
)


@dataclass(frozen=True, slots=True)
class Options:
    """Of one `UserAgent`, the same for all its sessions."""

    contact_user: str = "voiced"
    """User part of our Contact."""
    allow: Sequence[str] = ALLOW
    """Methods served; the rest get 405. INVITE, ACK, CANCEL, BYE are always needed."""
    reliable_provisionals: bool = True
    """RFC 3262: serve `Require: 100rel`, and offer it as a caller. Off: 420."""
    session_expires_s: int = 1800
    """RFC 4028: asked for as a caller, given to a peer that asks for longer. 0: no timers."""
    min_se_s: int = 90
    """Refuse shorter session intervals with 422; RFC 4028 sets 90 as the least."""
    follow_redirects: int = 0
    """How many 3xx answers to one INVITE are followed; 0 reports the first."""
    max_sessions: int = 1000
    """Sessions alive at a time, calling ones included; a new INVITE beyond them gets 503."""
    retry_after_s: int = 10
    """Retry-After of the 503 at `max_sessions`."""
    refer_silence_s: float = 180.0
    """How long a REFER may go without a NOTIFY once the first has come."""


def targets_of(uri: SipUri) -> list[Target]:
    """Where a request for `uri` goes when nothing is looked up: host and port (RFC 3263 4.2).

    A transport that we do not speak (SCTP, WebSocket) is taken for UDP, which every element has.
    """
    host = uri.parameters.get("maddr") or uri.host
    transport: TransportName = "udp"
    if uri.transport == "tls":
        transport = "tls"
    elif uri.transport == "tcp":
        transport = "tcp"
    port = uri.port or (5061 if transport == "tls" else 5060)
    return [Target(transport, host, port, host if transport == "tls" else None)]
