"""The simulated carrier's network: form POSTs and the media WebSocket, both as a client.

The WebSocket is trio-websocket and the HTTP is h11, neither of which the daemon's media path uses:
what the simulated carrier accepts, another implementation would.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from errno import ECONNREFUSED
from typing import Final
from urllib.parse import SplitResult, urlencode, urlsplit

import h11
import trio
import trio_websocket

__all__ = ["Dial", "MediaSocket", "Network", "RequestFailed", "Response", "SocketClosed"]

Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a connection to a host and port; raises OSError. Tests give one of memory streams."""

_TLS_SCHEMES: Final = ("https", "wss")
_MAX_BODY = 64 * 1024  # the commonly quoted limit of a TwiML document
_MAX_MESSAGE = 8 * 1024 * 1024  # beyond ten minutes of audio in base64: the stream cannot use it
_MESSAGE_QUEUE = 64  # WebSocket messages between trio-websocket's reader and ours: 1.3 s of frames
_CLOSE_S = 2.0


class RequestFailed(Exception):
    """The server could not be reached or gave no proper answer; the text names host and reason."""


class SocketClosed(Exception):
    """The WebSocket is over. `code` is its close code, 1006 where the connection just broke."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the WebSocket was closed: {code} {reason}".rstrip())
        self.code = code


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer, its body at most 64 KiB."""

    status: int
    content_type: str
    body: bytes


class MediaSocket:
    """One open media stream."""

    def __init__(self, connection: trio_websocket.WebSocketConnection, stream: trio.abc.Stream):
        self._connection = connection
        self._stream = stream

    async def send(self, text: str) -> None:
        """Send a text message. Raises SocketClosed."""
        try:
            await self._connection.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            raise _closed(error) from None

    async def receive(self) -> str | bytes:
        """Wait for a message, `bytes` for a binary one. Raises SocketClosed."""
        try:
            return await self._connection.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise _closed(error) from None

    async def close(self) -> None:
        """Close in the way of RFC 6455 section 7, giving the peer two seconds to do the same."""
        with trio.move_on_after(_CLOSE_S):
            await self._connection.aclose()

    async def cut(self) -> None:
        """Break the connection as a failing network does, without a close frame."""
        await trio.aclose_forcefully(self._stream)


class Network:
    """How the simulated carrier reaches servers. `tls` is used for https and wss."""

    def __init__(self, dial: Dial | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._dial = dial or trio.open_tcp_stream
        self._tls = tls

    async def post_form(
        self,
        url: str,
        fields: Sequence[tuple[str, str]],
        *,
        headers: Sequence[tuple[str, str]] = (),
        timeout_s: float,
    ) -> Response:
        """POST `fields` as `application/x-www-form-urlencoded`. Raises RequestFailed."""
        parts = urlsplit(url)
        body = urlencode(fields).encode("ascii")
        request = h11.Request(
            method="POST",
            target=_target(parts),
            headers=[
                ("Host", _authority(parts)),
                ("User-Agent", "voiced-simulate"),
                ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                *headers,
            ],
        )
        try:
            with trio.fail_after(timeout_s):
                stream = await self._connect(parts)
                async with stream:
                    return await _exchange(stream, request, body)
        except trio.TooSlowError:
            raise RequestFailed(f"{_authority(parts)} gave no answer in {timeout_s:g} s") from None
        except h11.RemoteProtocolError as error:
            text = f"{_authority(parts)} does not answer in HTTP: {error}"
            raise RequestFailed(text) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            text = f"{_authority(parts)} broke the connection before it had answered"
            raise RequestFailed(text) from None

    @asynccontextmanager
    async def open_media(
        self, url: str, *, headers: Sequence[tuple[str, str]] = (), timeout_s: float
    ) -> AsyncIterator[MediaSocket]:
        """Open a WebSocket for as long as the context lasts. Raises RequestFailed on entering.

        Leaving the context breaks what has not been closed.
        """
        parts = urlsplit(url)
        encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
        stream: trio.abc.Stream | None = None
        # trio-websocket raises a refusal from its reader, so that it arrives through the nursery.
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with trio.fail_after(timeout_s):
                        stream = await self._connect(parts)
                        connection = await trio_websocket.wrap_client_stream(
                            nursery,
                            stream,  # type: ignore[arg-type]  # any trio stream will do
                            _authority(parts),
                            _target(parts),
                            extra_headers=encoded,
                            message_queue_size=_MESSAGE_QUEUE,
                            max_message_size=_MAX_MESSAGE,
                        )
                except trio.TooSlowError:
                    text = f"{_authority(parts)} gave no WebSocket handshake in {timeout_s:g} s"
                    raise RequestFailed(text) from None
                try:
                    yield MediaSocket(connection, stream)
                finally:
                    nursery.cancel_scope.cancel()
        except* trio_websocket.ConnectionRejected as group:
            status = {getattr(error, "status_code", None) for error in group.exceptions}
            text = f"{_authority(parts)} refused the stream with HTTP {status.pop()} (31920)"
            raise RequestFailed(text) from None
        except* (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed):
            text = f"{_authority(parts)} failed the WebSocket handshake (31920)"
            raise RequestFailed(text) from None
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)

    async def _connect(self, parts: SplitResult) -> trio.abc.Stream:
        host = parts.hostname or ""
        secure = parts.scheme in _TLS_SCHEMES
        try:
            stream = await self._dial(host, parts.port or (443 if secure else 80))
        except OSError as error:
            why = f"cannot connect to {_authority(parts)}: {_reason(error)}"
            raise RequestFailed(why) from None
        if not secure:
            return stream
        tls = self._tls or ssl.create_default_context()
        wrapped = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
        try:
            await wrapped.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            await trio.aclose_forcefully(stream)
            reason = error.__cause__ or error
            raise RequestFailed(f"no TLS with {_authority(parts)}: {reason} (31910)") from None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return wrapped


def _authority(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _reason(error: OSError) -> str:
    """What the last attempt failed with: of a host with several addresses trio tells a group."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    last = cause if isinstance(cause, OSError) else error
    code = last.errno or 0  # those of name look-ups are negative
    reason = (os.strerror(code) if code > 0 else last.strerror or str(last)).lower()
    return f"{reason}; is the daemon running there?" if last.errno == ECONNREFUSED else reason


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _closed(error: trio_websocket.ConnectionClosed) -> SocketClosed:
    reason = error.reason
    return SocketClosed(reason.code, reason.reason or "") if reason else SocketClosed(1006, "")


async def _exchange(stream: trio.abc.Stream, request: h11.Request, body: bytes) -> Response:
    http = h11.Connection(h11.CLIENT)
    outgoing = (http.send(request), http.send(h11.Data(body)), http.send(h11.EndOfMessage()))
    await stream.send_all(b"".join(piece or b"" for piece in outgoing))
    status, content_type, received = 0, "", bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(16384)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > _MAX_BODY:
                raise RequestFailed(f"the answer to {request.target!r} exceeds {_MAX_BODY} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Response(status, content_type, bytes(received))
        elif isinstance(event, h11.ConnectionClosed):
            raise RequestFailed("the connection was closed without an answer")
