"""How a simulated caller answers the requests of the other side: once each, in their order.

Sans-I/O (RFC 3261 sections 12.2.2 and 17.2; re-INVITE: 14.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from voiced.simulate.sip_dialog import Dialog, Settings
from voiced.simulate.sip_message import Message
from voiced.simulate.sip_sdp import Media
from voiced.simulate.sip_transaction import T2_S, Outgoing, Repeated

__all__ = ["Answers"]

_REMEMBERED: Final = 32  # requests of the other side whose answers may be asked for again


@final
class Answers:
    """Those of one call; what is to be sent goes to `out`."""

    def __init__(
        self,
        settings: Settings,
        dialog: Dialog,
        out: list[Outgoing],
        complain: Callable[[float, int, str], None],
    ) -> None:
        self._is = settings
        self._dialog = dialog
        self._out = out
        self._complain = complain
        self._remote_cseq = -1
        self._given: dict[tuple[str, str], tuple[bytes, tuple[str, int]]] = {}  # _REMEMBERED
        self._waiting_ack: tuple[int, Repeated, Media | None] | None = None
        self.retransmissions = 0
        """Our 2xx that had to be sent again."""
        self.repeats = 0
        """Requests that came again."""

    def admits(self, now_s: float, request: Message, source: tuple[str, int]) -> bool:
        """Whether a request other than ACK is new and of the dialog; others are answered here."""
        known = self._given.get((request.branch, request.method))
        if known is not None:
            self.repeats += 1
            self._out.append(known)
            return False
        if request.to_tag != self._is.tag or request.from_tag != self._dialog.remote_tag:
            self.respond(request, 481, "Call/Transaction Does Not Exist", source)
            return False
        number = request.cseq[0]
        if number <= self._remote_cseq and request.method != "CANCEL":
            self._complain(now_s, 500, f"CSeq {number} after {self._remote_cseq}")
            self.respond(request, 500, "CSeq out of order", source)
            return False
        self._remote_cseq = max(number, self._remote_cseq)
        return True

    def respond(
        self,
        request: Message,
        status: int,
        reason: str,
        source: tuple[str, int],
        body: bytes = b"",
    ) -> bytes:
        """Answer a request; returns the answer."""
        answer = self._dialog.response(request, status, reason, body)
        self._out.append((answer, source))
        if len(self._given) >= _REMEMBERED:
            del self._given[next(iter(self._given))]
        self._given[request.branch, request.method] = answer, source
        return answer

    # --- a 2xx to a re-INVITE, which is repeated until its ACK comes ------------------------------

    def accept_invite(
        self,
        now_s: float,
        request: Message,
        source: tuple[str, int],
        body: bytes,
        offer: Media | None,
    ) -> None:
        """200 to a re-INVITE; `offer` is ours, where the request had none: the ACK answers it."""
        answer = self.respond(request, 200, "OK", source, body)
        repeated = Repeated(answer, source, now_s, False, T2_S, sent=1)
        repeated.next_s = now_s + repeated.interval_s
        self._waiting_ack = request.cseq[0], repeated, offer

    @property
    def waits_for_ack(self) -> bool:
        """Whether a 2xx of ours has not been acknowledged."""
        return self._waiting_ack is not None

    def acknowledged(self, ack: Message) -> Media | None:
        """Take an ACK; returns our offer that it answers."""
        if self._waiting_ack is None or ack.cseq[0] != self._waiting_ack[0]:
            return None
        offer, self._waiting_ack = self._waiting_ack[2], None
        return offer

    def give_up(self) -> None:
        """The call is over: nothing is repeated any more."""
        self._waiting_ack = None

    def poll(self, now_s: float) -> None:
        """Let time pass."""
        if self._waiting_ack is None:
            return
        repeated = self._waiting_ack[1]
        due = repeated.due(now_s)
        if due is not None:
            self.retransmissions += repeated.sent > 1
            self._out.append(due)
        if now_s >= repeated.expires_s:
            self._waiting_ack = None
            self._complain(now_s, 408, "our 200 to a re-INVITE was never acknowledged")

    def times(self) -> list[float]:
        """When `poll` has something to do."""
        return [] if self._waiting_ack is None else [self._waiting_ack[1].next_at()]
