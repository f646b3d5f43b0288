"""The offline Realtime server: a listener, the handshake, and one nursery per connection."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)
from wsproto.utilities import LocalProtocolError

from voiced.emulator import beta
from voiced.emulator.dialogue import Dialogue
from voiced.emulator.errors import Refused, refusal
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.performer import Performer
from voiced.emulator.recognise import prepare
from voiced.emulator.rest import HEAD_BYTES, Rest
from voiced.emulator.speech import Voice
from voiced.emulator.wire import Wire

__all__ = ["Server", "serve"]

HANDSHAKE_S: Final = 10.0
CLOSE_S: Final = 2.0  # for the peer to answer a close
DRAIN_S: Final = 5.0  # for the peer to read what is ahead of a close
MESSAGE_BYTES: Final = 21 * 1024 * 1024  # 15 MiB of audio in base64, and what is around it
MESSAGE_QUEUE: Final = 8  # received, not yet handled; more wait in the kernel
BACKLOG: Final = 256  # server events unsent before the client's next event is read
EXPIRED: Final = "Your session hit the maximum duration of 60 minutes."
_GONE: Final = (
    ConnectionClosed,
    LocalProtocolError,  # a ping that is answered while the connection closes
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)

_UPGRADE: Final = re.compile(rb"^upgrade:[ \t]*websocket\b", re.I | re.M)

_log = structlog.get_logger("voiced.emulator")


async def serve(
    host: str,
    port: int,
    options: EmulatorOptions,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the Realtime protocol until cancelled; `task_status` gets the port that was bound.

    `ws://host:port/v1/realtime?model=…`; any path that ends in `/realtime` will do. Over HTTP, on
    the same port: `/v1/audio/transcriptions`, `/v1/chat/completions`, `/v1/audio/speech`.

    Raises OSError where the address cannot be bound, OptionsError where espeak-ng is demanded and
    missing.
    """
    server = Server(options)
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound: int = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare)
        nursery.start_soon(server.lose_all)
        await nursery.start(partial(trio.serve_listeners, server.connected, listeners))
        task_status.started(bound)


