"""What to do about a server's error, a close code or a refused handshake.

Rule: everything that sorts trouble into ignore, retry, alarm and lost lives in this file. Codes
and texts are those that users of the service have reported; `code` may be null, so the text of
the message is looked at as well.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Literal

from voiced.engine import EngineFault
from voiced.realtime.events import ErrorBody

__all__ = [
    "ACTIVE_RESPONSE",
    "CANCEL_NOT_ACTIVE",
    "MAX_MESSAGE_CHARS",
    "PARAMETER_CODES",
    "SERVER_ERROR",
    "TRUNCATE_TOO_LONG",
    "Action",
    "Verdict",
    "close_is_retryable",
    "code_of",
    "fault",
    "retry_after_s",
    "shorter_ms",
    "status_is_retryable",
    "verdict",
]


class Verdict(Enum):
    """What an error means for the session."""

    IGNORE = "ignore"  # a race that did no harm
    RETRY = "retry"  # the same again has a chance
    ALARM = "alarm"  # somebody should look; the session goes on
    RECONNECT = "reconnect"  # this session is over, another may do
    TERMINAL = "terminal"  # no session will do until somebody changes something


MAX_CODE_CHARS: Final = 64  # of a code that nobody knows, for logs
MAX_MESSAGE_CHARS: Final = 300  # of a server's error text, for logs
MAX_RETRY_AFTER_S: Final = 3600.0  # longer than any call waits

Action = Literal["ignore", "retry", "alarm"]

CANCEL_NOT_ACTIVE: Final = "response_cancel_not_active"
ACTIVE_RESPONSE: Final = "conversation_already_has_active_response"
COMMIT_EMPTY: Final = "input_audio_buffer_commit_empty"
TRUNCATE_TOO_LONG: Final = "truncate_too_long"  # ours: the service says invalid_value, or nothing
SESSION_EXPIRED: Final = "session_expired"
SERVER_ERROR: Final = "server_error"
QUOTA: Final = "insufficient_quota"

PARAMETER_CODES: Final = frozenset(
    {
        "invalid_event",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "unknown_parameter",
    }
)
"""Our event does not suit the server: a bug, or another version of the protocol."""

_VERDICTS: Final[dict[str, Verdict]] = {
    CANCEL_NOT_ACTIVE: Verdict.IGNORE,
    COMMIT_EMPTY: Verdict.IGNORE,
    "item_retrieve_invalid_item_id": Verdict.IGNORE,
    "item_delete_invalid_item_id": Verdict.IGNORE,
    "item_truncate_invalid_item_id": Verdict.IGNORE,
    "cannot_update_voice": Verdict.IGNORE,
    TRUNCATE_TOO_LONG: Verdict.RETRY,
    ACTIVE_RESPONSE: Verdict.RETRY,
    SERVER_ERROR: Verdict.RETRY,
    **dict.fromkeys(PARAMETER_CODES, Verdict.ALARM),
    "rate_limit_exceeded": Verdict.ALARM,
    SESSION_EXPIRED: Verdict.RECONNECT,
    QUOTA: Verdict.TERMINAL,
    "beta_api_shape_disabled": Verdict.TERMINAL,
    "invalid_api_key": Verdict.TERMINAL,
    "invalid_intent": Verdict.TERMINAL,
    "invalid_model": Verdict.TERMINAL,
    "model_load_error": Verdict.TERMINAL,  # LocalAI
    "model_not_found": Verdict.TERMINAL,
}

_TEXTS: Final = (
    (re.compile(r"already shorter than", re.I), TRUNCATE_TOO_LONG),
    (re.compile(r"already has an active response", re.I), ACTIVE_RESPONSE),
    (re.compile(r"no active response", re.I), CANCEL_NOT_ACTIVE),
    (re.compile(r"buffer too small|buffer is empty", re.I), COMMIT_EMPTY),
    (re.compile(r"maximum duration of", re.I), SESSION_EXPIRED),
    (re.compile(r"exceeded your current quota", re.I), QUOTA),
)
_INVALID_ITEM: Final = re.compile(r"item_\w+_invalid_item_id")
_SHORTER: Final = re.compile(r"audio content of (\d{1,9})(?:\.\d+)?ms is already shorter", re.I)


def code_of(body: ErrorBody) -> str:
    """Return the error's code, made up for from its type or message where it has none of use."""
    code = str(body.code) if body.code is not None else ""
    # A generic code may hide a specific text: a rejected truncate says no more than invalid_value.
    if code in _VERDICTS and code not in PARAMETER_CODES:
        return code
    for text, meaning in _TEXTS:
        if text.search(body.message or ""):
            return meaning
    for name in (code, body.type or ""):
        if name in _VERDICTS:
            return name
        if name == "rate_limit_error":
            return "rate_limit_exceeded"
    return (code or body.type or "unknown")[:MAX_CODE_CHARS]


def verdict(code: str) -> Verdict:
    """What a code (of `code_of`) asks for; what nobody has seen yet raises an alarm."""
    if _INVALID_ITEM.fullmatch(code):
        return Verdict.IGNORE
    return _VERDICTS.get(code, Verdict.ALARM)


def shorter_ms(message: str | None) -> int | None:
    """The X of "Audio content of Xms is already shorter than Yms", rounded down."""
    found = _SHORTER.search(message or "")
    return int(found[1]) if found else None


def close_is_retryable(code: int, reason: str) -> bool:
    """Whether another session may succeed after this close.

    `reason` has the form `type.code` and says more than the number where its code is known. Then:
    3000 (key) and the 4000s (model, intent) stay as they are until somebody changes something, as
    do 1002, 1003, 1007, 1008, 1009 and 1010, which are complaints about what we sent (RFC 6455
    section 7.4.1); restarts, overload and lost connections pass (1000, 1001, 1005, 1006, 1011 to
    1015).
    """
    judged = _VERDICTS.get(reason.rpartition(".")[2])
    if judged in (Verdict.TERMINAL, Verdict.RECONNECT, Verdict.RETRY):
        return judged is not Verdict.TERMINAL
    return code in {1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015}


def status_is_retryable(status: int, body: str) -> bool:
    """Whether a handshake refused with this HTTP status may succeed later."""
    if QUOTA in body:
        return False
    return status in {408, 425, 429} or status >= 500


def retry_after_s(value: str | None) -> float:
    """The seconds of a `Retry-After` header (RFC 9110 section 10.2.3); 0 for a date, or none.

    Never more than `MAX_RETRY_AFTER_S`: enough digits would be infinity, which is no time to wait.
    """
    text = (value or "").strip()
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0


def fault(code: str, message: str | None, action: Action) -> EngineFault:
    """What the call is told of an error that does not end the session."""
    return EngineFault(code, (message or "")[:MAX_MESSAGE_CHARS], action)
