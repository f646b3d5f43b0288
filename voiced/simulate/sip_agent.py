"""One outgoing call of a SIP user agent, sans-I/O (RFC 3261; re-INVITE, hold, REFER as the callee).

Messages and times in seconds go in; messages to send come out of `poll`, what happened out of
`take_events`. A breach of the RFCs by the other side is an event of its own, `Complaint`.
"""

from __future__ import annotations

import copy
from typing import Final, Literal

from voiced.simulate import sip_digest, sip_sdp
from voiced.simulate.sip_answers import Answers
from voiced.simulate.sip_client import Requests
from voiced.simulate.sip_dialog import Dialog, Settings
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
from voiced.simulate.sip_offers import Offers
from voiced.simulate.sip_sdp import Direction, SdpError
from voiced.simulate.sip_transaction import Outgoing

__all__ = ["Agent"]

_GLARE_S: Final = 2.5  # RFC 3261 section 14.1: the owner of the Call-ID waits 2.1 to 4 s


class Agent:
    """The whole signalling of one call."""

    def __init__(self, settings: Settings) -> None:
        self._is = settings
        self._dialog = Dialog(settings)
        self._again: tuple[float, Direction] | None = None  # a re-INVITE that met another
        self._out: list[Outgoing] = []
        self._events: list[AgentEvent] = []
        self._challenged = 0
        self._cancelled = False
        self.state: Literal["idle", "calling", "confirmed", "ending", "over"] = "idle"
        self.direction: Direction = "sendrecv"
        self.authenticated = False
        """A challenge was answered."""
        self._offers = Offers(self._dialog, self._complain)
        self._requests = Requests(settings, self._out, self._complain, self._forked)
        self._answers = Answers(settings, self._dialog, self._out, self._complain)

    @property
    def retransmissions(self) -> int:
        """Messages that we had to send again."""
        return self._requests.retransmissions + self._answers.retransmissions

    @property
    def repeats(self) -> int:
        """Messages that came again."""
        return self._requests.repeats + self._answers.repeats

    # --- what a caller does ---------------------------------------------------------------------

    def call(self, now_s: float) -> None:
        """Send the INVITE."""
        self.state = "calling"
        self._invite(now_s, ())

    def hang_up(self, now_s: float) -> None:
        """CANCEL or BYE, whichever is right."""
        if self.state == "calling":
            self._cancelled = True
            self._requests.cancel(now_s)
        elif self.state == "confirmed":
            self.state = "ending"
            self._requests.send(
                now_s,
                "BYE",
                dialog=self._dialog,
                done=lambda at, _: self._over(at, "caller", "BYE"),
            )

    def reinvite(self, now_s: float, direction: Direction) -> None:
        """Offer the media with another direction, as a telephone does that holds its call."""
        if self.state != "confirmed":
            return
        body = self._offers.make(direction)
        self._requests.send(
            now_s,
            "INVITE",
            dialog=self._dialog,
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
                self._answers.respond(message, 481, "Call/Transaction Does Not Exist", source)
            return
        if message.method:
            self._requested(now_s, message, source)
        else:
            self._requests.receive(now_s, message)

    def poll(self, now_s: float) -> list[Outgoing]:
        """Let time pass; what must be sent now."""
        self._requests.poll(now_s)
        self._answers.poll(now_s)
        if self._again is not None and now_s >= self._again[0]:
            direction, self._again = self._again[1], None
            self.reinvite(now_s, direction)
            return self.poll(now_s)
        out = self._out[:]
        self._out.clear()
        return out

    def next_at(self) -> float:
        """When `poll` is to be called next, in seconds; infinity: only when something came."""
        if self._out:
            return 0.0
        times = self._requests.times() + self._answers.times()
        if self._again is not None:
            times.append(self._again[0])
        return min(times, default=float("inf"))

    def take_events(self) -> list[AgentEvent]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    # --- requests of ours -----------------------------------------------------------------------

    def _invite(self, now_s: float, more: tuple[tuple[str, str], ...]) -> None:
        body = self._offers.make(self.direction)
        headers = (*self._is.headers, *more)
        self._requests.send(
            now_s, "INVITE", dialog=self._dialog, body=body, headers=headers, done=self._invited
        )

    # --- responses ------------------------------------------------------------------------------

    def _invited(self, now_s: float, response: Message | None) -> None:
        """The first INVITE's responses."""
        if response is None:
            self.state = "over"
            self._tell(Refused(now_s, 408, "nobody answered the INVITE"))
        elif response.status < 200:
            if response.status > 100:
                if "100rel" in response.all("require"):
                    self._complain(now_s, 421, "100rel is required, which was not offered")
                self._tell(Provisional(now_s, response.status, self._offers.early(now_s, response)))
            if self._cancelled:
                self._requests.cancel(now_s)
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

    def _confirmed(self, now_s: float, response: Message) -> None:
        self._dialog.establish(response)
        self._retarget(now_s, self._dialog, response)
        self._requests.acknowledge(response, self._dialog.ack(response))
        self.state = "confirmed"
        media = self._offers.answer(now_s, response)
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
            self._requests.acknowledge(response, self._dialog.ack(response))
            media = self._offers.answer(now_s, response)
            if media is not None:
                self.direction = sip_sdp.REVERSED[media.direction]
                self._tell(MediaChanged(now_s, media, self.direction, asked))

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
        self._requests.acknowledge(response, other.ack(response))
        self._requests.send(now_s, "BYE", dialog=other, done=lambda at, answer: None)

    # --- requests of the other side's -----------------------------------------------------------

    def _requested(self, now_s: float, request: Message, source: tuple[str, int]) -> None:
        if request.method == "ACK":
            self._acknowledged(now_s, request)
            return
        if not self._answers.admits(now_s, request, source):
            return
        match request.method:
            case "BYE":
                self._answers.respond(request, 200, "OK", source)
                reason = request.get("reason")
                self._over(now_s, "agent", f"BYE {reason}" if reason else "BYE")
            case "INVITE" | "UPDATE":
                self._reoffered(now_s, request, source)
            case "REFER":
                self._referred(now_s, request, source)
            case "OPTIONS" | "INFO" | "NOTIFY":
                self._answers.respond(request, 200, "OK", source)
            case "CANCEL":
                self._answers.respond(request, 481, "Call/Transaction Does Not Exist", source)
            case _:
                self._answers.respond(request, 405, "Method Not Allowed", source)

    def _reoffered(self, now_s: float, request: Message, source: tuple[str, int]) -> None:
        invite = request.method == "INVITE"
        if self.state != "confirmed":
            self._answers.respond(request, 481, "Call/Transaction Does Not Exist", source)
            return
        if (invite and self._answers.waits_for_ack) or (
            request.body and self._requests.open_invite is not None
        ):
            self._answers.respond(request, 491, "Request Pending", source)
            return
        self._retarget(now_s, self._dialog, request)
        body, media, offer = b"", None, None
        if request.body:
            try:
                media = sip_sdp.read(request.body)
            except SdpError as error:
                self._complain(now_s, 488, str(error))
            if media is None or media.codec is None:
                self._answers.respond(request, 488, "Not Acceptable Here", source)
                return
            self.direction = sip_sdp.REVERSED[media.direction]
            body = self._dialog.describe(self.direction, media)
        elif invite:
            body = self._dialog.describe(self.direction)
            offer = sip_sdp.read(body)
        if invite:
            self._answers.accept_invite(now_s, request, source, body, offer)
        else:
            self._answers.respond(request, 200, "OK", source, body)
        if media is not None:
            self._tell(MediaChanged(now_s, media, self.direction, None))

    def _acknowledged(self, now_s: float, ack: Message) -> None:
        offer = self._answers.acknowledged(ack)
        if offer is None:
            return
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
            self._answers.respond(request, 400, "No Refer-To", source)
            return
        self._answers.respond(request, 202, "Accepted", source)
        headers = (("Event", "refer"), ("Subscription-State", "terminated;reason=noresource"))
        self._requests.send(
            now_s,
            "NOTIFY",
            dialog=self._dialog,
            body=b"SIP/2.0 200 OK\r\n",
            headers=(*headers, ("Contact", f"<{self._dialog.contact}>")),
            content_type="message/sipfrag",
            done=lambda at, answer: None,
        )
        self._tell(Transferred(now_s, uri_of(target)))

    # --- the end --------------------------------------------------------------------------------

    def _over(self, now_s: float, by: Literal["caller", "agent", "line"], text: str) -> None:
        if self.state == "over":
            return
        self.state = "over"
        self._again = None
        self._answers.give_up()
        self._tell(Ended(now_s, by, text))

    def _complain(self, now_s: float, code: int, text: str) -> None:
        self._tell(Complaint(now_s, code, text))

    def _tell(self, event: AgentEvent) -> None:
        self._events.append(event)
