"""The emulator's TCP stream, which can be told to play dead."""

from __future__ import annotations

import trio

__all__ = ["Wire"]


class Wire(trio.abc.Stream):
    """A stream that passes everything on, until `freeze`: then nothing is answered any more.

    A frozen stream still reads, and throws away, so that the end of the peer is noticed and the
    connection does not outlive it.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._frozen = False
        self._unread = b""

    def freeze(self) -> None:
        """Play dead from now on: the peer's pings get no pong, its close no close."""
        self._frozen = True

    def unread(self, data: bytes) -> None:
        """Have `data`, which came first, received once more."""
        self._unread = data + self._unread

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or hang for ever."""
        if self._frozen:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, or swallow everything but the end."""
        if self._unread:
            await trio.lowlevel.checkpoint()
            first, self._unread = self._unread, b""
            return first
        while True:
            data = await self._stream.receive_some(max_bytes)
            if not data or not self._frozen:
                return data

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
