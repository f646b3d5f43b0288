"""SIP messages as the simulated caller reads and writes them (RFC 3261 sections 7, 19, 20).

Small on purpose and strict: what comes in must be what the RFC asks a sender for. It shares no code
with `voiced.sip`, which it is to check from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = [
    "BadMessage",
    "Message",
    "SipAddress",
    "host_and_port",
    "parameter",
    "parse",
    "parse_address",
    "split",
    "uri_of",
    "write",
]

_COMPACT: Final = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
    "k": "supported",
}
_NEEDED: Final = ("via", "from", "to", "call-id", "cseq")
_STATUS_LINE: Final = re.compile(r"SIP/2\.0 ([1-6]\d\d) (.*)")
_REQUEST_LINE: Final = re.compile(r"([A-Z]+) (\S+) SIP/2\.0")
_HEADER: Final = re.compile(r"([A-Za-z0-9.!%*_+`'~-]+)[ \t]*:[ \t]*(.*)", re.DOTALL)
_ADDRESS: Final = re.compile(
    r"(sips?):(?:([^@\s]*)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(\d{1,5}))?(?:;([^?\s]*))?"
    r"(?:\?\S*)?"  # header fields
)


class BadMessage(Exception):
    """Not a SIP message as RFC 3261 has them; the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request (`method` and `uri`) or a response (`status` and `reason`).

    Headers stand in their order, names in lower case and in their long forms.
    """

    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """Every value of a header that may be a list, whether by commas or by lines."""
        return [each for key, value in self.headers if key == name for each in split(value)]

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method."""
        number, _, method = (self.get("cseq") or "").partition(" ")
        return int(number), method.strip()

    @property
    def branch(self) -> str:
        """Of the topmost Via."""
        return parameter(self.all("via")[0], "branch") or ""

    @property
    def from_tag(self) -> str | None:
        """Tag of From."""
        return parameter(self.get("from") or "", "tag")

    @property
    def to_tag(self) -> str | None:
        """Tag of To."""
        return parameter(self.get("to") or "", "tag")


def parse(data: bytes) -> Message:
    """Read one whole message. Raises BadMessage; bytes past Content-Length count as wrong too."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        raise BadMessage("no blank line ends the head")
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        raise BadMessage("the head is not UTF-8") from None
    first, *lines = text.split("\r\n")
    if "\n" in text.replace("\r\n", "") or "\r" in text.replace("\r\n", ""):
        raise BadMessage("a line ends without CRLF")
    headers = _headers(lines)
    names = {name for name, _ in headers}
    for needed in _NEEDED:
        if needed not in names:
            raise BadMessage(f"there is no {needed} header")
    length = next((value for name, value in headers if name == "content-length"), None)
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise BadMessage(f"Content-Length is {length!r}")
    if length is not None and int(length) != len(body):
        raise BadMessage(f"Content-Length is {length}, the body has {len(body)} bytes")
    if (status := _STATUS_LINE.fullmatch(first)) is not None:
        message = Message(headers, body, status=int(status[1]), reason=status[2])
    elif (request := _REQUEST_LINE.fullmatch(first)) is not None:
        message = Message(headers, body, method=request[1], uri=request[2])
    else:
        raise BadMessage(f"the first line is {first[:80]!r}")
    try:
        number, method = message.cseq
    except ValueError:
        raise BadMessage("CSeq has no number") from None
    if not 0 <= number < 2**31 or (message.method and method != message.method):
        raise BadMessage(f"CSeq {number} {method} does not belong to this message")
    if not message.branch.startswith("z9hG4bK"):
        raise BadMessage("the branch of Via lacks the magic cookie")
    return message


def _headers(lines: list[str]) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line[:1] in (" ", "\t"):  # folded (section 7.3.1)
            if not headers:
                raise BadMessage("the head begins with a folded line")
            name, value = headers[-1]
            headers[-1] = name, f"{value} {line.strip()}"
            continue
        matched = _HEADER.fullmatch(line)
        if matched is None:
            raise BadMessage(f"a header line is {line[:80]!r}")
        name = matched[1].lower()
        headers.append((_COMPACT.get(name, name), matched[2].rstrip()))
    return tuple(headers)


def write(first: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A message; Content-Length is added."""
    lines = [first, *(f"{name}: {value}" for name, value in headers)]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


def split(value: str) -> list[str]:
    """The elements of a comma-separated list; commas within quotes and `<>` do not count."""
    parts, start, quoted, angle = [], 0, False, False
    for at, letter in enumerate(value):
        if letter == '"' and value[at - 1 : at] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif letter in "<>":
            angle = letter == "<"
        elif letter == "," and not angle:
            parts.append(value[start:at].strip())
            start = at + 1
    return [*parts, value[start:].strip()]


def parameter(value: str, name: str) -> str | None:
    """A header parameter; "" where it has no value, None where it is not there."""
    after = value.rpartition(">")[2] if "<" in value else value
    for part in after.split(";")[1:] if "<" not in value else after.split(";"):
        key, _, found = part.strip().partition("=")
        if key.strip().lower() == name:
            return found.strip()
    return None


def uri_of(value: str) -> str:
    """The URI of From, To, Contact, Route and Record-Route."""
    if "<" in value:
        return value.partition("<")[2].partition(">")[0]
    return value.partition(";")[0].strip()


@dataclass(frozen=True, slots=True)
class SipAddress:
    """A sip URI's parts; `port` None where it names none."""

    scheme: str
    user: str | None
    host: str
    port: int | None
    parameters: str = ""

    @property
    def transport(self) -> str:
        """`udp` unless the URI says otherwise."""
        for part in self.parameters.split(";"):
            name, _, value = part.partition("=")
            if name.lower() == "transport":
                return value.lower()
        return "tls" if self.scheme == "sips" else "udp"


def parse_address(uri: str) -> SipAddress:
    """Read a sip or sips URI. Raises BadMessage."""
    matched = _ADDRESS.fullmatch(uri)
    if matched is None or not matched[3]:
        raise BadMessage(f"{uri[:80]!r} is no sip URI")
    port = int(matched[4]) if matched[4] else None
    if port is not None and not 0 < port < 65536:
        raise BadMessage(f"{uri[:80]!r} names no port")
    return SipAddress(matched[1], matched[2], matched[3].strip("[]"), port, matched[5] or "")


def host_and_port(host: str, port: int) -> str:
    """As URIs and Via write them, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
