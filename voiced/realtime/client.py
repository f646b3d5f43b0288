"""The realtime engine over a WebSocket: moves messages between the socket and the state machine.

`receive` reads the socket itself, so there is no queue and no task switch between a delta and the
call, and a call that cannot take more lets TCP push back on the model.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, final

import trio

from voiced.config import types
from voiced.config.prices import Billed, billed
from voiced.engine import EngineEvent, Plan, ToolSpec
from voiced.formats import AudioFormat
from voiced.opening import ConnectError, ConnectRefused, connect
from voiced.realtime import errors
from voiced.realtime.dialect import Reader
from voiced.realtime.events import MalformedEvent
from voiced.realtime.servers import SERVERS, request_headers, request_url
from voiced.realtime.session import RealtimeMachine
from voiced.websocket import BacklogFull, Message, WebSocket, WebSocketClosed

__all__ = ["MAX_MESSAGE", "PING_INTERVAL_S", "RealtimeEngine", "RealtimeSession"]

PING_INTERVAL_S: Final = 5.0
"""While nobody speaks nothing else tells that the server is gone: who then begins to speak is not
heard until that is found out. It keeps gateways and address translators from forgetting us, too."""

SILENT_INTERVALS: Final = 2  # without any data after which the connection is taken for half-open

LAST_LOOK_S: Final = 0.02  # at a server that seems to be silent: what is there can be read in that

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes. A delta of 1 MiB, which clones without streaming do send, is 1.4 MiB in base64."""


@final
class RealtimeEngine:
    """A configured Realtime server (`voiced.engine.Engine`).

    Raises OSError or ssl.SSLError for a `ca_file` that cannot be read or holds no certificate.
    """

    def __init__(self, name: str, config: types.RealtimeEngine) -> None:
        self._name = name
        self._config = config
        self._url = request_url(config)
        self._headers = request_headers(config)
        self._reader = Reader(SERVERS[config.server].dialect(config.dialect))
        self._ssl: ssl.SSLContext | None = None  # None: the system's trust store
        if config.ca_file is not None:
            self._ssl = ssl.create_default_context(cafile=config.ca_file)

    @property
    def name(self) -> str:
        """The `[engine.NAME]` of the configuration."""
        return self._name

    @property
    def model(self) -> str:
        """The model that talks."""
        return self._config.model

    def billed(self, agent: types.Agent) -> Billed:
        """The model, and the one that writes down the caller's words."""
        return billed(self._config, agent)

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncGenerator[RealtimeSession, None]:
        """A session that connects in the background; leaving closes it within 1 s."""
        machine = RealtimeMachine(plan, self._config)
        known = SERVERS[self._config.server].max_session_s
        limit = self._config.max_session_s or known
        session = RealtimeSession(machine, self._reader, self._config.silent_s, limit)
        # The nursery is left by hand: an exception of the body need not come out as a group.
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        nursery.start_soon(self._run, session)
        try:
            yield session
        finally:
            try:
                await session.aclose()
            finally:
                nursery.cancel_scope.cancel()
                await manager.__aexit__(None, None, None)

    async def _run(self, session: RealtimeSession) -> None:
        """Connect, configure, keep alive: all that a session does without being asked."""
        timeout = self._config.connect_timeout_s
        deadline = trio.current_time() + timeout
        ws = await self._connect(session, timeout)
        if ws is not None:
            async with ws:
                await session.run(ws, deadline)

    async def _connect(self, session: RealtimeSession, timeout: float) -> WebSocket | None:  # noqa: ASYNC109 (handed on)
        try:
            return await connect(
                self._url,
                headers=self._headers,
                ssl_context=self._ssl,
                max_message=MAX_MESSAGE,
                connect_timeout=timeout,
            )
        except ConnectRefused as refused:
            body = refused.body.decode("utf-8", "replace")
            retryable = errors.status_is_retryable(refused.status, body)
            code, message = f"http_{refused.status}", f"{refused} {body}"
            session.retry_after_s = errors.retry_after_s(refused.headers.get("retry-after"))
        except ConnectError as error:
            # A certificate stays wrong until somebody changes it or `ca_file`.
            retryable = not _distrusted(error)
            code, message = ("unreachable" if retryable else "bad_certificate"), str(error)
        except ValueError as error:
            retryable, code, message = False, "bad_url", str(error)
        if self._config.api_key:  # a server may repeat what it did not like
            message = message.replace(self._config.api_key, "…")
        session.lose(code, message, retryable=retryable)
        return None


