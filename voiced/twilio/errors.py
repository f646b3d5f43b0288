"""What can be wrong with a carrier, as exceptions that carry a short reason fit for a label."""

from __future__ import annotations

from typing import Final

__all__ = ["SERVER_TROUBLE", "ProtocolError", "StreamRefused", "TwilioError"]

SERVER_TROUBLE: Final = frozenset({500, 502, 503, 504})
"""HTTP status codes of a REST API that may be better in a moment."""


class ProtocolError(Exception):
    """The carrier sent a message that is not as documented.

    `reason` is one of a few fixed words, for counters; `detail` is for one log line. The detail
    names keys and types, never what the message held.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class StreamRefused(Exception):
    """A media stream was closed before it became a leg; `reason` is one of a few fixed words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TwilioError(Exception):
    """Twilio refused or failed. The text names no secret.

    `status` is the HTTP status, 0 where no answer came; `code` Twilio's own (20003 wrong
    credentials, 20404 not found, 21220 the call is not in a state for that, 21211 impossible
    number, 20429 too many requests), 0 where it gave none. `retryable`: the same request may
    succeed later; it has been tried several times where that was safe.
    """

    def __init__(
        self, message: str, *, status: int = 0, code: int = 0, more_info: str = ""
    ) -> None:
        super().__init__(f"{message} (Twilio {code})" if code else message)
        self.message = message
        self.status = status
        self.code = code
        self.more_info = more_info

    @property
    def retryable(self) -> bool:
        """It may succeed later."""
        return self.status in (0, 429) or self.status in SERVER_TROUBLE

    @property
    def call_is_over(self) -> bool:
        """An update came too late: the call has ended, which is success for hanging up."""
        return self.status == 404 or self.code in (20404, 21220)
