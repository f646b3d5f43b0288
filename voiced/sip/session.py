"""A session: one INVITE and the dialog it made, until its BYE (RFC 3261 12 to 15).

What both sides of a call have in common. How a session begins is in `uas` (we were called) and
`uac` (we call); how it changes in `exchange`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from voiced.sip import session_timer
from voiced.sip.core import Headerlist
from voiced.sip.dialog import Dialog
from voiced.sip.errors import InvalidState
from voiced.sip.events import Ended, Info
from voiced.sip.exchange import Exchange
from voiced.sip.infos import Infos
from voiced.sip.message import response_to
from voiced.sip.refer import Transfers
from voiced.sip.requester import Requester, is_local
from voiced.sip.screening import DTMF_TYPES, Refusal, screen
from voiced.sip.session_states import SUCCESSORS, SessionState
from voiced.sip.uri import parse_uri

if TYPE_CHECKING:
    from voiced.sip.core import Core
    from voiced.sip.events import EndReason, MediaControl, Observer, SessionEvent
    from voiced.sip.message import Message, Request, Response
    from voiced.sip.session_timer import SessionInterval
    from voiced.sip.transactions import ServerTransaction

__all__ = ["InvalidState", "Session", "SessionState"]


class Session:
    """One call's signalling. Methods return at once; what comes of them arrives as events.

    Attributes:
        request: the INVITE that began it (as first sent, or as received).
        peer: UAS: the name that `Policy.admit` gave; UAC: the `peer` given to `invite`.
        observer: who gets the events; may be set anew at any time.
        media: the owner's media; UAS: None until the owner sets it.
    """

    # The attributes below are for the modules of this package.
    core: Core
    requester: Requester
    dialog: Dialog | None
    peer_allow: frozenset[str]
    min_se: int

    def __init__(
        self,
        core: Core,
        request: Request,
        peer: str,
        *,
        local_tag: str,
        state: SessionState,
        owner: bool,
    ) -> None:
        self.core = core
        self.request = request
        self.peer = peer
        self.observer: Observer | None = None
        self.media: MediaControl | None = None
        self.local_tag = local_tag
        self.dialog = None
        self.peer_allow = frozenset()
        self.min_se = core.options.min_se_s
        self.session_expires_s = core.options.session_expires_s
        self.requester = Requester(core)
        self.timer = session_timer.SessionTimer(core.timers, self._refresh, self._expire)
        self.exchange = Exchange(self, owner=owner)
        self._state: SessionState = state
        self.transfers = Transfers(self)
        self._infos = Infos(self)
        # How it will have ended, once the peer has confirmed it or can no longer do so.
        self.closing: Ended | None = None

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        return self._state

    @property
    def call_id(self) -> str:
        """Call-ID of its dialog."""
        return self.request.call_id

    # What the owner asks for

    def bye(self, headers: Headerlist = ()) -> None:
        """End the call whatever its state, safe to repeat: `Ended` follows.

        UAC unanswered: CANCEL. UAS unanswered: 603. Waiting for the ACK to our 2xx: BYE once it
        has come (RFC 3261 15), or once it no longer can. Otherwise BYE, with `headers` (Reason…).
        `Ended` comes when the peer has answered, after 32 s (64*T1) at the latest.
        """
        self.terminate(Ended("local_bye"), headers)

    def reinvite(self) -> None:
        """Offer anew by re-INVITE, as soon as nothing else is under way; `MediaChanged` follows.

        A refusal leaves the session as it was (the media is rolled back). Glare (491) is retried.
        """
        self.exchange.want("reinvite")

    def hold(self, held: bool) -> None:
        """Put the peer on hold (or take it back) by a re-INVITE."""
        self.exchange.hold(held)

    def update(self) -> None:
        """Offer anew by UPDATE (RFC 3311), or by re-INVITE where the peer does not allow UPDATE."""
        self.exchange.want("update")

    def info(self, body: bytes, content_type: str) -> None:
        """Send an INFO, once those before it have been answered (see `infos`).

        Raises InvalidState unless the call stands, and where too many wait.
        """
        self._demand_confirmed()
        self._infos.send(body, content_type)

    def refer(self, target_uri: str, headers: Headerlist = ()) -> None:
        """Ask the peer to call `target_uri` (blind transfer); `ReferProgress` events follow.

        The call itself goes on: end it with `bye`. Raises InvalidState unless the call stands, and
        while another REFER is under way; ParseError if `target_uri` is no URI.
        """
        self._demand_confirmed()
        if self.transfers.asked:
            raise InvalidState("a REFER is under way already")
        self.transfers.ask(parse_uri(target_uri), headers)

    def _demand_confirmed(self) -> None:
        if self._state != "confirmed":
            raise InvalidState(f"the call is {self._state}")

    # Towards the owner

    def deliver(self, event: SessionEvent) -> None:
        """Tell the observer, as long as the call has not been given up."""
        if self._state not in {"cancelling", "ending", "ended"} and self.observer is not None:
            self.observer.on_event(event)

    def finish(self, ended: Ended) -> None:
        """The session is over: the one place from which `Ended` comes."""
        if self._state == "ended":
            return
        self.become("ended")
        self.clean_up()
        self.core.forget(self)
        observer, self.observer, self.media = self.observer, None, None
        if observer is not None:
            observer.on_event(ended)

    def become(self, state: SessionState) -> None:
        """Go to another state; one that `SUCCESSORS` does not allow is a bug of ours."""
        if state != self._state:
            assert state in SUCCESSORS[self._state], (self._state, state)
            self._state = state

    def clean_up(self) -> None:
        """Stop every timer; subclasses have more of them."""
        self.timer.stop()
        self.exchange.stop()
        self.transfers.stop()

    # Media; the callers see to it that there is one

    def offer(self, held: bool = False, *, full: bool = False) -> bytes:
        """Have the media make an offer."""
        return self._media().offer(held, full=full)

    def answer(self, offer: bytes) -> bytes:
        """Have the media answer an offer."""
        return self._media().answer(offer)

    def take_answer(self, answer: bytes) -> None:
        """Give the media the answer to its offer."""
        self._media().take_answer(answer)

    def rollback(self) -> None:
        """Have the media forget its offer."""
        self._media().rollback()

    def _media(self) -> MediaControl:
        if self.media is None:
            raise InvalidState("the session has no media")
        return self.media

    # Ending

    def terminate(self, ended: Ended, headers: Headerlist = ()) -> None:
        """End the call in the way its state allows; `ended` follows when that is done."""
        if self._state == "confirmed":
            self.hang_up(ended, headers)
        else:
            self.give_up(ended, headers)

    def hang_up(self, ended: Ended, headers: Headerlist = ()) -> None:
        """Send BYE; its answer, or none in 64*T1, brings `ended`.

        At once where it is not the owner who ends the call: the peer is most likely gone, and the
        owner, who knows of nothing, would keep all that the call costs for so long.
        """
        request = self.new_request("BYE", headers=headers)
        if ended.reason != "local_bye":
            self.send(request, _ignore, vital=False)
            self.finish(ended)
            return
        self.closing = ended
        self.become("ending")
        self.clean_up()
        self.send(request, lambda response: self.finish(ended), vital=False)

    def give_up(self, ended: Ended, headers: Headerlist) -> None:
        """End a call that does not stand yet, or is being ended already."""
        raise NotImplementedError

    def lost(self, response: Response) -> bool:
        """Whether a final response of a request of ours means that the dialog is gone.

        RFC 3261 12.2.1.2: 408 and 481 do, and so does a transport that failed. The peer is told
        with a BYE that nobody waits for, but after 481, which says that there is nobody to tell.
        """
        unsent = response.status == 503 and is_local(response)
        if self._state != "confirmed" or not (response.status in {408, 481} or unsent):
            return False
        if response.status != 481:
            self.send(self.new_request("BYE"), _ignore, vital=False)
        reason: EndReason = "transport" if unsent else "timeout"
        self.finish(Ended(reason, response.status, response.reason))
        return True

    def unacknowledged(self) -> None:
        """A 2xx of ours got no ACK in 64*T1 (13.3.1.4): the call is ended with BYE."""
        self.terminate(Ended("ack_timeout"))

    def _refresh(self) -> None:
        self.exchange.want("refresh")

    def _expire(self) -> None:
        self.terminate(Ended("session_expired"))

    # Requests of ours inside the dialog

    def new_request(
        self,
        method: str,
        *,
        headers: Headerlist = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> Request:
        """The next request of the dialog."""
        assert self.dialog is not None
        return self.dialog.request(method, headers=headers, body=body, content_type=content_type)

    def send(
        self, request: Request, done: Callable[[Response], None], *, vital: bool = True
    ) -> None:
        """Send a request in the dialog; `done` gets its final response, made up if none came.

        `vital`: a response that says that the dialog is gone ends the session first.
        """

        def answered(response: Response) -> None:
            if not vital or not self.lost(response):
                done(response)

        assert self.dialog is not None
        self.requester.send(self.dialog, request, answered)

    # Requests of the peer's

    def dialog_of(self, request: Request) -> Dialog | None:
        """The dialog to which a request belongs."""
        dialog = self.dialog
        return dialog if dialog is not None and dialog.matches(request) else None

    def refuse(self, tx: ServerTransaction, refusal: Refusal) -> None:
        """Answer with a failure."""
        tx.respond(self.core.refusal(tx.request, refusal.status, self.local_tag, refusal.headers))

    def on_request(self, tx: ServerTransaction, request: Request) -> None:
        """A request with our tag in To; ParseError is answered by the transaction layer."""
        dialog = self.dialog_of(request)
        if dialog is None or self._state == "ended":
            self.refuse(tx, Refusal(481))
            return
        late = dialog.accepts(request)
        if late is not None:
            self.refuse(tx, Refusal(late))
            return
        refusal = screen(request, self.core)
        if refusal is not None:
            self.refuse(tx, refusal)
            return
        self.dispatch(tx, request)

    def dispatch(self, tx: ServerTransaction, request: Request) -> None:
        """A request that passed all checks, by its method."""
        method = request.method
        if method == "BYE":
            self.on_bye(tx, request)
        elif self._state in {"ending", "cancelling"}:
            self.refuse(tx, Refusal(481))
        elif method in {"INVITE", "UPDATE"}:
            self.exchange.on_request(tx, request)
        elif method == "INFO":
            tx.respond(response_to(request, 200))
            kind = request.content_type
            if request.body and kind in DTMF_TYPES:
                self.deliver(Info(kind, request.body))
        elif method == "OPTIONS":
            tx.respond(response_to(request, 200, headers=self.core.abilities()))
        elif method == "NOTIFY":
            self.transfers.on_notify(tx, request)
        elif method == "REFER" and self._state == "confirmed":
            self.transfers.on_refer(tx, request)
        else:
            self.refuse(tx, Refusal(481))

    def on_bye(self, tx: ServerTransaction, request: Request) -> None:
        """The peer hangs up; where that crosses with a BYE of ours, ours came first."""
        tx.respond(response_to(request, 200))
        self.finish(self.closing or Ended("remote_bye", headers=fields(request)))

    def serve_timer(self, request: Request) -> SessionInterval | None:
        """The session interval for a request of the peer's. Raises IntervalTooSmall."""
        return session_timer.serve(
            request, wanted=self.session_expires_s, min_se=self.core.options.min_se_s
        )

    def learn(self, message: Message) -> None:
        """Note what methods the peer allows."""
        if "Allow" in message.headers:
            self.peer_allow = frozenset(message.allow)

    def on_ack(self, request: Request) -> None:
        """An ACK to a 2xx of ours; one that is malformed or late is ignored."""
        dialog = self.dialog_of(request)
        if dialog is not None and self.exchange.on_ack(request):
            self.exchange.go()


def fields(message: Message) -> tuple[tuple[str, str], ...]:
    """A message's header fields, for `Ended`."""
    return tuple(message.headers.items())


def _ignore(response: Response) -> None:
    """What comes of it does not matter."""
