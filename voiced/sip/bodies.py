"""Finding the session description in a message's body (RFC 3261 7.4, RFC 5621)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from voiced.sip.errors import ParseError
from voiced.sip.grammar import unquote
from voiced.sip.values import split_value

if TYPE_CHECKING:
    from voiced.sip.message import Message

__all__ = ["MULTIPART", "SDP", "has_foreign_part", "sdp_of"]

SDP: Final = "application/sdp"
MULTIPART: Final = "multipart/mixed"

# Parts that are looked at: carriers send SDP with one or two more (ISUP, location).
_MOST_PARTS: Final = 16

_HEAD_END = re.compile(rb"\r?\n\r?\n")


def sdp_of(message: Message) -> bytes | None:
    """The session description, alone or as the first one among the parts of a multipart body."""
    if not message.body:
        return None
    if message.content_type == SDP:
        return message.body
    return next((body for kind, _, body in _parts(message) if kind == SDP), None)


def has_foreign_part(message: Message) -> bool:
    """Whether a part that is no SDP says that it must be understood (RFC 5621 section 8.2).

    The default, by which it must be, is not held against parts that do not mention handling:
    carriers add them to every call.
    """
    return any(
        kind != SDP and "handling=required" in handling for kind, handling, _ in _parts(message)
    )


def _parts(message: Message) -> list[tuple[str, str, bytes]]:
    """Media type in lower case, Content-Disposition, and content of each part."""
    if message.content_type != MULTIPART:
        return []
    try:
        _, parameters = split_value(message.headers.get("Content-Type") or "")
    except ParseError:
        return []
    boundary = unquote(parameters.get("boundary") or "")
    if not boundary:
        return []
    # A delimiter begins a line; the line break before it belongs to it, not to the part.
    delimiter = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    pieces = (b"\r\n" + message.body).split(delimiter, _MOST_PARTS)
    parts = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            break
        if not piece.startswith((b"\r", b"\n", b" ", b"\t")):
            continue  # a longer word that begins like the boundary
        head, content = _split(piece)
        kind = _field(head, "content-type").partition(";")[0].strip() or "text/plain"
        disposition = "".join(_field(head, "content-disposition").split())
        parts.append((kind, disposition, content))
    return parts


def _split(piece: bytes) -> tuple[str, bytes]:
    match = _HEAD_END.search(piece)
    if match is None:
        return "", b""
    return piece[: match.start()].decode("utf-8", "replace"), piece[match.end() :]


def _field(head: str, name: str) -> str:
    for line in head.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.lower().strip()
    return ""
