"""What a registrar granted: our binding among all it names, and its life (RFC 3261 10.2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voiced.sip.errors import ParseError
from voiced.sip.model import Response
from voiced.sip.uri import NameAddr, SipUri, parse_name_addr
from voiced.sip.values import parse_seconds

__all__ = ["Grant", "read_grant"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A 2xx to a REGISTER."""

    seconds: int
    """Until our binding expires, from now; 0: none was granted."""
    bindings: tuple[NameAddr, ...]
    service_route: tuple[NameAddr, ...]


def read_grant(response: Response, contact: SipUri, asked_s: int) -> Grant:
    """Read a 2xx to a REGISTER that asked for `contact` to be bound for `asked_s` seconds.

    The expiry is that of our Contact, else of the Expires header, else what we asked for. More than
    that cannot be granted (section 10.3 lets a registrar shorten it only), so it is not believed.

    Raises:
        ParseError: Contact, Expires or Service-Route is malformed.
    """
    bindings = tuple(response.contacts)
    ours = _find(bindings, contact)
    seconds = asked_s
    granted = None if ours is None else _expires(ours)
    if granted is None:
        granted = response.expires
    if granted is not None:
        seconds = min(granted, asked_s)
    route = tuple(parse_name_addr(value) for value in response.headers.get_all("Service-Route"))
    return Grant(seconds, bindings, route)


def _find(bindings: Sequence[NameAddr], contact: SipUri) -> NameAddr | None:
    """Our binding: the equal URI, else the one that a registrar behind NAT rewrote.

    Such a registrar puts the address it sees in the place of ours, and keeps the user part. If
    there are several like that the shortest-lived counts, so that none of them can expire on us.
    """
    for binding in bindings:
        if contact.equivalent(binding.uri):
            return binding
    alike = [
        binding
        for binding in bindings
        if isinstance(binding.uri, SipUri) and binding.uri.user == contact.user
    ]
    if not alike and len(bindings) == 1:
        return bindings[0]
    return min(alike, key=lambda binding: _expires(binding) or 0, default=None)


def _expires(binding: NameAddr) -> int | None:
    value = binding.parameters.get("expires")
    if value is None:
        return None
    try:
        return parse_seconds(value, "malformed expires")
    except ParseError:
        return 3600  # RFC 3261 section 20.10: what is malformed counts as that
