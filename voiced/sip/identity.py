"""Who calls whom, read from an INVITE; and the URIs of those whom we call."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from voiced.sip.errors import ParseError
from voiced.sip.grammar import format_host
from voiced.sip.headers import header_key
from voiced.sip.message import Request
from voiced.sip.uri import OtherUri, SipUri, TelUri, parse_name_addr, parse_uri

__all__ = ["Parties", "is_number", "parties", "uri_of"]

_NUMBER = re.compile(r"\+?[0-9]{1,32}", re.ASCII)
_SEPARATORS = re.compile(r"[-.() ]")  # RFC 3966 section 5.1.1
_ASSERTED: Final = "p-asserted-identity"

_KEPT: Final = frozenset(
    {
        "diversion",  # RFC 5806
        "history-info",  # RFC 7044
        "user-to-user",  # RFC 7433
        "referred-by",  # RFC 3892
        _ASSERTED,  # RFC 3325; STIR's verdict stands in its verstat parameter
        "identity",  # RFC 8224
        "attestation-info",  # 3GPP TS 24.229, like the next: what a network vouches for
        "origination-id",
        "remote-party-id",  # what P-Asserted-Identity was before it had an RFC
        "privacy",
        "subject",
    }
)
"""Header fields that are facts about a call, besides `X-…`."""

MAX_HEADERS: Final = 64


@dataclass(frozen=True, slots=True)
class Parties:
    """What an INVITE says of a call. All of it came from outside."""

    caller: str  # "+49…" or "030…", else "sip:…"; "anonymous"
    called: str  # the same
    called_uri: str  # "sip:user@host", whatever `called` is
    headers: dict[str, str]  # names as they came, short forms in full; of several the first


def parties(request: Request, own_users: Collection[str] = ()) -> Parties:
    """Read an INVITE. Raises ParseError for addresses that are malformed.

    A network that asserts an identity (RFC 3325) is believed rather than From, which is the
    caller's. `own_users`: user parts of our own Contacts; a registrar sends calls there, and the
    number called stands in To.
    """
    called: SipUri | TelUri | OtherUri = request.uri
    if isinstance(called, SipUri) and called.unescaped_user in own_users and request.to is not None:
        called = request.to.uri
    return Parties(
        caller=_caller(request),
        called=_shown(called),
        called_uri=_plain(called),
        headers=_headers(request),
    )


def _caller(request: Request) -> str:
    for value in request.headers.get_all(_ASSERTED):
        try:
            return _shown(parse_name_addr(value).uri)
        except ParseError:
            continue  # the network's mistake; From is there too
    return "anonymous" if request.from_ is None else _shown(request.from_.uri)


def _shown(uri: SipUri | TelUri | OtherUri) -> str:
    if isinstance(uri, TelUri):
        return uri.normalized
    if isinstance(uri, SipUri):
        user = uri.unescaped_user or ""
        number = _SEPARATORS.sub("", user.partition(";")[0])
        if _NUMBER.fullmatch(number):
            return number
        if user.lower() == "anonymous" or uri.host.endswith(".invalid"):
            return "anonymous"  # RFC 3323 section 4.1.1.3
    return _plain(uri)


def _plain(uri: SipUri | TelUri | OtherUri) -> str:
    """Scheme, user and host: what a rule can match."""
    if isinstance(uri, SipUri):
        host = format_host(uri.host)
        return f"{uri.scheme}:{uri.user}@{host}" if uri.user else f"{uri.scheme}:{host}"
    return str(uri)


def _headers(request: Request) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in request.headers.items():
        key = header_key(name)
        if (key in _KEPT or key.startswith("x-")) and len(kept) < MAX_HEADERS:
            kept.setdefault(name if len(name) > 1 else key.title(), value)
    return kept


def is_number(text: str) -> bool:
    """Whether `text` is a telephone number: digits, maybe after a plus, maybe with separators."""
    return _NUMBER.fullmatch(_SEPARATORS.sub("", text)) is not None


def uri_of(target: str, domain: str) -> SipUri:
    """The URI of a number at `domain` (`host` or `host:port`), or of a `sip:` address as it is.

    Raises ValueError for anything else.
    """
    try:
        if is_number(target):
            uri = parse_uri(f"sip:{_SEPARATORS.sub('', target)}@{domain}")
        else:
            uri = parse_uri(target)
    except ParseError as error:
        raise ValueError(f"{target!r} is no SIP address: {error.reason}") from None
    if isinstance(uri, TelUri):
        uri = parse_uri(f"sip:{uri.normalized}@{domain}")
    if not isinstance(uri, SipUri) or uri.headers:
        raise ValueError(f"{target!r} is neither a telephone number nor a SIP address")
    return uri
