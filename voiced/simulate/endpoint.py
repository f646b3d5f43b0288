"""The sockets of a simulated SIP caller: signalling over UDP or TCP, and an RTP/RTCP pair."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal

import trio

__all__ = ["Datagrams", "Endpoint", "Signalling", "Unreachable", "open_endpoint", "resolve"]

_MAX_DATAGRAM: Final = 65536
_MAX_MESSAGE: Final = 65536
_PAIR_TRIES: Final = 50
_CONNECT_S: Final = 5.0
_RECEIVE_BUFFER: Final = 1 << 20
_TIMESTAMPNS: Final = 35  # SO_TIMESTAMPNS of <asm-generic/socket.h>; Python has no name for it
_TIMESPEC: Final = struct.Struct("@ll")
_MAX_AGE_S: Final = 1.0  # beyond it the clock was set, not the datagram late


class Unreachable(Exception):
    """There is no way to the peer; the text says why."""


class Datagrams:
    """A bound UDP socket that knows when a datagram reached this machine."""

    def __init__(self, sock: trio.socket.SocketType, *, kernel_times: bool) -> None:
        self._sock = sock
        self._kernel_times = kernel_times and sys.platform == "linux"
        if self._kernel_times:
            sock.setsockopt(trio.socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _RECEIVE_BUFFER)
        name = sock.getsockname()
        self.local: tuple[str, int] = name[0], name[1]

    async def send(self, data: bytes, to: tuple[str, int]) -> None:
        """Send a datagram. One that cannot be sent is lost, as on the way."""
        try:
            await self._sock.sendto(data, to)
        except OSError:
            await trio.lowlevel.checkpoint()

    async def receive(self) -> tuple[float, bytes, tuple[str, int]]:
        """Wait for a datagram: when it came by Trio's clock, what it is, where from."""
        if not self._kernel_times:
            data, source = await self._sock.recvfrom(_MAX_DATAGRAM)
            return trio.current_time(), data, (source[0], source[1])
        size = trio.socket.CMSG_SPACE(_TIMESPEC.size)
        data, notes, _, name = await self._sock.recvmsg(_MAX_DATAGRAM, size)
        source = name[:2]  # type: ignore[index]  # an AF_INET or AF_INET6 address
        now, at = time.time(), trio.current_time()
        for level, kind, note in notes:
            if (level, kind) == (trio.socket.SOL_SOCKET, _TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(note[: _TIMESPEC.size])
                age = now - seconds - nanoseconds / 1e9
                at -= age if 0 < age < _MAX_AGE_S else 0
        return at, data, source


class Signalling:
    """Where SIP messages go and come from: datagrams, or one connection."""

    def __init__(
        self, peer: tuple[str, int], datagrams: Datagrams | None, stream: trio.SocketStream | None
    ) -> None:
        self._peer = peer
        self._datagrams = datagrams
        self._stream = stream
        self._buffer = b""
        if stream is not None:
            name = stream.socket.getsockname()
            self.local: tuple[str, int] = name[0], name[1]
        else:
            assert datagrams is not None
            self.local = datagrams.local

    async def send(self, data: bytes, to: tuple[str, int] | None) -> None:
        """Send a message; over TCP on the connection, whatever `to` is. Raises Unreachable."""
        if self._datagrams is not None:
            await self._datagrams.send(data, to or self._peer)
            return
        assert self._stream is not None
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Unreachable("the SIP connection broke") from None

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        """Wait for a message and where it came from. Raises Unreachable at the connection's end."""
        if self._datagrams is not None:
            _, data, source = await self._datagrams.receive()
            return data, source
        assert self._stream is not None
        while (message := self._cut()) is None:
            try:
                more = bytes(await self._stream.receive_some())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                more = b""
            self._buffer += more
            if not more or len(self._buffer) > _MAX_MESSAGE:
                raise Unreachable("the other side closed the SIP connection")
        return message, self._peer

    def _cut(self) -> bytes | None:
        """Take one message off the stream by its Content-Length (RFC 3261 section 18.3)."""
        self._buffer = self._buffer.lstrip(b"\r\n")  # keep-alives
        head, blank, _ = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return None
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() in (b"content-length", b"l") and value.strip().isdigit():
                length = int(value)
        end = len(head) + 4 + length
        if len(self._buffer) < end:
            return None
        message, self._buffer = self._buffer[:end], self._buffer[end:]
        return message


class Endpoint:
    """All sockets of one call. `media` is where RTP reaches us; RTCP is one port above."""

    def __init__(self, signalling: Signalling, rtp: Datagrams, rtcp: Datagrams) -> None:
        self.signalling = signalling
        self.rtp = rtp
        self.rtcp = rtcp
        self.media = rtp.local


async def resolve(host: str, port: int) -> tuple[str, int]:
    """The first address of a host. Raises Unreachable."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
    except OSError as error:
        raise Unreachable(f"cannot resolve {host}: {error.strerror}") from None
    address = found[0][4]
    return str(address[0]), int(address[1])


@asynccontextmanager
async def open_endpoint(
    peer: tuple[str, int],
    transport: Literal["udp", "tcp"],
    *,
    source: str | None = None,
    kernel_times: bool = True,
) -> AsyncIterator[Endpoint]:
    """Sockets for a call to the numeric address `peer`, from `source` or whatever leads there.

    `kernel_times`: datagrams are dated when they reached the machine, not when they were read.
    Raises Unreachable.
    """
    async with AsyncExitStack() as stack:
        own = source or await _own_address(peer)
        stream = datagrams = None
        if transport == "tcp":
            try:
                with trio.fail_after(_CONNECT_S):
                    stream = await trio.open_tcp_stream(*peer, local_address=own)
            except (OSError, trio.TooSlowError) as error:
                raise Unreachable(f"cannot connect to {peer[0]}:{peer[1]}: {error}") from None
            await stack.enter_async_context(stream)
        else:
            datagrams = Datagrams(stack.enter_context(await _bound(own, 0)), kernel_times=False)
        rtp, rtcp = await _pair(own)
        stack.enter_context(rtp)
        stack.enter_context(rtcp)
        yield Endpoint(
            Signalling(peer, datagrams, stream),
            Datagrams(rtp, kernel_times=kernel_times),
            Datagrams(rtcp, kernel_times=kernel_times),
        )


def _family(host: str) -> int:
    return trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET


async def _own_address(peer: tuple[str, int]) -> str:
    """Which of our addresses leads to the peer, as the routing table has it; nothing is sent."""
    with trio.socket.socket(_family(peer[0]), trio.socket.SOCK_DGRAM) as probe:
        try:
            await probe.connect(peer)
        except OSError as error:
            raise Unreachable(f"no way to {peer[0]}: {error.strerror}") from None
        return str(probe.getsockname()[0])


async def _bound(host: str, port: int) -> trio.socket.SocketType:
    sock = trio.socket.socket(_family(host), trio.socket.SOCK_DGRAM)
    try:
        await sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise Unreachable(f"cannot use {host}:{port}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _pair(host: str) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """An even port and the one above (RFC 3550 section 11)."""
    for _ in range(_PAIR_TRIES):
        rtp = await _bound(host, 0)
        port = rtp.getsockname()[1]
        if port % 2 == 0 and port < 65535:
            try:
                return rtp, await _bound(host, port + 1)
            except Unreachable:
                pass
            except BaseException:
                rtp.close()
                raise
        rtp.close()
    raise Unreachable(f"no pair of UDP ports is free on {host}")
