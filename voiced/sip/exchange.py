"""Offers and answers once a call stands: re-INVITE and UPDATE, from either side.

RFC 3261 14, RFC 3311, RFC 4028 7 to 9. One exchange at a time: what would collide is refused (491,
or 500 where we are the slow ones), and ours waits its turn. What fails leaves the session as it
was, unless the failure says that there is no session any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from voiced.sip import session_timer
from voiced.sip.acceptance import Acceptance
from voiced.sip.bodies import SDP, sdp_of
from voiced.sip.errors import SipError
from voiced.sip.events import Ended, MediaChanged
from voiced.sip.message import response_to
from voiced.sip.negotiation import NotAcceptable
from voiced.sip.screening import Refusal

if TYPE_CHECKING:
    from voiced.sip.message import Request, Response
    from voiced.sip.session import Session
    from voiced.sip.session_timer import SessionInterval
    from voiced.sip.timers import Timer
    from voiced.sip.transactions import ServerTransaction

__all__ = ["Exchange", "media_refusal"]

Wish = Literal["refresh", "update", "reinvite"]

_RANK: Final = {"refresh": 0, "update": 1, "reinvite": 2}

# Glare and Retry-After end sooner or later; a peer that answers so for ever is left alone.
_MOST_TRIES: Final = 8


def media_refusal(error: SipError) -> Refusal:
    """What to answer to an offer that the media did not take."""
    if isinstance(error, NotAcceptable):
        return Refusal(error.status, [("Warning", error.warning)])
    return Refusal(400)


class Exchange:
    """Of one session. `offer`: whose offer waits for its answer."""

    def __init__(self, session: Session, *, owner: bool) -> None:
        """`owner`: we made the Call-ID, which decides who waits longer after glare (14.1)."""
        self._session = session
        self._owner = owner
        self.offer: Literal["local", "remote"] | None = None
        self.acceptances: dict[int, Acceptance] = {}
        self._client: Request | None = None
        self._wish: Wish | None = None
        self._pause: Timer | None = None
        self._tries = 0
        self._held = False
        self._held_before = False

    # Ours

    def want(self, wish: Wish) -> None:
        """Begin an exchange as soon as nothing else is under way."""
        if self._wish is None or _RANK[wish] > _RANK[self._wish]:
            self._wish = wish
        self.go()

    def hold(self, held: bool) -> None:
        """Have the next offers put the peer on hold, or not, and make one."""
        self._held = held
        self.want("reinvite")

    def go(self) -> None:
        """Begin what is wanted, if it can be begun now."""
        wish = self._wish
        idle = self._client is None and self.offer is None and self._pause is None
        if wish is None or not idle or self.acceptances or self._session.state != "confirmed":
            return
        self._wish = None
        session = self._session
        update = wish != "reinvite" and "UPDATE" in session.peer_allow
        body = b""
        if not update or wish != "refresh":
            try:
                body = session.offer(self._held)
            except SipError:
                return
            self.offer = "local"
        core = session.core
        headers = [
            *core.abilities(),
            *session_timer.request_headers(
                core.options.session_expires_s, session.min_se, session.timer.interval
            ),
        ]
        method = "UPDATE" if update else "INVITE"
        assert session.dialog is not None
        request = session.dialog.request(method, headers=headers, body=body, content_type=SDP)
        self._client = request
        session.send(request, lambda response: self._answered(request, wish, response))

    def _answered(self, request: Request, wish: Wish, response: Response) -> None:
        """A final response to ours, or the 408 or 503 that stands for none."""
        if self._client is not request:
            return
        self._client = None
        if self._session.state != "confirmed":
            return
        if response.status < 300:
            self._succeeded(request, response)
        else:
            self._failed(request, wish, response)
        self.go()

    def _succeeded(self, request: Request, response: Response) -> None:
        session = self._session
        assert session.dialog is not None
        session.learn(response)
        session.dialog.refresh(response)
        self._tries = 0
        offered = self.offer == "local"
        self.offer = None
        if offered:
            answer = sdp_of(response)
            try:
                if answer is None:
                    raise NotAcceptable(399, "no answer in the 2xx")
                session.take_answer(answer)
            except SipError as error:
                # 14.1 and 13.2.2.4: acknowledged it is already; there is nothing left to agree on.
                session.rollback()
                session.terminate(Ended("media_refused", text=str(error)))
                return
        self._held_before = self._held
        session.timer.start(session_timer.taken(response))
        if offered:
            session.deliver(MediaChanged())

    def _failed(self, request: Request, wish: Wish, response: Response) -> None:
        session = self._session
        if self.offer == "local":
            self.offer = None
            session.rollback()
        self._tries += 1
        again = self._tries < _MOST_TRIES
        random = session.core.random
        if response.status == 491 and again:
            low, high = (210, 400) if self._owner else (0, 200)
            self._again(wish, random.randint(low, high) / 100)
        elif response.status == 500 and response.retry_after is not None and again:
            self._again(wish, float(min(response.retry_after, 10)))
        elif response.status == 422 and (response.min_se or 0) > session.min_se and again:
            session.min_se = response.min_se or 0
            self.want(wish)
        elif request.method == "UPDATE" and response.status in {405, 501} and again:
            session.peer_allow -= {"UPDATE"}
            self.want(wish)
        else:
            self._tries = 0
            self._held = self._held_before

    def _again(self, wish: Wish, seconds: float) -> None:
        self._pause = self._session.core.timers.call_later(seconds, self._paused)
        self.want(wish)

    def _paused(self) -> None:
        self._pause = None
        self.go()

    # The peer's

    def on_request(self, tx: ServerTransaction, request: Request) -> None:
        """A re-INVITE, or an UPDATE."""
        session = self._session
        offer = sdp_of(request)
        refusal = self._collision(request, offer is not None)
        if refusal is not None:
            session.refuse(tx, refusal)
            return
        try:
            interval = session.serve_timer(request)
        except session_timer.IntervalTooSmall as error:
            session.refuse(tx, Refusal(422, [("Min-SE", str(error.min_se))]))
            return
        body = b""
        try:
            if offer is not None:
                body = session.answer(offer)
            elif request.method == "INVITE":
                body = session.offer(self._held, full=True)
                self.offer = "local"
        except SipError as error:
            session.refuse(tx, media_refusal(error))
            return
        self._accept(tx, request, interval, body)
        if offer is not None:
            session.deliver(MediaChanged())

    def _collision(self, request: Request, has_offer: bool) -> Refusal | None:
        client = self._client
        if request.method == "INVITE":
            # 14.2: while an INVITE of ours is in progress 491, while one of the peer's is, 500.
            if (client is not None and client.method == "INVITE") or self.offer == "local":
                return Refusal(491)
            if self._session.state in {"calling", "early"}:
                return Refusal(491)
            if self._session.state == "incoming":
                return Refusal(500, [self._session.core.later()])
        elif has_offer:
            # RFC 3311 5.2.
            if self.offer == "local":
                return Refusal(491)
            if self.offer == "remote":
                return Refusal(500, [self._session.core.later()])
        return None

    def _accept(
        self,
        tx: ServerTransaction,
        request: Request,
        interval: SessionInterval | None,
        body: bytes,
    ) -> None:
        session = self._session
        dialog = session.dialog_of(request)
        assert dialog is not None
        session.learn(request)
        dialog.refresh(request)
        session.requester.use_flow(tx.flow, dialog, called_us=True)
        response = response_to(
            request,
            200,
            headers=[
                ("Contact", str(dialog.contact)),
                *session.core.abilities(),
                *session_timer.response_headers(interval),
            ],
            content_type=SDP if body else None,
            body=body,
        )
        if session.state in {"confirmed", "accepted"}:
            session.timer.start(interval)
        if request.method == "INVITE":
            self.accept(tx, response)
        else:
            tx.respond(response)

    def accept(self, tx: ServerTransaction, response: Response) -> None:
        """Send a 2xx to an INVITE until it is acknowledged."""
        core = self._session.core
        number = response.cseq.number
        self.acceptances[number] = Acceptance(
            core.timers, core.timing, tx, response, lambda: self._unacknowledged(number)
        )

    def on_ack(self, request: Request) -> bool:
        """The ACK to a 2xx of ours, with the answer where the 2xx had the offer.

        Returns whether it was the first. A call that is left without an answer is terminated.
        """
        acceptance = self.acceptances.pop(request.cseq.number, None)
        if acceptance is None:
            return False
        acceptance.stop()
        if self.offer == "local":
            self._answer_in_ack(request)
        return True

    def _answer_in_ack(self, request: Request) -> None:
        session = self._session
        self.offer = None
        try:
            answer = sdp_of(request)
            if answer is None:
                raise NotAcceptable(399, "no answer in the ACK")
            session.take_answer(answer)
        except SipError as error:
            session.rollback()
            session.terminate(Ended("media_refused", text=str(error)))
        else:
            session.deliver(MediaChanged())

    def _unacknowledged(self, number: int) -> None:
        del self.acceptances[number]
        if self.offer == "local":
            self.offer = None
            self._session.rollback()
        self._session.unacknowledged()

    def stop(self) -> None:
        """The session is over: no more timers, no more requests."""
        for acceptance in self.acceptances.values():
            acceptance.stop()
        self.acceptances.clear()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._wish = None
