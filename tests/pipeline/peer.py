"""A server with OpenAI's three endpoints, as a test wants it: HTTP by h11, over any Trio stream.

`Peer.http()` reaches it through memory, so that a virtual clock works; `listen` through TCP.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import httpcore
import httpx
import trio
import trio.testing

from voiced.pipeline.client import Http

URL = "http://peer.test/v1"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply:
    """What a handler answers with."""

    def __init__(self, connection: h11.Connection, stream: trio.abc.Stream) -> None:
        self._connection = connection
        self._stream = stream
        self.gone = False  # the client has hung up before the end

    async def _send(self, event: h11.Event) -> None:
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)

    async def head(self, status: int = 200, **headers: str) -> None:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await self._send(
            h11.Response(status_code=status, headers=[*named, ("transfer-encoding", "chunked")])
        )

    async def part(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def json(self, value: Any, status: int = 200, **headers: str) -> None:
        await self.head(status, content_type="application/json", **headers)
        await self.part(json.dumps(value).encode())
        await self.end()

    async def events(self, chunks: Iterable[Any], *, gap_s: float = 0.0) -> None:
        await self.head(content_type="text/event-stream")
        for chunk in chunks:
            await self.part(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            if gap_s:
                await trio.sleep(gap_s)
        await self.part(b"data: [DONE]\n\n")
        await self.end()

    async def words(self, text: str, *, gap_s: float = 0.0) -> None:
        """Chat: a word at a time, then the usage."""
        chunks: list[Any] = [
            {"choices": [{"index": 0, "delta": {"content": word + " "}}]} for word in text.split()
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        await self.events([*chunks, {"choices": [], "usage": usage}], gap_s=gap_s)

    async def sound(self, ms: int, *, gap_s: float = 0.0, rate: int = 24000) -> None:
        """Speech: 100 ms at a time, cut within samples."""
        await self.head(content_type="audio/pcm")
        pcm = b"\x01\x02" * (ms * rate // 1000)
        size = rate // 5 - 1
        for at in range(0, len(pcm), size):
            await self.part(pcm[at : at + size])
            if gap_s:
                await trio.sleep(gap_s)
        await self.end()


Handler = Callable[[Request, Reply], Awaitable[None]]


async def hours(request: Request, reply: Reply) -> None:
    """What a server does that nothing is wrong with."""
    if request.path.endswith("/models"):
        await reply.json({"object": "list", "data": []})
    elif request.path.endswith("/audio/transcriptions"):
        await reply.json(
            {"text": "When are you open?", "usage": {"type": "duration", "seconds": 2}}
        )
    elif request.path.endswith("/chat/completions"):
        await reply.words("We are open from nine to five. Shall I book a table for you tonight?")
    elif request.path.endswith("/audio/speech"):
        await reply.sound(1000)


@dataclass
class Peer:
    handler: Handler = hours
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    cut: int = 0  # answers that the client did not wait for
    down: bool = False
    away: str = ""  # a host at which nobody is

    def of(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path.endswith(path)]

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        self.connections += 1
        async with stream:
            connection = h11.Connection(h11.SERVER)
            while (request := await self._request(connection, stream)) is not None:
                self.requests.append(request)
                try:
                    await self.handler(request, Reply(connection, stream))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.cut += 1
                    return
                if connection.our_state is not h11.DONE:
                    return  # the handler has hung up
                connection.start_next_cycle()

    async def _request(self, connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
        request: Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                try:
                    connection.receive_data(bytes(await stream.receive_some()))
                except trio.BrokenResourceError:
                    return None
            elif isinstance(event, h11.Request):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                request = Request(event.method.decode(), event.target.decode(), headers, b"")
            elif isinstance(event, h11.Data):
                assert request is not None
                request.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None

    @asynccontextmanager
    async def http(self) -> AsyncIterator[Http]:
        """What an engine is given to reach this server without a network."""
        async with _plain_nursery() as nursery:

            def transport() -> httpx.AsyncBaseTransport:
                made = httpx.AsyncHTTPTransport(verify=False)
                made._pool = httpcore.AsyncConnectionPool(
                    max_connections=500, network_backend=_Memory(self, nursery)
                )
                return made

            http = Http(transport)
            async with http.in_use():
                yield http

    @asynccontextmanager
    async def listen(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Serve on a free port; yields the URL."""
        async with _plain_nursery() as nursery:
            if tls is None:
                (tcp,) = await nursery.start(_tcp, self.serve)
                yield f"http://127.0.0.1:{tcp.socket.getsockname()[1]}/v1"
                return
            (over,) = await nursery.start(_tls, self._serve_tls, tls)
            port = over.transport_listener.socket.getsockname()[1]
            yield f"https://localhost:{port}/v1"

    async def _serve_tls(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):  # who does not trust us hangs up
            await self.serve(stream)


_tcp = partial(trio.serve_tcp, port=0, host="127.0.0.1")


async def _tls(handler: Any, context: ssl.SSLContext, **more: Any) -> None:
    await trio.serve_ssl_over_tcp(
        handler, 0, context, host="127.0.0.1", https_compatible=True, **more
    )


@asynccontextmanager
async def _plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Cancelled at the end; what the body raises does not come out as a group."""
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    try:
        yield nursery
    finally:
        nursery.cancel_scope.cancel()
        await manager.__aexit__(None, None, None)


class _Memory(httpcore.AsyncNetworkBackend):
    def __init__(self, peer: Peer, nursery: trio.Nursery) -> None:
        self._peer = peer
        self._nursery = nursery

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        if self._peer.down or host == self._peer.away:
            raise httpcore.ConnectError("Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._peer.serve, theirs)
        return _Stream(ours)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError:
            raise httpcore.ReadTimeout from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from None

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None
