"""One outgoing call of a SIP user agent, sans-I/O (RFC 3261; re-INVITE, hold, REFER as the callee).

Messages and times in seconds go in; messages to send come out of `poll`, what happened out of
`take_events`. A breach of the RFCs by the other side is an event of its own, `Complaint`.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from typing import Final, Literal

from voiced.simulate import sip_digest, sip_sdp
from voiced.simulate.sip_dialog import Dialog, Settings, beside
from voiced.simulate.sip_events import (
    AgentEvent,
    Answered,
    Complaint,
    Ended,
    MediaChanged,
    Provisional,
    Refused,
    Transferred,
)
from voiced.simulate.sip_message import BadMessage, Message, parse, parse_address, uri_of
from voiced.simulate.sip_sdp import Direction, Media, SdpError
from voiced.simulate.sip_transaction import T2_S, ClientTransaction, Outgoing, Repeated

__all__ = ["Agent"]

_GLARE_S: Final = 2.5  # RFC 3261 section 14.1: the owner of the Call-ID waits 2.1 to 4 s
_REMEMBERED: Final = 32  # requests of the other side whose answers may be asked for again


class Agent:
    """The whole signalling of one call."""

    def __init__(self, settings: Settings) -> None:
        self._is = settings
        self._dialog = Dialog(settings)
        self._remote_cseq = -1
        self._offer: Media | None = None
        self._transactions: dict[str, ClientTransaction] = {}  # by branch; of one call
        self._acks: dict[tuple[int, str], Outgoing] = {}  # by CSeq and tag: a 2xx that comes again
        self._answers: dict[tuple[str, str], tuple[bytes, tuple[str, int]]] = {}  # _REMEMBERED
        self._waiting_ack: tuple[int, Repeated] | None = None  # our 2xx to a re-INVITE
        self._late_offer: Media | None = None  # ours, in a 2xx to a re-INVITE without one
        self._again: tuple[float, Direction] | None = None  # a re-INVITE that met another
        self._out: list[Outgoing] = []
        self._events: list[AgentEvent] = []
        self._challenged = 0
        self._cancelled = False
        self.state: Literal["idle", "calling", "confirmed", "ending", "over"] = "idle"
        self.direction: Direction = "sendrecv"
        self.retransmissions = 0
        """Messages that we had to send again."""
        self.repeats = 0
        """Messages that came again."""
        self.authenticated = False
        """A challenge was answered."""

    # --- what a caller does ---------------------------------------------------------------------

    def call(self, now_s: float) -> None:
        """Send the INVITE."""
        self.state = "calling"
        self._invite(now_s, ())

    def hang_up(self, now_s: float) -> None:
        """CANCEL or BYE, whichever is right."""
        if self.state == "calling":
            self._cancelled = True
            self._cancel(now_s)
        elif self.state == "confirmed":
            self.state = "ending"
            self._request(now_s, "BYE", done=lambda at, _: self._over(at, "caller", "BYE"))

    def reinvite(self, now_s: float, direction: Direction) -> None:
        """Offer the media with another direction, as a telephone does that holds its call."""
        if self.state != "confirmed":
            return
        body = self._dialog.describe(direction)
        self._offer = sip_sdp.read(body)
        self._request(
            now_s,
            "INVITE",
            body=body,
            done=lambda at, response: self._reanswered(at, response, direction),
        )

    # --- the wire -------------------------------------------------------------------------------

    def receive(self, now_s: float, data: bytes, source: tuple[str, int]) -> None:
        """Take a message; what was never meant as one (keep-alives, strays) is passed over."""
        if b"SIP/" not in data:
            return
        try:
            message = parse(data)
        except BadMessage as error:
            self._complain(now_s, 400, str(error))
            return
        if message.get("call-id") != self._is.call_id:
            if message.method and message.method != "ACK":
                self._respond(message, 481, "Call/Transaction Does Not Exist", source)
            return
        if message.method:
            self._requested(now_s, message, source)
        else:
            self._responded(now_s, message)

    def poll(self, now_s: float) -> list[Outgoing]:
        """Let time pass; what must be sent now."""
        for branch, transaction in list(self._transactions.items()):
            if transaction.expired(now_s):
                del self._transactions[branch]
                continue
            due = transaction.sending.due(now_s)
            if due is not None:
                self.retransmissions += transaction.sending.sent > 1
                self._out.append(due)
        if self._waiting_ack is not None:
            _, repeated = self._waiting_ack
            due = repeated.due(now_s)
            if due is not None:
                self.retransmissions += repeated.sent > 1
                self._out.append(due)
            if now_s >= repeated.expires_s:
                self._waiting_ack = None
                self._complain(now_s, 408, "our 200 to a re-INVITE was never acknowledged")
        if self._again is not None and now_s >= self._again[0]:
            direction, self._again = self._again[1], None
            self.reinvite(now_s, direction)
            return self.poll(now_s)
        out, self._out = self._out, []
        return out

    def next_at(self) -> float:
        """When `poll` is to be called next, in seconds; infinity: only when something came."""
        if self._out:
            return 0.0
        times = [t.sending.next_at() for t in self._transactions.values() if not t.final]
        if self._waiting_ack is not None:
            times.append(self._waiting_ack[1].next_at())
        if self._again is not None:
            times.append(self._again[0])
        return min(times, default=float("inf"))

    def take_events(self) -> list[AgentEvent]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    # --- requests of ours -----------------------------------------------------------------------

    def _invite(self, now_s: float, more: tuple[tuple[str, str], ...]) -> None:
        body = self._dialog.describe(self.direction)
        self._offer = sip_sdp.read(body)
        headers = (*self._is.headers, *more)
        self._request(now_s, "INVITE", body=body, headers=headers, done=self._invited)

    def _request(
        self,
        now_s: float,
        method: str,
        *,
        done: Callable[[float, Message | None], None],
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        content_type: str = "application/sdp",
        dialog: Dialog | None = None,
    ) -> None:
        dialog = dialog or self._dialog
        dialog.cseq += 1
        branch = "z9hG4bK" + secrets.token_hex(8)
        data, to = dialog.request(method, dialog.cseq, branch, headers, body, content_type)
        most = float("inf") if method == "INVITE" else T2_S
        repeated = Repeated(data, to, now_s, self._is.transport == "tcp", most)
        request = parse(data)
        transaction = ClientTransaction(method, branch, dialog.cseq, request, repeated, done)
        self._transactions[branch] = transaction

    def _cancel(self, now_s: float) -> None:
        """Section 9.1: only once something has been heard of the INVITE, and under its branch."""
        invite = self._open_invite()
        if invite is None or not invite.answered or f"CANCEL{invite.branch}" in self._transactions:
            return
        data = beside(invite.request, "CANCEL")
        reliable = self._is.transport == "tcp"
        repeated = Repeated(data, invite.sending.to, now_s, reliable, T2_S)
        self._transactions[f"CANCEL{invite.branch}"] = ClientTransaction(
            "CANCEL", invite.branch, invite.cseq, parse(data), repeated, lambda at, answer: None
        )

    def _open_invite(self) -> ClientTransaction | None:
        for transaction in self._transactions.values():
            if transaction.method == "INVITE" and not transaction.final:
                return transaction
        return None

    def _acknowledge(self, response: Message, ack: Outgoing) -> None:
        """Send an ACK, and keep it: the response comes again if it is lost."""
        self._acks[response.cseq[0], response.to_tag or ""] = ack
        self._out.append(ack)

    # --- responses ------------------------------------------------------------------------------

    def _responded(self, now_s: float, response: Message) -> None:
        number, method = response.cseq
        key = f"CANCEL{response.branch}" if method == "CANCEL" else response.branch
        transaction = self._transactions.get(key)
        if transaction is None or transaction.cseq != number or transaction.method != method:
            return  # section 18.1.2: belongs to nothing here
        if response.from_tag != self._is.tag:
            self._complain(now_s, 400, "a response whose From is not ours")
            return
        if response.status > 100 and response.to_tag is None:
            self._complain(now_s, 400, f"a {response.status} without a tag in To")
        if method == "INVITE" and response.status >= 200:
            known = self._acks.get((number, response.to_tag or ""))
            if known is not None:  # our ACK was lost
                self.repeats += 1
                self._out.append(known)
                return
            if response.status >= 300:
                ack = beside(transaction.request, "ACK", response.get("to"))
                self._acknowledge(response, (ack, transaction.sending.to))
            elif transaction.final:
                self._forked(now_s, response)
                return
        elif transaction.final:
            self.repeats += 1
            return
        transaction.receive(now_s, response)

    def _invited(self, now_s: float, response: Message | None) -> None:
        """The first INVITE's responses."""
        if response is None:
            self.state = "over"
            self._tell(Refused(now_s, 408, "nobody answered the INVITE"))
        elif response.status < 200:
            if response.status > 100:
                if "100rel" in response.all("require"):
                    self._complain(now_s, 421, "100rel is required, which was not offered")
                self._tell(Provisional(now_s, response.status, self._early(now_s, response)))
            if self._cancelled:
                self._cancel(now_s)
        elif response.status < 300:
            self._confirmed(now_s, response)
        elif response.status in (401, 407) and self._authorized(now_s, response):
            pass
        else:
            self.state = "over"
            self._tell(Refused(now_s, response.status, response.reason))

    def _authorized(self, now_s: float, response: Message) -> bool:
        if self._is.credentials is None or self._cancelled or self._challenged >= 2:
            return False
        found = sip_digest.answer(response, "INVITE", self._is.target, self._is.credentials)
        if found is None:
            return False
        header, stale = found
        if self._challenged and not stale:
            return False  # the same answer would be refused again
        self._challenged += 1
        self.authenticated = True
        self._invite(now_s, (header,))
        return True

    def _early(self, now_s: float, response: Message) -> Media | None:
        if not response.body or response.get("content-type") != "application/sdp":
            return None
        try:
            return sip_sdp.read(response.body)
        except SdpError as error:
            self._complain(now_s, 488, str(error))
            return None

    def _confirmed(self, now_s: float, response: Message) -> None:
        self._dialog.establish(response)
        self._retarget(now_s, self._dialog, response)
        self._acknowledge(response, self._dialog.ack(response))
        self.state = "confirmed"
        media = self._answer_of(now_s, response)
        if media is not None:
            self._tell(Answered(now_s, media))
        if media is None or self._cancelled:
            self.hang_up(now_s)

    def _reanswered(self, now_s: float, response: Message | None, asked: Direction) -> None:
        """Our re-INVITE's responses."""
        if response is None or response.status in (408, 481):
            self._over(now_s, "line", "the re-INVITE had no answer")
        elif response.status == 491:
            self._again = now_s + _GLARE_S, asked
        elif response.status >= 300:
            self._complain(now_s, response.status, f"the re-INVITE met {response.status}")
        elif response.status >= 200:
            self._retarget(now_s, self._dialog, response)
            self._acknowledge(response, self._dialog.ack(response))
            media = self._answer_of(now_s, response)
            if media is not None:
                self.direction = sip_sdp.REVERSED[media.direction]
                self._tell(MediaChanged(now_s, media, self.direction, asked))

    def _answer_of(self, now_s: float, response: Message) -> Media | None:
        content_type = (response.get("content-type") or "").partition(";")[0].strip().lower()
        if content_type != "application/sdp":
            self._complain(now_s, 488, f"the 2xx has no SDP but {content_type or 'nothing'!r}")
            return None
        assert self._offer is not None
        try:
            media = sip_sdp.read(response.body)
            sip_sdp.agree(self._offer, media)
        except SdpError as error:
            self._complain(now_s, 488, str(error))
            return None
        return media

    def _retarget(self, now_s: float, dialog: Dialog, message: Message) -> None:
        contact = message.get("contact")
        if contact is None:
            self._complain(now_s, 400, "a message that makes a dialog has no Contact")
            return
        try:
            parse_address(uri_of(contact))
        except BadMessage as error:
            self._complain(now_s, 400, f"Contact: {error}")
        else:
            dialog.remote_target = uri_of(contact)

    def _forked(self, now_s: float, response: Message) -> None:
        """Another 2xx than the one we talk with: acknowledged and hung up (section 13.2.2.4)."""
        other = copy.copy(self._dialog)
        other.establish(response)
        self._retarget(now_s, other, response)
        self._acknowledge(response, other.ack(response))
        self._request(now_s, "BYE", done=lambda at, answer: None, dialog=other)

    # --- requests of the other side's -----------------------------------------------------------

    def _requested(self, now_s: float, request: Message, source: tuple[str, int]) -> None:
        if request.method == "ACK":
            self._acknowledged(now_s, request)
            return
        known = self._answers.get((request.branch, request.method))
        if known is not None:
            self.repeats += 1
            self._out.append(known)
            return
        if request.to_tag != self._is.tag or request.from_tag != self._dialog.remote_tag:
            self._respond(request, 481, "Call/Transaction Does Not Exist", source)
            return
        number = request.cseq[0]
        if number <= self._remote_cseq and request.method != "CANCEL":
            self._complain(now_s, 500, f"CSeq {number} after {self._remote_cseq}")
            self._respond(request, 500, "CSeq out of order", source)
            return
        self._remote_cseq = max(number, self._remote_cseq)
        match request.method:
            case "BYE":
                self._respond(request, 200, "OK", source)
                reason = request.get("reason")
                self._over(now_s, "agent", f"BYE {reason}" if reason else "BYE")
            case "INVITE" | "UPDATE":
                self._reoffered(now_s, request, source)
            case "REFER":
                self._referred(now_s, request, source)
            case "OPTIONS" | "INFO" | "NOTIFY":
                self._respond(request, 200, "OK", source)
            case "CANCEL":
                self._respond(request, 481, "Call/Transaction Does Not Exist", source)
            case _:
                self._respond(request, 405, "Method Not Allowed", source)

    def _reoffered(self, now_s: float, request: Message, source: tuple[str, int]) -> None:
        invite = request.method == "INVITE"
        if self.state != "confirmed":
            self._respond(request, 481, "Call/Transaction Does Not Exist", source)
            return
        if (invite and self._waiting_ack is not None) or (
            request.body and self._open_invite() is not None
        ):
            self._respond(request, 491, "Request Pending", source)
            return
        self._retarget(now_s, self._dialog, request)
        body, media = b"", None
        if request.body:
            try:
                media = sip_sdp.read(request.body)
            except SdpError as error:
                self._complain(now_s, 488, str(error))
            if media is None or media.codec is None:
                self._respond(request, 488, "Not Acceptable Here", source)
                return
            self.direction = sip_sdp.REVERSED[media.direction]
            body = self._dialog.describe(self.direction, media)
        elif invite:
            body = self._dialog.describe(self.direction)
            self._late_offer = sip_sdp.read(body)
        answer = self._respond(request, 200, "OK", source, body)
        if invite:
            repeated = Repeated(answer, source, now_s, False, T2_S, sent=1)
            repeated.next_s = now_s + repeated.interval_s
            self._waiting_ack = request.cseq[0], repeated
        if media is not None:
            self._tell(MediaChanged(now_s, media, self.direction, None))

    def _acknowledged(self, now_s: float, ack: Message) -> None:
        if self._waiting_ack is None or ack.cseq[0] != self._waiting_ack[0]:
            return
        self._waiting_ack = None
        if self._late_offer is None:
            return
        offer, self._late_offer = self._late_offer, None
        try:
            media = sip_sdp.read(ack.body)
            sip_sdp.agree(offer, media)
        except SdpError as error:
            self._complain(now_s, 488, f"in an ACK: {error}")
            return
        self.direction = sip_sdp.REVERSED[media.direction]
        self._tell(MediaChanged(now_s, media, self.direction, None))

    def _referred(self, now_s: float, request: Message, source: tuple[str, int]) -> None:
        """RFC 3515: accepted, and reported as done, though nobody is called."""
        target = request.get("refer-to")
        if target is None:
            self._respond(request, 400, "No Refer-To", source)
            return
        self._respond(request, 202, "Accepted", source)
        headers = (("Event", "refer"), ("Subscription-State", "terminated;reason=noresource"))
        self._request(
            now_s,
            "NOTIFY",
            body=b"SIP/2.0 200 OK\r\n",
            headers=(*headers, ("Contact", f"<{self._dialog.contact}>")),
            content_type="message/sipfrag",
            done=lambda at, answer: None,
        )
        self._tell(Transferred(now_s, uri_of(target)))

    def _respond(
        self,
        request: Message,
        status: int,
        reason: str,
        source: tuple[str, int],
        body: bytes = b"",
    ) -> bytes:
        answer = self._dialog.response(request, status, reason, body)
        self._out.append((answer, source))
        if len(self._answers) >= _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[request.branch, request.method] = answer, source
        return answer

    # --- the end --------------------------------------------------------------------------------

    def _over(self, now_s: float, by: Literal["caller", "agent", "line"], text: str) -> None:
        if self.state == "over":
            return
        self.state = "over"
        self._waiting_ack = self._again = None
        self._tell(Ended(now_s, by, text))

    def _complain(self, now_s: float, code: int, text: str) -> None:
        self._tell(Complaint(now_s, code, text))

    def _tell(self, event: AgentEvent) -> None:
        self._events.append(event)
