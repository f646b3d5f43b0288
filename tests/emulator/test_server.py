"""The whole server on in-memory streams and virtual time: handshake, pace, faults, endings."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    open_websocket_url,
    wrap_client_stream,
)

from tests.emulator import sdk
from tests.emulator.test_dialogue import speech
from voiced import clips
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.emulator.recognise import prepare
from voiced.emulator.server import Server, serve

Event = dict[str, Any]
EXACTLY = 'Say exactly the following words and nothing else: "{}"'
SESSION = {
    "type": "realtime",
    "audio": {
        "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "whisper-1"}},
        "output": {"format": {"type": "audio/pcmu"}},
    },
    "tools": [{"type": "function", "name": "lookup"}],
}


class Client:
    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket
        self.seen: list[Event] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.websocket.send_message(json.dumps({"type": kind, **fields}))

    async def receive(self) -> Event:
        event: Event = json.loads(await self.websocket.get_message())
        if event["type"] != "response.mood.updated":
            sdk.check(event)
        self.seen.append(event)
        return event

    async def until(self, kind: str) -> Event:
        while True:
            event = await self.receive()
            if event["type"] == kind:
                return event

    async def configure(self) -> None:
        await self.send("session.update", session=SESSION)
        await self.until("session.updated")

    async def say(self, name: str) -> None:
        """Stream a caller's line in real time."""
        audio = speech(name, before_ms=400, after_ms=700)
        for start in range(0, len(audio), 160):
            encoded = base64.b64encode(audio[start : start + 160]).decode()
            await self.send("input_audio_buffer.append", audio=encoded)
            await trio.sleep(0.02)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.seen if event["type"] == kind]

    def audio(self) -> bytes:
        deltas = self.of("response.output_audio.delta")
        return b"".join(base64.b64decode(event["delta"]) for event in deltas)


Connect = Callable[..., Awaitable[Client]]


@asynccontextmanager
async def connecting(
    faults: Faults | None = None, **settings: Any
) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    settings.setdefault("speech", "clips")
    server = Server(EmulatorOptions(faults=faults or Faults(), **settings))
    await prepare()
    async with trio.open_nursery() as nursery:

        async def connect(
            path: str = "/v1/realtime?model=m", headers: Sequence[tuple[bytes, bytes]] = ()
        ) -> Client:
            ours, theirs = streams()
            nursery.start_soon(server.connected, theirs)
            return Client(
                await wrap_client_stream(
                    nursery,
                    ours,
                    "test",
                    path,
                    extra_headers=list(headers),
                    max_message_size=4 * 1024 * 1024,
                )
            )

        yield connect
        nursery.cancel_scope.cancel()


def streams() -> tuple[Any, trio.abc.Stream]:
    """A client's end, typed loosely because trio-websocket wants a socket's, and a server's."""
    return memory_stream_pair()


async def refusal(
    server: Server, path: str = "/v1/realtime?model=m", headers: bytes = b""
) -> tuple[int, bytes]:
    """Ask for an upgrade that is not granted; returns the status and the body."""
    ours, theirs = streams()
    request = (
        b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
    )
    response = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.connected, theirs)
        await ours.send_all(request % (path.encode(), headers))
        while data := await ours.receive_some():
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_conversation(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        assert (await client.receive())["type"] == "session.created"
        await client.configure()
        await client.send("response.create", response={"instructions": "Greet the caller."})
        await client.until("response.done")
        assert len(client.audio()) // 8 == clips.load("greeting").duration_ms
        said = "".join(e["delta"] for e in client.of("response.output_audio_transcript.delta"))
        assert said == clips.load("greeting").text
        client.seen.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, "hours")
            done = await client.until("response.done")
        done_item = done["response"]["output"][0]["content"][0]
        assert done_item["transcript"] == clips.load("opening_hours").text
        transcript = "conversation.item.input_audio_transcription.completed"
        assert client.of(transcript)[0]["transcript"] == "What are your opening hours?"
        assert done["response"]["usage"]["output_token_details"]["audio_tokens"] > 100


