"""Opening WebSockets (RFC 6455 section 4): `connect` as a client, `accept` as a server."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import trio

from voiced import handshake
from voiced.frames import RECEIVE_BUFFER
from voiced.socket import TcpTransport, open_transport
from voiced.websocket import CLOSE_TIMEOUT, MAX_BACKLOG, MAX_MESSAGE, WebSocket

__all__ = ["CONNECT_TIMEOUT", "ConnectError", "ConnectRefused", "accept", "connect"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for name resolution, TCP, TLS and the opening handshake together."""

_MAX_REFUSAL: Final = 16 * 1024  # bytes read of the body that explains a refusal


class ConnectError(Exception):
    """No WebSocket came about: name, network, TLS, time-out, or a server that speaks otherwise."""


class ConnectRefused(ConnectError):
    """The server answered with something other than 101; `body` is cut at 16 KiB."""

    def __init__(self, status: int, headers: handshake.Headers, body: bytes) -> None:
        super().__init__(f"the server refused the WebSocket with status {status}")
        self.status = status
        self.headers = headers
        self.body = body


async def accept(
    transport: TcpTransport,
    head: handshake.RequestHead,
    *,
    early: bytes = b"",
    max_message: int = MAX_MESSAGE,
    max_backlog: int = MAX_BACKLOG,
    close_timeout: float = CLOSE_TIMEOUT,
) -> WebSocket:
    """Answer an upgrade request with 101. `early` is what was read behind the head.

    Raises HandshakeError before anything was sent, BrokenResourceError.
    """
    key = handshake.check_upgrade(head)
    transport.send_nowait(handshake.switching_protocols(key))
    await transport.flush()
    return WebSocket(
        transport,
        is_client=False,
        headers=head.headers,
        early=early,
        max_message=max_message,
        max_backlog=max_backlog,
        close_timeout=close_timeout,
    )


async def connect(
    url: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    max_message: int = MAX_MESSAGE,
    max_backlog: int = MAX_BACKLOG,
    connect_timeout: float = CONNECT_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
) -> WebSocket:
    """Open a WebSocket to a `ws:` or `wss:` URL (RFC 6455 section 3).

    Raises ValueError for a URL or header that cannot be right, ConnectRefused with the server's
    answer, ConnectError for everything else. The system's trust store decides on `wss:`
    certificates unless `ssl_context` does.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.fragment:
        raise ValueError(f"not a WebSocket URL (ws://… or wss://…, no fragment): {url!r}")
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    key = handshake.new_key()
    request = handshake.request(host, target, key, headers)
    context = (ssl_context or _system_trust()) if secure else None
    transport = None
    try:
        with trio.fail_after(connect_timeout):
            transport = await open_transport(parts.hostname, port, context)
            transport.send_nowait(request)
            response, early = await _read_response(transport)
        handshake.check_response(response, key)
    except BaseException as error:
        if transport is not None:
            transport.close()
        if isinstance(error, trio.TooSlowError):
            raise ConnectError(f"no WebSocket within {connect_timeout:g} s") from error
        if isinstance(error, OSError | trio.BrokenResourceError | handshake.HandshakeError):
            raise ConnectError(str(error)) from error
        raise
    return WebSocket(
        transport,
        is_client=True,
        headers=response.headers,
        early=early,
        max_message=max_message,
        max_backlog=max_backlog,
        close_timeout=close_timeout,
    )


async def _read_response(transport: TcpTransport) -> tuple[handshake.ResponseHead, bytes]:
    """Return the response's head and what came behind it. Raises ConnectRefused."""
    await transport.flush()
    data = bytearray()
    while (parsed := handshake.parse_response(data)) is None:
        data += await _more(transport)
    head, size = parsed
    del data[:size]
    if head.status != 101:
        declared = head.headers.get("content-length") or ""
        wanted = min(int(declared), _MAX_REFUSAL) if declared.isdecimal() else 0
        while len(data) < wanted and (part := await _more(transport, at_end=b"")):
            data += part
        raise ConnectRefused(head.status, head.headers, bytes(data[:_MAX_REFUSAL]))
    return head, bytes(data)


async def _more(transport: TcpTransport, at_end: bytes | None = None) -> bytes:
    size = await transport.receive(RECEIVE_BUFFER)
    if size:
        return bytes(RECEIVE_BUFFER[:size])
    if at_end is None:
        raise trio.BrokenResourceError("the server ended the connection during the handshake")
    return at_end


@functools.cache
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()
