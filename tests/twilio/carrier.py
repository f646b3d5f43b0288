"""A carrier for tests of the leg: the far end of a real WebSocket, on a virtual clock.

It plays what it is sent in real time, echoes marks when all before them has been played, and
insists on what Twilio insists on: three kinds of message, exact keys, the right stream.
"""

from __future__ import annotations

import base64
import json
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from voiced.socket import TcpTransport
from voiced.twilio.events import MAX_MESSAGE_BYTES
from voiced.twilio.leg import TwilioLeg, accept_start
from voiced.websocket import WebSocket, WebSocketClosed

STREAM_SID = "MZ0000000000000000000000000000000c"
CALL_SID = "CA0000000000000000000000000000000b"

KEYS = {
    "media": ({"event", "streamSid", "media"}, {"payload"}),
    "mark": ({"event", "streamSid", "mark"}, {"name"}),
    "clear": ({"event", "streamSid"}, set[str]()),
}


def start_message(**changes: Any) -> dict[str, Any]:
    body = {
        "accountSid": "AC0000000000000000000000000000000a",
        "callSid": CALL_SID,
        "streamSid": STREAM_SID,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"agent": "reception"},
    }
    return {
        "event": "start",
        "sequenceNumber": "1",
        "start": {key: value for key, value in (body | changes).items() if value is not None},
        "streamSid": STREAM_SID,
    }


class Way:
    """One direction of a network: takes its time and keeps order."""

    def __init__(self) -> None:
        self._on_the_way: deque[tuple[float, dict[str, Any]]] = deque()
        self._work = trio.lowlevel.ParkingLot()

    def put(self, message: dict[str, Any], delay: float) -> None:
        self._on_the_way.append((trio.current_time() + delay, message))
        self._work.unpark_all()

    async def run(self, deliver: Callable[[dict[str, Any]], None]) -> None:
        while True:
            while not self._on_the_way:
                await self._work.park()
            due, message = self._on_the_way.popleft()
            if due > trio.current_time():
                await trio.sleep_until(due)
            deliver(message)


