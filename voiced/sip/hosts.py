"""Hosts and ports as they are written, and the two files in which a system keeps such things."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from voiced.sip.errors import SipError
from voiced.sip.transport import TransportName

__all__ = [
    "DEFAULT_PORTS",
    "ResolveError",
    "WatchedFile",
    "is_address",
    "parse_hosts",
    "parse_resolv_conf",
    "split_host_port",
]

DEFAULT_PORTS: Final[dict[TransportName, int]] = {"udp": 5060, "tcp": 5060, "tls": 5061}
"""RFC 3261 section 19.1.2."""


class ResolveError(SipError):
    """A name cannot be turned into an address."""


def split_host_port(text: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; raises ResolveError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not is_address(host) or (rest and not rest.startswith(":")):
            raise ResolveError(f"not a host and port: {text}")
        digits = rest[1:]
    elif is_address(text):
        return text, None
    else:
        host, colon, digits = text.partition(":")
        if not host or (colon and not digits):
            raise ResolveError(f"not a host and port: {text}")
    if not digits:
        return host, None
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) < 65536:
        raise ResolveError(f"not a port: {text}")
    return host, int(digits)


def is_address(text: str) -> bool:
    """Whether it is an IPv4 address or an IPv6 address without brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class WatchedFile:
    """A small file, parsed again when it has changed; missing or unreadable: empty."""

    def __init__(self, path: Path, parse: Callable[[str], dict[str, list[str]]]) -> None:
        self._path = path
        self._parse = parse
        self._version: tuple[int, int] | None = None
        self._content = parse("")

    def read(self) -> dict[str, list[str]]:
        """What the file says now."""
        try:
            status = self._path.stat()
            version = status.st_mtime_ns, status.st_size
            if version != self._version:
                self._content = self._parse(self._path.read_text("utf-8", "replace"))
                self._version = version
        except OSError:
            self._content, self._version = self._parse(""), None
        return self._content


def parse_hosts(text: str) -> dict[str, list[str]]:
    """hosts(5): addresses by name, in lower case."""
    hosts: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if is_address(address):
            for name in names:
                hosts.setdefault(name.lower(), []).append(address)
    # RFC 6761 section 6.3: never a question for a name server.
    hosts.setdefault("localhost", ["127.0.0.1", "::1"])
    return hosts


def parse_resolv_conf(text: str) -> dict[str, list[str]]:
    """resolv.conf(5): under `nameserver` the addresses of the name servers, at least one."""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and is_address(words[1]):
            servers.append(words[1])
    return {"nameserver": servers or ["127.0.0.1"]}  # as resolv.conf(5)
