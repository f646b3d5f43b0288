"""A session that began with an INVITE to us (RFC 3261 13.3, RFC 3262 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from voiced.sip import session_timer
from voiced.sip.bodies import SDP, sdp_of
from voiced.sip.core import Headerlist
from voiced.sip.dialog import Dialog
from voiced.sip.errors import SipError
from voiced.sip.events import Confirmed, Ended, MediaChanged
from voiced.sip.exchange import media_refusal
from voiced.sip.message import REASONS, response_to
from voiced.sip.prack import ReliableProvisionals
from voiced.sip.screening import Refusal
from voiced.sip.session import Session, fields

if TYPE_CHECKING:
    from voiced.sip.core import Core
    from voiced.sip.message import Request, Response
    from voiced.sip.outgoing import Credentials
    from voiced.sip.session_timer import SessionInterval
    from voiced.sip.timers import Timer
    from voiced.sip.transactions import ServerTransaction
    from voiced.sip.transport import Flow
    from voiced.sip.uri import NameAddr

__all__ = ["ServerSession"]

# 13.3.1.1: proxies give an INVITE up three minutes after the last provisional response.
_REPEAT_PROVISIONAL_S: Final = 60.0


def _is_secure(request: Request) -> bool:
    """Whether our Contact must be sips: (12.1.1)."""
    first: list[NameAddr] = request.record_routes[:1] or request.contacts[:1]
    return any(str(uri).startswith("sips:") for uri in [request.uri, *(a.uri for a in first)])


class ServerSession(Session):
    """We were called: `ring` and `accept`, or `reject`."""

    def __init__(
        self,
        core: Core,
        tx: ServerTransaction,
        request: Request,
        flow: Flow,
        peer: str,
        interval: SessionInterval | None,
        authenticator: Credentials | None = None,
    ) -> None:
        """`interval`: what `session_timer.serve` made of the INVITE. Raises ParseError."""
        super().__init__(core, request, peer, local_tag=tx.to_tag, state="incoming", owner=False)
        contact = core.contact(flow, secure=_is_secure(request))
        self.dialog = Dialog.uas(request, self.local_tag, contact)
        self.requester.authenticator = authenticator
        self.requester.use_flow(flow, self.dialog, called_us=True)
        self.learn(request)
        self._tx = tx
        self._interval = interval
        self._offer = sdp_of(request)
        self.exchange.offer = "remote" if self._offer is not None else None
        # Our first description: the answer to the INVITE's offer, or the offer it asks for.
        self._described: bytes | None = None
        self._described_reliably = False
        self._reliable = (
            ReliableProvisionals(
                core.timers,
                core.timing.t1,
                tx.respond,
                lambda: self._refuse(Refusal(504), Ended("timeout", text="no PRACK")),
                core.random.randint(1, 2**31 - 1),  # RFC 3262 3
            )
            if "100rel" in request.require
            else None
        )
        self._accepting: Headerlist | None = None
        self._bye: tuple[Ended, Headerlist] | None = None
        self._repeat: Timer | None = None
        self._expiry: Timer | None = None
        if request.expires:
            self._expiry = core.timers.call_later(
                request.expires,
                lambda: self._refuse(Refusal(487), Ended("timeout", text="INVITE expired")),
            )

    def ring(self, status: int = 180, *, early_media: bool = False) -> None:
        """Send a provisional response, 180 to 183.

        `early_media`: with the answer to the peer's offer, so that audio may flow before the call
        is answered. Where the peer requires 100rel it is sent reliably (RFC 3262), and has the
        offer where the INVITE had none. Does nothing once the call is answered or over. Raises
        InvalidState without `media` where it is needed.
        """
        if self._state != "incoming" or self._accepting is not None:
            return
        changed = False
        body = b""
        if self._reliable is not None and self._described_reliably:
            pass  # told once and for all
        elif (early_media and self._offer is not None) or (
            self._reliable is not None and self._offer is None
        ):
            changed = self._described is None and self._offer is not None
            described = self._describe()
            if described is None:
                return
            body = described
        response = self._response(status, body)
        if self._reliable is None:
            self._tx.respond(response)
        else:
            response.headers.add("Require", "100rel")
            if body:
                self._described_reliably = True
                if self._offer is not None:
                    self.exchange.offer = None
            self._reliable.send(response)
        if self._repeat is not None:
            self._repeat.cancel()
        self._repeat = self.core.timers.call_later(
            _REPEAT_PROVISIONAL_S, lambda: self.ring(status, early_media=early_media)
        )
        if changed:
            self.deliver(MediaChanged())

    def accept(self, headers: Headerlist = ()) -> None:
        """Answer the call: 200 with the answer (or the offer, where the INVITE had none).

        `MediaChanged` and `Confirmed` follow when the ACK comes (the answer to an offer in the
        INVITE is complete at once, so its `MediaChanged` comes from inside this call). If media
        finds no common ground: 488 and `Ended("media_refused")`. A reliable provisional response
        is waited for. Does nothing once the call is answered or over. Raises InvalidState without
        `media`.
        """
        if self._state != "incoming" or self._accepting is not None:
            return
        self._media()
        self._accepting = tuple(headers)
        if self._reliable is None or not self._reliable.pending:
            self._accept()

    def _accept(self) -> None:
        assert self._accepting is not None
        assert self.dialog is not None
        body = b""
        changed = False
        if not self._described_reliably:
            changed = self._described is None and self._offer is not None
            described = self._describe()
            if described is None:
                return
            body = described
        if self._offer is not None:
            self.exchange.offer = None
        self._calm()
        response = self._response(200, body)
        for name, value in [
            *session_timer.response_headers(self._interval),
            *self._accepting,
        ]:
            response.headers.add(name, value)
        self.become("accepted")
        self.dialog.confirmed = True
        self.timer.start(self._interval)
        self.exchange.accept(self._tx, response)
        if changed:
            self.deliver(MediaChanged())

    def reject(self, status: int, reason: str | None = None, headers: Headerlist = ()) -> None:
        """Refuse with a final response, 300 to 699; `Ended("rejected")` follows at once.

        Does nothing once the call is answered or over.
        """
        if self._state == "incoming":
            self._refuse(Refusal(status, headers), Ended("rejected"), reason)

    # What both say

    def _response(self, status: int, body: bytes) -> Response:
        assert self.dialog is not None
        return response_to(
            self.request,
            status,
            to_tag=self.local_tag,
            headers=[("Contact", str(self.dialog.contact)), *self.core.abilities()],
            content_type=SDP if body else None,
            body=body,
        )

    def _describe(self) -> bytes | None:
        """Our first description, made once; None: the media refused, and the call is over."""
        if self._described is None:
            try:
                if self._offer is not None:
                    self._described = self.answer(self._offer)
                else:
                    self._described = self.offer(full=True)
                    self.exchange.offer = "local"
            except SipError as error:
                self._refuse(media_refusal(error), Ended("media_refused", text=str(error)))
        return self._described

    def _refuse(self, refusal: Refusal, ended: Ended, reason: str | None = None) -> None:
        """Answer the INVITE finally, and be over."""
        if self._state != "incoming":
            return
        status = refusal.status
        response = self.core.refusal(self.request, status, self.local_tag, refusal.headers)
        text = reason or REASONS.get(status, "")
        response.reason = text
        self._tx.respond(response)
        self.finish(replace(ended, status=status, text=ended.text or text))

    def give_up(self, ended: Ended, headers: Headerlist) -> None:
        """Before the answer: 603. Before its ACK: wait for that, as 15 says, then BYE."""
        if self._state == "incoming":
            reason = "rejected" if ended.reason == "local_bye" else ended.reason
            self._refuse(Refusal(603, headers), replace(ended, reason=reason))
        elif self._state == "accepted":
            self.closing = ended
            self.become("ending")
            self._bye = ended, headers

    def unacknowledged(self) -> None:
        """No ACK to a 2xx: BYE may be sent now."""
        ended, headers = self._bye or (Ended("ack_timeout"), ())
        self._bye = None
        if self._state != "ended":
            self.hang_up(ended, headers)

    def _calm(self) -> None:
        if self._reliable is not None:
            self._reliable.stop()
        for timer in (self._repeat, self._expiry):
            if timer is not None:
                timer.cancel()

    def clean_up(self) -> None:
        """Stop every timer."""
        self._calm()
        super().clean_up()

    # What comes from the peer

    def on_ack(self, request: Request) -> None:
        """The ACK to the first 2xx makes the call stand."""
        number = self.request.cseq.number
        first = (
            request.cseq.number == number
            and number in self.exchange.acceptances
            and self.dialog_of(request) is not None
        )
        if first and self._bye is not None:
            ended, headers = self._bye
            self._bye = None
            self.hang_up(ended, headers)
            return
        if first and self._state == "accepted":
            self.become("confirmed")
            self.exchange.on_ack(request)
            self.deliver(Confirmed())
            self.exchange.go()
            return
        super().on_ack(request)

    def on_cancel(self, request: Request) -> None:
        """CANCEL, which has been answered: 487 to the INVITE (9.2)."""
        self._refuse(Refusal(487), Ended("cancelled", headers=fields(request)))

    def on_bye(self, tx: ServerTransaction, request: Request) -> None:
        """BYE; before the answer too, which then gets 487 (15.1.2)."""
        if self._state == "incoming":
            tx.respond(response_to(request, 200))
            self._refuse(Refusal(487), Ended("remote_bye", headers=fields(request)))
        else:
            super().on_bye(tx, request)

    def dispatch(self, tx: ServerTransaction, request: Request) -> None:
        """PRACK besides all that a session serves."""
        if request.method == "PRACK":
            self._on_prack(tx, request)
        else:
            super().dispatch(tx, request)

    def _on_prack(self, tx: ServerTransaction, request: Request) -> None:
        """RFC 3262 3 and 5: the answer to our offer, or a new offer once the first is answered."""
        reliable = self._reliable
        if reliable is None or reliable.acknowledge(request) is None:
            self.refuse(tx, Refusal(481))
            return
        description = sdp_of(request)
        body = b""
        try:
            if self.exchange.offer == "local":
                self.exchange.offer = None
                self.take_answer(description or b"")
            elif description is not None and self.exchange.offer is None:
                body = self.answer(description)
        except SipError as error:
            self.refuse(tx, media_refusal(error))
            self._refuse(media_refusal(error), Ended("media_refused", text=str(error)))
            return
        content_type = SDP if body else None
        tx.respond(response_to(request, 200, content_type=content_type, body=body))
        if description is not None:
            self.deliver(MediaChanged())
        reliable.proceed()
        if self._accepting is not None and self._state == "incoming" and not reliable.pending:
            self._accept()
