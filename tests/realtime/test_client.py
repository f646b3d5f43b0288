"""The engine over real sockets, against trio-websocket as the independent server."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from tests.realtime.script import b64, plan
from tests.realtime.test_turns import tone
from voiced import handshake
from voiced.config.types import Agent, OwnVad, RealtimeEngine
from voiced.engine import (
    AgentAudio,
    EngineEvent,
    Lost,
    Ready,
    ResponseStarted,
    Session,
    SpeechStarted,
    SpeechStopped,
)
from voiced.formats import PCMU_8K
from voiced.realtime import client

Socket = trio_websocket.WebSocketConnection
Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection at the server."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send_message(json.dumps({"type": kind, "event_id": "e", **fields}))

    async def hear(self, kind: str | None = None) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.socket.get_message())
        assert kind in (None, message["type"])
        return message

    async def configure(self) -> dict[str, Any]:
        await self.say("session.created", session={})
        update = await self.hear("session.update")
        await self.say("session.updated", session=update["session"])
        session: dict[str, Any] = update["session"]
        return session

    async def last(self) -> None:
        """Hold the line until the client hangs up."""
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await self.socket.get_message()


@asynccontextmanager
async def server(
    handler: Handler | None = None,
    *,
    refuse: tuple[int, bytes] | None = None,
    retry_after: str | None = None,
    seen: list[trio_websocket.WebSocketRequest] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve the handler on a free port."""

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        if seen is not None:
            seen.append(request)
        if refuse is not None:
            headers = [(b"content-length", b"%d" % len(refuse[1]))]
            if retry_after is not None:
                headers.append((b"retry-after", retry_after.encode()))
            await request.reject(refuse[0], extra_headers=headers, body=refuse[1])
            return
        assert handler is not None
        await handler(Peer(await request.accept()))

    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            trio_websocket.serve_websocket, serve, "127.0.0.1", 0, ssl_context
        )
        yield listening.port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def session(
    port: int, agent: Agent | None = None, scheme: str = "ws", **settings: Any
) -> AsyncIterator[Session]:
    url = f"{scheme}://127.0.0.1:{port}/v1/realtime"
    engine = client.RealtimeEngine("test", RealtimeEngine(url=url, **settings))
    assert engine.name == "test"
    with trio.fail_after(5):
        async with engine.open(plan(agent)) as opened:
            yield opened


async def until(opened: Session, *kinds: type[EngineEvent]) -> list[EngineEvent]:
    """Receive until an event of the last kind has come; it must be the last."""
    events: list[EngineEvent] = []
    while not events or not isinstance(events[-1], kinds[-1]):
        received = await opened.receive()
        assert received
        events += received
    assert tuple(type(event) for event in events) == kinds
    return events


async def lost(port: int, **settings: Any) -> Lost:
    """Open a session that comes to nothing."""
    async with session(port, **settings) as opened:
        (event,) = await until(opened, Lost)
        assert isinstance(event, Lost)
        with trio.move_on_after(0.01) as waiting:  # nothing follows
            await opened.receive()
        assert waiting.cancelled_caught
        opened.send_audio(b"\xff")
        opened.respond()
        return event


async def test_a_conversation() -> None:
    heard: list[dict[str, Any]] = []
    requests: list[trio_websocket.WebSocketRequest] = []

    async def handler(peer: Peer) -> None:
        session = await peer.configure()
        assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
        heard.append(await peer.hear())
        heard.append(await peer.hear())
        await peer.say("response.created", response={"id": "r", "conversation_id": "c"})
        await peer.say("response.output_audio.delta", response_id="r", item_id="i", delta="AAAA")
        heard.append(await peer.hear())
        await peer.last()

    async with server(handler, seen=requests) as port, session(port, api_key="sk-1") as opened:
        opened.send_audio(b"\x01")
        opened.send_audio(b"\x02")
        opened.respond("Greet.")
        await until(opened, Ready)
        assert opened.input_format == opened.output_format == PCMU_8K
        events = await until(opened, ResponseStarted, AgentAudio)
        assert events[-1] == AgentAudio("r", "i", 0, b"\0\0\0")
        opened.cancel()
        with trio.fail_after(20):
            while len(heard) < 3:
                await trio.sleep(0.001)
    assert [event["type"] for event in heard] == [
        "input_audio_buffer.append",
        "response.create",
        "response.cancel",
    ]
    assert heard[0]["audio"] == b64(b"\x01\x02")
    (request,) = requests
    assert request.path == "/v1/realtime?model=gpt-realtime-2.1"
    assert (b"authorization", b"Bearer sk-1") in request.headers


async def test_the_session_is_configured_before_anybody_receives() -> None:
    configured = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.configure()
        configured.set()
        await peer.last()

    async with server(handler) as port, session(port):
        await configured.wait()


async def test_entering_does_not_wait_and_leaving_is_quick() -> None:
    async def handler(peer: Peer) -> None:
        await trio.sleep_forever()  # never says session.created

    async with server(handler) as port:
        started = trio.current_time()
        async with session(port):
            pass
        assert trio.current_time() - started < 1.5


