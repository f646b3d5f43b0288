"""WebSocket bytes by hand, for what no library would send."""

from __future__ import annotations

import base64
import os
from urllib.parse import urlsplit

import trio

from tests.e2e.house import SOON_S

__all__ = ["TEXT", "frame", "request_head", "upgrade"]

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(
    opcode: int, payload: bytes, *, masked: bool = True, fin: bool = True, reserved: int = 0
) -> bytes:
    """One frame (RFC 6455 section 5.2)."""
    size, bit = len(payload), 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = os.urandom(4)
    stream = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + key + mixed.to_bytes(size, "big")


def request_head(url: str, *more: str) -> bytes:
    """The head of an upgrade request."""
    parts = urlsplit(url)
    lines = [
        f"GET {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def upgrade(url: str, *more: str) -> tuple[trio.SocketStream, int]:
    """Ask for a WebSocket; returns the connection and the HTTP status."""
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
    await stream.send_all(request_head(url, *more))
    return stream, await status(stream)


async def status(stream: trio.SocketStream) -> int:
    """Read an answer's head; returns its status."""
    head = b""
    with trio.fail_after(SOON_S):
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            assert data, head
            head += data
    return int(head.split()[1])


async def close_code(stream: trio.SocketStream) -> int | None:
    """Read to the end; the code of the Close frame that is the last thing sent, if there is one."""
    data = bytearray()
    with trio.fail_after(SOON_S):
        while True:
            try:
                part = await stream.receive_some()
            except trio.BrokenResourceError:
                break
            if not part:
                break
            data += part
    code, at = None, 0
    while at + 2 <= len(data):
        size, skip = data[at + 1] & 127, 2
        if size == 126:
            size, skip = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        if data[at] & 15 == CLOSE:
            code = int.from_bytes(data[at + skip : at + skip + 2], "big")
        at += skip + size
    return code
