"""A session: one INVITE and the dialog it made, until its BYE (RFC 3261 12 to 15).

What both sides of a call have in common. How a session begins is in `uas` (we were called) and
`uac` (we call).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from voiced.sip.events import MediaControl, Observer
    from voiced.sip.message import Request

__all__ = ["InvalidState", "Session", "SessionState"]

SessionState = Literal[
    "calling",  # UAC: INVITE sent, nothing but 100 heard
    "early",  # UAC: 101 to 199 came
    "cancelling",  # UAC: given up before an answer
    "incoming",  # UAS: INVITE came, not answered finally
    "accepted",  # UAS: 2xx sent, no ACK yet
    "confirmed",  # the call stands
    "ending",  # BYE sent, or waiting until it may be sent
    "ended",
]


class InvalidState(Exception):
    """The caller's mistake: what was asked is impossible in this state."""


class Session:
    """One call's signalling. Methods return at once; what comes of them arrives as events."""

    request: Request
    """The INVITE that began it (as first sent, or as received)."""
    peer: str
    """UAS: the name that `Policy.admit` gave; UAC: the `peer` given to `invite`."""
    observer: Observer
    """Who gets the events; may be set anew at any time."""
    media: MediaControl | None
    """The owner's media."""

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        raise NotImplementedError

    @property
    def call_id(self) -> str:
        """Call-ID of its dialog."""
        raise NotImplementedError

    def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """End the call whatever its state, safe to repeat: `Ended` follows.

        UAC unanswered: CANCEL. UAS unanswered: 603. Waiting for the ACK to our 2xx: BYE once it
        has come (RFC 3261 15), or once it no longer can. Otherwise BYE, with `headers` (Reason…).
        `Ended` comes when the peer has answered, after 32 s (64*T1) at the latest.
        """
        raise NotImplementedError

    def reinvite(self) -> None:
        """Offer anew by re-INVITE, as soon as nothing else is under way; `MediaChanged` follows.

        A refusal leaves the session as it was (the media is rolled back). Glare (491) is retried.
        """
        raise NotImplementedError

    def hold(self, held: bool) -> None:
        """Put the peer on hold (or take it back) by a re-INVITE."""
        raise NotImplementedError

    def update(self) -> None:
        """Offer anew by UPDATE (RFC 3311), or by re-INVITE where the peer does not allow UPDATE."""
        raise NotImplementedError

    def info(self, body: bytes, content_type: str) -> None:
        """Send an INFO (RFC 6086, legacy usage); raises InvalidState unless the call stands."""
        raise NotImplementedError

    def refer(self, target_uri: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Ask the peer to call `target_uri` (blind transfer); `ReferProgress` events follow.

        The call itself goes on: end it with `bye`. Raises InvalidState unless the call stands, and
        while another REFER is under way; ParseError if `target_uri` is no URI.
        """
        raise NotImplementedError