async def test_the_answer_begins_within_a_second_and_comes_faster_than_it_plays(
    autojump_clock: MockClock,
) -> None:
    async with connecting() as connect:
        client = await connect()
        await client.configure()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, "hours")
            await client.until("input_audio_buffer.speech_stopped")
            stopped = trio.current_time()
            await client.until("response.output_audio.delta")
            assert trio.current_time() - stopped < 0.4  # the 500 ms of silence come before
            first = trio.current_time()
            await client.until("response.done")
        ratio = clips.load("opening_hours").duration_ms / 1000 / (trio.current_time() - first)
        assert 3.5 < ratio < 5


async def test_speech_interrupts_and_nothing_follows(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        await client.configure()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, "hours")
            await client.until("response.output_audio.delta")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, "interrupt")
            await client.until("input_audio_buffer.speech_started")
            cancelled = await client.until("response.done")
            client.seen.clear()
            done = await client.until("response.done")
        assert cancelled["response"]["status_details"]["reason"] == "turn_detected"
        item = cancelled["response"]["output"][0]["id"]
        assert all(e["item_id"] != item for e in client.of("response.output_audio.delta"))
        answer = done["response"]["output"][0]["content"][0]["transcript"]
        assert answer == clips.load("go_ahead").text


async def test_exact_words_without_a_synthesiser_are_the_nearest(
    autojump_clock: MockClock,
) -> None:
    async with connecting() as connect:
        client = await connect()
        words = "Is there anything else that I can do?"
        await client.send("response.create", response={"instructions": EXACTLY.format(words)})
        done = await client.until("response.done")
        said = done["response"]["output"][0]["content"][0]["transcript"]
        assert said == "Is there anything else that I can do for you?"
        duration = clips.load("anything_else").duration_ms
        assert abs(len(client.audio()) // 48 - duration) <= 3  # PCM at 24 kHz is the default


async def test_the_echo_is_the_callers_voice(autojump_clock: MockClock) -> None:
    async with connecting(speech="echo") as connect:
        client = await connect()
        await client.configure()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, "thanks")
            await client.until("response.done")
        heard = client.of("input_audio_buffer.speech_started")[0]["audio_start_ms"]
        until = client.of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
        assert abs(len(client.audio()) // 8 - (until - heard)) <= 2


async def test_an_idle_caller(autojump_clock: MockClock) -> None:
    async with connecting() as connect:
        client = await connect()
        detection = {"type": "server_vad", "idle_timeout_ms": 5000}
        session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
        await client.send("session.update", session=session)
        await client.send("response.create")
        await client.until("response.done")
        done = trio.current_time()
        await client.until("input_audio_buffer.timeout_triggered")
        expected = 5 + len(client.audio()) / 48000
        assert abs(trio.current_time() - done - expected) < 0.1
        await client.until("response.done")


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_refusals_instead_of_the_upgrade(status: Any, autojump_clock: MockClock) -> None:
    server = Server(EmulatorOptions(speech="clips", faults=Faults(refuse_status=status)))
    got, body = await refusal(server)
    assert got == status
    assert json.loads(body)["error"]["type"]


async def test_the_key_the_path_and_the_number_of_connections(autojump_clock: MockClock) -> None:
    server = Server(EmulatorOptions(speech="clips", api_key="sk-1", max_connections=1))
    path, key = "/v1/realtime?model=m", b"Authorization: Bearer sk-1\r\n"
    assert (await refusal(server, path))[0] == 401
    assert (await refusal(server, path, key.replace(b"1", b"2")))[0] == 401
    assert (await refusal(server, "/v1/models", key))[0] == 404
    async with trio.open_nursery() as nursery:
        ours, theirs = streams()
        nursery.start_soon(server.connected, theirs)
        given = [(b"Authorization", b"Bearer sk-1")]
        websocket = await wrap_client_stream(
            nursery, ours, "test", "/openai/v1/realtime?model=m", extra_headers=given
        )
        assert (await refusal(server, path, key))[0] == 503
        await websocket.aclose()


@pytest.mark.parametrize(
    ("path", "headers", "faults", "code", "close"),
    [
        ("/realtime", [], Faults(), "missing_model", 4000),
        (
            "/realtime?model=m",
            [(b"OpenAI-Beta", b"realtime=v1")],
            Faults(),
            "beta_api_shape_disabled",
            4000,
        ),
        (
            "/realtime?model=m",
            [],
            Faults(refuse_code="invalid_api_key", refuse_close=3000),
            "invalid_api_key",
            3000,
        ),
        ("/realtime?model=m", [], Faults(session_expired_after_ms=500), "session_expired", 1001),
    ],
)
async def test_fatal_errors_are_told_and_then_closed_for(
    path: str,
    headers: Sequence[tuple[bytes, bytes]],
    faults: Faults,
    code: str,
    close: int,
    autojump_clock: MockClock,
) -> None:
    async with connecting(faults) as connect:
        client = await connect(path, headers)
        assert (await client.until("error"))["error"]["code"] == code
        with pytest.raises(ConnectionClosed) as caught:
            await client.receive()
        assert caught.value.reason is not None
        assert caught.value.reason.code == close
        assert code in (caught.value.reason.reason or "")


@pytest.mark.parametrize("code", [1001, 1011, 1013, 1006])
@pytest.mark.parametrize("when", ["close_after_ms", "close_in_answer_ms"])
async def test_sudden_closes(code: int, when: str, autojump_clock: MockClock) -> None:
    faults = Faults(close_code=code, **{when: 1000})  # type: ignore[arg-type]
    async with connecting(faults) as connect:
        client = await connect()
        await client.send("response.create")
        with pytest.raises(ConnectionClosed) as caught:
            await client.until("never")
        assert caught.value.reason is not None
        assert caught.value.reason.code == code
        if when == "close_in_answer_ms":
            assert len(client.audio()) == 1000 * 48


@pytest.mark.parametrize("when", ["half_open_after_ms", "half_open_in_answer_ms"])
async def test_half_open(when: str, autojump_clock: MockClock) -> None:
    async with connecting(Faults(**{when: 400})) as connect:  # type: ignore[arg-type]
        client = await connect()
        await client.send("response.create")
        with trio.move_on_after(30) as scope:
            await client.until("response.done")
        assert scope.cancelled_caught
        assert client.audio()
        with trio.move_on_after(30) as scope:
            await client.websocket.ping()
        assert scope.cancelled_caught


async def test_late_answers(autojump_clock: MockClock) -> None:
    faults = Faults(late_created_ms=3000, late_updated_ms=2000, late_response_ms=4000)
    async with connecting(faults) as connect:
        client = await connect()
        start = trio.current_time()
        await client.until("session.created")
        assert trio.current_time() - start == pytest.approx(3, abs=0.01)
        await client.configure()
        assert trio.current_time() - start == pytest.approx(5, abs=0.01)
        await client.send("response.create")
        await client.send("response.cancel")  # before response.created: does nothing
        code = (await client.until("error"))["error"]["code"]
        assert code == "response_cancel_not_active"
        await client.until("response.created")
        assert trio.current_time() - start == pytest.approx(9, abs=0.01)


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        ("before", ["completed", "done"]),
        ("after", ["done", "completed"]),
        ("failed", ["failed", "done"]),
        ("never", ["done"]),
    ],
)
async def test_transcripts_come_when_they_like(
    mode: Any, order: list[str], autojump_clock: MockClock
) -> None:
    async with connecting(Faults(transcription=mode)) as connect:
        client = await connect()
        await client.configure()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.say, "thanks")
            with trio.move_on_after(20):
                while True:
                    await client.receive()
        wanted = ("response.done", "transcription.completed", "transcription.failed")
        seen = [e["type"] for e in client.seen if e["type"].endswith(wanted)]
        assert [kind.rpartition(".")[2] for kind in seen] == order


