"""Sorts what a server with OpenAI's HTTP API answers into what to do about it. Pure.

Rule: everything that tells a passing failure from a lasting one, by status and error code, lives
in this file. Source: OpenAI's guide "Error codes", and the bodies of servers that follow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from voiced.pipeline.providers import ProviderError

__all__ = ["MAX_MESSAGE_CHARS", "Refusal", "of_body", "refusal"]

MAX_MESSAGE_CHARS: Final = 300  # of a server's error text, for logs
MAX_CODE_CHARS: Final = 64

_TERMINAL_CODES: Final = frozenset(
    {
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "unsupported_country_region_territory",
    }
)
_PASSING_CODES: Final = frozenset(
    {"rate_limit_exceeded", "server_error", "api_error", "overloaded_error", "engine_overloaded"}
)
# No other request fares better: the key, its rights, the path or the method.
_TERMINAL_STATUSES: Final = frozenset({401, 402, 403, 404, 405, 410, 501})
_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429})


class Refusal(ProviderError):
    """A server's answer that is an error. `param` is the field that it objects to, if it says."""

    def __init__(
        self,
        code: str,
        message: str,
        verdict: Literal["retry", "refused", "terminal"],
        *,
        param: str | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(code, message, verdict, retry_after_s=retry_after_s)
        self.param = param


class _Body(msgspec.Struct):
    error: Any = None
    detail: Any = None  # FastAPI's
    message: Any = None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Make of an HTTP answer other than 200 what is raised for it."""
    try:
        told = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = _Body()
    error = told.error if told.error is not None else told.detail or told.message
    return _refusal(status, error, _retry_after(headers))


def of_body(error: Any) -> Refusal:
    """Make of an `error` object amid a stream, which has no status, what is raised for it."""
    return _refusal(500, error, 0.0)


def _refusal(status: int, error: Any, retry_after_s: float) -> Refusal:
    fields = error if isinstance(error, dict) else {}
    code = _text(fields.get("code"))
    kind = _text(fields.get("type"))
    message = _text(fields.get("message")) or _text(error) or f"HTTP status {status}"
    known = _TERMINAL_CODES | _PASSING_CODES
    name = next((n for n in (code, kind) if n in known), code)
    if "exceeded your current quota" in message:
        name = "insufficient_quota"
    elif status == 429 and name not in _TERMINAL_CODES:
        name = "rate_limit_exceeded"
    verdict: Literal["retry", "refused", "terminal"]
    if name in _TERMINAL_CODES or status in _TERMINAL_STATUSES:
        verdict = "terminal"
    elif status in _PASSING_STATUSES or status >= 500 or name in _PASSING_CODES:
        verdict = "retry"
    elif 300 <= status < 400:  # nobody else gets the key
        verdict, message = "terminal", f"the server redirects (HTTP {status}); correct the url"
    else:
        verdict = "refused"
    return Refusal(
        (name or f"http_{status}")[:MAX_CODE_CHARS],
        message[:MAX_MESSAGE_CHARS],
        verdict,
        param=_text(fields.get("param")) or None,
        retry_after_s=retry_after_s,
    )


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait. The form with a date is not what these servers send."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = headers.get(name, "").strip()
        if text.isascii() and text.replace(".", "", 1).isdigit():
            return float(text) / unit
    return 0.0
