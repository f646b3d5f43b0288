"""A Realtime server that does exactly what a test says, right or wrong; one path per behaviour."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from voiced import clips
from voiced.audio import pcm_to_ulaw

__all__ = ["Behaviour", "Conversation", "serve_models"]

WORDS = clips.load("anything_else")  # about 2 s
MESSAGE_BYTES = 16 * 1024 * 1024


class Conversation:
    """One session's socket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket
        self._responses = 0

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send_message(json.dumps({"type": kind, "event_id": "event_1", **fields}))

    async def until(self, kind: str) -> dict[str, Any]:
        """Read until the client has sent an event of this kind."""
        while True:
            event: dict[str, Any] = json.loads(await self.socket.get_message())
            if event["type"] == kind:
                return event

    async def configure(self) -> None:
        """Open the session and grant all that is asked."""
        await self.send("session.created", session={"id": "sess_1", "type": "realtime"})
        update = await self.until("session.update")
        await self.send("session.updated", session=update["session"])

    async def greet(self) -> None:
        """Open the session and speak when asked to."""
        await self.configure()
        await self.until("response.create")
        await self.speak()

    async def begin(self) -> dict[str, Any]:
        """Announce a response; returns what its deltas have in common."""
        self._responses += 1
        await self.send(
            "response.created",
            response={"id": self.response, "status": "in_progress", "conversation_id": "conv_1"},
        )
        return {
            "response_id": self.response,
            "item_id": f"item_{self._responses}",
            "output_index": 0,
            "content_index": 0,
        }

    async def delta(self, place: Mapping[str, Any], audio: bytes) -> None:
        """Send a piece of audio, mu-law."""
        await self.send(
            "response.output_audio.delta", **place, delta=base64.b64encode(audio).decode()
        )

    async def speak(self) -> None:
        """A whole answer, about 2 s."""
        place = await self.begin()
        await self.delta(place, pcm_to_ulaw(WORDS.pcm))
        await self.send("response.output_audio.done", **place)
        await self.send("response.output_audio_transcript.done", **place, transcript=WORDS.text)
        await self.send("response.done", response={"id": self.response, "status": "completed"})

    @property
    def response(self) -> str:
        """The present response's id."""
        return f"resp_{self._responses}"

    async def listen(self) -> None:
        """Read to the end of the session."""
        while True:
            await self.socket.get_message()


Behaviour = Callable[[Conversation], Awaitable[None]]


async def serve_models(
    behaviours: Mapping[str, Behaviour],
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `ws://127.0.0.1:PORT/NAME` for each behaviour; the started value is PORT.

    A behaviour that returns closes its session with 1000.
    """

    async def handle(request: WebSocketRequest) -> None:
        name = request.path.partition("?")[0].strip("/")
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await behaviours[name](Conversation(await request.accept()))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(
                serve_websocket,
                handle,
                "127.0.0.1",
                0,
                None,
                handler_nursery=nursery,
                max_message_size=MESSAGE_BYTES,
            )
        )
        task_status.started(server.port)


def engine(name: str, port: int, more: str = "") -> str:
    """The `[engine.NAME]` that reaches a behaviour."""
    return (
        f'[engine.{name}]\nkind = "realtime"\nserver = "other"\nmodel = "test"\n'
        f'url = "ws://127.0.0.1:{port}/{name}"\n{more}\n'
    )