async def test_leaving_closes_with_1000() -> None:
    closed: list[int] = []

    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.last()
        assert peer.socket.closed is not None
        closed.append(peer.socket.closed.code)

    async with server(handler) as port:
        async with session(port) as opened:
            await until(opened, Ready)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert closed == [1000]


async def test_an_exception_of_the_body_comes_out_as_it_is() -> None:
    async with server(Peer.last) as port:
        with pytest.raises(KeyError):
            async with session(port):
                raise KeyError


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (1001, "", True),
        (1011, "internal", True),
        (1012, "restart", True),
        (1013, "try again", True),
        (3000, "invalid_request_error.invalid_api_key", False),
        (4000, "invalid_request_error.beta_api_shape_disabled", False),
    ],
)
@pytest.mark.parametrize("configured", [True, False])
async def test_close_codes(code: int, reason: str, retryable: bool, configured: bool) -> None:
    async def handler(peer: Peer) -> None:
        if configured:
            await peer.configure()
        await peer.socket.aclose(code, reason)

    async with server(handler) as port, session(port) as opened:
        kinds: list[type[EngineEvent]] = [Ready, Lost] if configured else [Lost]
        events = await until(opened, *kinds)
    assert events[-1] == Lost(f"close_{code}", reason, retryable)


async def test_session_expired_then_close_is_one_loss() -> None:
    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.say("error", error={"code": "session_expired", "message": "60 minutes"})
        await peer.socket.aclose(1001, "")

    async with server(handler) as port, session(port) as opened:
        events = await until(opened, Ready, Lost)
        assert events[-1] == Lost("session_expired", "60 minutes", retryable=True)
        with trio.move_on_after(0.02):
            raise AssertionError(await opened.receive())


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (403, False), (429, True), (500, True), (503, True)]
)
async def test_refused_handshakes(status: int, retryable: bool) -> None:
    async with server(refuse=(status, b"because of sk-secret")) as port:
        event = await lost(port, api_key="sk-secret")
    assert (event.code, event.retryable) == (f"http_{status}", retryable)
    assert "because of" in event.message
    assert "sk-secret" not in event.message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("20", 20.0),
        (" 0 ", 0.0),
        (None, 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("-1", 0.0),
        ("nan", 0.0),
        ("9" * 400, 3600.0),
    ],
)
async def test_how_long_a_server_wants_to_be_left_alone(header: str | None, seconds: float) -> None:
    async with server(refuse=(429, b"slow down"), retry_after=header) as port, session(port) as one:
        (lost,) = await until(one, Lost)
        assert isinstance(one, client.RealtimeSession)
        assert one.retry_after_s == seconds
    assert isinstance(lost, Lost)
    assert lost.retryable


async def test_a_429_for_want_of_money_is_final() -> None:
    async with server(refuse=(429, b'{"error": {"code": "insufficient_quota"}}')) as port:
        assert not (await lost(port)).retryable


async def test_nobody_listens() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    event = await lost(port)
    assert (event.code, event.retryable) == ("unreachable", True)


async def test_a_server_that_never_configures() -> None:
    async def handler(peer: Peer) -> None:
        await peer.say("session.created", session={})
        await peer.last()

    async with server(handler) as port:
        event = await lost(port, connect_timeout_s=0.05)
    assert (event.code, event.retryable) == ("no_session", True)


async def test_a_url_or_key_that_cannot_be_right() -> None:
    event = await lost(1, api_key="sk\r\nX: y")
    assert (event.code, event.retryable) == ("bad_url", False)
    assert "sk" not in event.message


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(tmp_path: Path, trusted: bool) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    (authority if trusted else other).cert_pem.write_to_path(str(bundle))

    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.last()

    async with server(handler, ssl_context=context) as port:
        if trusted:
            async with session(port, scheme="wss", ca_file=bundle) as opened:
                await until(opened, Ready)
        else:
            event = await lost(port, scheme="wss", ca_file=bundle)
            assert (event.code, event.retryable) == ("bad_certificate", False)


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(OSError):  # noqa: PT011 (ssl.SSLError is one)
        client.RealtimeEngine("x", RealtimeEngine(ca_file=tmp_path / "missing.pem"))


async def test_malformed_and_binary_messages_cost_nothing() -> None:
    async def handler(peer: Peer) -> None:
        await peer.configure()
        for message in ("{", "[]", b"\x00binary", '{"type": "new.thing"}', "{}" * 1000):
            await peer.socket.send_message(message)
        await peer.say("response.created", response={"id": "r", "conversation_id": "c"})
        await peer.last()

    async with server(handler) as port, session(port) as opened:
        kinds: list[str] = []
        while "ResponseStarted" not in kinds:
            kinds += [type(event).__name__ for event in await opened.receive()]
    assert kinds == ["Ready", "EngineFault", "ResponseStarted"]


