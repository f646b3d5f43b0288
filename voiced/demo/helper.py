"""A small HTTP service on loopback, for the tools of the demo's agents."""

from __future__ import annotations

import json
from typing import Final

import h11
import trio

from voiced import clips

__all__ = ["Helper"]

LIMIT_S: Final = 10.0  # for one request


class Helper:
    """Answers `/hours` with the opening hours, `/pin/…` with whether it is right."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._port = 0

    async def serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        """Serve until cancelled; the started value is the URL."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._port = listeners[0].socket.getsockname()[1]
        task_status.started(f"http://127.0.0.1:{self._port}")
        await trio.serve_listeners(self._answer, listeners)

    async def reached(self) -> bool:
        """Whether this machine reaches its own loopback address."""
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        except OSError:
            return False
        await stream.aclose()
        return True

    async def _answer(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            with trio.move_on_after(LIMIT_S):
                async with stream:
                    while not isinstance(event := connection.next_event(), h11.Request):
                        if isinstance(event, h11.ConnectionClosed):
                            return
                        connection.receive_data(await stream.receive_some(4096))
                    body = self._body(event.target.decode("ascii"))
                    headers = [
                        ("Content-Type", "application/json"),
                        ("Content-Length", str(len(body))),
                        ("Connection", "close"),
                    ]
                    for part in (
                        h11.Response(status_code=200, headers=headers),
                        h11.Data(data=body),
                        h11.EndOfMessage(),
                    ):
                        await stream.send_all(connection.send(part) or b"")
        except (trio.BrokenResourceError, h11.ProtocolError):
            return  # whoever asked has gone, or does not speak HTTP

    def _body(self, path: str) -> bytes:
        self.asked.append(path)
        if path.startswith("/pin/"):
            return json.dumps({"answer": clips.load("go_ahead").text}).encode()
        return json.dumps({"hours": clips.load("opening_hours").text}).encode()
