"""multipart/form-data (RFC 7578), the body of an upload. Pure: bytes in, fields out.

Bodies come whole, since their length is bounded before they are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Field", "MultipartError", "boundary_of", "parse"]

MAX_FIELDS: Final = 64  # OpenAI's form has some fifteen
MAX_HEAD: Final = 8192  # bytes of one part's header

_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.I)  # RFC 2046 5.1
_PARAMETER: Final = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')


class MultipartError(ValueError):
    """The body is not what its Content-Type says; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form. `filename` is None where it is no file."""

    name: str
    data: bytes
    filename: str | None = None
    content_type: str = "text/plain"

    @property
    def text(self) -> str:
        """Its value as text."""
        return self.data.decode("utf-8", "replace")


def boundary_of(content_type: str) -> bytes:
    """Return the delimiter that a Content-Type names. Raises MultipartError."""
    kind = content_type.partition(";")[0].strip().lower()
    found = _BOUNDARY.search(content_type)
    if kind != "multipart/form-data" or found is None:
        raise MultipartError("the Content-Type has to be multipart/form-data with a boundary")
    return (found[1] or found[2]).encode("latin-1", "replace")


def parse(body: bytes, boundary: bytes) -> list[Field]:
    """Return the fields in their order. Raises MultipartError."""
    delimiter = b"\r\n--" + boundary
    # A preamble is allowed before the first delimiter, which stands at the start of a line.
    at = (b"\r\n" + body[: len(delimiter)]).find(delimiter)
    start = at - 2 if at >= 0 else body.find(delimiter)
    if at < 0 and start < 0:
        raise MultipartError("the body does not hold the boundary")
    fields: list[Field] = []
    position = start + len(delimiter)
    while not body.startswith(b"--", position):
        line_end = body.find(b"\r\n", position)
        if line_end < 0 or body[position:line_end].strip(b" \t"):
            raise MultipartError("a boundary is not followed by a line's end")
        end = body.find(delimiter, line_end)
        if end < 0:
            raise MultipartError("the last boundary is missing: the body was cut")
        if len(fields) >= MAX_FIELDS:
            raise MultipartError(f"more than {MAX_FIELDS} fields")
        fields.append(_field(body, line_end + 2, end))
        position = end + len(delimiter)
    return fields


def _field(body: bytes, start: int, end: int) -> Field:
    """One part, header and all; an empty header stands as an empty line alone."""
    head_end = start - 2 if body.startswith(b"\r\n", start) else body.find(b"\r\n\r\n", start, end)
    if not start - 2 <= head_end <= start + MAX_HEAD or head_end + 4 > end + 2:
        raise MultipartError("a part has no header, or too long a one")
    headers: dict[str, str] = {}
    for line in body[start : max(start, head_end)].decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    given = {key.lower(): quoted or bare for key, quoted, bare in _PARAMETER.findall(disposition)}
    if not disposition.lower().startswith("form-data") or "name" not in given:
        raise MultipartError("a part has no form-data name")
    return Field(
        name=given["name"],
        data=body[head_end + 4 : end],
        filename=given.get("filename"),
        content_type=headers.get("content-type", "text/plain"),
    )
