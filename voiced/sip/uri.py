"""SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966) and name-addr, which carries them.

Parts are kept as they were written, percent escapes included, so that a URI can be passed on as
it came; only what is case-insensitive is lowered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote as percent_encode
from urllib.parse import unquote_to_bytes

from voiced.sip.errors import ParseError
from voiced.sip.grammar import (
    HOST,
    QUOTED,
    WHITE,
    check_host,
    check_port,
    format_host,
    format_parameters,
    parse_parameters,
    quote,
    same_host,
    unquote,
)
from voiced.sip.values import parse_seconds

__all__ = [
    "NameAddr",
    "OtherUri",
    "SipUri",
    "TelUri",
    "Uri",
    "escape_user",
    "parse_name_addr",
    "parse_uri",
]

# Telephones send an unescaped # in the user part, which the grammar wants as %23; nothing else
# could be meant by it.
_USER_SAFE: Final = "-_.!~*'()&=+$,;?/"
_USER: Final = r"[A-Za-z0-9\-_.!~*'()&=+$,;?/%#]+"
_PASSWORD: Final = r"[A-Za-z0-9\-_.!~*'()&=+$,%]*"  # noqa: S105
_SIP = re.compile(
    rf"(sips?):(?:({_USER})(?::({_PASSWORD}))?@)?({HOST})(?::([0-9]+))?(;[^?]*)?(?:\?(.+))?",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER = re.compile(
    r";([A-Za-z0-9\-_.!~*'()\[\]/:&+$%]+)(?:=([A-Za-z0-9\-_.!~*'()\[\]/:&+$%]+))?"
)
_HEADER = re.compile(
    r"([A-Za-z0-9\-_.!~*'()\[\]/?:+$%]+)=([A-Za-z0-9\-_.!~*'()\[\]/?:+$%]*)(&(?=.)|$)"
)
_TEL = re.compile(r"tel:(\+[0-9\-.()]++|[0-9A-F*#\-.()]++)(;.*)?", re.IGNORECASE)
_OTHER = re.compile(r"([A-Za-z][A-Za-z0-9+\-.]*):([\x21-\x7e]+)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEPARATORS = str.maketrans("", "", "-.()")

# A display name is a quoted string or words; the words may be any text but delimiters, since
# peers send UTF-8 without quotes.
_NAME_ADDR = re.compile(rf'[ \t]*+(?:({QUOTED})|([^"<>,;\\]*+))[ \t]*<([^<>"]*+)>', re.DOTALL)
_ADDR_SPEC = re.compile(r'[ \t]*+([^ \t<>",;?]++)')


def _unescape(text: str) -> bytes:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class SipUri:
    """A sip: or sips: URI.

    `user`, `password`, parameter values and headers are as written, percent escapes included.
    `host` is in lower case, an IPv6 address without brackets. `port` is None where none is said.
    """

    scheme: Literal["sip", "sips"]
    user: str | None
    password: str | None
    host: str
    port: int | None = None
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def transport(self) -> str:
        """`udp`, `tcp` or `tls`, or whatever the transport parameter names, in lower case.

        A sips: URI means TLS, whatever its parameter (RFC 3261 section 26.2.2).
        """
        if self.scheme == "sips":
            return "tls"
        return (self.parameters.get("transport") or "udp").lower()

    @property
    def lr(self) -> bool:
        """Whether this names a loose router."""
        return "lr" in self.parameters

    @property
    def unescaped_user(self) -> str | None:
        """The user part with percent escapes resolved, bytes that are not UTF-8 replaced."""
        return None if self.user is None else _unescape(self.user).decode("utf-8", "replace")

    def replace(self, **changes: Any) -> SipUri:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def equivalent(self, other: Uri) -> bool:
        """Whether both name the same resource (RFC 3261 section 19.1.4)."""
        if not isinstance(other, SipUri):
            return False
        if (self.scheme, self.port) != (other.scheme, other.port):
            return False
        if not same_host(self.host, other.host):
            return False
        for mine, theirs in ((self.user, other.user), (self.password, other.password)):
            if (mine is None) != (theirs is None) or _unescape(mine or "") != _unescape(
                theirs or ""
            ):
                return False
        return _parameters_match(self.parameters, other.parameters) and _comparable(
            self.headers
        ) == _comparable(other.headers)

    def __hash__(self) -> int:
        return hash((self.scheme, self.user, self.host, self.port))

    def __str__(self) -> str:
        text = self.scheme + ":"
        if self.user is not None:
            text += self.user if self.password is None else f"{self.user}:{self.password}"
            text += "@"
        text += format_host(self.host)
        if self.port is not None:
            text += f":{self.port}"
        if self.parameters:
            text += format_parameters(self.parameters)
        if self.headers:
            text += "?" + "&".join(f"{name}={value}" for name, value in self.headers)
        return text


# A parameter of these that only one side has makes the URIs differ; any other is then ignored.
_DECISIVE: Final = ("user", "ttl", "method", "maddr", "transport")


def _parameters_match(mine: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> bool:
    for name in mine.keys() & theirs.keys():
        if _unescape(mine[name] or "").lower() != _unescape(theirs[name] or "").lower():
            return False
    return all((name in mine) == (name in theirs) for name in _DECISIVE)


def _comparable(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return sorted((_unescape(name).lower(), _unescape(value)) for name, value in headers)


@dataclass(frozen=True, slots=True)
class TelUri:
    """A tel: URI (RFC 3966); `number` as written."""

    number: str
    parameters: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def normalized(self) -> str:
        """The number without visual separators."""
        return self.number.translate(_SEPARATORS)

    def __hash__(self) -> int:
        return hash(self.number)

    def __str__(self) -> str:
        return f"tel:{self.number}{format_parameters(self.parameters)}"


@dataclass(frozen=True, slots=True)
class OtherUri:
    """A URI of another scheme; a UAS answers 416 to a request for it."""

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


Uri: TypeAlias = SipUri | TelUri | OtherUri


def parse_uri(text: str) -> Uri:
    """A URI without surrounding white space or angle brackets.

    Raises:
        ParseError: not a URI.
    """
    match = _SIP.fullmatch(text)
    if match is not None:
        if "%" in text and _BAD_ESCAPE.search(text):
            raise ParseError("malformed escape in URI")
        scheme, user, password, host, port, parameters, headers = match.groups()
        return SipUri(
            "sip" if len(scheme) == 3 else "sips",
            user,
            password,
            check_host(host),
            check_port(port),
            _uri_parameters(parameters) if parameters else {},
            _uri_headers(headers) if headers else (),
        )
    tel = _TEL.fullmatch(text)
    if tel is not None and tel[1].translate(_SEPARATORS).lstrip("+"):
        return TelUri(tel[1], _uri_parameters(tel[2]) if tel[2] else {})
    other = _OTHER.fullmatch(text)
    if other is None or other[1].lower() in {"sip", "sips", "tel"}:
        raise ParseError("malformed URI")
    return OtherUri(other[1].lower(), other[2])


def _uri_parameters(text: str) -> dict[str, str | None]:
    parameters: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise ParseError("malformed URI parameters")
        name = match[1].lower()
        if name in parameters:
            raise ParseError("repeated URI parameter")
        parameters[name] = match[2]
        position = match.end()
    return parameters


def _uri_headers(text: str) -> tuple[tuple[str, str], ...]:
    headers = []
    position = 0
    while position < len(text):
        match = _HEADER.match(text, position)
        if match is None:
            raise ParseError("malformed URI headers")
        headers.append((match[1], match[2]))
        position = match.end()
    return tuple(headers)


def escape_user(text: str) -> str:
    """Text as the user part of a URI: everything the grammar reserves is percent-encoded."""
    return percent_encode(text, safe=_USER_SAFE, errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class NameAddr:
    """An address with a display name and header parameters: From, To, Contact, Route, Refer-To.

    `display` is without quotes and escapes; parameter values are as written, quotes included.
    """

    display: str | None
    uri: Uri
    parameters: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def tag(self) -> str | None:
        """The tag parameter of From and To."""
        return self.parameters.get("tag")

    @property
    def expires(self) -> int | None:
        """The expires parameter of Contact in seconds; None where it is absent or malformed."""
        value = self.parameters.get("expires")
        try:
            return None if value is None else parse_seconds(value, "malformed expires")
        except ParseError:
            return None

    def with_tag(self, tag: str) -> NameAddr:
        """A copy with this tag."""
        return replace(self, parameters={**self.parameters, "tag": tag})

    def __hash__(self) -> int:
        return hash((self.display, self.uri))

    def __str__(self) -> str:
        display = "" if self.display is None else quote(self.display) + " "
        return f"{display}<{self.uri}>{format_parameters(self.parameters)}"


def parse_name_addr(text: str) -> NameAddr:
    """`"Display" <uri>;parameters`, or `uri;parameters` where they are the header's.

    Raises:
        ParseError: neither; a URI that has a comma, semicolon or question mark must stand in
            angle brackets (RFC 3261 section 20).
    """
    match = _NAME_ADDR.match(text)
    if match is not None:
        quoted, words, uri = match.groups()
        display = unquote(quoted) if quoted is not None else words.strip(WHITE) or None
        return NameAddr(display, parse_uri(uri), parse_parameters(text, match.end()))
    match = _ADDR_SPEC.match(text)
    if match is None:
        raise ParseError("malformed address")
    return NameAddr(None, parse_uri(match[1]), parse_parameters(text, match.end()))
