"""The least that answers a simulated carrier: a webhook and a media stream, over memory streams."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import h11
import trio
import trio.testing
import trio_websocket

from voiced.simulate.client import Network
from voiced.simulate.speech import Speech

WEBHOOK = "http://voice.test:8080/twilio/voice"
STREAM = "ws://voice.test:8080/twilio/media/t0ken"
TWIML = (
    "<Response><Connect><Stream url='{url}'{attributes}>"
    "<Parameter name='agent' value='reception'/></Stream></Connect></Response>"
)


def tone(ms: int) -> bytes:
    """PCM16 at 8 kHz that the ear takes for speech."""
    samples = (round(8000 * math.sin(0.3 * n)) for n in range(8 * ms))
    return b"".join(struct.pack("<h", sample) for sample in samples)


WORDS = Speech.from_pcm("words", "some words", tone(600))
LOUD = WORDS.frames[1]  # 20 ms of agent speech, mu-law


class Peer:
    """The server's end of one media stream."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self.socket = socket
        self.got: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.stream_sid = ""

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.socket.get_message())
        self.got.append(message)
        self.times.append(trio.current_time())
        if message["event"] == "start":
            self.stream_sid = message["streamSid"]
        return message

    async def until(self, event: str) -> dict[str, Any]:
        while (message := await self.receive())["event"] != event:
            pass
        return message

    async def drain(self) -> None:
        """Read to the end of the stream."""
        try:
            while True:
                await self.receive()
        except trio_websocket.ConnectionClosed:
            pass

    async def send(self, event: str, **body: Any) -> None:
        message = {"event": event, "streamSid": self.stream_sid, **body}
        await self.socket.send_message(json.dumps(message))

    async def speak(self, ms: int) -> None:
        payload = base64.b64encode(LOUD * (ms // 20)).decode()
        await self.send("media", media={"payload": payload})

    async def mark(self, name: str) -> None:
        await self.send("mark", mark={"name": name})

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.got if message["event"] == event]


class Rewound(trio.abc.Stream):
    """A stream of which `head` has been read, as if it had not been."""

    def __init__(self, stream: trio.abc.Stream, head: bytes) -> None:
        self._stream = stream
        self._head = head

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            await trio.lowlevel.checkpoint()
            head, self._head = self._head, b""
            return head
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


Agent = Callable[[Peer], Awaitable[None]]


class Server:
    """Answers webhooks, accepts streams and lets `agent` speak in them; the port is ignored."""

    def __init__(self, nursery: trio.Nursery, agent: Agent, tls: ssl.SSLContext | None) -> None:
        self._nursery = nursery
        self._agent = agent
        self._tls = tls
        self.twiml = TWIML.format(url=STREAM, attributes="")
        self.status = 200
        self.content_type = "text/xml"
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.handshakes: list[dict[str, str]] = []
        self.peers: list[Peer] = []
        self.refuse = False  # answers a handshake with 403
        self.deaf = False  # closes instead of answering a handshake

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        if host != "voice.test":
            raise OSError(f"unknown host {host}")
        ours, theirs = trio.testing.memory_stream_pair()
        stream: trio.abc.Stream = ours
        if self._tls is not None:
            stream = trio.SSLStream(ours, self._tls, server_side=True, https_compatible=True)
        self._nursery.start_soon(self._answer, stream)
        return theirs

    async def _answer(self, stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the peer did not like our certificate
            head = bytes(await stream.receive_some(65536))
            if self.deaf and b"websocket" in head:
                await stream.aclose()
            elif b"websocket" in head:
                await self._media(Rewound(stream, head))
            else:
                await self._webhook(Rewound(stream, head))

    async def _webhook(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        body, target, headers = b"", "", {}
        try:
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(65536)))
                elif isinstance(event, h11.Request):
                    target = event.target.decode()
                    headers = {name.decode(): value.decode() for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.ConnectionClosed):
                    return
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
            self.requests.append((target, headers, form))
            answer = [("Content-Type", self.content_type), ("Connection", "close")]
            sent = http.send(h11.Response(status_code=self.status, headers=answer))
            sent += http.send(h11.Data(self.twiml.encode())) + http.send(h11.EndOfMessage())
            await stream.send_all(sent)
            await stream.aclose()
        except trio.BrokenResourceError:
            pass

    async def _media(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            self.handshakes.append(
                {name.decode(): value.decode() for name, value in request.headers}
            )
            if self.refuse:
                await request.reject(403)
                return
            socket = await request.accept()
            peer = Peer(socket)
            self.peers.append(peer)
            try:
                await self._agent(peer)
                await socket.aclose()
            except trio_websocket.ConnectionClosed:
                pass
            nursery.cancel_scope.cancel()

    def network(self, tls: ssl.SSLContext | None = None) -> Network:
        return Network(self.dial, tls)


@asynccontextmanager
async def serve(agent: Agent, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        yield Server(nursery, agent, tls)
        nursery.cancel_scope.cancel()