class Server:
    """What all connections share. `serve` is the usual way to one; tests hand it streams."""

    def __init__(self, options: EmulatorOptions) -> None:
        self._options = options
        self._voice = Voice(options.speech)
        self._rest = Rest(options, self._voice, self._unavailable)
        self._live = 0
        self._attempts = 0  # WebSocket handshakes with a good key
        self._sessions = 0  # of them, those that became one
        self._connections: set[_Connection] = set()
        self._started = trio.current_time()

    def _age_ms(self) -> float:
        return (trio.current_time() - self._started) * 1000

    def _out(self) -> int:
        """Return the status with which everything is refused in an outage, or 0."""
        faults = self._options.faults
        down = (
            faults.lose_all_after_ms
            <= self._age_ms()
            < (faults.lose_all_after_ms + faults.outage_ms)
        )
        return (faults.refuse_status or 503) if down and faults.outage_ms else 0

    def _unavailable(self) -> int:
        """The same for HTTP, where too many connections are refused by request."""
        return self._out() or (503 if self._live > self._options.max_connections else 0)

    async def lose_all(self) -> None:
        """Close all sessions once, when the fault is due."""
        after_ms = self._options.faults.lose_all_after_ms
        if not after_ms:
            await trio.sleep_forever()
        await trio.sleep_until(self._started + after_ms / 1000)
        for connection in list(self._connections):
            await connection.sever()

    async def connected(self, stream: trio.abc.Stream) -> None:
        """Handle one TCP connection to its end; whatever the peer does ends this one alone."""
        self._live += 1
        wire = Wire(stream)
        try:
            async with wire:
                head = b""
                with trio.move_on_after(HANDSHAKE_S):
                    head = await _head(wire)
                if not head:
                    _log.info("connection refused", why="no request")
                elif _UPGRADE.search(head) is None:
                    await self._rest.serve(wire, head)
                else:
                    wire.unread(head)
                    async with trio.open_nursery() as nursery:
                        await self._converse(wire, nursery)
                        nursery.cancel_scope.cancel()
        except* _GONE:
            _log.debug("connection lost")
        except* Exception:
            # A fault of ours, or of the WebSocket library: the other sessions go on.
            _log.exception("connection failed")
        finally:
            self._live -= 1

    async def _converse(self, wire: Wire, nursery: trio.Nursery) -> None:
        request: WebSocketRequest | None = None
        with trio.move_on_after(HANDSHAKE_S):
            request = await wrap_server_stream(
                nursery, wire, message_queue_size=MESSAGE_QUEUE, max_message_size=MESSAGE_BYTES
            )
        if request is None:
            _log.info("connection refused", why="no handshake")
            return
        url = urlsplit(request.path)
        headers = {name.lower(): value for name, value in request.headers}
        self._attempts += 1
        status = self._refusal(url.path, headers)
        if status:
            _log.info("connection refused", status=status)
            quota = status == 429 and self._options.faults.quota
            error = refusal(status, quota=quota).body(None)
            await request.reject(
                status,
                extra_headers=[(b"Content-Type", b"application/json")],
                body=msgspec.json.encode({"error": error}),
            )
            return
        websocket = await request.accept()
        model = parse_qs(url.query).get("model", [""])[0]
        self._sessions += 1
        options, faults = self._options, self._options.faults
        if faults.faulty_sessions and self._sessions > faults.faulty_sessions:
            options = msgspec.structs.replace(options, faults=faults.healed())
        connection = _Connection(websocket, wire, options, self._voice, model)
        self._connections.add(connection)
        try:
            await connection.run(self._flaw(headers, model))
        finally:
            self._connections.discard(connection)

    def _refuses_now(self) -> bool:
        """Whether the faults that refuse a connection hold for this one."""
        faults = self._options.faults
        if faults.refuse_first and self._attempts > faults.refuse_first:
            return False
        if self._attempts <= faults.refuse_after:
            return False
        return not faults.refuse_for_ms or self._age_ms() < faults.refuse_for_ms

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> int:
        """Return the HTTP status instead of an upgrade, or 0."""
        faults = self._options.faults
        if faults.quota:
            return 429
        if self._out():
            return self._out()
        some = faults.refuse_first or faults.refuse_for_ms or faults.refuse_after
        refused = faults.refuse_status or (503 if some and not faults.refuse_code else 0)
        if refused and self._refuses_now():
            return refused
        if not path.rstrip("/").endswith("/realtime"):
            return 404
        if self._live > self._options.max_connections:
            return 503
        key = self._options.api_key
        given = headers.get(b"authorization", b"")
        if key is not None and not hmac.compare_digest(given, f"Bearer {key}".encode()):
            return 401
        return 0

    def _flaw(self, headers: dict[bytes, bytes], model: str) -> tuple[Refused, int] | None:
        """Return what is told over the WebSocket and then closed for, with the close code."""
        faults = self._options.faults
        if faults.refuse_code and self._refuses_now():
            return Refused(faults.refuse_code, "The session is refused."), faults.refuse_close
        name, value = beta.HEADER
        asks_for_beta = headers.get(name) == value
        if faults.dialect == "beta":
            if not asks_for_beta:
                return beta.missing_header(), 4000
        elif asks_for_beta:
            text = "The Realtime Beta API is no longer supported. Please use the GA interface."
            return Refused("beta_api_shape_disabled", text), 4000
        if not model:
            return Refused("missing_model", "You must provide a model parameter.", "model"), 4000
        return None


async def _head(wire: Wire) -> bytes:
    """Read a request's line and headers, with whatever came along; less at the peer's end."""
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) <= HEAD_BYTES:
        data = await wire.receive_some()
        if not data:
            break
        head += data
    return bytes(head)


