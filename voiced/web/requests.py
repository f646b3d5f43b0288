"""Checking what the admin API is asked, pure: JSON bodies, header fields to send, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from voiced.web.operations import PATTERNS, Body, OperationRefused

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_BODY_BYTES",
    "MAX_LIMIT",
    "checked_headers",
    "decode",
    "read_limit",
]

MAX_BODY_BYTES: Final = 64 * 1024
"""A text to be said has 4 KB, 32 header fields 17; nothing else is longer than a line."""

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1000

MAX_HEADER_VALUE: Final = 512  # characters

# RFC 3261 section 25.1, token. Others than these belong to the dialog or the trunk; a request must
# not be able to write a second Via or Contact into an INVITE.
_HEADER_NAME: Final = re.compile(r"(?i:x-[!%'*+.0-9A-Z_`a-z~-]{1,60}|user-to-user|diversion)")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")

_Body = TypeVar("_Body", bound=Body)


def decode(kind: type[_Body], data: bytes, content_type: str) -> _Body:
    """Read a JSON body; an empty one is `{}`. Raises OperationRefused (415, 400, 422).

    JSON must be called so: a form of another site's page cannot send that type without asking.
    """
    if data and content_type != "application/json":
        raise OperationRefused(
            "not_json", 415, "the body is not JSON", "send Content-Type: application/json"
        )
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise OperationRefused(
            "invalid",
            422,
            f"the body is not right: {_in_words(error)}",
            f"it takes {_fields(kind)}",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise OperationRefused("not_json", 400, "the body is not valid JSON", "send JSON") from None


def checked_headers(headers: Mapping[str, str]) -> None:
    """Check SIP header fields that a dialled call is to carry. Raises OperationRefused."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise OperationRefused(
                "bad_header",
                422,
                f"the header field {name[:60]!a} cannot be set",
                "use X-…, User-to-User or Diversion",
            )
        if len(value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(value):
            raise OperationRefused(
                "bad_header",
                422,
                f"the value of {name} is not one line of at most {MAX_HEADER_VALUE} characters",
                "shorten it and leave line breaks out",
            )


def read_limit(text: str | None) -> int:
    """Read `limit=N`, at most MAX_LIMIT. Raises OperationRefused."""
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise OperationRefused(
            "invalid", 422, "limit is not a number of calls", f"write 1 to {MAX_LIMIT}"
        )
    return int(text)


def _in_words(error: msgspec.ValidationError) -> str:
    text = str(error)
    for pattern, words in PATTERNS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", words)
    return text


def _fields(kind: type[Body]) -> str:
    return ", ".join(
        field.name + ("" if field.required else " (optional)")
        for field in msgspec.structs.fields(kind)
    )
