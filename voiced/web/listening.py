"""The admin listener's socket: TCP, or a Unix socket that the file system guards."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio
from hypercorn.typing import Framework

from voiced.config import parse_listen
from voiced.server import Server

__all__ = ["UNIX", "ListenError", "serve_admin"]

UNIX: Final = "unix:"
"""How a `listen` begins that names a Unix socket."""

# Operators, one scraper, a dashboard in a few tabs; each costs a task and a few kilobytes.
MAX_CONNECTIONS: Final = 128
_BACKLOG: Final = 64

_GRACE_S: Final = 1.0  # for requests under way when the daemon stops
_SOCKET_MODE: Final = 0o660


class ListenError(Exception):
    """The listener cannot be opened; the text says why and what to do, but names no setting."""


async def serve_admin(
    listen: str,
    app: Framework,
    *,
    stop: trio.Event,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listen` ("host:port", or "unix:" and an absolute path) until `stop` is set.

    `started` gives the address as it came to be: `127.0.0.1:9180` with the port really bound, or
    `unix:…`. A socket file gets mode 0660, its folder is made, one left by a dead daemon replaced.
    It is removed at the end. Raises ListenError.
    """
    async with _listening(listen) as (listeners, address):
        server = Server(app, max_connections=MAX_CONNECTIONS)
        async with trio.open_nursery() as nursery:

            async def serve(*, task_status: trio.TaskStatus[None]) -> None:
                await server.serve(listeners, stop=stop, grace=_GRACE_S, task_status=task_status)

            await nursery.start(serve)
            task_status.started(address)


@asynccontextmanager
async def _listening(listen: str) -> AsyncIterator[tuple[list[trio.SocketListener], str]]:
    if not listen.startswith(UNIX):
        listeners = await _open_tcp(listen)
        host = listen.rpartition(":")[0]
        yield listeners, f"{host}:{listeners[0].socket.getsockname()[1]}"
        return
    path = Path(listen.removeprefix(UNIX))
    listener, identity = _open_unix(path)
    try:
        yield [listener], listen
    finally:
        _remove_own(path, identity)


async def _open_tcp(listen: str) -> list[trio.SocketListener]:
    try:
        host, port = parse_listen(listen)
        return await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except (OSError, ValueError) as error:
        raise _failure(listen, error) from None


def _open_unix(path: Path) -> tuple[trio.SocketListener, tuple[int, int]]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        _remove_stale(path)
        sock.bind(str(path))
        path.chmod(_SOCKET_MODE)  # before it listens: until then nobody connects
        sock.listen(_BACKLOG)
        identity = _identity(path)
    except OSError as error:
        sock.close()
        raise _failure(UNIX + str(path), error) from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock)), identity


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError for anything else there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is an answer too
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _remove_own(path: Path, identity: tuple[int, int]) -> None:
    with suppress(OSError):
        if _identity(path) == identity:  # and not one that somebody else has made meanwhile
            path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


_REMEDIES: Final = {
    errno.EADDRINUSE: "another program uses it: stop that one, or change the address",
    errno.EACCES: "this user may not: change the address, or the rights of the folder",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EEXIST: "the file there is no socket: name another path",
}


def _failure(listen: str, error: OSError | ValueError) -> ListenError:
    cause = error.__cause__
    first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else error
    code = first.errno if isinstance(first, OSError) else None
    what = os.strerror(code) if code else str(error)
    remedy = _REMEDIES.get(code or 0, "change the address")
    return ListenError(f"cannot listen on {listen} ({what}); {remedy}")
