"""The transaction layer (RFC 3261 section 17): finds or makes the transaction of each message."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from voiced.sip.build import response_to
from voiced.sip.client_transaction import ClientListener, ClientTransaction, Failure
from voiced.sip.errors import ParseError
from voiced.sip.model import Message, Request, Response
from voiced.sip.server_transaction import MergeKey, ServerKey, ServerTransaction, reply_flow
from voiced.sip.timers import Timers
from voiced.sip.transaction import Event, State, Timing
from voiced.sip.transport import Flow, Target, Transport
from voiced.sip.values import Via

__all__ = [
    "MAGIC_COOKIE",
    "ClientListener",
    "ClientTransaction",
    "Failure",
    "ServerTransaction",
    "TransactionLayer",
    "TransactionUser",
    "stamp",
]

log = structlog.get_logger("voiced.sip")

MAGIC_COOKIE: Final = "z9hG4bK"
"""Begins every branch that is unique, and so a transaction's name (RFC 3261 section 8.1.1.7)."""

MAX_SERVER_TRANSACTIONS: Final = 5_000
"""Each lives 32 s after its answer: 30 new calls a second need 2,000. Of 7 KB each: 35 MB."""

_OVERLOAD_RETRY_AFTER_S: Final = 10  # a third of the time that the transactions in the way live


class TransactionUser(Protocol):
    """Who answers requests: the user agent core."""

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        """A new request, once, never ACK or CANCEL. To be answered with `tx.respond`, or dropped.

        `tx.merged` and all else that RFC 3261 section 8.2 has a UAS look at is the user's business.
        A ParseError raised from here is answered with its status.
        """

    def on_ack(self, request: Request, flow: Flow) -> None:
        """The ACK to a 2xx, as often as it comes; also one that belongs to nothing."""

    def on_cancel(self, invite_tx: ServerTransaction, request: Request) -> None:
        """`invite_tx`, which has no final response yet, is cancelled: answer it with 487.

        The CANCEL itself has been answered.
        """

    def on_stray_response(self, response: Response, flow: Flow) -> None:
        """A 2xx to an INVITE whose transaction is over, or was refused: ACK it, send BYE."""


def _count_nothing(event: str, detail: str) -> None:
    """Where nobody counts."""


