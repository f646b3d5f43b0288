"""The TwiML documents that voiced answers a webhook with.

Source: Twilio's "TwiML Voice: <Stream>", "<Connect>" and "<Reject>" pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from xml.sax.saxutils import quoteattr

__all__ = ["CONTENT_TYPE", "MAX_PARAMETER", "connect_stream", "reject"]

CONTENT_TYPE = "text/xml; charset=utf-8"

MAX_PARAMETER = 500
"""Twilio: name and value of a `<Parameter>` together stay under this many characters."""

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'

# XML 1.0 section 2.2: the characters a document may hold at all, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(
    url: str, parameters: Mapping[str, str] | None = None, status_callback: str | None = None
) -> str:
    """Connect the call to a bidirectional stream at `url` (absolute, ws or wss).

    Nothing follows `<Connect>`, so the call ends when the stream does: closing the WebSocket hangs
    up. Raises ValueError for a `url` with a query, which Twilio strips or refuses (31920), and for
    a parameter that is too long.
    """
    if "?" in url or "#" in url:
        raise ValueError(f"a stream URL takes no query or fragment, put it into the path: {url}")
    attributes = f"url={_quote(url)}"
    if status_callback is not None:
        attributes += f' statusCallback={_quote(status_callback)} statusCallbackMethod="POST"'
    inner = ""
    for name, value in (parameters or {}).items():
        if len(name) + len(value) >= MAX_PARAMETER:
            raise ValueError(f"parameter {name[:40]!r} is too long: {len(name) + len(value)}")
        inner += f"<Parameter name={_quote(name)} value={_quote(value)}/>"
    return f"{_HEAD}<Response><Connect><Stream {attributes}>{inner}</Stream></Connect></Response>"


def reject(reason: Literal["busy", "rejected"]) -> str:
    """Refuse the call unanswered, so that nobody pays for it: a busy tone, or "not in service"."""
    return f"{_HEAD}<Response><Reject reason={_quote(reason)}/></Response>"


def _quote(value: str) -> str:
    """`value` as an attribute with its quotes; what XML cannot hold becomes U+FFFD."""
    return quoteattr(_NOT_XML.sub("\ufffd", value))
