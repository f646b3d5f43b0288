"""A session that began with our INVITE (RFC 3261 13.2, RFC 3262 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from voiced.sip import outgoing, session_timer
from voiced.sip.bodies import SDP, sdp_of
from voiced.sip.core import Headerlist
from voiced.sip.dialog import Dialog
from voiced.sip.errors import SipError
from voiced.sip.events import Answered, Ended, MediaChanged, Progress
from voiced.sip.message import request as build_request
from voiced.sip.negotiation import NotAcceptable
from voiced.sip.prack import ProvisionalOrder
from voiced.sip.requester import final_response, readable
from voiced.sip.screening import Refusal
from voiced.sip.session import Session, fields
from voiced.sip.uri import SipUri

if TYPE_CHECKING:
    from voiced.sip.core import Core
    from voiced.sip.events import EndReason, MediaControl, Observer
    from voiced.sip.message import Request, Response
    from voiced.sip.timers import Timer
    from voiced.sip.transactions import ServerTransaction
    from voiced.sip.transport import Flow, Target
    from voiced.sip.uri import NameAddr

__all__ = ["Call", "ClientSession"]

PATIENCE_S: Final = 8.0
"""How long an address may stay entirely silent while there is another: timer B, 32 s, is longer
than whoever waits for the call does. An answer that it gives later is ended by a BYE."""

# Dialogs that one INVITE may make by forking. A trunk makes one or two; each costs a kilobyte.
_MOST_FORKS: Final = 16

# 422 answers that are followed, each with a higher Min-SE: one for the peer, one for each proxy.
_MOST_INTERVALS: Final = 4


@dataclass(frozen=True, slots=True)
class Call:
    """What an INVITE of ours is made of."""

    uri: SipUri
    targets: Sequence[Target]
    from_: NameAddr  # with its tag
    to: NameAddr
    call_id: str
    headers: Headerlist
    route: Sequence[NameAddr]
    timeout_s: float
    session_expires_s: int


@dataclass(slots=True)
class _Fork:
    """A dialog that a response to our INVITE has made."""

    dialog: Dialog
    order: ProvisionalOrder = field(default_factory=ProvisionalOrder)
    answer: bytes | None = None
    is_final: bool = False  # the answer came reliably: nothing in the 2xx can change it
    acknowledge: Callable[[], None] | None = None  # sends its ACK once more


class ClientSession(Session):
    """We call: made by `UserAgent.invite`; `Progress`, then `Answered` or `Ended` follow."""

    def __init__(
        self,
        core: Core,
        call: Call,
        media: MediaControl,
        observer: Observer,
        peer: str,
        authenticator: outgoing.Credentials | None,
    ) -> None:
        """Sends the INVITE. Raises SipError if the media has nothing to offer."""
        self._call = call
        first = (*call.targets, *core.targets_of(call.uri))[0]
        self._contact = core.contact(first, secure=call.uri.scheme == "sips")
        self._cseq = 1
        self._body = media.offer(False)
        self._uri = call.uri
        self._targets = call.targets
        self._visited = [call.uri]
        self._intervals = 0
        self._forks: dict[str, _Fork] = {}
        self._heard: _Fork | None = None  # whose answer the media holds
        self._cancelled: Ended | None = None
        super().__init__(
            core,
            self._invite(core, core.options.min_se_s),
            peer,
            local_tag=call.from_.tag or "",
            state="calling",
            owner=True,
        )
        self.session_expires_s = call.session_expires_s
        self.media = media
        self.observer = observer
        self.requester.authenticator = authenticator
        self.exchange.offer = "local"
        self._limit: Timer = core.timers.call_later(
            call.timeout_s, lambda: self.terminate(Ended("timeout", 408, "no answer"))
        )
        self._attempt = self._send(self.request)

    def _invite(self, core: Core, min_se: int) -> Request:
        call = self._call
        return build_request(
            "INVITE",
            self._uri,
            from_=call.from_,
            to=call.to,
            call_id=call.call_id,
            cseq=self._cseq,
            contact=self._contact,
            routes=call.route,
            headers=[
                *core.abilities(),
                *session_timer.request_headers(call.session_expires_s, min_se),
                *call.headers,
            ],
            content_type=SDP,
            body=self._body,
        )

    def _send(self, invite: Request) -> outgoing.Attempt:
        return outgoing.send(
            self.core.layer,
            invite,
            self._targets,
            self.requester.authenticator,
            self._finally,
            self._provisional,
            next_cseq=self._next_cseq,
            patience_s=PATIENCE_S,
            repeated=self.on_stray_2xx,
        )

    def _next_cseq(self) -> int:
        self._cseq += 1
        # Another try is another INVITE: what forks of the last one said is void.
        self._forks.clear()
        return self._cseq

    def _again(self) -> None:
        """Send the INVITE anew, changed."""
        self._next_cseq()
        if self._state == "early":
            self.become("calling")
        self._attempt = self._send(self._invite(self.core, self.min_se))

    def _fork(self, invite: Request, response: Response) -> _Fork | None:
        """The dialog that a response belongs to; None if it makes none, or is one too many."""
        tag = response.to.tag or ""
        fork = self._forks.get(tag)
        if fork is None and len(self._forks) < _MOST_FORKS:
            try:
                fork = _Fork(Dialog.uac(invite, response, self._contact))
            except SipError:
                return None
            self._forks[tag] = fork
        return fork

    def _sent_invite(self) -> Request:
        transaction = self._attempt.transaction
        return self.request if transaction is None else transaction.request

    def _heard_by(self) -> Flow | None:
        """By which the latest response came."""
        transaction = self._attempt.transaction
        return None if transaction is None else transaction.flow

    # Before the answer

    def _provisional(self, response: Response) -> None:
        if response.status == 100 or self._state not in {"calling", "early"}:
            return
        readable(response)
        has_media = False
        if response.to.tag:
            fork = self._fork(self._sent_invite(), response)
            if fork is None:
                return
            self.requester.use_flow(self._heard_by(), fork.dialog, called_us=False)
            reliable = "100rel" in response.require and response.rseq is not None
            if reliable:
                if not fork.order.accept(response.rseq or 0):
                    return
                self._prack(fork, response)
            answer = sdp_of(response)
            if answer is not None and not fork.is_final:
                has_media = self._take_early(fork, answer, reliable)
        if self._state == "calling":
            self.become("early")
        self.deliver(Progress(response.status, has_media, response.reason))

    def _take_early(self, fork: _Fork, answer: bytes, reliable: bool) -> bool:
        """An answer before the call is answered; one that the media refuses is passed over.

        The 2xx will bring it again, or a better one, or is refused then.
        """
        changed = self._heard is not fork or fork.answer != answer
        if changed:
            try:
                self.take_answer(answer)
            except SipError:
                return False
            self._heard = fork
            fork.answer = answer
            assert self.media is not None
            self.media.early()
        if reliable:
            # RFC 3262 5: offer and answer are complete for this dialog; UPDATE may follow.
            fork.is_final = True
            self.exchange.offer = None
        if changed:
            self.deliver(MediaChanged())
        return True

    def _prack(self, fork: _Fork, response: Response) -> None:
        cseq = response.cseq
        request = fork.dialog.request(
            "PRACK", headers=[("RAck", f"{response.rseq} {cseq.number} {cseq.method}")]
        )
        # Whatever comes of it: the final response to the INVITE decides.
        self.requester.send(fork.dialog, request, lambda response: None)

    # The final response

    def _finally(self, outcome: outgoing.Outcome) -> None:
        response = final_response(outcome)
        if outcome.succeeded:
            self._accepted(outcome.request, response, outcome.flow)
        elif self._cancelled is not None:
            self.finish(self._ended(self._cancelled, response))
        elif self._lengthen(response) or self._redirect(response):
            self._again()
        else:
            reason: EndReason = "rejected"
            if outcome.failure is not None:
                reason = "transport" if outcome.failure == "transport" else "timeout"
            self.finish(self._ended(Ended(reason), response))

    @staticmethod
    def _ended(ended: Ended, response: Response) -> Ended:
        return replace(
            ended,
            status=ended.status or response.status,
            text=ended.text or response.reason,
            headers=fields(response),
        )

    def _lengthen(self, response: Response) -> bool:
        """RFC 4028 7.3: after a 422, try again with the peer's Min-SE."""
        if response.status != 422:
            return False
        self._intervals += 1
        if (response.min_se or 0) <= self.min_se or self._intervals > _MOST_INTERVALS:
            return False
        self.min_se = response.min_se or 0
        return True

    def _redirect(self, response: Response) -> bool:
        """8.1.3.4: after a 3xx, go on to the first Contact not tried, as often as we are told."""
        if not 300 <= response.status < 400:
            return False
        if len(self._visited) > self.core.options.follow_redirects:
            return False
        for contact in response.contacts:
            uri = contact.uri
            if not isinstance(uri, SipUri) or any(uri.equivalent(old) for old in self._visited):
                continue
            if self._call.uri.scheme == "sips" and uri.scheme != "sips":
                continue  # 26.4.4: never from secure to insecure
            self._visited.append(uri)
            self._uri = uri.replace(headers=())
            self._targets = self.core.targets_of(uri)
            return True
        return False

    def _accepted(self, invite: Request, response: Response, flow: Flow | None) -> None:
        fork = self._fork(invite, response)
        if fork is None:
            self.finish(Ended("protocol", response.status, "2xx without a dialog"))
            return
        fork.dialog.confirm(response)
        self.requester.use_flow(flow, fork.dialog, called_us=False)
        fork.acknowledge = self.requester.acknowledge(fork.dialog, invite)
        self.dialog = fork.dialog
        self.exchange.offer = None
        self._limit.cancel()
        if self._cancelled is not None:
            # The CANCEL came too late: 9.1, and 15 for what is left.
            ended = replace(self._cancelled, status=self._cancelled.status or response.status)
            bye = self.new_request("BYE")
            self.send(bye, lambda response: self.finish(ended), vital=False)
            return
        self.learn(response)
        self.become("confirmed")
        try:
            changed = self._take_final(fork, sdp_of(response))
        except SipError as error:
            self.terminate(Ended("media_refused", text=str(error)))
            return
        self.timer.start(session_timer.taken(response))
        if changed:
            self.deliver(MediaChanged())
        self.deliver(Answered())
        self.exchange.go()

    def _take_final(self, fork: _Fork, answer: bytes | None) -> bool:
        """The answer that holds: of the 2xx, or of a provisional of its dialog.

        RFC 3261 13.2.1 lets a 2xx go without only after a reliable provisional; peers do it after
        any. Returns whether the media learnt something new.
        """
        if fork.is_final or answer is None:
            answer = fork.answer
        if answer is None:
            raise NotAcceptable(399, "no answer in the 2xx")
        if self._heard is fork and fork.answer == answer:
            return False
        self.take_answer(answer)
        return True

    def on_stray_2xx(self, response: Response, flow: Flow) -> None:
        """A 2xx after the first: repeated (ACK again), or of another fork (ACK and BYE)."""
        readable(response)
        invite = self._sent_invite()
        if response.cseq.method != "INVITE" or response.cseq.number > invite.cseq.number:
            return
        known = self._forks.get(response.to.tag or "")
        if known is not None and known.acknowledge is not None:
            known.acknowledge()
            return
        fork = self._fork(invite, response)
        if fork is not None:
            fork.dialog.confirm(response)
            self.requester.use_flow(flow, fork.dialog, called_us=False)
            fork.acknowledge = self.requester.acknowledge(fork.dialog, invite, response.cseq.number)
            bye = fork.dialog.request("BYE")
            self.requester.send(fork.dialog, bye, lambda response: None)

    # Ending, and requests of the peer's before the answer

    def give_up(self, ended: Ended, headers: Headerlist) -> None:
        """Before the answer: CANCEL; what comes of that ends the session."""
        if self._state in {"calling", "early"}:
            if ended.reason == "local_bye":
                ended = replace(ended, reason="cancelled")
            self._cancelled = ended
            self.become("cancelling")
            self._limit.cancel()
            self._attempt.cancel(headers)

    def clean_up(self) -> None:
        """Stop every timer."""
        self._limit.cancel()
        super().clean_up()

    def dialog_of(self, request: Request) -> Dialog | None:
        """The dialog to which a request belongs; early ones too, until one is confirmed."""
        if self.dialog is not None:
            return super().dialog_of(request)
        fork = self._forks.get(request.from_.tag or "")
        return fork.dialog if fork is not None and fork.dialog.matches(request) else None

    def on_bye(self, tx: ServerTransaction, request: Request) -> None:
        """BYE; a callee must not send one before its answer has been acknowledged (15)."""
        if self.dialog is None:
            self.refuse(tx, Refusal(481))
        else:
            super().on_bye(tx, request)