@pytest.mark.parametrize(("size", "ms"), [(1, 2000), (1024 * 1024, 140_000)])
async def test_deltas_of_any_size(size: int, ms: int, autojump_clock: MockClock) -> None:
    faults = Faults(delta_bytes=size, answer_ms=ms)
    async with connecting(faults, realtime_factor=1000) as connect:
        client = await connect()
        await client.configure()
        await client.send("response.create", response={"instructions": EXACTLY.format("Hm")})
        while (event := json.loads(await client.websocket.get_message()))["type"] != (
            "response.done"
        ):
            client.seen.append(event)
        sizes = {
            len(base64.b64decode(e["delta"])) for e in client.of("response.output_audio.delta")
        }
        assert max(sizes) == size
        assert len(client.audio()) >= ms * 8


async def test_failures_errors_and_oddities(autojump_clock: MockClock) -> None:
    faults = Faults(fail_response=2, error_after_ms=60_000, unknown_events=True)
    async with connecting(faults) as connect:
        client = await connect()
        statuses = []
        for _ in range(3):
            await client.send("response.create")
            statuses.append((await client.until("response.done"))["response"]["status"])
        assert statuses == ["completed", "failed", "completed"]
        assert len(client.of("response.mood.updated")) == 3
        body = (await client.until("error"))["error"]
        assert (body["type"], body["code"]) == ("server_error", None)
        await client.configure()  # it goes on