async def test_a_megabyte_in_one_delta() -> None:
    payload = bytes(1024 * 1024)

    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.say("response.created", response={"id": "r", "conversation_id": "c"})
        await peer.say(
            "response.output_audio.delta", response_id="r", item_id="i", delta=b64(payload)
        )
        await peer.last()

    async with server(handler) as port, session(port) as opened:
        events = await until(opened, Ready, ResponseStarted, AgentAudio)
    assert isinstance(events[-1], AgentAudio)
    assert len(events[-1].payload) == len(payload)


async def test_a_command_wakes_the_receiver() -> None:
    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.last()

    agent = Agent(turn_detection=OwnVad(prefix_padding_ms=0))
    async with server(handler) as port, session(port, agent) as opened:
        await until(opened, Ready)
        got: list[EngineEvent] = []

        async def receive() -> None:
            got.extend(await opened.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            opened.send_audio(PCMU_8K.silence(200) + tone(200))
    assert [type(event) for event in got] == [SpeechStarted]


@asynccontextmanager
async def mute_server(*, reads: bool = True) -> AsyncIterator[int]:
    """A server that configures a session and then falls silent, pings included."""

    async def handler(stream: trio.SocketStream) -> None:
        data = bytearray()
        while (parsed := handshake.parse_request(data)) is None:
            data += await stream.receive_some()
        await stream.send_all(handshake.switching_protocols(handshake.check_upgrade(parsed[0])))
        for kind in ("session.created", "session.updated"):
            text = json.dumps({"type": kind, "session": {}}).encode()
            await stream.send_all(bytes([0x81, len(text)]) + text)
        while reads and await stream.receive_some():
            pass
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_half_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PING_INTERVAL_S", 0.02)
    async with mute_server() as port, session(port) as opened:
        events = await until(opened, Ready, Lost)
    assert isinstance(events[-1], Lost)
    assert (events[-1].code, events[-1].retryable) == ("half_open", True)


async def test_silence_with_pongs_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PING_INTERVAL_S", 0.2)  # twice that is no stall of a busy machine

    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.last()

    async with server(handler) as port, session(port) as opened:
        await until(opened, Ready)
        with trio.move_on_after(1.0) as waiting:
            await opened.receive()
        assert waiting.cancelled_caught


async def test_who_was_late_does_not_blame_the_server() -> None:
    """A process that stood still for a minute has read nothing, and asked nothing either."""
    async with mute_server() as port, session(port) as opened:
        await until(opened, Ready)
        assert isinstance(opened, client.RealtimeSession)
        assert opened._ws is not None
        for due_s, lost in ((9.9, False), (10.1, True)):  # after the last data, and it is 60 now
            opened._waiting = True
            opened._last_data = trio.current_time() - 60
            opened._check_alive(opened._ws, opened._last_data + due_s)
            assert opened._machine.lost == lost


async def test_a_call_that_takes_no_events_is_not_half_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PING_INTERVAL_S", 0.02)
    async with mute_server() as port, session(port) as opened:
        await until(opened, Ready)
        await trio.sleep(0.15)
        with trio.move_on_after(0.01) as waiting:
            await opened.receive()
        assert waiting.cancelled_caught


async def test_a_server_that_does_not_read_is_lost() -> None:
    async with mute_server(reads=False) as port, session(port) as opened:
        await until(opened, Ready)
        for _ in range(400):
            opened.send_audio(bytes(64 * 1024))
        (event,) = await until(opened, Lost)
    assert isinstance(event, Lost)
    assert (event.code, event.retryable) == ("stalled", True)
    assert event.message.startswith("model socket stalled")


async def test_an_end_without_a_close_frame() -> None:
    async def handler(peer: Peer) -> None:
        await peer.configure()
        await peer.socket._stream.aclose()  # as a crash would

    async with server(handler) as port, session(port) as opened:
        events = await until(opened, Ready, Lost)
    assert isinstance(events[-1], Lost)
    assert (events[-1].code, events[-1].retryable) == ("close_1006", True)


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_cancelled_is_what_the_call_had_acted_on(late: bool) -> None:
    """Until it asks for more it acts on what it was told last."""
    asked, over = trio.Event(), trio.Event()

    async def answering(peer: Peer) -> None:
        await peer.configure()
        while (await peer.hear())["type"] != "response.create":
            pass
        asked.set()
        await over.wait()
        await peer.say("response.created", response={"id": "r1", "conversation_id": "c1"})
        await peer.say("response.output_audio.delta", response_id="r1", delta=b64(b"\x21" * 160))
        await peer.say("input_audio_buffer.speech_started", audio_start_ms=0)
        await peer.last()

    agent = Agent(turn_detection=OwnVad(silence_ms=100))
    async with server(answering) as port, session(port, agent) as opened:
        await until(opened, Ready)
        opened.send_audio(tone(400) + PCMU_8K.silence(400))
        await until(opened, SpeechStarted, SpeechStopped)
        await asked.wait()
        if late:
            with trio.move_on_after(0.01):
                await opened.receive()
        opened.cancel()
        over.set()
        if late:
            await until(opened, SpeechStarted)
        else:
            await until(opened, ResponseStarted, AgentAudio, SpeechStarted)
