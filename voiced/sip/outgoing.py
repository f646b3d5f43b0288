"""One request until its final answer: credentials, other addresses, CANCEL, time limits.

Between the transaction layer, which knows one request to one address, and whoever wants to know
what became of it. A retry, with credentials or to the next address (RFC 3263 section 4.3), is a new
transaction with a new branch and a higher CSeq, so that a proxy common to both addresses cannot
take it for a merged request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from voiced.sip.model import Request, Response
from voiced.sip.timers import Timer
from voiced.sip.transactions import ClientTransaction, Failure, TransactionLayer
from voiced.sip.transport import Flow, Target
from voiced.sip.uri import Uri

__all__ = ["Attempt", "Credentials", "Done", "Outcome", "Repeated", "send"]


class Credentials(Protocol):
    """What of `digest.Authenticator` is used here."""

    def answer(self, response: Response, request: Request) -> tuple[str, str] | None:
        """Name and value of the header that answers a 401 or 407; None: nothing to try."""

    def again(self, method: str, uri: Uri | str, body: bytes = b"") -> tuple[str, str] | None:
        """The same ahead of any challenge, from the last one; None: there was none."""

    def accepted(self, response: Response) -> None:
        """Take from a 2xx what it says about the next request's nonce."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: a final response, or the reason why there is none."""

    request: Request
    """As last sent: with the CSeq and the credentials that its ACK has to repeat."""
    target: Target | Flow | None
    """Where it was last sent; None: there was no address at all."""
    response: Response | None = None
    flow: Flow | None = None
    """By which the response came."""
    failure: Failure | Literal["cancelled"] | None = None
    """Set if and only if there is no response. "cancelled": not an INVITE, see `Attempt.cancel`."""
    text: str = ""
    """The reason in words, for the log."""
    cancelled: bool = False
    """We had cancelled it, or its time was up; a response may still be a 2xx that was faster."""
    timed_out: bool = False
    """`timeout_s` was over."""

    @property
    def status(self) -> int:
        """Of the response, or that which RFC 3261 section 8.1.3.1 puts in its place."""
        if self.response is not None:
            return self.response.status
        return 503 if self.failure == "transport" else 408

    @property
    def succeeded(self) -> bool:
        """Whether the response is a 2xx."""
        return self.response is not None and 200 <= self.response.status < 300


Done: TypeAlias = Callable[[Outcome], None]
Repeated: TypeAlias = Callable[[Response, Flow], None]

# The home proxy and one or two on the way may challenge, each may call its nonce stale once. The
# authenticator ends loops by itself; this ends them whatever it does.
_MOST_CHALLENGES: Final = 6

_REALM = re.compile(r'\brealm\s*=\s*("(?:[^"\\]|\\.)*")', re.IGNORECASE)


def send(
    layer: TransactionLayer,
    request: Request,
    targets: Sequence[Target | Flow],
    authenticator: Credentials | None,
    done: Done,
    provisional: Callable[[Response], None] | None = None,
    *,
    next_cseq: Callable[[], int] | None = None,
    timeout_s: float | None = None,
    patience_s: float | None = None,
    repeated: Repeated | None = None,
) -> Attempt:
    """Send `request`, which stays untouched and has no Via, to the first target that works.

    Args:
        layer: makes the transactions.
        request: in or outside a dialog, not ACK or CANCEL.
        targets: in the order in which they are to be tried; in a dialog usually one.
        authenticator: answers challenges; None: 401 and 407 are outcomes.
        done: called exactly once, never before `send` returns.
        provisional: called with each provisional response.
        next_cseq: gives the CSeq number of each retry; by default one more than the last.
        timeout_s: without a final response by then an INVITE is cancelled, which still takes until
            the peer has confirmed it; another request is given up.
        patience_s: how long an address may stay entirely silent while there is another to try;
            None: as long as the transaction waits, 32 s.
        repeated: gets the second and further 2xx to an INVITE, from the same fork or another, each
            to be acknowledged; by default the layer's user gets them as strays.
    """
    return Attempt(
        layer,
        request,
        targets,
        authenticator,
        done,
        provisional,
        next_cseq=next_cseq,
        timeout_s=timeout_s,
        patience_s=patience_s,
        repeated=repeated,
    )


class _Abandoned:
    """Listens to an INVITE that an address did not answer while we were patient.

    It is cancelled as soon as it can be; should it be answered first, that is a stray 2xx.
    """

    def __init__(self, layer: TransactionLayer) -> None:
        self._layer = layer

    def on_response(self, tx: ClientTransaction, response: Response) -> None:
        if 200 <= response.status < 300 and tx.flow is not None:
            self._layer.user.on_stray_response(response, tx.flow)

    def on_failure(self, tx: ClientTransaction, why: Failure, text: str) -> None:
        pass


