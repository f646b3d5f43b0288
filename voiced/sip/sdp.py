"""Session descriptions: their lines, their media sections, and what both say (RFC 8866, RFC 4566).

Parsing keeps every line, known or not, in its place and gives it back unchanged; what a line means
is worked out by the properties. Line ends may be CRLF, LF or CR, blank lines are passed over, `s=`
and `t=` may be missing and lines may stand in any order, as they do in what real peers send. Bytes
that are not UTF-8 survive the round trip.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from voiced.sip.errors import SipError

__all__ = [
    "MAX_BODY",
    "MAX_LINES",
    "MAX_MEDIA",
    "Connection",
    "Line",
    "Media",
    "Origin",
    "SdpError",
    "SessionDescription",
    "parse",
]

MAX_BODY: Final = 16384
"""Bytes of a description; the largest that browsers send with every candidate stay under 10 KB."""

MAX_LINES: Final = 1024
"""Lines of a description."""

MAX_MEDIA: Final = 32
"""Media sections of a description; an answer repeats every one of them."""

_MEDIA = re.compile(r"(\S+) +([0-9]{1,5})(?:/[0-9]{1,5})? +(\S+)(?: +(.*))?", re.ASCII)


class SdpError(SipError):
    """A body that is not a session description.

    Attributes:
        reason: a short fixed phrase, never a part of the body; fit for a metric's label.
        status: the response to the request that carried the body: 413 too large, else 400.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class Line:
    """`kind=value`; kind is one letter."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}={self.value}\r\n"


@dataclass(frozen=True, slots=True)
class Origin:
    """The `o=` line. Identifier and version stay text: peers send what no integer type holds."""

    username: str
    session_id: str
    version: str
    family: str  # "IP4" or "IP6"
    address: str

    def __str__(self) -> str:
        return f"{self.username} {self.session_id} {self.version} IN {self.family} {self.address}"


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a `c=` line: an IP literal, or a name that nobody has resolved."""

    address: str

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address, None for a name and for a multicast group with a TTL."""
        try:
            return ipaddress.ip_address(self.address)
        except ValueError:
            return None

    @property
    def is_hole(self) -> bool:
        """Nothing is to be sent here: `0.0.0.0`, its IPv6 kin, or a name under `.invalid`.

        RFC 3264 section 8.4 and RFC 6157 section 3: hold as RFC 2543 wrote it, and offers made
        before the address is known.
        """
        ip = self.ip
        return ip.is_unspecified if ip is not None else self.address.lower().endswith(".invalid")


def _attributes(lines: tuple[Line, ...]) -> Iterator[tuple[str, str]]:
    """Names in lower case; some peers write `a=sendRecv`."""
    for line in lines:
        if line.kind == "a":
            name, _, value = line.value.partition(":")
            yield name.strip().lower(), value.strip()


class _Section:
    """What the session and each of its media sections have in common."""

    __slots__ = ()
    lines: tuple[Line, ...]

    def attributes(self, name: str) -> list[str]:
        """The values of every `a=name:value`, "" for `a=name`, in their order."""
        return [value for own, value in _attributes(self.lines) if own == name]

    def attribute(self, name: str) -> str | None:
        """The first of `attributes`."""
        values = self.attributes(name)
        return values[0] if values else None

    @property
    def direction(self) -> str | None:
        """`sendrecv`, `sendonly`, `recvonly` or `inactive`; the last of several counts."""
        found = None
        for name, _ in _attributes(self.lines):
            if name in {"sendrecv", "sendonly", "recvonly", "inactive"}:
                found = name
        return found

    @property
    def connection(self) -> Connection | None:
        """The first `c=` line, None if there is none. Raises SdpError."""
        for line in self.lines:
            if line.kind == "c":
                parts = line.value.split()
                if len(parts) != 3 or parts[0] != "IN" or parts[1] not in {"IP4", "IP6"}:
                    raise SdpError("bad connection line")
                return Connection(parts[2])
        return None


@dataclass(frozen=True, slots=True)
class Media(_Section):
    """One media section; `lines` begins after its `m=` line."""

    kind: str  # "audio", "video", "image", ..., lower case
    port: int  # 0: rejected or taken out
    profile: str  # "RTP/AVP", as written
    formats: tuple[str, ...]  # payload types for RTP, anything otherwise
    lines: tuple[Line, ...] = ()
    head: str = ""  # the `m=` value as it came; "" writes the fields

    def __str__(self) -> str:
        formats = " ".join(self.formats)
        head = self.head or f"{self.kind} {self.port} {self.profile} {formats}"
        return str(Line("m", head)) + "".join(map(str, self.lines))

    def rejected(self) -> Media:
        """The section as an answer turns it down: same formats, port 0 (RFC 3264 section 6)."""
        return Media(self.kind, 0, self.profile, self.formats)


@dataclass(frozen=True, slots=True)
class SessionDescription(_Section):
    """A description: the lines before the first `m=`, `v=` first, then the media sections."""

    lines: tuple[Line, ...]
    media: tuple[Media, ...]

    @property
    def origin(self) -> Origin:
        """The `o=` line. Raises SdpError where it is missing or malformed."""
        for line in self.lines:
            if line.kind == "o":
                # From the right: some gateways put a name with blanks where the username stands.
                parts = line.value.rsplit(maxsplit=5)
                if len(parts) != 6 or parts[3] != "IN":
                    raise SdpError("bad origin line")
                return Origin(parts[0], parts[1], parts[2], parts[4], parts[5])
        raise SdpError("no origin line")

    def connection_of(self, media: Media) -> Connection | None:
        """Where `media` goes: its own `c=` line, else the session's. Raises SdpError."""
        return media.connection or self.connection

    def direction_of(self, media: Media) -> str:
        """The section's own direction, else the session's, else `sendrecv` (RFC 3264 5.1)."""
        return media.direction or self.direction or "sendrecv"

    def __str__(self) -> str:
        return "".join(map(str, self.lines)) + "".join(map(str, self.media))

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8", "surrogateescape")


def parse(body: bytes) -> SessionDescription:
    """Read a description. Raises SdpError; the `o=` line and every `m=` line are checked here."""
    if len(body) > MAX_BODY:
        raise SdpError("body too large", 413)
    if b"\0" in body:
        raise SdpError("null byte")
    text = body.decode("utf-8", "surrogateescape")
    # Not splitlines(): that breaks at form feeds and Unicode line separators too.
    rows = [row for row in re.split(r"\r\n|\n|\r", text) if row.strip()]
    if not rows:
        raise SdpError("empty body")
    if rows[0].rstrip() != "v=0":
        raise SdpError("no version line")
    if len(rows) > MAX_LINES:
        raise SdpError("too many lines")
    session: list[Line] = []
    media: list[tuple[str, list[Line]]] = []
    current = session
    for row in rows:
        if len(row) < 2 or row[1] != "=" or not ("a" <= row[0] <= "z"):
            raise SdpError("line without a type")
        line = Line(row[0], row[2:])
        if line.kind == "m":
            current = []
            media.append((line.value, current))
        else:
            current.append(line)
    if len(media) > MAX_MEDIA:
        raise SdpError("too many media sections")
    sections = tuple(_media(head, tuple(lines)) for head, lines in media)
    description = SessionDescription(tuple(session), sections)
    _ = description.origin
    return description


def _media(head: str, lines: tuple[Line, ...]) -> Media:
    match = _MEDIA.fullmatch(head.strip())
    if match is None or (port := int(match[2])) > 65535:
        raise SdpError("bad media line")
    formats = tuple((match[4] or "").split())
    return Media(match[1].lower(), port, match[3], formats, lines, head)
