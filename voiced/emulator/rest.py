"""The emulator's HTTP API, on the listener of its WebSockets: OpenAI's shapes for a pipeline.

Requests of one connection are served one after the other. Whatever is wrong with one is answered
with a status and OpenAI's error object, and what is slow or endless with the end of the connection.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Iterable
from secrets import token_hex
from typing import Any, Final

import h11
import msgspec
import structlog
import trio

from voiced import clips
from voiced.emulator import chat, transcribe
from voiced.emulator.answers import language_of
from voiced.emulator.errors import HttpRefused, refusal
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.recognise import recognise
from voiced.emulator.speaking import read_request, sound_of
from voiced.emulator.speech import Voice

__all__ = ["HEAD_BYTES", "Rest"]

HEAD_BYTES: Final = 16 * 1024  # of a request's line and headers
JSON_BYTES: Final = 4 * 1024 * 1024  # MESSAGES of a conversation with room to spare
UPLOAD_BYTES: Final = 25 * 1024 * 1024  # as the service takes
UPLOADS: Final = 8  # read and analysed at a time, so that memory is bounded
BODY_S: Final = 30.0  # for a whole request to arrive
IDLE_S: Final = 15.0  # between two requests of a connection
SEND_S: Final = 30.0  # for a piece of an answer to be taken
PIECE_MS: Final = 10  # between two pieces of a chat's answer, at real time

_log = structlog.get_logger("voiced.emulator")
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
Handler = Callable[["Rest", "_Exchange"], Awaitable[None]]


class _Cut(Exception):
    """A fault: TCP closes in the midst of an answer."""


class Rest:
    """What all HTTP requests share."""

    def __init__(self, options: EmulatorOptions, voice: Voice, out: Callable[[], int]) -> None:
        """`out` returns the status with which everything is refused now, or 0."""
        self._options = options
        self._voice = voice
        self._out = out
        self._uploads = trio.CapacityLimiter(UPLOADS)
        self._served: dict[str, int] = {}

    async def serve(self, stream: trio.abc.Stream, first: bytes) -> None:
        """Serve a connection to its end; `first` is what has been read of it."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        if first:
            connection.receive_data(first)
        exchange = _Exchange(connection, stream)
        try:
            while True:
                with trio.move_on_after(IDLE_S):
                    exchange.request = await exchange.head()
                if exchange.request is None:
                    return
                await self._handle(exchange)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()
                exchange.clear()
        except h11.RemoteProtocolError as error:
            await exchange.refuse_unread(error)
        except (_Cut, *_GONE, h11.LocalProtocolError, trio.TooSlowError) as error:
            _log.debug("http connection ends", why=type(error).__name__)
        finally:
            with trio.move_on_after(1):
                await stream.aclose()

    async def _handle(self, exchange: _Exchange) -> None:
        try:
            self._admit(exchange)
            handler = _route(exchange.path, exchange.method)
            await handler(self, exchange)
        except HttpRefused as refused:
            _log.info("http request refused", status=refused.status, code=refused.code)
            await exchange.refuse(refused)

    def _admit(self, exchange: _Exchange) -> None:
        key = self._options.api_key
        if key is not None:
            given = exchange.header("authorization").encode("latin-1")
            if not given:
                raise HttpRefused(401, None, "You didn't provide an API key.")
            if not hmac.compare_digest(given, f"Bearer {key}".encode()):
                raise refusal(401)
        if self._options.faults.quota:
            raise refusal(429, quota=True)
        status = self._out()
        if status:
            raise refusal(status)

    async def _misbehave(
        self, exchange: _Exchange, step: str, status: int, late_ms: int, cut_bytes: int
    ) -> None:
        """Do what is to go wrong with this request of `step`."""
        self._served[step] = served = self._served.get(step, 0) + 1
        if self._options.faults.faulty_requests and served > self._options.faults.faulty_requests:
            return
        exchange.cut_after = cut_bytes or None
        await trio.sleep(late_ms / 1000)
        if status:
            await exchange.body(UPLOAD_BYTES)
            raise refusal(status)

    # -- the three steps --------------------------------------------------------------------------

    async def transcribe(self, exchange: _Exchange) -> None:
        """Speech to text: what is bundled is recognised, all else is no speech."""
        faults = self._options.faults
        async with self._uploads:
            await self._misbehave(
                exchange, "stt", faults.stt_status, faults.stt_late_ms, faults.stt_cut_bytes
            )
            upload = transcribe.read_upload(
                await exchange.body(UPLOAD_BYTES), exchange.header("content-type")
            )
            name = await recognise(upload.pcm)
        await trio.sleep(self._options.transcription_ms / 1000)
        text = clips.load(name).text if name else ""
        if upload.stream:
            await exchange.events(transcribe.events(upload, text), 0.0)
            return
        language = clips.load(name).language if name else language_of(text, "en")
        content_type, body = transcribe.answer(upload, text, language)
        await exchange.reply(200, body, content_type)

    async def complete(self, exchange: _Exchange) -> None:
        """Chat: the answers of the Realtime server, in words."""
        faults = self._options.faults
        await self._misbehave(
            exchange, "chat", faults.chat_status, faults.chat_late_ms, faults.chat_cut_bytes
        )
        request = chat.read_request(
            await exchange.body(JSON_BYTES),
            request_id=f"chatcmpl-{token_hex(12)}",
            created=int(time.time()),
        )
        await trio.sleep(self._options.think_ms / 1000)
        if not request.stream:
            await exchange.reply(200, msgspec.json.encode(chat.completion(request)))
            return
        pause = PIECE_MS / 1000 / self._options.realtime_factor
        await exchange.events(chat.chunks(request), pause, done=True)

    async def speak(self, exchange: _Exchange) -> None:
        """Text to speech, as fast as `realtime_factor` says."""
        faults = self._options.faults
        await self._misbehave(
            exchange, "tts", faults.tts_status, faults.tts_late_ms, faults.tts_cut_bytes
        )
        request = read_request(await exchange.body(JSON_BYTES))
        await trio.sleep(self._options.think_ms / 1000)
        sound = await sound_of(request, self._voice)
        step = self._options.delta_ms * sound.format.bytes_per_ms
        await exchange.begin(200, sound.content_type)
        started = trio.current_time()
        for start in range(0, len(sound.data), step):
            due = start / sound.format.bytes_per_ms / 1000 / self._options.realtime_factor
            await trio.sleep_until(started + due)
            await exchange.send(sound.data[start : start + step])
        await exchange.end()

    async def models(self, exchange: _Exchange) -> None:
        """The models there are: any name will do."""
        model = {"id": "emulator", "object": "model", "created": 0, "owned_by": "voiced"}
        body = msgspec.json.encode({"object": "list", "data": [model]})
        await exchange.body(JSON_BYTES)
        await exchange.reply(200, body)


