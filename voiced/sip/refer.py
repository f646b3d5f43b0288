"""Call transfer by REFER (RFC 3515, RFC 4488): asked of the peer, and asked by the peer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from voiced.sip.events import ReferProgress, ReferRequested
from voiced.sip.message import REASONS, response_to
from voiced.sip.screening import Refusal

if TYPE_CHECKING:
    from voiced.sip.core import Headerlist
    from voiced.sip.message import Request, Response
    from voiced.sip.session import Session
    from voiced.sip.timers import Timer
    from voiced.sip.transactions import ServerTransaction
    from voiced.sip.uri import NameAddr, Uri

__all__ = ["IncomingRefer", "OutgoingRefer", "Transfers", "parse_sipfrag"]

_STATUS_LINE = re.compile(rb"SIP/2\.0[ \t]+([1-6][0-9][0-9])(?:[ \t]+([^\r\n]*))?", re.IGNORECASE)

# Transfers that a peer may ask for at a time; a telephone asks for one.
_MOST_INCOMING: Final = 4

# A non-INVITE request must be answered within 32 s (64*T1), and its answer may be lost once or
# twice on the way: an observer has half of that to decide.
_DECISION_SHARE: Final = 32


def parse_sipfrag(body: bytes) -> tuple[int, str] | None:
    """Status and reason phrase of a `message/sipfrag` body that begins with a status line."""
    match = _STATUS_LINE.match(body.lstrip())
    if match is None:
        return None
    return int(match[1]), (match[2] or b"").decode("utf-8", "replace").strip()


class OutgoingRefer:
    """A REFER of ours, from the request until the subscription that it makes is over.

    `over` is called when it no longer counts as the session's one REFER under way.
    """

    def __init__(self, session: Session, request: Request, over: Callable[[], None]) -> None:
        self._session = session
        self._over = over
        self._id = str(request.cseq.number)
        self._last = (100, REASONS[100])
        self.subscribed = False
        """The peer has said that more NOTIFYs may come, and none that no more will."""
        self._ended = False
        self._timer: Timer | None = None
        session.send(request, self._answered, vital=True)

    def _answered(self, response: Response) -> None:
        if self._ended:
            return
        if response.status >= 300:
            self._progress(response.status, response.reason, final=True)
        elif (response.headers.get("Refer-Sub") or "").strip().lower() == "false":
            # RFC 4488: the peer does as asked, and will not say what comes of it.
            self._progress(response.status, response.reason, final=True)
        elif self._timer is None:
            # RFC 3515 2.4.4: the first NOTIFY comes at once, so as long as any request may take.
            self._wait(64 * self._session.core.timing.t1)

    def concerns(self, request: Request) -> bool:
        """Whether a NOTIFY inside the dialog is about this REFER."""
        event = request.headers.get("Event") or ""
        about = re.search(r";\s*id\s*=\s*([^;\s]+)", event)
        return request.event == "refer" and (about is None or about[1] == self._id)

    def on_notify(self, tx: ServerTransaction, request: Request) -> None:
        """A NOTIFY that is about this REFER."""
        state = request.subscription_state
        if state is None:
            self._session.refuse(tx, Refusal(400))
            return
        tx.respond(response_to(request, 200))
        if self._ended:  # the end of a subscription whose outcome has been told
            self.subscribed = state.state != "terminated"
            return
        told = parse_sipfrag(request.body)
        if told is not None:
            self._last = told
        self.subscribed = state.state != "terminated"
        final = not self.subscribed or self._last[0] >= 200
        if not final:
            silence = self._session.core.options.refer_silence_s
            self._wait(silence if state.expires is None else min(silence, state.expires))
        self._progress(*self._last, final=final)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._session.core.timers.call_later(
            seconds, lambda: self._progress(408, "timeout", final=True)
        )

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _progress(self, status: int, reason: str, *, final: bool) -> None:
        if final:
            self.stop()
            self._over()
        self._session.deliver(ReferProgress(status, reason, final))

    def stop(self) -> None:
        """The session is over, or the outcome is known."""
        self._ended = True
        self._stop_waiting()


class IncomingRefer:
    """A REFER of the peer's inside the dialog, until its last NOTIFY."""

    def __init__(
        self, session: Session, tx: ServerTransaction, request: Request, over: Callable[[], None]
    ) -> None:
        self._session = session
        self._tx = tx
        self._request = request
        self._over = over
        self._silent = (request.headers.get("Refer-Sub") or "").strip().lower() == "false"
        self._decided = False
        self._ended = False
        self._timer = session.core.timers.call_later(
            _DECISION_SHARE * session.core.timing.t1, lambda: self.reject(603)
        )

    def announce(self, refer_to: NameAddr) -> None:
        """Ask the observer."""
        referred_by = self._request.headers.get("Referred-By")
        self._session.deliver(ReferRequested(refer_to, referred_by, self.accept, self.reject))

    def accept(self) -> Callable[[int, str], None]:
        """202, and the first NOTIFY, which says 100; returns what sends the others."""
        if not self._decided:
            self._decide()
            dialog = self._session.dialog_of(self._request)
            headers = [] if dialog is None else [("Contact", str(dialog.contact))]
            if self._silent:
                headers.append(("Refer-Sub", "false"))
            self._tx.respond(response_to(self._request, 202, headers=headers))
            if self._silent:
                self.stop()
                self._over()
            else:
                self.notify(100, REASONS[100])
        return self.notify

    def reject(self, status: int) -> None:
        """Refuse with `status`, 300 to 699; nothing if it is decided already."""
        if not self._decided:
            self._decide()
            self._session.refuse(self._tx, Refusal(status))
            self.stop()
            self._over()

    def notify(self, status: int, reason: str) -> None:
        """Tell the peer how the new call fares; nothing once a final status was told."""
        if self._ended or self._session.state != "confirmed":
            return
        final = status >= 200
        state = "terminated;reason=noresource" if final else "active;expires=180"
        request = self._session.new_request(
            "NOTIFY",
            headers=[
                ("Event", f"refer;id={self._request.cseq.number}"),
                ("Subscription-State", state),
            ],
            body=f"SIP/2.0 {status} {reason}\r\n".encode(),
            content_type="message/sipfrag;version=2.0",
        )
        if final:
            self.stop()
            self._over()
        # 481 ends this subscription, not the call (RFC 5057).
        self._session.send(request, self._notified, vital=False)

    def _notified(self, response: Response) -> None:
        if response.status >= 300 and not self._ended:
            self.stop()
            self._over()

    def _decide(self) -> None:
        self._decided = True
        self._timer.cancel()

    def stop(self) -> None:
        """Nothing more is told to the peer."""
        if not self._decided:
            self._decide()
            self._session.refuse(self._tx, Refusal(603))
        self._ended = True


