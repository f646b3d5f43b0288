"""The client side of a transaction (RFC 3261 section 17.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from voiced.sip.headers import Headers
from voiced.sip.machine import Machine
from voiced.sip.model import Message, Request, Response
from voiced.sip.transaction import (
    INVITE_CLIENT,
    NON_INVITE_CLIENT,
    Action,
    State,
    TimerName,
    response_event,
)
from voiced.sip.transport import Flow, Target

if TYPE_CHECKING:
    from voiced.sip.transactions import TransactionLayer

__all__ = ["ClientListener", "ClientTransaction", "Failure"]

Failure: TypeAlias = Literal["timeout", "transport"]


class ClientListener(Protocol):
    """Who made a request."""

    def on_response(self, tx: ClientTransaction, response: Response) -> None:
        """A response: any number of provisional ones, then one that is final.

        After a 2xx to an INVITE more of them may come, repeated or from other forks: each wants an
        ACK (RFC 3261 section 13.2.2.4).
        """

    def on_failure(self, tx: ClientTransaction, why: Failure, text: str) -> None:
        """No final response came, and none will. RFC 3261 8.1.3.1: counts as 408 or 503."""


class _Nobody:
    """The listener of a CANCEL: what answers it says nothing (RFC 3261 section 9.1)."""

    def on_response(self, tx: ClientTransaction, response: Response) -> None:
        pass

    def on_failure(self, tx: ClientTransaction, why: Failure, text: str) -> None:
        pass


_NOBODY: Final = _Nobody()


class ClientTransaction(Machine):
    """A request of ours on its way. `request` is as sent, with the Via on top.

    `flow` is where the latest response came from; `final` the first final response.
    """

    __slots__ = (
        "_ack",
        "_cancel_headers",
        "_data",
        "_layer",
        "branch",
        "cancelled",
        "final",
        "flow",
        "invite",
        "listener",
        "request",
        "target",
    )

    def __init__(
        self,
        layer: TransactionLayer,
        request: Request,
        target: Target | Flow,
        listener: ClientListener,
        branch: str,
    ) -> None:
        self.invite = request.method == "INVITE"
        super().__init__(
            INVITE_CLIENT if self.invite else NON_INVITE_CLIENT,
            layer.timers,
            layer.timing,
            reliable=layer.transport.is_reliable(target),
        )
        self._layer = layer
        self._data = bytes(request)
        self._ack: bytes | None = None
        self._cancel_headers: tuple[tuple[str, str], ...] = ()
        self.request = request
        self.target = target
        self.listener = listener
        self.branch = branch
        self.cancelled = False
        self.flow: Flow | None = None
        self.final: Response | None = None

    def receive(self, response: Response, flow: Flow) -> bool:
        """A response that matches (RFC 3261 section 17.1.3); False if it comes out of turn."""
        self.flow = flow
        return self.step(response_event(response.status), response)

    def cancel(self, headers: Iterable[tuple[str, str]] = ()) -> bool:
        """Give up an INVITE: send CANCEL, as soon as a provisional response allows it.

        The transaction goes on: what ends it is the 487, another final response, a 2xx that was
        faster, or a timeout. `headers`: a Reason. False if it is no INVITE or has its final
        response already; then nothing is sent. To cancel twice is harmless.
        """
        if not self.invite or self.state not in {State.CALLING, State.PROCEEDING}:
            return False
        if not self.cancelled:
            self.cancelled = True
            self._cancel_headers = tuple(headers)
            if self.state is State.PROCEEDING:
                self._send_cancel()
        return True

    def abandon(self) -> None:
        """Forget the transaction without a word; late responses to it are strays."""
        if not self.ended:
            self._enter(State.TERMINATED)

    def _do(self, action: Action, message: Message | None) -> None:
        match action:
            case Action.SEND:
                if self._repeats:
                    self._layer.count("retransmitted", "request")
                self._sent(
                    lambda failed: self._layer.transport.send(self._data, self.target, failed)
                )
            case Action.DELIVER:
                assert isinstance(message, Response)
                if message.status >= 200 and self.final is None:
                    self.final = message
                if self.cancelled and self.state is State.PROCEEDING:
                    self._send_cancel()
                self.listener.on_response(self, message)
            case Action.DELIVER_STRAY:
                assert isinstance(message, Response)
                assert self.flow is not None
                self._layer.user.on_stray_response(message, self.flow)
            case Action.SEND_ACK:
                assert isinstance(message, Response)
                if self._ack is None:
                    self._ack = bytes(self._sibling("ACK", message.headers.get("To")))
                self._send(self._ack)
            case Action.TIMED_OUT:
                self._layer.count("failed", "timeout")
                self.listener.on_failure(self, "timeout", "no answer in time")
            case Action.UNSENT:
                self._layer.count("failed", "transport")
                self.listener.on_failure(self, "transport", self._why)
            case _:
                raise AssertionError(action)

    def _send(self, data: bytes) -> None:
        self._sent(lambda failed: self._layer.transport.send(data, self.target, failed))

    def _terminated(self) -> None:
        self._layer.forget_client(self)

    def _send_cancel(self) -> None:
        if TimerName.CANCELLED in self._armed:
            return  # sent at an earlier provisional response
        cancel = self._sibling("CANCEL", self.request.headers.get("To"), self._cancel_headers)
        self._layer.start_client(cancel, self.target, _NOBODY, self.branch)
        self._start(TimerName.CANCELLED)

    def _sibling(
        self, method: str, to: str | None, more: Iterable[tuple[str, str]] = ()
    ) -> Request:
        """The CANCEL or the ACK of this INVITE (RFC 3261 sections 9.1 and 17.1.1.3).

        Same Request-URI, top Via, Route, From, Call-ID and CSeq number.
        """
        ours = self.request.headers
        headers = Headers([("Via", str(self.request.via))])
        for route in ours.get_fields("Route"):
            headers.add("Route", route)
        headers.add("Max-Forwards", "70")
        headers.add("From", ours.get("From") or "")
        headers.add("To", to or "")
        headers.add("Call-ID", self.request.call_id)
        headers.add("CSeq", f"{self.request.cseq.number} {method}")
        for name, value in more:
            headers.add(name, value)
        return Request(method, self.request.uri, headers)
