"""Users of a transaction layer that write down what they are told, and answer as they are set."""

from __future__ import annotations

from collections.abc import Callable

from tests.sip.wire import Node, Wire
from voiced.sip.message import Request, Response, request, response_to
from voiced.sip.transaction import Timing
from voiced.sip.transactions import (
    ClientTransaction,
    Failure,
    ServerTransaction,
    TransactionLayer,
)
from voiced.sip.transport import Flow
from voiced.sip.uri import Uri, parse_name_addr, parse_uri

TIMING = Timing()


class Server:
    """A `TransactionUser`. `answer` is called for each request, `cancel` for each CANCEL."""

    def __init__(self) -> None:
        self.requests: list[ServerTransaction] = []
        self.acks: list[Request] = []
        self.cancelled: list[ServerTransaction] = []
        self.strays: list[Response] = []
        self.unsent: list[str] = []
        self.answer: Callable[[ServerTransaction], object] = lambda tx: None
        self.cancel: Callable[[ServerTransaction], object] = lambda tx: reply(tx, 487)

    @property
    def last(self) -> ServerTransaction:
        return self.requests[-1]

    def on_request(self, tx: ServerTransaction, request: Request, flow: Flow) -> None:
        assert tx.request is request
        assert tx.flow == flow
        tx.failed = self.unsent.append
        self.requests.append(tx)
        self.answer(tx)

    def on_ack(self, request: Request, flow: Flow) -> None:
        self.acks.append(request)

    def on_cancel(self, invite_tx: ServerTransaction, request: Request) -> None:
        self.cancelled.append(invite_tx)
        self.cancel(invite_tx)

    def on_stray_response(self, response: Response, flow: Flow) -> None:
        self.strays.append(response)


class Client:
    """A `ClientListener`."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.failures: list[tuple[Failure, str]] = []

    @property
    def statuses(self) -> list[int]:
        return [response.status for response in self.responses]

    @property
    def finals(self) -> list[int]:
        return [status for status in self.statuses if status >= 200]

    def on_response(self, tx: ClientTransaction, response: Response) -> None:
        self.responses.append(response)

    def on_failure(self, tx: ClientTransaction, why: Failure, text: str) -> None:
        self.failures.append((why, text))


def reply(tx: ServerTransaction, status: int, **more: str) -> bool:
    headers = [(name.replace("_", "-"), value) for name, value in more.items()]
    return tx.respond(response_to(tx.request, status, to_tag=tx.to_tag, headers=headers))


def make(
    method: str = "OPTIONS",
    *,
    cseq: int = 1,
    uri: str = "sip:bob@example.org",
    call_id: str = "call-1",
    to_tag: str = "",
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
) -> Request:
    target: Uri = parse_uri(uri)
    to = parse_name_addr("<sip:bob@example.org>")
    return request(
        method,
        target,
        from_=parse_name_addr('"Alice" <sip:alice@example.com>;tag=a1'),
        to=to.with_tag(to_tag) if to_tag else to,
        call_id=call_id,
        cseq=cseq,
        headers=headers,
        body=body,
    )


class Side:
    """A node with a layer and its users."""

    def __init__(
        self,
        wire: Wire,
        node: Node,
        *,
        timing: Timing = TIMING,
        max_server_transactions: int = 1000,
        answers: Callable[[Request, Flow], bool] | None = None,
    ) -> None:
        self.node = node
        self.server = Server()
        self.counts: dict[tuple[str, str], int] = {}
        numbers = iter(range(1_000_000))

        def count(event: str, detail: str) -> None:
            self.counts[event, detail] = self.counts.get((event, detail), 0) + 1

        self.layer = TransactionLayer(
            node,
            wire.timers,
            timing,
            self.server,
            lambda: f"{node.name}{next(numbers)}",
            tag=lambda: f"tag{next(numbers)}",
            max_server_transactions=max_server_transactions,
            answers=answers,
            count=count,
        )
        node.attach(self.layer.receive)

    @property
    def idle(self) -> bool:
        return self.layer.client_transactions == self.layer.server_transactions == 0
