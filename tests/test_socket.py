"""Transports over real sockets: backlog, ends, closing under a waiter, and TLS against Trio's."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from voiced.frames import RECEIVE_BUFFER
from voiced.socket import TcpTransport, TlsTransport, open_transport, transport_from_trio

BULK = os.urandom(1 << 20)


def pair() -> tuple[TcpTransport, TcpTransport]:
    one, other = socket.socketpair()
    return TcpTransport(one), TcpTransport(other)


async def tls_pair(
    client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> tuple[TlsTransport, TlsTransport]:
    one, other = socket.socketpair()
    client = TlsTransport(one, client_tls, server_hostname="localhost")
    server = TlsTransport(other, server_tls, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.handshake)
    return client, server


async def read(transport: TcpTransport, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        got = await transport.receive(RECEIVE_BUFFER)
        if not got:
            break
        data += RECEIVE_BUFFER[:got]
    return bytes(data)


async def test_bytes_pass_and_the_end_is_seen() -> None:
    one, other = pair()
    one.send_nowait(b"hello")
    assert one.backlog == 0
    assert await read(other, 5) == b"hello"
    one.close()
    assert await other.receive(RECEIVE_BUFFER) == 0
    other.close()


async def test_what_the_kernel_does_not_take_is_kept_in_order() -> None:
    one, other = pair()
    one.send_nowait(BULK)
    one.send_nowait(b"tail")
    assert one.backlog > 4
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await read(other, len(BULK) + 4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(one.flush)
    assert received == BULK + b"tail"
    assert one.backlog == 0
    one.close()
    other.close()


async def test_closing_wakes_whoever_waits() -> None:
    one, other = pair()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.receive(RECEIVE_BUFFER)

    one.send_nowait(BULK)

    async def flush() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        one.close()
    one.close()  # twice is harmless
    with pytest.raises(trio.ClosedResourceError):
        one.send_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.receive(RECEIVE_BUFFER)
    other.close()


async def test_an_interrupted_receive_returns_and_nothing_else_is_disturbed() -> None:
    one, other = pair()
    one.send_nowait(BULK)
    sizes: list[int] = []
    received = b""

    async def receive() -> None:
        sizes.append(await one.receive(RECEIVE_BUFFER))

    async def read_all() -> None:
        nonlocal received
        received = await read(other, len(BULK))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.flush)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        one.interrupt()  # wakes the flush as well, which goes on waiting
        await trio.testing.wait_all_tasks_blocked()
        assert sizes == [-1]
        nursery.start_soon(read_all)
    assert received == BULK
    one.interrupt()  # nobody waits: the next that would is told
    other.send_nowait(b"x")
    assert await one.receive(RECEIVE_BUFFER) == -1
    assert await one.receive(RECEIVE_BUFFER) == 1
    one.close()
    one.interrupt()  # nothing to interrupt
    with pytest.raises(trio.ClosedResourceError):
        await one.receive(RECEIVE_BUFFER)
    other.close()


async def test_a_vanished_peer_is_a_broken_resource() -> None:
    one, other = pair()
    other.close()
    with pytest.raises(trio.BrokenResourceError):
        one.send_nowait(b"x")
    one.close()


async def test_finish_delivers_everything_first() -> None:
    one, other = pair()
    one.send_nowait(BULK)
    other.send_nowait(b"unread: closing at once would reset the connection")
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await read(other, len(BULK) + 1)
        other.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(one.finish)
    assert received == BULK


async def test_finish_closes_when_its_time_is_up(autojump_clock: trio.testing.MockClock) -> None:
    one, other = pair()
    with trio.move_on_after(1) as limit:
        await one.finish()
    assert limit.cancelled_caught
    assert one.socket.fileno() == -1
    other.close()


async def test_tls_both_ways(client_tls: ssl.SSLContext, server_tls: ssl.SSLContext) -> None:
    client, server = await tls_pair(client_tls, server_tls)
    assert client.secure
    for sender, receiver in ((client, server), (server, client)):
        got = b""

        async def receive(receiver: TlsTransport = receiver) -> None:
            nonlocal got
            got = await read(receiver, len(BULK) + 5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            sender.send_nowait(memoryview(BULK))
            sender.send_nowait(b"small")
            await sender.flush()
        assert got == BULK + b"small"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.finish)
        assert await server.receive(RECEIVE_BUFFER) == 0
        assert await server.receive(RECEIVE_BUFFER) == 0  # the end stays
        nursery.start_soon(server.finish)


async def test_tls_reads_into_a_small_buffer_lose_nothing(
    client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    client, server = await tls_pair(client_tls, server_tls)
    client.send_nowait(bytes(range(256)) * 8)
    small, data = memoryview(bytearray(100)), b""
    while len(data) < 2048:
        data += small[: await server.receive(small)]
    assert data == bytes(range(256)) * 8
    client.close()
    server.close()


async def test_tls_records_in_single_bytes(
    client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    """A middle-man that delivers one byte at a time, so that every record comes in pieces."""
    (near, middle_near), (middle_far, far) = socket.socketpair(), socket.socketpair()
    client = TlsTransport(near, client_tls, server_hostname="localhost")
    server = TlsTransport(far, server_tls, server_side=True)

    left, right = TcpTransport(middle_near), TcpTransport(middle_far)

    async def pass_on(reading: TcpTransport, writing: TcpTransport) -> None:
        byte = memoryview(bytearray(1))
        while await reading.receive(byte):
            writing.send_nowait(byte)
            await writing.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, left, right)
        nursery.start_soon(pass_on, right, left)
        async with trio.open_nursery() as handshakes:
            handshakes.start_soon(client.handshake)
            handshakes.start_soon(server.handshake)
        client.send_nowait(b"slowly")
        assert await read(server, 6) == b"slowly"
        server.send_nowait(b"back")
        assert await read(client, 4) == b"back"
        nursery.cancel_scope.cancel()
    for end in (client, server, left, right):
        end.close()


async def test_tls_against_trio(client_tls: ssl.SSLContext, server_tls: ssl.SSLContext) -> None:
    one, other = socket.socketpair()
    ours = TlsTransport(one, client_tls, server_hostname="localhost")
    theirs = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(other)), server_tls, server_side=True
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.handshake)
        nursery.start_soon(theirs.do_handshake)
    ours.send_nowait(b"ping")
    assert await theirs.receive_some() == b"ping"
    await theirs.send_all(b"pong")
    assert await read(ours, 4) == b"pong"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.finish)
        assert await theirs.receive_some() == b""  # with close_notify: a clean end, not ragged
        await theirs.aclose()


async def test_a_certificate_for_another_name(
    client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    one, other = socket.socketpair()
    client = TlsTransport(one, client_tls, server_hostname="elsewhere.example")
    server = TlsTransport(other, server_tls, server_side=True)

    async def serve() -> None:
        with pytest.raises(trio.BrokenResourceError, match="alert bad certificate"):
            await server.handshake()
        server.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(trio.BrokenResourceError, match="Hostname mismatch"):
            await client.handshake()
    client.close()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(200), b""])
async def test_a_peer_that_speaks_no_tls(server_tls: ssl.SSLContext, garbage: bytes) -> None:
    one, other = socket.socketpair()
    other.sendall(garbage)
    other.shutdown(socket.SHUT_WR)
    server = TlsTransport(one, server_tls, server_side=True)
    with pytest.raises(trio.BrokenResourceError, match="TLS handshake failed"):
        await server.handshake()
    server.close()
    other.close()


async def test_a_damaged_record_breaks_the_connection_after_what_came_before(
    client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    client, server = await tls_pair(client_tls, server_tls)
    client.send_nowait(b"sound")
    client.socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert await server.receive(RECEIVE_BUFFER) == 5
    assert await server.receive(RECEIVE_BUFFER) == 0
    client.close()
    server.close()

    client, server = await tls_pair(client_tls, server_tls)
    client.socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(trio.BrokenResourceError, match="TLS failed"):
        await server.receive(RECEIVE_BUFFER)
    client.close()
    server.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_open_transport_connects_and_cleans_up(
    client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve_one(tls: bool) -> None:
        transport = transport_from_trio(await listener.accept())
        if tls:
            transport = TlsTransport(transport.socket, server_tls, server_side=True)
            with contextlib.suppress(trio.BrokenResourceError):
                await transport.handshake()
        transport.send_nowait(b"hello")
        with contextlib.suppress(trio.BrokenResourceError):
            await transport.finish()

    for tls in (False, True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, tls)
            transport = await open_transport("localhost", port, client_tls if tls else None)
            assert transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert transport.peer == "127.0.0.1"
            assert await read(transport, 5) == b"hello"
            transport.close()
            assert transport.peer is None
    before = open_files()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_one, False)
        with pytest.raises(trio.BrokenResourceError, match="TLS handshake failed"):
            await open_transport("localhost", port, client_tls)
    assert open_files() == before
    await listener.aclose()
    with pytest.raises(OSError, match="connect"):
        await open_transport("localhost", port)
