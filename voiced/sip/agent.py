"""The user agent core (RFC 3261 8): who gets a request, and what no session needs to see."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from voiced.sip import outgoing, session_timer
from voiced.sip.bodies import SDP
from voiced.sip.core import Core, Headerlist
from voiced.sip.errors import ParseError
from voiced.sip.message import request as build_request
from voiced.sip.message import response_to
from voiced.sip.options import Options, targets_of
from voiced.sip.policy import Drop, Refuse
from voiced.sip.screening import Refusal, screen
from voiced.sip.server_transaction import reply_flow
from voiced.sip.transaction import Timing
from voiced.sip.transactions import TransactionLayer, stamp
from voiced.sip.uac import Call, ClientSession
from voiced.sip.uas import ServerSession
from voiced.sip.uri import NameAddr, SipUri

if TYPE_CHECKING:
    from voiced.sip.events import MediaControl, Observer
    from voiced.sip.message import Request, Response
    from voiced.sip.policy import Admit, Policy
    from voiced.sip.session import Session
    from voiced.sip.timers import Timers
    from voiced.sip.transactions import ServerTransaction
    from voiced.sip.transport import Flow, Target, Transport

__all__ = ["UserAgent"]

log = structlog.get_logger("voiced.sip")

# Calls of ours that are over but may yet be answered: by a fork after its sister's refusal, or by
# an address that was slow. 30 calls a second for the 32 s that matter; the oldest go first.
_MOST_REMEMBERED: Final = 1000

# Methods that mean something inside a dialog only, so that outside one there is no such call.
_IN_DIALOG: Final = frozenset({"BYE", "INFO", "UPDATE", "NOTIFY", "PRACK"})

_Key = tuple[str, str]  # Call-ID and our tag


class UserAgent:
    """All dialogs of one SIP element, over one transaction layer, which it makes: `layer`.

    The shell hands every message to `layer.receive` and every parse error to `malformed`.
    """

    def __init__(
        self,
        transport: Transport,
        timers: Timers,
        policy: Policy,
        options: Options | None = None,
        *,
        timing: Timing | None = None,
        randomness: random.Random | None = None,
        targets_of: Callable[[SipUri], Sequence[Target]] = targets_of,
        count: Callable[[str, str], None] | None = None,
    ) -> None:
        """`randomness`: seeded in tests, else the system's. `targets_of`: hops inside dialogs.

        `count`: see `TransactionLayer`; besides, ("malformed", reason of the ParseError).
        """
        self._core = Core(
            transport,
            timers,
            timing or Timing(),
            options or Options(),
            randomness or random.SystemRandom(),
            targets_of,
        )
        self._policy = policy
        self._count = count or (lambda event, detail: None)
        self._sessions: dict[_Key, Session] = {}
        self._remembered: OrderedDict[_Key, ClientSession] = OrderedDict()
        self._closing = False
        self.layer = TransactionLayer(
            transport,
            timers,
            self._core.timing,
            self,
            lambda: f"{self._core.random.getrandbits(64):016x}",
            tag=self._core.new_tag,
            answers=lambda request, flow: not isinstance(policy.admit(request, flow), Drop),
            count=self._count,
        )
        self._core.layer = self.layer
        self._core.forget = self._forget

    @property
    def sessions(self) -> int:
        """Sessions that have not ended."""
        return len(self._sessions)

    # What the owner asks for

    def invite(
        self,
        target_uri: SipUri,
        *,
        targets: Sequence[Target],
        from_: NameAddr,
        to: NameAddr | None = None,
        headers: Headerlist = (),
        media: MediaControl,
        observer: Observer,
        peer: str = "",
        authenticator: outgoing.Credentials | None = None,
        session_expires: int | None = None,
        timeout_s: float = 60.0,
        route: Sequence[NameAddr] = (),
    ) -> ClientSession:
        """Call `target_uri` by way of the first of `targets` that works.

        `timeout_s`: without a final answer by then, CANCEL and `Ended("timeout")`. `route`: a
        preloaded route set (outbound proxy). Raises SipError if the media cannot offer anything.
        """
        core = self._core
        call = Call(
            uri=target_uri.replace(headers=()),
            targets=targets,
            from_=from_.with_tag(core.new_tag()),
            to=to or NameAddr(None, target_uri.replace(headers=())),
            call_id=core.new_call_id(),
            headers=headers,
            route=route,
            timeout_s=timeout_s,
            session_expires_s=(
                core.options.session_expires_s if session_expires is None else session_expires
            ),
        )
        session = ClientSession(core, call, media, observer, peer, authenticator)
        self._sessions[session.call_id, session.local_tag] = session
        return session

    def options(
        self,
        uri: SipUri,
        targets: Sequence[Target],
        done: Callable[[Response | None], None],
        *,
        from_: NameAddr | None = None,
        authenticator: outgoing.Credentials | None = None,
    ) -> None:
        """Ask whether a peer is there; `done` gets its final answer, None if there was none."""
        core = self._core
        first = (*targets, *core.targets_of(uri))[0]
        contact = core.contact(first, secure=uri.scheme == "sips")
        request = build_request(
            "OPTIONS",
            uri,
            from_=(from_ or contact).with_tag(core.new_tag()),
            to=NameAddr(None, uri),
            call_id=core.new_call_id(),
            cseq=1,
            contact=contact,
            headers=[("Accept", SDP)],
        )
        outgoing.send(
            self.layer,
            request,
            targets,
            authenticator,
            lambda outcome: done(outcome.response),
        )

    def shutdown(self, headers: Headerlist = ()) -> None:
        """End every session as `Session.bye` does; new INVITEs get 503 from now on."""
        self._closing = True
        for session in list(self._sessions.values()):
            session.bye(headers)

    def malformed(self, error: ParseError, flow: Flow) -> None:
        """A message could not be parsed: answer it statelessly as `error` says, if it can be."""
        self._count("malformed", error.reason)
        head = error.head
        if head is None or isinstance(self._policy.admit(head, flow), Drop):
            log.debug("malformed message", reason=error.reason, peer=str(flow))
            return
        # Told at info by the endpoint, which bounds such lines.
        log.debug("malformed request", reason=error.reason, status=error.status, peer=str(flow))
        stamp(head, flow)
        response = response_to(head, error.status, to_tag=self._core.new_tag())
        self._core.transport.send(bytes(response), reply_flow(head, flow))

    # From the transaction layer

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """A new request, in or outside a dialog."""
        tag = request.to.tag
        session = self._sessions.get((request.call_id, tag)) if tag is not None else None
        if session is not None:
            session.on_request(tx, request)
            return
        admission = self._policy.admit(request, flow)
        if isinstance(admission, Drop):
            tx.drop()
        elif isinstance(admission, Refuse):
            # Without state: strangers, whose addresses may be forged, take no transaction from
            # those who are known, and have nothing sent again and again to somebody else.
            tx.respond_stateless(
                response_to(request, admission.status, to_tag=tx.to_tag, headers=admission.headers)
            )
        elif tag is not None:
            self._answer(tx, 481)
        else:
            self._outside(tx, request, flow, admission)

    def _outside(
        self, tx: ServerTransaction, request: Request, flow: Flow, admission: Admit
    ) -> None:
        """A request outside any dialog, checked in the order of 8.2."""
        refusal = screen(request, self._core)
        if refusal is None or refusal.status not in {405, 416}:
            if tx.merged:
                refusal = Refusal(482)
            elif request.method in _IN_DIALOG:
                refusal = Refusal(481)
        if refusal is None and request.method in {"INVITE", "OPTIONS"}:
            refusal = self._overload(request)
        if refusal is not None:
            self._answer(tx, refusal.status, refusal.headers)
        elif request.method == "INVITE":
            self._invited(tx, request, flow, admission)
        elif request.method == "OPTIONS":
            # 11.2: what an INVITE would be told.
            headers = [
                *self._core.abilities(),
                ("Accept", SDP),
                ("Accept-Encoding", "identity"),
                ("Contact", str(self._core.contact(flow, secure=False))),
            ]
            self._answer(tx, 200, headers)
        else:
            # REFER: transfers are for calls that stand.
            self._answer(tx, 403)

    def _overload(self, request: Request) -> Refusal | None:
        seconds = self._policy.busy()
        options = self._core.options
        if seconds is None and (self._closing or len(self._sessions) >= options.max_sessions):
            seconds = options.retry_after_s
        return None if seconds is None else Refusal(503, [("Retry-After", str(seconds))])

    def _invited(
        self, tx: ServerTransaction, request: Request, flow: Flow, admission: Admit
    ) -> None:
        core = self._core
        try:
            interval = session_timer.serve(
                request, wanted=core.options.session_expires_s, min_se=core.options.min_se_s
            )
        except session_timer.IntervalTooSmall as error:
            self._answer(tx, 422, [("Min-SE", str(error.min_se))])
            return
        session = ServerSession(
            core, tx, request, flow, admission.peer, interval, admission.authenticator
        )
        self._sessions[session.call_id, session.local_tag] = session
        try:
            self._policy.on_invite(session)
        except Exception:
            # A session that nobody looks after would live for ever, and its caller wait.
            if session.state == "incoming":
                session.reject(500)
            else:
                session.bye()
            raise
        if session.observer is None:
            session.reject(500)

    def _answer(self, tx: ServerTransaction, status: int, headers: Headerlist = ()) -> None:
        tx.respond(response_to(tx.request, status, to_tag=tx.to_tag, headers=headers))

    def on_ack(self, request: Request, flow: Flow) -> None:
        """The ACK to a 2xx; one that belongs to nothing is nothing to anybody."""
        session = self._sessions.get((request.call_id, request.to.tag or ""))
        if session is not None:
            session.on_ack(request)

    def on_cancel(self, invite_tx: ServerTransaction, request: Request) -> None:
        """An INVITE that we have not answered is cancelled."""
        session = self._sessions.get((request.call_id, invite_tx.to_tag))
        if isinstance(session, ServerSession):
            session.on_cancel(request)

    def on_stray_response(self, response: Response, flow: Flow) -> None:
        """A 2xx that no transaction waits for: ACK and BYE, if the INVITE was one of ours."""
        key = (response.call_id, response.from_.tag or "")
        session = self._sessions.get(key) or self._remembered.get(key)
        if isinstance(session, ClientSession):
            session.on_stray_2xx(response, flow)

    def _forget(self, session: Session) -> None:
        key = (session.call_id, session.local_tag)
        if self._sessions.pop(key, None) is not None and isinstance(session, ClientSession):
            self._remembered[key] = session
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
