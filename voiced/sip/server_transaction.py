"""The server side of a transaction (RFC 3261 section 17.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from voiced.sip.build import response_to
from voiced.sip.machine import Machine
from voiced.sip.model import Message, Request, Response
from voiced.sip.transaction import (
    INVITE_SERVER,
    NON_INVITE_SERVER,
    Action,
    State,
    TimerName,
    response_event,
    timer_e_reaches_t2,
)
from voiced.sip.transport import Flow, Target

if TYPE_CHECKING:
    from voiced.sip.transactions import TransactionLayer

__all__ = ["MergeKey", "ServerKey", "ServerTransaction", "default_port", "reply_flow"]

ServerKey: TypeAlias = tuple[str | int | None, ...]
MergeKey: TypeAlias = tuple[str, str | None, int, str]


def default_port(transport: str) -> int:
    """RFC 3261 section 18.2.2."""
    return 5061 if transport == "tls" else 5060


def reply_flow(request: Request, flow: Flow) -> Flow:
    """Where responses to `request`, which came by `flow`, go (RFC 3261 18.2.2, RFC 3581 4).

    A connection takes them back. Over UDP they go to the address that the request came from, and
    to the port it came from if `rport` asks so, else to the one that Via names. `maddr` and a
    `received` that the sender wrote are not followed: they would let a stranger point our
    responses at somebody else.
    """
    if flow.reliable:
        return flow
    via = request.via
    if "rport" in via.parameters:
        return flow
    return flow.towards(flow.remote[0], via.port or default_port(flow.transport))


class ServerTransaction(Machine):
    """A request of a peer's, to be answered with `respond`.

    Attributes:
        request: with received and rport put into its top Via.
        flow: where it came from.
        merged: another copy of this request has come by another way and is being dealt with; the
            user is to answer 482 (RFC 3261 section 8.2.2.2).
        response: the latest response sent, the automatic 100 included.
        failed: set by the user who wants to know that a response could not be sent. What it can do
            about it is to end the call; the transaction itself lives on and absorbs.
    """

    __slots__ = (
        "_data",
        "_layer",
        "_reopened",
        "_reply_to",
        "_started",
        "_to_tag",
        "cancels",
        "failed",
        "flow",
        "invite",
        "key",
        "merge_key",
        "merged",
        "request",
        "response",
    )

    def __init__(
        self,
        layer: TransactionLayer,
        request: Request,
        flow: Flow,
        key: ServerKey,
        merge_key: MergeKey | None,
        *,
        merged: bool,
    ) -> None:
        self.invite = request.method == "INVITE"
        super().__init__(
            INVITE_SERVER if self.invite else NON_INVITE_SERVER,
            layer.timers,
            layer.timing,
            reliable=flow.reliable,
        )
        self._layer = layer
        self._data: bytes | None = None
        self._reply_to: Flow | Target = reply_flow(request, flow)
        self._reopened = False
        self._started = layer.timers.now()
        self._to_tag: str | None = None
        self.request = request
        self.flow = flow
        self.key: Final = key
        self.merge_key: Final = merge_key
        self.merged = merged
        self.response: Response | None = None
        self.cancels: ServerTransaction | None = None  # the INVITE, where this is a CANCEL
        self.failed: Callable[[str], None] | None = None

    @property
    def to_tag(self) -> str:
        """The tag for To in all responses; made when first asked for.

        The answer to a CANCEL carries it too (RFC 3261 section 9.2), unless a response with a tag
        of the user's own has gone out before.
        """
        if self.response is not None and self.response.status > 100:
            tag = self.response.to.tag
            if tag is not None:
                return tag
        if self._to_tag is None:
            self._to_tag = self.request.to.tag or self._layer.tag()
        return self._to_tag

    def respond(self, response: Response) -> bool:
        """Send `response`; False if this is not the time for it, and it was dropped.

        To an INVITE: provisional responses, then one final one, which after a 2xx may be repeated
        and only so. To others, by RFC 4320: no provisional response but 100, that one late enough
        not to stop the client's retransmissions too early, and never 408, which could only come
        when the client has made one up for itself.
        """
        status = response.status
        if not self.invite and (100 < status < 200 or status == 408):
            return False
        if (
            status == 100
            and not self.invite
            and not self.reliable
            and self._timers.now() < self._started + timer_e_reaches_t2(self._timing)
        ):
            return False
        event = response_event(status)
        if (self.state, event) not in self._table:
            return False
        self.response = response
        self._data = bytes(response)
        return self.step(event, response)

    def respond_stateless(self, response: Response) -> None:
        """Send `response` once and forget the request (RFC 3261 section 8.2.7).

        For strangers: a spoofed INVITE gets no retransmissions, and holds no memory. A
        retransmission is a new request to the user, the ACK goes to `on_ack`.
        """
        if not self.ended:
            self._layer.transport.send(bytes(response), self._reply_to)
            self.drop()

    def drop(self) -> None:
        """Forget the request without an answer; a retransmission is a new request to the user."""
        if not self.ended:
            self._enter(State.TERMINATED)

    def _do(self, action: Action, message: Message | None) -> None:
        match action:
            case Action.SEND:
                if message is None and self._data is not None:
                    self._layer.count("retransmitted", "response")
                self._send()
            case Action.SEND_TRYING:
                self.response = response_to(self.request, 100)
                self._data = bytes(self.response)
                self._send()
            case Action.STOP_TRYING:
                self._stop(TimerName.TRYING)
            case Action.DELIVER:
                assert isinstance(message, Request)
                self._layer.deliver(self, message)
            case Action.UNSENT:
                self._layer.count("failed", "response")
                if self.failed is not None:
                    self.failed(self._why)
            case _:
                raise AssertionError(action)

    def _send(self) -> None:
        data = self._data
        if data is not None:
            self._sent(lambda failed: self._layer.transport.send(data, self._reply_to, failed))

    def _unsent(self, why: str) -> None:
        if self.ended or self.state is State.CONFIRMED:
            return
        if self.flow.reliable and not self._reopened:
            # RFC 3261 section 18.2.2: the connection is gone, so open one to where Via says.
            self._reopened = True
            via = self.request.via
            self._reply_to = Target(
                self.flow.transport,
                self.flow.remote[0],
                via.port or default_port(self.flow.transport),
                name=via.host,
            )
            self._send()
        else:
            super()._unsent(why)

    def _terminated(self) -> None:
        self._layer.forget_server(self)
