"""Addresses as the configuration writes them: `host:port`, with IPv6 hosts in brackets."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal

__all__ = ["is_loopback", "parse_host", "parse_listen", "parse_rtp_ports", "parse_sip_listen"]

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*\.?")


_TRANSPORTS: Final[dict[str, Literal["udp", "tcp", "tls"]]] = {
    "udp": "udp",
    "tcp": "tcp",
    "tls": "tls",
}


def parse_listen(address: str) -> tuple[str, int]:
    """Split `"127.0.0.1:8080"` or `"[::1]:8080"` into host (without brackets) and port.

    Port 0 asks the system for a free one. Raises ValueError with what is wrong.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        raise ValueError("has no port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("has no port from 0 to 65535 after the last colon")
    if not host:
        raise ValueError("has no host before the port")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError("has no IPv6 address in the brackets") from None
    if ":" in host:
        raise ValueError("has an IPv6 address without brackets")
    if host.replace(".", "").isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError("has no IPv4 address before the port") from None
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError("has no host name or address before the port")
    return host, int(port)


def parse_host(text: str) -> tuple[str, int | None]:
    """Split `"host"`, `"host:port"`, `"[::1]"` or `"[::1]:port"`. Raises ValueError."""
    has_port = text.rpartition(":")[2].isdigit() and (text.startswith("[") or text.count(":") == 1)
    host, port = parse_listen(text if has_port and not text.endswith("]") else f"{text}:0")
    return host, port or None


def parse_sip_listen(text: str) -> tuple[Literal["udp", "tcp", "tls"], str, int]:
    """Split `"udp://0.0.0.0:5060"` into transport, host and port.

    Without a port it is 5060, and 5061 for `tls` (RFC 3261 section 19.1.2). Raises ValueError.
    """
    scheme, mark, address = text.partition("://")
    transport = _TRANSPORTS.get(scheme)
    if not mark or transport is None:
        raise ValueError("does not begin with udp://, tcp:// or tls://")
    if address.endswith("]") or ":" not in address:
        address += ":5061" if transport == "tls" else ":5060"
    host, port = parse_listen(address)
    return transport, host, port


def parse_rtp_ports(text: str) -> tuple[int, int]:
    """Split `"20000-29999"` into the first and the last port. Raises ValueError."""
    first, dash, last = text.partition("-")
    if not dash or not (first.strip().isdecimal() and last.strip().isdecimal()):
        raise ValueError("is no range of ports")
    low, high = int(first), int(last)
    if not 1024 <= low < high <= 65535:
        raise ValueError("is no range of ports from 1024 to 65535")
    return low, high


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
