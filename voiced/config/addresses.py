"""Addresses as the configuration writes them: `host:port`, with IPv6 hosts in brackets."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["is_loopback", "parse_listen"]

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*\.?")


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


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
