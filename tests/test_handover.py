"""The seam between the listener's transport and hypercorn."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from voiced.handover import _HttpStream
from voiced.socket import TcpTransport


async def test_nobody_reads_while_a_close_waits_for_the_clients_end() -> None:
    """hypercorn's reader comes back once its own task has answered and closed."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        stream = _HttpStream(TcpTransport(ours), b"", lambda head: False, set(), 5.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.aclose)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            theirs.shutdown(socket.SHUT_WR)