async def test_functions_are_called_once_a_turn(autojump_clock: MockClock) -> None:
    async with connecting(Faults(function_calls=2, function_arguments='{"half":')) as connect:
        client = await connect()
        await client.configure()
        await client.send("response.create")
        calls = (await client.until("response.done"))["response"]["output"]
        assert [call["arguments"] for call in calls] == ['{"half":'] * 2
        for call in calls:
            item = {"type": "function_call_output", "call_id": call["call_id"], "output": "x"}
            await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        done = await client.until("response.done")
        assert done["response"]["output"][0]["type"] == "message"


async def test_nothing_is_left_of_a_connection(autojump_clock: MockClock) -> None:
    server = Server(EmulatorOptions(speech="clips"))
    for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\1\2\3" * 99, b"GET "):
        ours, theirs = streams()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.connected, theirs)
            await ours.send_all(garbage)
            await trio.sleep(1)
            await ours.aclose()
    over = trio.Event()

    async def connected(stream: trio.abc.Stream) -> None:
        await server.connected(stream)
        over.set()

    async with trio.open_nursery() as nursery:
        ours, theirs = streams()
        nursery.start_soon(connected, theirs)
        websocket = await wrap_client_stream(nursery, ours, "test", "/realtime?model=m")
        await websocket.send_message('{"type":"response.create"}')
        await trio.sleep(0.5)
        await ours.aclose()  # in mid-answer
        with trio.fail_after(5):
            await over.wait()
        nursery.cancel_scope.cancel()


async def test_over_tcp() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, "127.0.0.1", 0, EmulatorOptions(speech="clips"))
        async with open_websocket_url(f"ws://127.0.0.1:{port}/v1/realtime?model=m") as websocket:
            client = Client(websocket)
            await client.until("session.created")
            await client.configure()
        nursery.cancel_scope.cancel()


async def test_a_taken_port_is_an_os_error() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, "127.0.0.1", 0, EmulatorOptions(speech="clips"))
        with pytest.raises(OSError, match="in use"):
            await serve("127.0.0.1", port, EmulatorOptions(speech="clips"))
        nursery.cancel_scope.cancel()
