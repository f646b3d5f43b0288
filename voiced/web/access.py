"""Who may use the admin listener: those who show the token, and never another site's pages.

A browser on the operator's machine reaches loopback too, so that any page it has open may try to.
Against that stand the Host check (DNS rebinding: the attacker's name resolves to loopback, the
browser sends that name) and the Origin check (cross-site requests). A request with the token has
shown that it comes from no such page; its Host may be anything a proxy or a scraper calls us.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Access", "Denied", "Seen"]

_PROXY_HEADERS: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
_CROSS_SITE: Final = frozenset({"cross-site", "same-site"})  # Fetch Metadata, Sec-Fetch-Site


@dataclass(frozen=True, slots=True)
class Seen:
    """What a request is judged by. Header names are lower case, repeated fields joined by commas.

    `peer` is the address of the socket's other end, None on a Unix socket.
    """

    headers: Mapping[str, str]
    peer: str | None
    secure: bool = False

    @property
    def who(self) -> str:
        """For the log."""
        return "unix socket" if self.peer is None else self.peer

    @property
    def is_local(self) -> bool:
        """It comes from this machine, and from no proxy on it that says so."""
        proxied = any(name in self.headers for name in _PROXY_HEADERS)
        return not proxied and (self.peer is None or _is_loopback(self.peer))


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is refused; `code` counts it, message and remedy are for who sent it."""

    status: int
    code: str
    message: str
    remedy: str


class Access:
    """Judges requests.

    `hosts` are further names by which the listener is called, beside IP addresses, `localhost` and
    the machine's own name. Raises ValueError for an empty token.
    """

    def __init__(self, token: str, hosts: Iterable[str] = ()) -> None:
        if not token:
            raise ValueError("the admin API needs a token")
        self._token = token.encode()
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, *(host.lower().rstrip(".") for host in hosts)}

    def has_token(self, seen: Seen) -> bool:
        """Whether the request shows the token (RFC 6750 section 2.1)."""
        scheme, _, shown = seen.headers.get("authorization", "").partition(" ")
        # Headers arrive as latin-1; what else a client sends must compare, not raise.
        given = shown.strip().encode("latin-1", "replace")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._token)

    def api(self, seen: Seen) -> Denied | None:
        """Judge a request to the API: the token, and not from another site's page."""
        if seen.headers.get("sec-fetch-site") in _CROSS_SITE or not self._same_origin(seen):
            return _CROSS_ORIGIN
        if self.has_token(seen):
            return None
        if not self._host_is_ours(seen):
            return _WRONG_HOST
        return _NO_TOKEN if not seen.headers.get("authorization") else _WRONG_TOKEN

    def open(self, seen: Seen) -> Denied | None:
        """Judge a request to what needs no token on this machine: metrics."""
        if self.has_token(seen):
            return None
        if not self._same_origin(seen):
            return _CROSS_ORIGIN
        if not self._host_is_ours(seen):
            return _WRONG_HOST
        return None if seen.is_local else _NO_TOKEN

    def _same_origin(self, seen: Seen) -> bool:
        """RFC 6454: a page's origin must be the very address that it asks, or absent.

        What came here in plain text may have left the browser as HTTPS: a proxy stands between.
        """
        origin = seen.headers.get("origin")
        if origin is None:
            return True
        scheme, _, host = origin.lower().partition("://")
        schemes = ("https",) if seen.secure else ("http", "https")
        return scheme in schemes and host == seen.headers.get("host", "").lower()

    def _host_is_ours(self, seen: Seen) -> bool:
        if seen.peer is None:  # no browser opens a Unix socket
            return True
        try:
            host = urlsplit(f"//{seen.headers.get('host', '')}").hostname or ""
        except ValueError:
            return False
        host = host.rstrip(".")
        return host in self._hosts or host.endswith(".localhost") or _is_address(host)


_NO_TOKEN: Final = Denied(
    401,
    "no_token",
    "this needs the admin token",
    "send Authorization: Bearer with the token of [admin], or of admin.token in the state_dir",
)
_WRONG_TOKEN: Final = Denied(
    401,
    "wrong_token",
    "this is not the admin token",
    "take the token of [admin], or of admin.token in the daemon's state_dir",
)
_WRONG_HOST: Final = Denied(
    421,
    "wrong_host",
    "this listener is not called so",
    "ask for its IP address or for localhost, or send the admin token",
)
_CROSS_ORIGIN: Final = Denied(
    403,
    "cross_origin",
    "pages of other sites may not use this",
    "open this listener's own address",
)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