class Attempt:
    """Made by `send`. `outcome` is None until `done` is called."""

    def __init__(
        self,
        layer: TransactionLayer,
        request: Request,
        targets: Sequence[Target | Flow],
        authenticator: Credentials | None,
        done: Done,
        provisional: Callable[[Response], None] | None,
        *,
        next_cseq: Callable[[], int] | None,
        timeout_s: float | None,
        patience_s: float | None,
        repeated: Repeated | None,
    ) -> None:
        self.outcome: Outcome | None = None
        self.cancelled = False
        self._layer = layer
        self._request = request
        self._targets = tuple(targets)
        self._index = 0
        self._authenticator = authenticator
        self._done = done
        self._provisional = provisional
        self._next_cseq = next_cseq
        self._cseq = request.cseq.number
        self._patience_s = patience_s
        self._repeated = repeated or layer.user.on_stray_response
        self._challenges = 0
        # By (header name, realm): proxies of several realms each want their own.
        self._credentials: dict[tuple[str, str], str] = {}
        self._timed_out = False
        self._transaction: ClientTransaction | None = None
        self._patience: Timer | None = None
        timers = layer.timers
        self._limit = None if timeout_s is None else timers.call_later(timeout_s, self._time_is_up)
        if self._targets:
            if authenticator is not None:
                self._remember(authenticator.again(request.method, request.uri, request.body))
            self._go()
        else:
            timers.call_later(0, self._no_address)

    @property
    def transaction(self) -> ClientTransaction | None:
        """The latest; None where there was no address."""
        return self._transaction

    def cancel(self, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Give the request up. Nothing is retried from now on; harmless after the outcome.

        An INVITE is cancelled as RFC 3261 section 9.1 says, with `headers` in the CANCEL, and
        `done` follows with what came of that: usually a 487, perhaps a 2xx. Any other request is
        forgotten: its outcome is "cancelled", at once, from within this call.
        """
        if self.outcome is not None or self.cancelled:
            return
        self.cancelled = True
        self._calm()
        transaction = self._transaction
        if transaction is not None and transaction.invite:
            transaction.cancel(headers)
            return
        if transaction is not None:
            transaction.abandon()
        self._finish(failure="cancelled", text="given up")

    # --- ClientListener ---

    def on_response(self, tx: ClientTransaction, response: Response) -> None:
        """From the transaction layer."""
        if self.outcome is not None:
            if tx.invite and 200 <= response.status < 300 and tx.flow is not None:
                self._repeated(response, tx.flow)
            return
        self._calm()
        if response.status < 200:
            if self._provisional is not None:
                self._provisional(response)
            return
        if not self.cancelled:
            if response.status in {401, 407} and self._answer_challenge(tx, response):
                return
            if response.status == 503 and self._go_on():
                return
            if response.status < 300 and self._authenticator is not None:
                self._authenticator.accepted(response)
        self._finish(response=response, flow=tx.flow)

    def on_failure(self, tx: ClientTransaction, why: Failure, text: str) -> None:
        """From the transaction layer."""
        if self.outcome is None:
            self._calm()
            if self.cancelled or not self._go_on():
                self._finish(failure=why, text=text)

    # --- tries ---

    def _go(self) -> None:
        request = self._request
        if self._credentials or self._cseq != request.cseq.number:
            request = request.copy()
            request.headers.set("CSeq", f"{self._cseq} {request.method}")
            for (name, _), value in self._credentials.items():
                request.headers.add(name, value)
        self._transaction = self._layer.request(request, self._targets[self._index], self)
        if self._patience_s is not None and self._index + 1 < len(self._targets):
            self._patience = self._layer.timers.call_later(self._patience_s, self._impatient)

    def _go_again(self) -> None:
        self._cseq = self._cseq + 1 if self._next_cseq is None else self._next_cseq()
        self._go()

    def _go_on(self) -> bool:
        """Try the next address; False if there is none."""
        if self._index + 1 >= len(self._targets):
            return False
        self._index += 1
        self._go_again()
        return True

    def _impatient(self) -> None:
        transaction = self._transaction
        assert transaction is not None
        if transaction.invite:
            transaction.listener = _Abandoned(self._layer)
            transaction.cancel()
        else:
            transaction.abandon()
        self._go_on()

    def _answer_challenge(self, tx: ClientTransaction, response: Response) -> bool:
        self._challenges += 1
        if self._authenticator is None or self._challenges > _MOST_CHALLENGES:
            return False
        if not self._remember(self._authenticator.answer(response, tx.request)):
            return False
        self._go_again()
        return True

    def _remember(self, header: tuple[str, str] | None) -> bool:
        if header is None:
            return False
        name, value = header
        realm = _REALM.search(value)
        self._credentials[name, realm[1] if realm is not None else ""] = value
        return True

    # --- the end ---

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _no_address(self) -> None:
        if self.outcome is None:
            self._finish(failure="transport", text="no address")

    def _time_is_up(self) -> None:
        self._timed_out = True
        self._calm()
        transaction = self._transaction
        if transaction is not None and transaction.invite:
            self.cancel()
            return
        if transaction is not None:
            transaction.abandon()
        self._finish(failure="timeout", text="no answer in time")

    def _finish(
        self,
        *,
        response: Response | None = None,
        flow: Flow | None = None,
        failure: Failure | Literal["cancelled"] | None = None,
        text: str = "",
    ) -> None:
        if self._limit is not None:
            self._limit.cancel()
        sent = self._transaction
        self.outcome = Outcome(
            request=self._request if sent is None else sent.request,
            target=None if sent is None else sent.target,
            response=response,
            flow=flow,
            failure=failure,
            text=text,
            cancelled=self.cancelled,
            timed_out=self._timed_out,
        )
        self._done(self.outcome)
