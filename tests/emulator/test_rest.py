"""The HTTP side of the listener on in-memory streams: bounds, time-outs, errors, both protocols."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import open_websocket_url

from voiced import clips
from voiced.emulator import rest
from voiced.emulator.options import EmulatorOptions, Faults
from voiced.emulator.server import HANDSHAKE_S, Server, serve

JSON = [("content-type", "application/json")]
CHAT = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": clips.load("hours").text}]}
).encode()


class Answer:
    def __init__(self, response: h11.Response, body: bytes) -> None:
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Browser:
    """One connection of an HTTP client."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.connection = h11.Connection(h11.CLIENT)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: list[tuple[str, str]] | None = None,
    ) -> Answer:
        given = [("host", "x"), ("content-length", str(len(body))), *(headers or [])]
        request = h11.Request(method=method, target=path, headers=given)
        await self.stream.send_all(self.connection.send(request))
        if body:
            await self.stream.send_all(self.connection.send(h11.Data(data=body)))
        self.connection.send(h11.EndOfMessage())
        return await self.answer()

    async def answer(self) -> Answer:
        response: h11.Response | None = None
        body = bytearray()
        while True:
            event = self.connection.next_event()
            if event is h11.NEED_DATA:
                self.connection.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                if self.connection.our_state is h11.DONE is self.connection.their_state:
                    self.connection.start_next_cycle()
                return Answer(response, bytes(body))

    async def closed(self) -> bool:
        try:
            return not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True


@asynccontextmanager
async def browser(options: EmulatorOptions | None = None) -> AsyncIterator[Browser]:
    ours, theirs = memory_stream_pair()
    server = Server(options or EmulatorOptions(speech="clips"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.connected, theirs)
        yield Browser(ours)
        await ours.aclose()


async def chat(client: Browser, **headers: str) -> Answer:
    given = JSON + [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await client.ask("POST", "/v1/chat/completions", CHAT, given)


async def test_requests_of_one_connection_follow_each_other(autojump_clock: MockClock) -> None:
    async with browser() as client:
        for _ in range(3):
            answer = await chat(client)
            assert answer.status == 200
            content = json.loads(answer.body)["choices"][0]["message"]["content"]
            assert content == clips.load("opening_hours").text
        assert json.loads((await client.ask("GET", "/v1/models")).body)["object"] == "list"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/completions", 404),
        ("GET", "/", 404),
        ("GET", "/v1/realtime?model=x", 426),
    ],
)
async def test_what_is_not_there(
    method: str, path: str, status: int, autojump_clock: MockClock
) -> None:
    async with browser() as client:
        answer = await client.ask(method, path)
        assert (answer.status, answer.error["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"{}", b"\xff\xfe", b"[" * 5000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/audio/speech"])
async def test_bodies_that_are_none(path: str, body: bytes, autojump_clock: MockClock) -> None:
    async with browser() as client:
        assert (await client.ask("POST", path, body, JSON)).status == 400
        assert (await client.ask("GET", "/v1/models")).status == 200  # the connection is good


async def test_a_form_that_is_none(autojump_clock: MockClock) -> None:
    async with browser() as client:
        path = "/v1/audio/transcriptions"
        assert (await client.ask("POST", path, b"x" * 10, JSON)).status == 400
        form = [("content-type", "multipart/form-data; boundary=x")]
        assert "boundary" in (await client.ask("POST", path, b"abc", form)).error["message"]
        field = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--'
        missing = (await client.ask("POST", path, field, form)).error
        assert (missing["param"], missing["code"]) == ("file", "missing_required_parameter")
        unknown = field.replace(b"model", b"colour")
        assert (await client.ask("POST", path, unknown, form)).error["param"] == "colour"


async def test_keys(autojump_clock: MockClock) -> None:
    async with browser(EmulatorOptions(speech="clips", api_key="sk-1")) as client:
        assert (await chat(client, authorization="Bearer sk-1")).status == 200
        answer = await chat(client, authorization="Bearer sk-2")
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    async with browser(EmulatorOptions(speech="clips", api_key="sk-1")) as client:
        assert (await chat(client)).status == 401


async def test_too_many_connections(autojump_clock: MockClock) -> None:
    server = Server(EmulatorOptions(speech="clips", max_connections=1))
    async with trio.open_nursery() as nursery:

        async def connect() -> Browser:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(server.connected, theirs)
            await trio.testing.wait_all_tasks_blocked()
            return Browser(ours)

        first, second = await connect(), await connect()
        assert (await chat(second)).status == 503
        await second.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await chat(first)).status == 200
        await first.stream.aclose()


async def test_announced_and_endless_bodies(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "JSON_BYTES", 1000)
    async with browser() as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n"
        await client.stream.send_all(head)
        client.connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await client.closed()
    async with browser() as client:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await client.stream.send_all(head + b"3e8\r\n" + bytes(1000) + b"\r\n1\r\nx\r\n")
        client.connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        assert (await client.answer()).status == 413
        assert await client.closed()