class TransactionLayer:
    """All transactions of one SIP element.

    What it receives it hands to `user`, at most once each; what it sends it retransmits by the
    tables of `transaction`. `count(event, detail)` gets: retransmitted (request, response),
    received_again (method), failed (timeout, transport, response), stray (response, CANCEL),
    overload (method). All details are of a fixed set: methods that RFCs do not name are "other".
    """

    def __init__(
        self,
        transport: Transport,
        timers: Timers,
        timing: Timing,
        user: TransactionUser,
        branch: Callable[[], str] | None = None,
        *,
        tag: Callable[[], str] | None = None,
        max_server_transactions: int = MAX_SERVER_TRANSACTIONS,
        answers: Callable[[Request, Flow], bool] | None = None,
        count: Callable[[str, str], None] = _count_nothing,
    ) -> None:
        """`branch` and `tag` return unique tokens, by default 64 random bits.

        `answers(request, flow)`: whether a request may be answered by the layer itself (481 to a
        CANCEL that cancels nothing, 503 when overloaded); where it says no nothing is sent, so that
        a stranger does not learn that somebody is here. By default everything is answered.

        `max_server_transactions` is for requests outside dialogs. Those inside one, and CANCEL,
        have as many places again: overload must not keep a call from being hung up.
        """
        self.transport = transport
        self.timers = timers
        self.timing = timing
        self.user = user
        self.branch = branch or (lambda: secrets.token_hex(8))
        self.tag = tag or (lambda: secrets.token_hex(8))
        self.count = count
        self._max_servers = max_server_transactions
        self._answers = answers or (lambda request, flow: True)
        self._clients: dict[tuple[str, str], ClientTransaction] = {}
        self._servers: dict[ServerKey, ServerTransaction] = {}
        # RFC 3261 section 8.2.2.2: the ongoing transactions that a copy could be merged with.
        self._originals: dict[MergeKey, list[ServerTransaction]] = {}

    @property
    def client_transactions(self) -> int:
        """How many are not terminated. Bounded by the calls and registrations that make them."""
        return len(self._clients)

    @property
    def server_transactions(self) -> int:
        """How many are not terminated, at most twice `max_server_transactions`."""
        return len(self._servers)

    def request(
        self, request: Request, target: Target | Flow, listener: ClientListener
    ) -> ClientTransaction:
        """Send `request`, which stays untouched, in a transaction of its own.

        A copy gets our Via on top, with a new branch and rport. `listener` hears nothing before
        this returns.
        """
        assert request.method not in {"ACK", "CANCEL"}, "see send_ack, ClientTransaction.cancel"
        branch = MAGIC_COOKIE + self.branch()
        return self.start_client(self._with_via(request, target, branch), target, listener, branch)

    def send_ack(self, request: Request, target: Target | Flow) -> None:
        """Send the ACK to a 2xx, which no transaction owns (RFC 3261 section 13.2.2.4)."""
        branch = MAGIC_COOKIE + self.branch()
        self.transport.send(bytes(self._with_via(request, target, branch)), target)

    def receive(self, message: Message, flow: Flow) -> None:
        """What the transport received."""
        if isinstance(message, Response):
            self._receive_response(message, flow)
        elif isinstance(message, Request):
            self._receive_request(message, flow)

    def close(self) -> None:
        """Forget every transaction, and with it every timer, without a word to anyone."""
        for client in list(self._clients.values()):
            client.abandon()
        for server in list(self._servers.values()):
            server.drop()

    def _with_via(self, request: Request, target: Target | Flow, branch: str) -> Request:
        transport, host, port = self.transport.sent_by(target)
        sent = request.copy()
        sent.headers.prepend(
            "Via", str(Via(transport, host, port, {"branch": branch, "rport": None}))
        )
        return sent

    # --- responses -------------------------------------------------------------------------------

    def _receive_response(self, response: Response, flow: Flow) -> None:
        vias = response.vias
        if len(vias) != 1:
            # RFC 3261 section 8.1.3.3: it was meant for somebody before us, or misrouted.
            self.count("stray", "response")
            return
        cseq = response.cseq
        tx = self._clients.get((vias[0].branch or "", cseq.method))
        if tx is not None:
            tx.receive(response, flow)
            return
        self.count("stray", "response")
        if cseq.method == "INVITE" and 200 <= response.status < 300:
            self.user.on_stray_response(response, flow)
        else:
            log.debug("response without a transaction", status=response.status, peer=str(flow))

    # --- requests --------------------------------------------------------------------------------

    def _receive_request(self, request: Request, flow: Flow) -> None:
        method = request.method
        if method == "ACK":
            self._receive_ack(request, flow)
            return
        key = self._key(request, method, request.to.tag)
        tx = self._servers.get(key)
        if tx is not None:
            self.count("received_again", _label(method))
            tx.step(Event.REQUEST)
            return
        cancels = None
        if method == "CANCEL":
            cancels = self._servers.get(self._key(request, "INVITE", request.to.tag))
            if cancels is None:
                self.count("stray", "CANCEL")
                if not self._answers(request, flow):
                    return
        stamp(request, flow)
        if self._full(request):
            self._refuse(request, flow)
            return
        merge_key = self._merge_key(request)
        tx = ServerTransaction(
            self, request, flow, key, merge_key, merged=self._is_merged(request, merge_key)
        )
        tx.cancels = cancels
        self._servers[key] = tx
        if merge_key is not None:
            self._originals.setdefault(merge_key, []).append(tx)
        tx.step(Event.START, request)

    def deliver(self, tx: ServerTransaction, request: Request) -> None:
        """For `ServerTransaction`: `request` is the user's, or a CANCEL of ours to answer."""
        if request.method == "ACK":
            self.user.on_ack(request, tx.flow)
        elif request.method == "CANCEL":
            self._cancel(tx, request)
        else:
            try:
                self.user.on_request(tx, request, tx.flow)
            except ParseError as error:
                log.debug("malformed request", reason=error.reason, peer=str(tx.flow))
                tx.respond(response_to(request, error.status, error.reason, to_tag=tx.to_tag))
            except Exception:
                self._give_up(tx, request)
                raise

    def _give_up(self, tx: ServerTransaction, request: Request) -> None:
        """The user has failed: a transaction that is never answered would never end."""
        if tx.state in {State.TRYING, State.PROCEEDING}:
            try:
                answers = self._answers(request, tx.flow)
            except Exception:
                answers = False
            if answers:
                tx.respond(response_to(request, 500, to_tag=tx.to_tag))
            else:
                tx.drop()

    def _receive_ack(self, request: Request, flow: Flow) -> None:
        tx = self._servers.get(self._key(request, "INVITE", request.to.tag))
        if tx is None and not _is_unique(request.via.branch):
            # RFC 2543: the INVITE had no To tag yet, and the ACK has the one of our response.
            tx = self._servers.get(self._key(request, "INVITE", None))
            if tx is not None and request.to.tag != tx.to_tag:
                tx = None
        if tx is None:
            self.user.on_ack(request, flow)
        else:
            tx.step(Event.ACK, request)

    def _cancel(self, tx: ServerTransaction, request: Request) -> None:
        """RFC 3261 section 9.2."""
        invite = tx.cancels
        if invite is None:
            tx.respond(response_to(request, 481, to_tag=tx.to_tag))
            return
        tx.respond(response_to(request, 200, to_tag=invite.to_tag))
        if invite.state is State.PROCEEDING:
            self.user.on_cancel(invite, request)

    def _full(self, request: Request) -> bool:
        limit = self._max_servers
        if request.method == "CANCEL" or request.to.tag is not None:
            limit *= 2
        return len(self._servers) >= limit

    def _refuse(self, request: Request, flow: Flow) -> None:
        self.count("overload", _label(request.method))
        if self._answers(request, flow):
            retry = ("Retry-After", str(_OVERLOAD_RETRY_AFTER_S))
            refusal = response_to(request, 503, to_tag=self.tag(), headers=[retry])
            self.transport.send(bytes(refusal), reply_flow(request, flow))

    # --- matching --------------------------------------------------------------------------------

    @staticmethod
    def _key(request: Request, method: str, to_tag: str | None) -> ServerKey:
        """RFC 3261 section 17.2.3; CANCEL and ACK look for "INVITE" as `method`."""
        via = request.via
        if _is_unique(via.branch):
            return (via.branch, via.host, via.port, method)
        return (
            str(request.uri),
            to_tag,
            request.from_.tag,
            request.call_id,
            request.cseq.number,
            method,
            str(via),
        )

    @staticmethod
    def _merge_key(request: Request) -> MergeKey | None:
        if request.method == "CANCEL" or request.to.tag is not None:
            return None
        return (request.call_id, request.from_.tag, request.cseq.number, request.method)

    def _is_merged(self, request: Request, key: MergeKey | None) -> bool:
        """RFC 3261 section 8.2.2.2; with another Request-URI it is a spiral, and legal."""
        if key is None:
            return False
        uri = str(request.uri)
        return any(str(other.request.uri) == uri for other in self._originals.get(key, ()))

    # --- for the transactions --------------------------------------------------------------------

    def start_client(
        self, request: Request, target: Target | Flow, listener: ClientListener, branch: str
    ) -> ClientTransaction:
        """For `ClientTransaction`: send what has its Via already (a CANCEL)."""
        tx = ClientTransaction(self, request, target, listener, branch)
        self._clients[branch, request.method] = tx
        tx.step(Event.START)
        return tx

    def forget_client(self, tx: ClientTransaction) -> None:
        """For `ClientTransaction`: it is terminated."""
        del self._clients[tx.branch, tx.request.method]

    def forget_server(self, tx: ServerTransaction) -> None:
        """For `ServerTransaction`: it is terminated."""
        del self._servers[tx.key]
        if tx.merge_key is not None:
            originals = self._originals[tx.merge_key]
            originals.remove(tx)
            if not originals:
                del self._originals[tx.merge_key]


