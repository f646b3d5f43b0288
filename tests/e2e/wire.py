"""The wire between the daemon and a model, in the test's hands: cut, dead, frozen, whole again."""

from __future__ import annotations

import socket
import struct

import trio

__all__ = ["Wire"]

LINGER_NONE = struct.pack("ii", 1, 0)


class Wire:
    """TCP from a port of its own to `target`, for any number of connections."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.connections = 0
        """That have been accepted so far."""
        self.lost_at: list[float] = []
        """When connections were lost (Trio's clock)."""
        self._target = target
        self._down = False
        self._live: dict[trio.SocketStream, trio.CancelScope] = {}
        self._moves = trio.Event()
        self._moves.set()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled; the started value is the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._relay, listeners)
            task_status.started(self.port)

    @property
    def live(self) -> int:
        """Connections that are open."""
        return len(self._live)

    def cut(self) -> None:
        """Reset every connection; others may be made at once."""
        self.lost_at.append(trio.current_time())
        for stream, scope in self._live.items():
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            scope.cancel()

    def down(self) -> None:
        """The same, and none can be made until `up`."""
        self._down = True
        self.cut()

    def up(self) -> None:
        """Connections can be made again, and those that are frozen move on."""
        self._down = False
        self._moves.set()

    def freeze(self) -> None:
        """Every connection of now stands still, and nobody is told."""
        self.lost_at.append(trio.current_time())
        self._moves = trio.Event()

    async def _relay(self, client: trio.SocketStream) -> None:
        self.connections += 1
        if self._down:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            await client.aclose()
            return
        server = await trio.open_tcp_stream("127.0.0.1", self._target)
        with trio.CancelScope() as scope:
            self._live[client] = scope
            try:
                async with client, server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, client, server, nursery)
                    nursery.start_soon(self._pump, server, client, nursery)
            finally:
                del self._live[client]

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, nursery: trio.Nursery
    ) -> None:
        try:
            async for data in source:
                await self._moves.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()
