"""A small HTTP server of the tests' own: it answers what it is told to, and remembers requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h11
import trio


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    after_s: float = 0.0
    broken: bool = False  # the connection is closed instead
    endless: bool = False  # the body is said again and again


Answering = Callable[[Request], Answer]


@dataclass
class WebServer:
    answer: Answering
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            try:
                while await self._one(stream, connection):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                return  # the client is gone, perhaps in the middle of a request

    async def _one(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert head is not None
        headers = {name.decode(): value.decode() for name, value in head.headers}
        request = Request(head.method.decode(), head.target.decode(), headers, body)
        self.requests.append(request)
        answer = self.answer(request)
        await trio.sleep(answer.after_s)
        if answer.broken:
            return False
        sizes = [] if answer.endless else [("Content-Length", str(len(answer.body)))]
        response = h11.Response(status_code=answer.status, headers=[*answer.headers, *sizes])
        await stream.send_all(connection.send(response) or b"")
        while answer.endless:
            await stream.send_all(connection.send(h11.Data(answer.body)) or b"")
        await stream.send_all(connection.send(h11.Data(answer.body)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        return True


@asynccontextmanager
async def serving(answer: Answering | Answer) -> AsyncIterator[WebServer]:
    """A server on loopback that answers with `answer`."""
    fixed = answer
    server = WebServer((lambda _: fixed) if isinstance(fixed, Answer) else fixed)
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        port = listeners[0].socket.getsockname()[1]
        server.url = f"http://127.0.0.1:{port}"
        yield server
        nursery.cancel_scope.cancel()