async def test_slow_and_silent_clients(autojump_clock: MockClock) -> None:
    for sent, limit_s in (
        (b"", HANDSHAKE_S),
        (b"GET / HTTP/1.1\r\n", HANDSHAKE_S),
        (b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n", rest.BODY_S),
    ):
        async with browser() as client:
            started = trio.current_time()
            if sent:
                await client.stream.send_all(sent)
            while not await client.closed():
                pass
            assert trio.current_time() - started == pytest.approx(limit_s, abs=1.5)
    async with browser() as client:
        await chat(client)
        started = trio.current_time()
        assert await client.closed()
        assert trio.current_time() - started == pytest.approx(rest.IDLE_S, abs=0.1)


async def test_a_reader_that_stops_does_not_hold_on_for_ever(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    server = Server(EmulatorOptions(speech="clips"))
    with trio.fail_after(rest.SEND_S + 10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.connected, theirs)
            await ours.send_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")


@pytest.mark.parametrize(
    ("junk", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"GET /" + b"x" * 40_000, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
    ],
)
async def test_what_is_no_http(junk: bytes, status: int, autojump_clock: MockClock) -> None:
    async with browser() as client:
        await client.stream.send_all(junk)
        client.connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.connection.send(h11.EndOfMessage())
        assert (await client.answer()).status == status
        assert await client.closed()


async def test_a_client_that_leaves_in_mid_answer_ends_it(autojump_clock: MockClock) -> None:
    async with browser() as client:
        body = json.dumps(
            {
                "model": "m",
                "voice": "v",
                "input": clips.load("opening_hours").text,
                "response_format": "pcm",
            }
        ).encode()
        request = h11.Request(
            method="POST",
            target="/v1/audio/speech",
            headers=[("host", "x"), ("content-length", str(len(body)))],
        )
        await client.stream.send_all(client.connection.send(request) or b"")
        await client.stream.send_all(body)
        await client.stream.receive_some()
        started = trio.current_time()
    assert trio.current_time() - started < 1  # of the four seconds that it takes


async def test_late_answers_by_step(autojump_clock: MockClock) -> None:
    faults = Faults(chat_late_ms=4000, faulty_requests=1)
    async with browser(EmulatorOptions(speech="clips", faults=faults)) as client:
        for expected in (4.1, 0.1):
            started = trio.current_time()
            assert (await chat(client)).status == 200
            assert trio.current_time() - started == pytest.approx(expected, abs=0.05)


async def test_rate_limits_say_when_to_come_again(autojump_clock: MockClock) -> None:
    options = EmulatorOptions(speech="clips", faults=Faults(chat_status=429))
    async with browser(options) as client:
        answer = await chat(client)
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "1"


async def test_websockets_and_requests_share_the_port() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            options = EmulatorOptions(speech="clips", think_ms=0)
            port = await nursery.start(serve, "127.0.0.1", 0, options)
            url = f"ws://127.0.0.1:{port}/v1/realtime?model=m"
            async with open_websocket_url(url) as websocket:
                assert "session.created" in await websocket.get_message()
                client = Browser(await trio.open_tcp_stream("127.0.0.1", port))
                async with client.stream:
                    assert (await chat(client)).status == 200
            nursery.cancel_scope.cancel()


FRAGMENTS = st.sampled_from(
    [
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"POST /v1/audio/transcriptions HTTP/1.1\r\n",
        b"GET /v1/models HTTP/1.1\r\n",
        b"GET /v1/realtime?model=m HTTP/1.1\r\n",
        b"host: x\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\n",
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"content-length: 5\r\n",
        b"content-length: -1\r\n",
        b"transfer-encoding: chunked\r\n",
        b"expect: 100-continue\r\n",
        b"content-type: multipart/form-data; boundary=x\r\n",
        b"connection: close\r\n",
        b"\r\n",
        b"{}",
        b"5\r\n",
        b"0\r\n\r\n",
        b"\x81\x85\x00\x00\x00\x00hello",
        b"\x00\xff",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAGMENTS | st.binary(max_size=20), max_size=16), st.booleans())
def test_whatever_comes_is_answered_or_dropped(pieces: list[bytes], whole: bool) -> None:
    async def run() -> None:
        server = Server(EmulatorOptions(speech="clips"))
        ours, theirs = memory_stream_pair()
        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.connected, theirs)
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    for piece in [b"".join(pieces)] if whole else pieces:
                        if piece:
                            await ours.send_all(piece)
                        await trio.sleep(0.01)
                    await ours.send_eof()
                with contextlib.suppress(trio.BrokenResourceError):
                    while await ours.receive_some():
                        pass

    with capture_logs() as logs:
        trio.run(run, clock=MockClock(autojump_threshold=0))
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]
