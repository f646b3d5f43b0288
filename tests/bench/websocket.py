"""What a WebSocket message costs: echo of 330 bytes of text over loopback, several codecs.

    python -m tests.bench.websocket [--seconds 3] [--connections 64] [--tls] [--json FILE] [NAME …]

The server runs alone on one core; the load comes from a process on another that keeps one message
outstanding on each connection. Figures are the server's CPU time per received and sent message,
which holds on a busy machine too, and the messages per second. Compare within one run only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import select
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import trio
import trio_websocket
import trustme
import wsproto.connection
import wsproto.events
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from voiced import frames, handshake, opening, websocket
from voiced.socket import TcpTransport, TlsTransport, transport_from_trio

PAYLOAD = b'{"event":"media","payload":"' + b"A" * 300 + b'"}'
Serve = Callable[[trio.SocketListener, ssl.SSLContext | None], Awaitable[None]]


async def upgrade(stream: trio.abc.Stream) -> bytes:
    """Answer the opening handshake on a Trio stream; returns what came behind it."""
    data = bytearray()
    while (parsed := handshake.parse_request(data)) is None:
        data += await stream.receive_some(65536)
    head, size = parsed
    await stream.send_all(handshake.switching_protocols(handshake.check_upgrade(head)))
    return bytes(data[size:])


async def upgrade_transport(transport: TcpTransport) -> None:
    data = bytearray()
    while (parsed := handshake.parse_request(data)) is None:
        size = await transport.receive(frames.RECEIVE_BUFFER)
        data += frames.RECEIVE_BUFFER[:size]
    transport.send_nowait(handshake.switching_protocols(handshake.check_upgrade(parsed[0])))


def on_streams(echo: Callable[[trio.abc.Stream], Awaitable[None]]) -> Serve:
    async def serve(listener: trio.SocketListener, tls: ssl.SSLContext | None) -> None:
        async def connection(plain: trio.SocketStream) -> None:
            stream = plain if tls is None else trio.SSLStream(plain, tls, server_side=True)
            try:
                await upgrade(stream)
                await echo(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        await trio.serve_listeners(connection, [listener])

    return serve


def on_transports(echo: Callable[[TcpTransport], Awaitable[None]]) -> Serve:
    async def serve(listener: trio.SocketListener, tls: ssl.SSLContext | None) -> None:
        async def connection(stream: trio.SocketStream) -> None:
            transport = transport_from_trio(stream)
            try:
                if tls is not None:
                    transport = TlsTransport(transport.socket, tls, server_side=True)
                    await transport.handshake()
                await upgrade_transport(transport)
                await echo(transport)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                transport.close()

        await trio.serve_listeners(connection, [listener])

    return serve


async def trio_websocket_echo(listener: trio.SocketListener, tls: ssl.SSLContext | None) -> None:
    async def connection(request: trio_websocket.WebSocketRequest) -> None:
        ws = await request.accept()
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except trio_websocket.ConnectionClosed:
            pass

    listeners: list[Any] = [listener if tls is None else trio.SSLListener(listener, tls)]
    await trio_websocket.WebSocketServer(connection, listeners).run()


async def wsproto_echo(stream: trio.abc.Stream) -> None:
    ws = wsproto.connection.Connection(wsproto.connection.ConnectionType.SERVER)
    while data := await stream.receive_some(65536):
        ws.receive_data(bytes(data))
        for event in ws.events():
            if isinstance(event, wsproto.events.TextMessage):
                await stream.send_all(ws.send(wsproto.events.TextMessage(data=event.data)))


async def websockets_echo(transport: TcpTransport) -> None:
    protocol = ServerProtocol(extensions=[])
    protocol.state = OPEN
    protocol.parser = protocol.parse()
    next(protocol.parser)
    while size := await transport.receive(frames.RECEIVE_BUFFER):
        protocol.receive_data(bytes(frames.RECEIVE_BUFFER[:size]))
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                protocol.send_text(bytes(event.data))
        for data in protocol.data_to_send():
            transport.send_nowait(data)


async def python_echo(transport: TcpTransport) -> None:
    """Frames in plain Python, unmasking through one big integer: no checks but the lengths."""
    data = b""
    while size := await transport.receive(frames.RECEIVE_BUFFER):
        data += frames.RECEIVE_BUFFER[:size]
        while len(data) >= 6:
            length, header = data[1] & 0x7F, 2
            if length == 126:
                length, header = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, header = int.from_bytes(data[2:10], "big"), 10
            start = header + 4
            end = start + length
            if len(data) < end:
                break
            key = int.from_bytes((data[header:start] * (length // 4 + 1))[:length], "little")
            masked = int.from_bytes(data[start:end], "little")
            payload = (masked ^ key).to_bytes(length, "little")
            payload.decode()
            data = data[end:]
            if length < 126:
                transport.send_nowait(bytes((0x81, length)) + payload)
            else:
                transport.send_nowait(struct.pack("!BBH", 0x81, 126, length) + payload)


async def native_frames_echo(transport: TcpTransport) -> None:
    reader = frames.FrameReader(expect_masked=True, max_message=1 << 20)
    while size := await transport.receive(frames.RECEIVE_BUFFER):
        for event in reader.received(size):
            if isinstance(event, bytes):
                transport.send_nowait(frames.frame(frames.TEXT_FRAME, event, masked=False))


async def native_on_stream_echo(stream: trio.abc.Stream) -> None:
    reader = frames.FrameReader(expect_masked=True, max_message=1 << 20)
    while data := await stream.receive_some(65536):
        for event in reader.feed(bytes(data)):
            if isinstance(event, bytes):
                await stream.send_all(frames.frame(frames.TEXT_FRAME, event, masked=False))


async def voiced_echo(listener: trio.SocketListener, tls: ssl.SSLContext | None) -> None:
    async def connection(stream: trio.SocketStream) -> None:
        transport = transport_from_trio(stream)
        try:
            if tls is not None:
                transport = TlsTransport(transport.socket, tls, server_side=True)
                await transport.handshake()
            data = bytearray()
            while (parsed := handshake.parse_request(data)) is None:
                size = await transport.receive(frames.RECEIVE_BUFFER)
                data += frames.RECEIVE_BUFFER[:size]
            async with await opening.accept(transport, parsed[0]) as ws:
                while True:
                    for message in await ws.receive():
                        if isinstance(message, bytes):
                            ws.send_nowait(message)
        except (websocket.WebSocketClosed, trio.BrokenResourceError):
            pass
        finally:
            transport.close()

    await trio.serve_listeners(connection, [listener])


SERVERS: dict[str, tuple[str, Serve]] = {
    "voiced": ("voiced.websocket (native frames, whole shell)", voiced_echo),
    "native": ("native frames on our transport", on_transports(native_frames_echo)),
    "native-stream": ("native frames on trio streams", on_streams(native_on_stream_echo)),
    "python": ("pure-Python frames on our transport", on_transports(python_echo)),
    "websockets": (
        "websockets' sans-I/O protocol on our transport",
        on_transports(websockets_echo),
    ),
    "wsproto": ("wsproto on trio streams", on_streams(wsproto_echo)),
    "trio-websocket": ("trio-websocket", trio_websocket_echo),
}


def rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def run_server(name: str, cores: list[int], tls: tuple[str, str] | None, pipe: Connection) -> None:
    """In its own process: serve, report CPU seconds and memory whenever asked."""
    os.sched_setaffinity(0, {cores[0]})
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        pipe.send(listener.socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(SERVERS[name][1], listener, context)
            while True:
                await trio.lowlevel.wait_readable(pipe.fileno())
                if pipe.recv() == "stop":
                    nursery.cancel_scope.cancel()
                    return
                pipe.send((time.process_time(), rss_kib()))

    trio.run(main)


def connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(handshake.request("localhost", "/", handshake.new_key()))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return sock


def load(
    port: int, connections: int, seconds: float, context: ssl.SSLContext | None, pipe: Connection
) -> dict[str, float]:
    """One message outstanding on each connection; returns the figures."""

    def ask() -> tuple[float, int]:
        pipe.send("cpu")
        answer: tuple[float, int] = pipe.recv()
        return answer

    _, rss_before = ask()
    sockets = {sock.fileno(): sock for sock in (connect(port, context) for _ in range(connections))}
    message = bytes(frames.frame(frames.TEXT_FRAME, PAYLOAD, masked=True))
    wanted = len(frames.frame(frames.TEXT_FRAME, PAYLOAD, masked=False))
    poll = select.epoll()
    missing = dict.fromkeys(sockets, wanted)
    for fd, sock in sockets.items():
        sock.sendall(message)
        poll.register(fd, select.EPOLLIN)
    count = 0
    start = warm = time.perf_counter()
    cpu = 0.0
    while True:
        for fd, _ in poll.poll():
            sock = sockets[fd]
            missing[fd] -= len(sock.recv(65536))
            if not missing[fd]:
                missing[fd] = wanted
                sock.sendall(message)
                count += 1
        now = time.perf_counter()
        if cpu == 0.0 and now - start > seconds / 4:  # warmed up
            cpu, rss = ask()
            count, warm = 0, now
        elif cpu and now - warm > seconds:
            end, _ = ask()
            break
    for sock in sockets.values():
        sock.close()
    return {
        "us_per_message": (end - cpu) / count * 1e6,
        "messages_per_s": count / (now - warm),
        "server_core": (end - cpu) / (now - warm),
        "rss_kib_per_connection": (rss - rss_before) / connections,
    }


def measure(
    name: str, seconds: float, connections: int, tls: tuple[str, str] | None
) -> dict[str, float]:
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=run_server, args=(name, cores, tls, theirs)
    )
    server.start()
    context = None
    if tls is not None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    os.sched_setaffinity(0, {cores[-1]})
    try:
        return load(ours.recv(), connections, seconds, context, ours)
    finally:
        ours.send("stop")
        server.join(5)
        os.sched_setaffinity(0, cores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SERVERS)}")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--tls", action="store_true", help="TLS 1.3 on both sides")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tls = None
        if options.tls:
            tls = (f"{folder}/cert.pem", f"{folder}/key.pem")
            cert = trustme.CA().issue_cert("localhost")
            cert.cert_chain_pems[0].write_to_path(tls[0])
            cert.private_key_pem.write_to_path(tls[1])
        print(f"{'echo, ' + ('TLS' if tls else 'TCP'):52} us/message  messages/s  core  KiB/conn")
        for name in options.names or SERVERS:
            figures = results[name] = measure(name, options.seconds, options.connections, tls)
            print(
                f"{SERVERS[name][0]:52} {figures['us_per_message']:10.1f}"
                f" {figures['messages_per_s']:11.0f} {figures['server_core']:5.2f}"
                f" {figures['rss_kib_per_connection']:9.1f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