def _is_unique(branch: str | None) -> bool:
    return branch is not None and branch.startswith(MAGIC_COOKIE) and branch != MAGIC_COOKIE


_METHODS: Final = frozenset(
    [
        "ACK",
        "BYE",
        "CANCEL",
        "INFO",
        "INVITE",
        "MESSAGE",
        "NOTIFY",
        "OPTIONS",
        "PRACK",
        "PUBLISH",
        "REFER",
        "REGISTER",
        "SUBSCRIBE",
        "UPDATE",
    ]
)


def _label(method: str) -> str:
    return method if method in _METHODS else "other"


def stamp(request: Request, flow: Flow) -> None:
    """Write into the top Via where the request came from (RFC 3261 18.2.1, RFC 3581 4)."""
    via = request.via
    host, port = flow.remote
    parameters = dict(via.parameters)
    if "rport" in parameters:
        parameters["rport"] = str(port)
        parameters["received"] = host
    elif via.host != host:
        parameters["received"] = host
    else:
        parameters.pop("received", None)
    if parameters == via.parameters:
        return
    values = request.headers.get_all("Via")
    request.headers.remove("Via")
    for value in reversed(values[1:]):
        request.headers.prepend("Via", value)
    request.headers.prepend("Via", str(via.replace(parameters=parameters)))
