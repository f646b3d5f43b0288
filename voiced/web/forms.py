"""The carrier's form parameters, read into what the switchboard is asked.

Source: Twilio's "TwiML Voice: request parameters" and "Stream status callbacks" pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from voiced.web.switchboard import CallStatus, StreamStatus, VoiceRequest

__all__ = ["FormError", "Pairs", "call_status", "parse_pairs", "stream_status", "voice_request"]

Pairs = tuple[tuple[str, str], ...]

MAX_FIELDS = 500
"""Twilio sends about 30; SIP calls add one per header."""

MAX_ADDRESS = 256
"""Characters kept of `From` and `To`: a SIP URI fits, a flood of log and journal does not."""

# Twilio's are CA and 32 hexadecimal digits; look-alikes have longer ones with other punctuation.
_SID = re.compile(r"[A-Za-z0-9_.:@+-]{1,128}", re.ASCII)


class FormError(Exception):
    """The request lacks something, or has it in a shape that no carrier sends.

    `status` is the HTTP status that says so.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def parse_pairs(encoded: bytes) -> Pairs:
    """Decode a form body or a query, blanks and repeated names kept, order too.

    Raises FormError for more than MAX_FIELDS fields. Bytes that are not UTF-8 become U+FFFD, so a
    signature over them fails.
    """
    try:
        pairs = parse_qsl(
            encoded.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise FormError(f"more than {MAX_FIELDS} fields") from None
    return tuple(pairs)


def voice_request(pairs: Pairs) -> VoiceRequest:
    """Read "a call comes in". Raises FormError."""
    fields = _first(pairs)
    return VoiceRequest(
        call_sid=_sid(fields, "CallSid"),
        account_sid=_sid(fields, "AccountSid"),
        caller=fields.get("From", "")[:MAX_ADDRESS],
        called=fields.get("To", "")[:MAX_ADDRESS],
        direction="outbound" if fields.get("Direction", "").startswith("outbound") else "inbound",
        forwarded_from=fields.get("ForwardedFrom", "")[:MAX_ADDRESS] or None,
        stir_verstat=fields.get("StirVerstat", "")[:MAX_ADDRESS] or None,
        parameters=fields,
    )


def stream_status(pairs: Pairs) -> StreamStatus | None:
    """Read a stream status callback; None when it is not one. Raises FormError."""
    fields = _first(pairs)
    if "StreamEvent" not in fields:
        return None
    return StreamStatus(
        call_sid=_sid(fields, "CallSid"),
        stream_sid=_sid(fields, "StreamSid"),
        event=fields["StreamEvent"][:64],
        error=fields.get("StreamError", "")[:MAX_ADDRESS] or None,
        parameters=fields,
    )


def call_status(pairs: Pairs) -> CallStatus:
    """Read a call status callback. Raises FormError."""
    fields = _first(pairs)
    if not fields.get("CallStatus"):
        raise FormError("neither StreamEvent nor CallStatus is there")
    duration = fields.get("CallDuration", "")
    return CallStatus(
        call_sid=_sid(fields, "CallSid"),
        status=fields["CallStatus"][:64],
        duration_s=int(duration) if re.fullmatch("[0-9]{1,9}", duration, re.ASCII) else None,
        parameters=fields,
    )


def _first(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields


def _sid(fields: dict[str, str], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise FormError(f"{name} is missing")
    if not _SID.fullmatch(value):
        raise FormError(f"{name} is no identifier")
    return value
