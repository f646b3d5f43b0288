"""What can be wrong with SIP, as a `SipError`; and what cannot be asked of it now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from voiced.sip.model import Request

__all__ = ["BAD_REQUEST", "InvalidState", "ParseError", "SipError"]

BAD_REQUEST: Final = 400


class SipError(Exception):
    """Anything about SIP that did not go as it should."""


class ParseError(SipError):
    """Input that is not SIP, or not SIP that any element may act on.

    Attributes:
        reason: a short fixed phrase, never a part of the input; fit for a metric's label.
        status: the response that RFC 3261 and RFC 4475 ask for, were this a request.
        head: a request that `response_to` can answer, or None: then the input is dropped
            silently (a response, an ACK, or a request without the fields a response repeats).
        fatal: on a stream, the end of this message is unknown: the connection must close.
    """

    def __init__(
        self,
        reason: str,
        status: int = BAD_REQUEST,
        head: Request | None = None,
        *,
        fatal: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.head = head
        self.fatal = fatal


class InvalidState(Exception):
    """The caller's mistake: what was asked is impossible in this state."""