def _distrusted(error: BaseException | None) -> bool:
    """Whether the server's certificate is behind `error`."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__
    return error is not None


@final
class RealtimeSession:
    """One conversation (`voiced.engine.Session`); from `RealtimeEngine.open`."""

    def __init__(
        self,
        machine: RealtimeMachine,
        reader: Reader,
        silent_s: float,
        max_session_s: float | None,
    ) -> None:
        self._machine = machine
        self._reader = reader
        self._silent_s = silent_s
        self._max_session_s = max_session_s
        self.retry_after_s = 0.0
        """How long the server that refused this session wants to be left alone; 0: it says not."""
        self._expires: float | None = None  # on Trio's clock
        self._expires_at: float | None = None  # as the server said it
        self._owed_since: float | None = None
        self._ws: WebSocket | None = None
        self._settled = trio.Event()  # ready or lost: from here on `receive` reads the socket
        self._over = trio.Event()
        self._waiting = False  # `receive` waits for the model, and takes what it says
        self._interrupted = False
        self._last_data = 0.0

    @property
    def input_format(self) -> AudioFormat:
        """What `send_audio` takes. May change once, with `Ready`; look before each piece."""
        return self._machine.input_format

    @property
    def output_format(self) -> AudioFormat:
        """What `AgentAudio.payload` is; fixed from `Ready` on."""
        return self._machine.output_format

    @property
    def expires_in_s(self) -> float | None:
        """Seconds until the server will end the session; None before it is open, or if not known.

        The least of the configured (else the server's known) limit and what the server announced.
        An announcement is believed as far as our clock and the server's agree: one that lies in
        the past is not.
        """
        if self._expires is None:
            return None
        return max(0.0, self._expires - trio.current_time())

    # --- the call's side --------------------------------------------------------------------

    async def receive(self) -> Sequence[EngineEvent]:
        """Return all engine events that one wake-up brought; blocks for ever after `Lost`."""
        machine = self._machine
        machine.acted()  # or there would be no next time
        if machine.has_events or not self._settled.is_set():
            await self._settled.wait()  # a checkpoint in any case
        while not (machine.has_events or self._interrupted):
            if machine.lost or self._ws is None:
                await trio.sleep_forever()
            else:
                # A command may bring an event (own endpointing, a stalled socket): it ends the
                # wait, in which nothing is lost.
                self._waiting = True
                try:
                    await self._read(self._ws)
                finally:
                    self._waiting = False
        self._interrupted = False
        return machine.take_events()

    def interrupt(self) -> None:
        """Have a `receive` that waits for the model return, with nothing if there is nothing."""
        self._interrupted = True
        if self._waiting and self._ws is not None:
            self._ws.interrupt()

    def send_audio(self, payload: bytes) -> None:
        """The caller's audio, in `input_format`."""
        machine = self._machine
        machine.send_audio(payload)
        if machine.has_events:  # with endpointing of our own; else audio changes nothing
            self._flush()
        else:
            self._post()

    def respond(self, instructions: str | None = None) -> None:
        """Ask for an answer, now or after the running one."""
        self._machine.respond(instructions)
        self._flush()

    def add_message(self, role: Literal["user", "assistant", "system"], text: str) -> None:
        """Put a text into the conversation."""
        self._machine.add_message(role, text)
        self._flush()

    def cancel(self) -> None:
        """Stop the running answer and forget those that wait for it."""
        self._machine.cancel()
        self._flush()

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Tell the model how much of its item was heard."""
        self._machine.truncate(item_id, content_index, audio_end_ms)
        self._flush()

    def delete(self, item_id: str) -> None:
        """Tell the model that nothing of its item was heard."""
        self._machine.delete(item_id)
        self._flush()

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the functions that the model may call."""
        self._machine.set_tools(tools)
        self._flush()

    def tool_result(self, call_id: str, output: str) -> None:
        """Give the model what a function returned."""
        self._machine.tool_result(call_id, output)
        self._flush()

    # --- the socket's side ------------------------------------------------------------------

    def lose(self, code: str, message: str, *, retryable: bool) -> None:
        """End the session with `Lost`, unless it has ended."""
        self._machine.lose(code, message, retryable=retryable)
        self._flush()

    async def run(self, ws: WebSocket, deadline: float) -> None:
        """Configure the session over `ws` by `deadline` (Trio's clock), then keep it alive."""
        self._ws = ws
        if self._max_session_s is not None:
            self._expires = trio.current_time() + self._max_session_s
        with trio.move_on_at(deadline):
            while not (self._machine.ready or self._machine.lost):
                await self._read(ws)
        if not self._machine.ready:
            self.lose("no_session", "the server did not configure a session", retryable=True)
        self._last_data = trio.current_time()
        self._settled.set()
        await self._watch(ws)

    async def _watch(self, ws: WebSocket) -> None:
        """Ping, and end a session whose server is gone or silent, until it is over."""
        ping_at = trio.current_time() + PING_INTERVAL_S
        suspected = -math.inf  # the last data of a server that seems to be silent
        while not self._over.is_set():
            now = trio.current_time()
            if now >= ping_at:
                self._check_alive(ws, ping_at)
                ping_at = now + PING_INTERVAL_S
            # What comes to be owed from now on cannot be due any sooner than this.
            due = now + self._silent_s
            if self._owed_since is not None and self._waiting:
                due = max(self._owed_since, self._last_data) + self._silent_s
                if now >= due and suspected != self._last_data:
                    # What came while the call took no events is being read at this moment.
                    suspected, due = self._last_data, now + LAST_LOOK_S
                elif now >= due:
                    text = f"no event for {self._silent_s:g} s while an answer is owed"
                    self.lose("silent", text, retryable=True)
                    ws.abort("silent")
                    return
            else:
                suspected = -math.inf
            with trio.move_on_at(min(due, ping_at)):
                await self._over.wait()

    def _check_alive(self, ws: WebSocket, due: float) -> None:
        """Ping. What passed since this was `due` is not held against the server: we were late."""
        if not self._waiting:  # the call takes no events: nothing heard means nothing
            self._last_data = trio.current_time()
            return
        heard = max(self._last_data, ws.pings.last_pong or 0.0)
        if due - heard >= SILENT_INTERVALS * PING_INTERVAL_S:
            self.lose("half_open", "the server answers neither pings nor events", retryable=True)
            ws.abort("half-open")
            return
        try:
            ws.ping()
        except WebSocketClosed:
            return  # `receive` finds out, and why

    async def _read(self, ws: WebSocket) -> None:
        """Take one wake-up's messages."""
        try:
            messages = await ws.receive()
        except WebSocketClosed as closed:
            retryable = errors.close_is_retryable(closed.code, closed.reason)
            self.lose(f"close_{closed.code}", closed.reason, retryable=retryable)
            return
        self._waiting = False  # what comes of these messages need not end a wait
        self._last_data = trio.current_time()
        for message in messages:
            self._take(message)
        self._flush()

    def _take(self, message: Message) -> None:
        if type(message) is not bytes:
            self._machine.receive_malformed("a binary message")
            return
        try:
            event = self._reader.read(message)
        except MalformedEvent as error:
            self._machine.receive_malformed(str(error))
            return
        if event is not None:
            self._machine.receive(event)

    def _note_times(self) -> None:
        """Keep when an answer came to be owed, and when the session will end."""
        machine = self._machine
        if not machine.owing:
            self._owed_since = None
        elif self._owed_since is None:
            self._owed_since = trio.current_time()
        if machine.expires_at != self._expires_at and machine.expires_at is not None:
            self._expires_at = machine.expires_at
            left = machine.expires_at - time.time()
            if left > 0:
                expires = trio.current_time() + left
                known = self._expires
                self._expires = expires if known is None else min(known, expires)

    def _flush(self) -> None:
        """Send what the machine wants sent; wake `receive` for what it has to tell."""
        self._note_times()
        self._post()
        if self._waiting and self._machine.has_events and self._ws is not None:
            self._ws.interrupt()

    def _post(self) -> None:
        machine, ws = self._machine, self._ws
        if ws is not None:
            for message in machine.take_messages():
                try:
                    ws.send_nowait(message)
                except BacklogFull as full:
                    machine.lose("stalled", f"model socket stalled: {full}", retryable=True)
                    ws.abort("stalled")  # who reads nothing reads no Close frame either
                    break
                except WebSocketClosed:
                    break  # `receive` finds out, and why
        if machine.lost:
            self._settled.set()
            self._over.set()

    async def aclose(self) -> None:
        """Close the socket, within its close time-out of 1 s; commands do nothing any more."""
        self._machine.close()
        self._flush()
        if self._ws is not None:
            await self._ws.aclose()