class Transfers:
    """All REFERs of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._outgoing: OutgoingRefer | None = None
        self._latest: OutgoingRefer | None = None  # over or not
        self._incoming: list[IncomingRefer] = []

    @property
    def asked(self) -> bool:
        """Whether a REFER of ours is under way."""
        return self._outgoing is not None

    def ask(self, uri: Uri, headers: Headerlist) -> None:
        """Send a REFER."""
        dialog = self._session.dialog
        assert dialog is not None
        request = self._session.new_request(
            "REFER",
            headers=[
                ("Refer-To", f"<{uri}>"),
                ("Referred-By", f"<{dialog.local.uri}>"),
                ("Supported", "norefersub"),
                *headers,
            ],
        )
        self._outgoing = self._latest = OutgoingRefer(self._session, request, self._answered)

    def _answered(self) -> None:
        self._outgoing = None

    def on_notify(self, tx: ServerTransaction, request: Request) -> None:
        """A NOTIFY inside the dialog; 481 unless it is about a REFER of ours.

        Some peers tell the outcome first, and that the subscription is over in a NOTIFY of its own.
        To say 481 to that would be to say that there is no such call (RFC 5057).
        """
        refer = self._latest
        known = refer is not None and (refer is self._outgoing or refer.subscribed)
        if refer is not None and known and refer.concerns(request):
            refer.on_notify(tx, request)
        else:
            self._session.refuse(tx, Refusal(481))

    def on_refer(self, tx: ServerTransaction, request: Request) -> None:
        """A REFER inside the dialog; it must name one target (RFC 3515 2.1), else 400."""
        session = self._session
        refer_to = request.refer_to
        if refer_to is None:
            session.refuse(tx, Refusal(400))
            return
        if len(self._incoming) >= _MOST_INCOMING:
            session.refuse(tx, Refusal(500, [session.core.later()]))
            return
        refer = IncomingRefer(session, tx, request, lambda: self._incoming.remove(refer))
        self._incoming.append(refer)
        refer.announce(refer_to)

    def stop(self) -> None:
        """The session is over."""
        if self._outgoing is not None:
            self._outgoing.stop()
        for refer in self._incoming:
            refer.stop()
        self._incoming.clear()
