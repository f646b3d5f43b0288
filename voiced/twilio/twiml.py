"""The TwiML documents that voiced answers a webhook with.

Source: Twilio's "TwiML Voice: <Stream>", "<Connect>", "<Reject>", "<Dial>" and "<Hangup>" pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

__all__ = ["CONTENT_TYPE", "MAX_PARAMETER", "connect_stream", "dial", "hangup", "reject"]

CONTENT_TYPE = "text/xml; charset=utf-8"

MAX_PARAMETER = 500
"""Twilio: name and value of a `<Parameter>` together stay under this many characters."""

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'

MAX_SIP = 255
"""Twilio: characters of the URI in `<Sip>`."""

_NUMBER = re.compile(r"\+[1-9][0-9]{1,14}")  # E.164
_SIP = re.compile(r"sips?:[!-~]+@[!-~]+")

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


def dial(target: str, *, caller_id: str | None = None, timeout_s: int | None = None) -> str:
    """Connect the caller to `target`, "+49…" or "sip:user@host": a blind transfer.

    `caller_id` is a number of the account, or the caller's own; left out, the caller's own is
    shown. It rings for `timeout_s`, 30 by default; then, and when the new party hangs up, the call
    ends, since nothing follows. The caller hears it ring (`answerOnBridge`). Raises ValueError for
    a target of another kind.
    """
    if _NUMBER.fullmatch(target):
        inner = f"<Number>{escape(target)}</Number>"
    elif _SIP.fullmatch(target) and len(target) <= MAX_SIP:
        inner = f"<Sip>{escape(target)}</Sip>"
    else:
        raise ValueError('a target is a number such as "+49301234567", or "sip:user@host"')
    attributes = ' answerOnBridge="true"'
    if caller_id is not None:
        attributes += f" callerId={_quote(caller_id)}"
    if timeout_s is not None:
        attributes += f' timeout="{timeout_s}"'
    return f"{_HEAD}<Response><Dial{attributes}>{inner}</Dial></Response>"


def hangup() -> str:
    """End the call."""
    return f"{_HEAD}<Response><Hangup/></Response>"


def _quote(value: str) -> str:
    """`value` as an attribute with its quotes; what XML cannot hold becomes U+FFFD."""
    return quoteattr(_NOT_XML.sub("\ufffd", value))
