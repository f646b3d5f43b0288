"""Byte transports on non-blocking sockets: TCP, and TLS over it.

A transport reads into a buffer that the caller lends and sends at once what the kernel takes, so
that the usual message costs one `recv` or `send` and no checkpoint in between. TLS drives
`ssl.SSLObject` on memory BIOs itself: `trio.SSLStream` adds about 10 us to every message, the
cryptography costs one.

One task at a time may receive, one at a time may flush. Errors: trio.BrokenResourceError when the
peer or the network failed, trio.ClosedResourceError when the transport was closed here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final

import trio

__all__ = ["TcpTransport", "TlsTransport", "open_transport", "transport_from_trio"]

# Ciphertext of one wake-up: like frames.RECEIVE_BUFFER one for the process, as nothing can run
# between `recv` and handing the bytes to OpenSSL.
_CIPHERTEXT: Final = memoryview(bytearray(64 * 1024))

_DISCARDED: Final = memoryview(bytearray(16 * 1024))


class TcpTransport:
    """The transport over plain TCP, or any other stream socket."""

    __slots__ = ("_backlog", "_fd", "_interrupted", "_more", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._fd = sock.fileno()
        self._backlog = bytearray()
        self._more = False  # there may be bytes that the kernel will not announce
        self._interrupted = False

    @property
    def socket(self) -> socket.socket:
        """The kernel's socket, for its addresses and options."""
        return self._socket

    @property
    def peer(self) -> str | None:
        """The peer's IP address; None when it has gone or has none."""
        try:
            address = self._socket.getpeername()
        except OSError:
            return None
        return address[0] if isinstance(address, tuple) else None

    @property
    def secure(self) -> bool:
        """It is TLS."""
        return False

    @property
    def backlog(self) -> int:
        """Bytes that were to be sent and that the kernel has not taken yet."""
        return len(self._backlog)

    async def receive(self, buffer: memoryview) -> int:
        """Wait for bytes, put them into `buffer`; returns how many, 0 at the peer's end.

        -1 where `interrupt` ended the wait.
        """
        while True:
            if self._more:
                await trio.lowlevel.checkpoint()
            else:
                self._check_open()
                if self._interrupted:
                    await trio.lowlevel.checkpoint()
                    self._interrupted = False
                    return -1
                try:
                    await trio.lowlevel.wait_readable(self._fd)
                except trio.ClosedResourceError:
                    self._check_open()
                    continue  # it was not closed: somebody interrupted
            size = self._receive_nowait(buffer)
            if size is not None:
                return size

    def interrupt(self) -> None:
        """Have the `receive` that waits now, or the next one that would wait, return -1.

        Costs nothing where it is not used, unlike a cancel scope around each `receive`: Trio wakes
        whoever waits for a descriptor when it is told that it will be closed, which it need not be.
        """
        if self._fd >= 0:
            self._interrupted = True
            trio.lowlevel.notify_closing(self._fd)

    def _receive_nowait(self, buffer: memoryview) -> int | None:
        size = self._receive_raw(buffer)
        # A full buffer: the rest is read after the next checkpoint, without asking epoll again.
        self._more = size == len(buffer)
        return size

    def _receive_raw(self, buffer: memoryview) -> int | None:
        try:
            return self._socket.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            self._check_open()
            raise trio.BrokenResourceError(error.strerror) from error

    def send_nowait(self, data: bytes | memoryview) -> None:
        """Hand `data` to the kernel; what it does not take joins the backlog, in order.

        The backlog's bound is the caller's. Somebody must then run `flush`.
        """
        if self._backlog:
            self._backlog += data
            return
        sent = self._send_raw(data)
        if sent < len(data):
            self._backlog += memoryview(data)[sent:]

    def _send_raw(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._check_open()
            raise trio.BrokenResourceError(error.strerror) from error

    async def flush(self) -> None:
        """Wait until the backlog has been handed to the kernel."""
        while self._backlog:
            await self.flush_some()

    async def flush_some(self) -> None:
        """Wait until the kernel takes more, hand it what it takes of the backlog."""
        self._check_open()
        try:
            await trio.lowlevel.wait_writable(self._fd)
        except trio.ClosedResourceError:
            self._check_open()
            return  # it was not closed: a `receive` was interrupted
        del self._backlog[: self._send_raw(self._backlog)]

    async def finish(self) -> None:
        """Flush, tell the peer that nothing more comes, wait for its end, close.

        Closing at once would destroy what the peer has not read yet, if anything of its own is
        still unread here (RFC 1122 section 4.2.2.13). Callers bound the time; closed in any case.
        """
        try:
            self._say_goodbye()
            await self.flush()
            self._socket.shutdown(socket.SHUT_WR)
            while self._receive_raw(_DISCARDED) != 0:
                self._check_open()
                await trio.lowlevel.wait_readable(self._fd)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # gone already, which is what was wanted
        finally:
            self.close()

    def close(self) -> None:
        """Close at once. Whoever waits in `receive` or `flush` gets ClosedResourceError."""
        if self._fd < 0:
            return
        self._backlog = bytearray()
        self._more = False
        trio.lowlevel.notify_closing(self._fd)
        self._fd = -1
        self._socket.close()

    def _say_goodbye(self) -> None:
        """Queue what the protocol sends before the end."""

    def _check_open(self) -> None:
        if self._fd < 0:
            raise trio.ClosedResourceError("this transport was closed")


class TlsTransport(TcpTransport):
    """The transport over TLS; to be used after `handshake`."""

    __slots__ = ("_ended", "_incoming", "_outgoing", "_tls")

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        """Take over a connected socket; `server_hostname` is whom the certificate must name."""
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ended = False
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname=server_hostname
        )

    @property
    def secure(self) -> bool:
        """It is TLS."""
        return True

    async def handshake(self) -> None:
        """Agree on keys. Raises BrokenResourceError, its cause says why (ssl.SSLError)."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_ciphertext()
                await self.flush()
                self._check_open()
                await trio.lowlevel.wait_readable(self._fd)
                if self._read_ciphertext() == 0:
                    self._incoming.write_eof()
            except (ssl.SSLError, ssl.CertificateError) as error:
                with contextlib.suppress(trio.BrokenResourceError):
                    self._send_ciphertext()  # the alert
                raise trio.BrokenResourceError(f"TLS handshake failed: {error}") from error
            else:
                self._send_ciphertext()
                await self.flush()
                self._more = self._incoming.pending > 0
                return

    def _receive_nowait(self, buffer: memoryview) -> int | None:
        read = None
        if not self._incoming.pending and not self._tls.pending() and not self._ended:
            read = self._read_ciphertext()
            if read is None:
                self._more = False
                return None
            if read == 0:
                self._ended = True  # without close_notify; the protocols above know their ends
        filled = self._decrypt(buffer)
        if self._outgoing.pending:  # a key update or an alert that OpenSSL answers with
            self._send_ciphertext()
        self._more = (
            self._incoming.pending > 0
            or self._tls.pending() > 0
            or read == len(_CIPHERTEXT)
            or self._ended
        )
        return filled if filled or self._ended else None

    def _decrypt(self, buffer: memoryview) -> int:
        filled = 0
        room = len(buffer)
        try:
            # An empty BIO is not read again: SSLWantReadError costs more than a decryption.
            while filled < room and (self._incoming.pending or self._tls.pending()):
                filled += self._tls.read(room - filled, buffer[filled:])  # type: ignore[operator]
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        except ssl.SSLError as error:
            if not filled:
                raise trio.BrokenResourceError(f"TLS failed: {error.reason}") from error
            self._ended = True  # what came before the damage is delivered
        return filled

    def _read_ciphertext(self) -> int | None:
        size = self._receive_raw(_CIPHERTEXT)
        if size:
            self._incoming.write(_CIPHERTEXT[:size])
        return size

    def send_nowait(self, data: bytes | memoryview) -> None:
        """Encrypt `data` and hand it to the kernel; the backlog is ciphertext."""
        self._check_open()
        try:
            written = self._tls.write(data)
            while written < len(data):  # a record holds 16 KiB
                written += self._tls.write(memoryview(data)[written:])
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(f"TLS failed: {error.reason}") from error
        super().send_nowait(self._outgoing.read())

    def _send_ciphertext(self) -> None:
        if self._outgoing.pending:
            super().send_nowait(self._outgoing.read())

    def _say_goodbye(self) -> None:
        # close_notify (RFC 8446 section 6.1); unwrap then wants the peer's, which `finish` awaits.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send_ciphertext()


def transport_from_trio(stream: trio.SocketStream) -> TcpTransport:
    """Take the socket out of a Trio stream, which is closed by that."""
    outer = stream.socket
    family, kind, proto = outer.family, outer.type, outer.proto
    return TcpTransport(socket.socket(family, kind, proto, fileno=outer.detach()))


async def open_transport(
    host: str, port: int, ssl_context: ssl.SSLContext | None = None
) -> TcpTransport:
    """Connect (RFC 8305: every address that `host` has), and shake hands where a context is given.

    Raises OSError, BrokenResourceError. The time is the caller's to bound.
    """
    plain = transport_from_trio(await trio.open_tcp_stream(host, port))
    if ssl_context is None:
        return plain
    transport: TlsTransport | None = None
    try:
        transport = TlsTransport(plain.socket, ssl_context, server_hostname=host)
        await transport.handshake()
    except BaseException:
        (transport or plain).close()
        raise
    return transport