class Carrier:
    """The client side of the stream. `number` makes the numbers of its messages: str or int."""

    def __init__(self, ws: WebSocket, number: Callable[[int], object] = str) -> None:
        self.ws = ws
        self.number = number
        self.sequence = 1
        self.chunk = 0
        self.timestamp = 0
        self.delay = 0.0  # seconds each way
        self.echoes = True
        self.received: list[tuple[float, dict[str, Any]]] = []  # (arrived at, message)
        self.played = 0  # bytes of audio
        self.closed: WebSocketClosed | None = None
        self._queue: list[dict[str, Any]] = []
        self._work = trio.lowlevel.ParkingLot()
        self._playing = trio.CancelScope()
        self._forwards = Way()
        self._backwards = Way()
        self._player: trio.Nursery
        self.nursery: trio.Nursery  # for the tasks of a test

    # what the leg hears

    def raw(self, message: bytes, *, binary: bool = False) -> None:
        self.ws.send_nowait(message, binary=binary)

    def tell(self, event: str, body: dict[str, Any] | None = None, **extra: Any) -> None:
        self.sequence += 1
        message: dict[str, Any] = {"event": event, "sequenceNumber": self.number(self.sequence)}
        if body is not None:
            message[event] = body
        self.raw(json.dumps(message | {"streamSid": STREAM_SID} | extra).encode())

    def connected(self) -> None:
        self.raw(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')

    def start(self, **changes: Any) -> None:
        self.raw(json.dumps(start_message(**changes)).encode())

    def say(self, payload: bytes, *, lose: bool = False) -> None:
        """Send one media message, or lose it as a carrier whose buffer is full does."""
        self.chunk += 1
        body = {
            "track": "inbound",
            "chunk": self.number(self.chunk),
            "timestamp": self.number(self.timestamp),
            "payload": base64.b64encode(payload).decode(),
        }
        self.timestamp += len(payload) // 8
        if lose:
            self.sequence += 1
        else:
            self.tell("media", body)

    def press(self, digit: object) -> None:
        self.tell("dtmf", {"track": "inbound_track", "digit": digit})

    def stop(self) -> None:
        self.tell("stop", {"callSid": CALL_SID})

    # what the leg says

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for _, message in self.received if message["event"] == event]

    @property
    def audio(self) -> bytes:
        return b"".join(base64.b64decode(each["media"]["payload"]) for each in self.of("media"))

    async def listen(self) -> None:
        """Take and play until the WebSocket ends."""
        async with trio.open_nursery() as self._player:
            self._player.start_soon(self._play)
            self._player.start_soon(self._forwards.run, self._take)
            self._player.start_soon(self._backwards.run, self._return)
            try:
                while True:
                    for message in await self.ws.receive():
                        assert isinstance(message, bytes), "binary frame to Twilio (31950)"
                        self._forwards.put(json.loads(message), self.delay)
            except WebSocketClosed as closed:
                self.closed = closed
            await self.ws.aclose()
            self._player.cancel_scope.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        keys, inner = KEYS[message["event"]]
        assert set(message) == keys
        assert set(message.get(message["event"], ())) == inner
        assert message["streamSid"] == STREAM_SID
        self.received.append((trio.current_time(), message))
        if message["event"] == "clear":
            queued, self._queue = self._queue, []
            self._playing.cancel()
            for each in queued:
                self._echo(each)
        else:
            self._queue.append(message)
            self._work.unpark_all()

    async def _play(self) -> None:
        while True:
            while not self._queue:
                await self._work.park()
            message = self._queue.pop(0)
            if message["event"] == "mark":
                self._echo(message)
                continue
            payload = base64.b64decode(message["media"]["payload"])
            began = trio.current_time()
            with trio.CancelScope() as self._playing:
                await trio.sleep(len(payload) / 8000)
            heard = round((trio.current_time() - began) * 8000)
            self.played += min(heard, len(payload))

    def _echo(self, message: dict[str, Any]) -> None:
        if message["event"] == "mark" and self.echoes:
            self._backwards.put(message["mark"], self.delay)

    def _return(self, mark: dict[str, Any]) -> None:
        with suppress(WebSocketClosed):
            self.tell("mark", mark)


def socket_pair(max_backlog: int = 256 * 1024) -> tuple[WebSocket, WebSocket]:
    """A server's and a client's end of one WebSocket, still to be entered."""
    ours, theirs = socket.socketpair()
    return (
        WebSocket(
            TcpTransport(ours),
            is_client=False,
            max_message=MAX_MESSAGE_BYTES,
            max_backlog=max_backlog,
        ),
        WebSocket(TcpTransport(theirs), is_client=True, max_backlog=64 * 1024 * 1024),
    )


@asynccontextmanager
async def connected_carrier(
    number: Callable[[int], object] = str,
) -> AsyncIterator[tuple[WebSocket, Carrier]]:
    """A carrier that has said nothing yet, and our end of its WebSocket."""
    server, client = socket_pair()
    async with server, client:
        carrier = Carrier(client, number)
        async with trio.open_nursery() as carrier.nursery:
            yield server, carrier
            carrier.nursery.cancel_scope.cancel()
        client.abort("the test is over")  # or closing would wait for a peer that does not read


@asynccontextmanager
async def stream(
    *,
    number: Callable[[int], object] = str,
    listen: bool = True,
    delay: float = 0.0,
    echoes: bool = True,
) -> AsyncIterator[tuple[TwilioLeg, Carrier]]:
    """A leg whose stream has started, and its carrier."""
    async with connected_carrier(number) as (server, carrier):
        carrier.delay, carrier.echoes = delay, echoes
        carrier.connected()
        carrier.start()
        leg = await accept_start(server, CALL_SID)
        if listen:
            carrier.nursery.start_soon(carrier.listen)
        yield leg, carrier


def seconds(payload: bytes) -> float:
    return len(payload) / 8000


def frames_of(ms: int, code: int = 0x55) -> bytes:
    return bytes([code]) * math.ceil(ms * 8)