class _Connection:
    """One session's sockets and timers. The reader ends it; everything else lives beside it."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        wire: Wire,
        options: EmulatorOptions,
        voice: Voice,
        model: str,
    ) -> None:
        self._websocket = websocket
        self._wire = wire
        self._options = options
        self._faults = options.faults
        self._voice = voice
        self.dialogue = Dialogue(
            model=model,
            session_id=f"sess_{token_hex(6)}",
            expires_at=int(time.time() + options.session_s),
            faults=options.faults,
        )
        self._wanted = trio.Event()  # the outbox has something
        self._drained = trio.Event()  # the outbox has been sent
        self._scope = trio.CancelScope()
        self._close: tuple[int, str] = (1000, "")

    async def run(self, flaw: tuple[Refused, int] | None) -> None:
        """Hold the session until one side ends it."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    if flaw is not None:
                        await self._refuse(*flaw)
                    else:
                        await self._session(nursery)
                    nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass
        _log.debug("session over", errors=self.dialogue.errors)
        with trio.move_on_after(CLOSE_S):
            await self._websocket.aclose(*self._close)

    async def _session(self, nursery: trio.Nursery) -> None:
        performer = Performer(self.dialogue, self._voice, self._options, self, nursery)
        for after_ms, strike in self._timers():
            if after_ms:
                nursery.start_soon(_after, after_ms / 1000, strike)
        await trio.sleep(self._faults.late_created_ms / 1000)
        self.dialogue.greet()
        self.wake()
        while True:
            message = await self._websocket.get_message()
            if self._faults.late_updated_ms and "session.update" in str(message[:200]):
                await trio.sleep(self._faults.late_updated_ms / 1000)
            self.dialogue.receive(message)
            performer.attend()
            if self.dialogue.outbox:
                self.wake()
                if len(self.dialogue.outbox) > BACKLOG:
                    await self.wait_drained()

    def _timers(self) -> list[tuple[float, Callable[[], Any]]]:
        return [
            (self._options.session_s * 1000, self._expire),
            (self._faults.session_expired_after_ms, self._expire),
            (self._faults.error_after_ms, self._complain),
            (self._faults.close_after_ms, self.sever),
            (self._faults.half_open_after_ms, self._play_dead),
            (self._faults.deaf_after_ms, self._go_deaf),
        ]

    # -- out ------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send the outbox in order. The only sender, so that cancelling others breaks no frame."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self.dialogue.outbox:
                batch = self.dialogue.outbox[:]
                self.dialogue.outbox.clear()
                for message in batch:
                    await self._websocket.send_message(message.decode())
            self._drained.set()
            self._drained = trio.Event()

    def wake(self) -> None:
        """Have the outbox sent."""
        self._wanted.set()

    async def wait_drained(self) -> None:
        """Wait until everything that is in the outbox now is with the kernel."""
        self.wake()
        await self._drained.wait()

    # -- endings ----------------------------------------------------------------------------------

    async def _end(self, code: int, reason: str) -> None:
        with trio.move_on_after(DRAIN_S):
            await self.wait_drained()
        self._close = (code, reason)
        self._scope.cancel()

    async def _refuse(self, refused: Refused, code: int) -> None:
        self.dialogue.refuse(refused)
        await self._end(code, f"{refused.kind}.{refused.code}")

    async def _expire(self) -> None:
        self.dialogue.refuse(Refused("session_expired", EXPIRED))
        await self._end(1001, "session_expired")

    async def _complain(self) -> None:
        text = "The server had an error while processing your request. Sorry about that!"
        self.dialogue.refuse(Refused(None, text, kind="server_error"))
        await self.wait_drained()

    async def sever(self) -> None:
        """Close as `close_code` says; 1006 closes TCP without a word."""
        if self._faults.close_code == 1006:
            await self._wire.aclose()
            self._scope.cancel()
            return
        await self._end(self._faults.close_code, "")

    def freeze(self) -> None:
        """Answer nothing any more."""
        self._wire.freeze()

    async def _go_deaf(self) -> None:
        self.dialogue.deaf = True
        await trio.lowlevel.checkpoint()

    async def _play_dead(self) -> None:
        self.freeze()
        await trio.lowlevel.checkpoint()


async def _after(seconds: float, strike: Callable[[], Any]) -> None:
    await trio.sleep(seconds)
    await strike()