_ROUTES: Final[dict[str, tuple[str, Handler]]] = {
    "/audio/transcriptions": ("POST", Rest.transcribe),
    "/chat/completions": ("POST", Rest.complete),
    "/audio/speech": ("POST", Rest.speak),
    "/models": ("GET", Rest.models),
}


def _route(path: str, method: str) -> Handler:
    for end, (wanted, handler) in _ROUTES.items():
        if path.endswith(end):
            if method != wanted:
                raise HttpRefused(
                    405, "method_not_allowed", f"Not allowed to {method} on {path} ({wanted} is)."
                )
            return handler
    if path.endswith("/realtime"):
        raise HttpRefused(426, "upgrade_required", f"{path} speaks WebSocket alone.")
    raise HttpRefused(404, "not_found", f"Invalid URL ({method} {path[:200]}).")


class _Exchange:
    """One request at a time, and its answer."""

    def __init__(self, connection: h11.Connection, stream: trio.abc.Stream) -> None:
        self._connection = connection
        self._stream = stream
        self.request: h11.Request | None = None
        self.cut_after: int | None = None  # bytes of the answer's body
        self._body: bytes | None = None
        self._chunked = True

    def clear(self) -> None:
        """Make ready for the next request."""
        self.request, self.cut_after, self._body = None, None, None

    @property
    def method(self) -> str:
        """Upper case."""
        return self.request.method.decode("ascii") if self.request else ""

    @property
    def path(self) -> str:
        """Without query and last slash."""
        target = self.request.target.decode("latin-1") if self.request else ""
        return target.partition("?")[0].rstrip("/")

    def header(self, name: str) -> str:
        """A header's value, empty where it is missing; `name` in lower case."""
        headers = self.request.headers if self.request else ()
        return next((v.decode("latin-1") for n, v in headers if n == name.encode()), "")

    async def _next(self) -> Any:
        while True:
            event = self._connection.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._connection.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._connection.receive_data(bytes(await self._stream.receive_some()))

    async def head(self) -> h11.Request | None:
        """Wait for a request; None where there is no more."""
        event = await self._next()
        return event if isinstance(event, h11.Request) else None

    async def body(self, limit: int) -> bytes:
        """Read the request's body. Raises HttpRefused for one beyond `limit` bytes, or too slow."""
        if self._body is not None:
            return self._body
        announced = self.header("content-length")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        data = bytearray()
        with trio.move_on_after(BODY_S):
            while True:
                event = await self._next()
                if isinstance(event, h11.Data):
                    data += event.data
                    if len(data) > limit:
                        raise _too_large(limit)
                elif isinstance(event, h11.EndOfMessage):
                    self._body = bytes(data)
                    return self._body
                else:
                    raise trio.ClosedResourceError
        raise HttpRefused(408, "timeout", f"The request did not arrive within {BODY_S:g} s.")

    async def _write(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            with trio.fail_after(SEND_S):
                await self._stream.send_all(data)

    async def begin(
        self,
        status: int,
        content_type: str,
        length: int | None = None,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Send the head of an answer; without `length` the body is chunked."""
        headers = [("content-type", content_type), ("x-request-id", f"req_{token_hex(8)}"), *extra]
        if length is not None:
            headers.append(("content-length", str(length)))
        await self._write(h11.Response(status_code=status, headers=headers))

    async def send(self, data: bytes) -> None:
        """Send a piece of the body. Raises _Cut where the fault is due."""
        if self.cut_after is not None:
            data = data[: self.cut_after]
            self.cut_after -= len(data)
        if data:
            await self._write(h11.Data(data=data))
        if self.cut_after == 0:
            raise _Cut

    async def end(self) -> None:
        """End the body."""
        await self._write(h11.EndOfMessage())

    async def reply(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        extra: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Send a whole answer."""
        await self.begin(status, content_type, len(body), extra)
        await self.send(body)
        await self.end()

    async def events(
        self, events: Iterable[dict[str, Any]], pause_s: float, *, done: bool = False
    ) -> None:
        """Send server-sent events; `done` adds the mark at the end of a chat's stream."""
        await self.begin(200, "text/event-stream; charset=utf-8")
        for event in events:
            await self.send(b"data: " + msgspec.json.encode(event) + b"\n\n")
            await trio.sleep(pause_s)
        if done:
            await self.send(b"data: [DONE]\n\n")
        await self.end()

    async def refuse(self, refused: HttpRefused) -> None:
        """Send an error. What is unread of the request costs the connection, see `Rest.serve`."""
        extra: tuple[tuple[str, str], ...] = ()
        if refused.status == 429 and refused.code == "rate_limit_exceeded":
            extra = (("retry-after", "1"),)
        if self._connection.their_state is not h11.DONE:
            extra = (*extra, ("connection", "close"))
        error = refused.body(None)
        del error["event_id"]
        self.cut_after = None
        await self.reply(refused.status, msgspec.json.encode({"error": error}), extra=extra)

    async def refuse_unread(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no HTTP, as far as anybody listens."""
        if self._connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.error_status_hint
        try:
            await self.refuse(HttpRefused(status, "bad_request", f"This is no HTTP: {error}."))
        except (*_GONE, trio.TooSlowError, h11.LocalProtocolError):
            return


def _too_large(limit: int) -> HttpRefused:
    text = f"Maximum content size limit ({limit}) exceeded."
    return HttpRefused(413, "request_too_large", text)
