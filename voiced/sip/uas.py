"""A session that began with an INVITE to us."""

from __future__ import annotations

from collections.abc import Sequence

from voiced.sip.session import Session

__all__ = ["ServerSession"]


class ServerSession(Session):
    """We were called: `ring` and `accept`, or `reject`."""

    def ring(self, status: int = 180, *, early_media: bool = False) -> None:
        """Send a provisional response, 180 to 183.

        `early_media`: with the answer to the peer's offer, so that audio may flow before the call
        is answered. Where the peer requires 100rel it is sent reliably (RFC 3262). Does nothing
        once the call is answered or over. Raises InvalidState without `media` where it is needed.
        """
        raise NotImplementedError

    def accept(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer the call: 200 with the answer (or the offer, where the INVITE had none).

        `MediaChanged` and `Confirmed` follow when the ACK comes (the answer to an offer in the
        INVITE is complete at once, so its `MediaChanged` comes from inside this call). If media
        finds no common ground: 488 and `Ended("media_refused")`. Does nothing once the call is
        answered or over. Raises InvalidState without `media`.
        """
        raise NotImplementedError

    def reject(
        self, status: int, reason: str | None = None, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Refuse with a final response, 300 to 699; `Ended("rejected")` follows at once.

        Does nothing once the call is answered or over.
        """
        raise NotImplementedError
