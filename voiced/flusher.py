"""Empties the backlog of a transport: a task that exists only while there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

from voiced.socket import TcpTransport

__all__ = ["Flusher"]


@final
class Flusher:
    """Of one transport, in its owner's `nursery`; `failed` is called when nothing can be sent."""

    __slots__ = ("_failed", "_flushed", "_nursery", "_transport")

    def __init__(
        self, transport: TcpTransport, nursery: trio.Nursery, failed: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._nursery = nursery
        self._failed = failed
        self._flushed: trio.Event | None = None

    @property
    def running(self) -> bool:
        """Whether there is a backlog that is being sent."""
        return self._flushed is not None

    def start(self) -> None:
        """There is a backlog."""
        if self._flushed is None:
            self._flushed = trio.Event()
            self._nursery.start_soon(self._run, self._flushed)

    async def wait(self) -> None:
        """Wait until the task that runs now has ended; not a checkpoint where none does."""
        if self._flushed is not None:
            await self._flushed.wait()

    async def _run(self, flushed: trio.Event) -> None:
        try:
            # Shielded, so that no Cancelled comes out of the nursery. It ends all the same: the
            # owner's cancellation leaves its context, which closes the transport in time.
            with trio.CancelScope(shield=True):
                await self._transport.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._failed()
        finally:
            self._flushed = None
            flushed.set()
