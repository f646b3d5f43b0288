"""Tells a server what happens in calls: each event as a POST of JSON, signed, until it is taken.

    [plugins.webhook]
    url = "https://crm.example.net/voiced"
    secret_env = "WEBHOOK_SECRET"
    events = ["call_start", "call_end", "transcript"]

Events are kept on the disk until the server answers with a status from 200 to 299, over restarts
and crashes, and are sent again after 1, 2, 4, … seconds (at most 10 minutes), or as `Retry-After`
says, until `retry_s` is over. Refused for good is what is answered with a redirect, or with a
status from 400 to 499 other than 408 and 429. Events of one call arrive in their order; those of
other calls do not wait for them. Calls never wait.

The body: `id` (of the delivery), `event`, `at` (Unix time), `at_ms` (since audio began), `sequence`
(within the call, from 1; one that is missing was lost), `call` (`call_id`, `carrier`, `caller`,
`called`, …) and `data`, which depends on the event: with `call_end` it is the call's summary, with
the facts that all plugins have noted by then. An event may come twice, when an answer got lost: its
`id`, which is the header `Voiced-Delivery` as well, is the same. `Voiced-Event` and
`Voiced-Attempt` (from 1) are headers, too.

The header `Voiced-Signature` is `t=TIME,v1=SIGNATURE`, with one `v1` for each secret: HMAC-SHA256
over the time, a dot and the body. A receiver checks it so, on the bytes of the body as they came:

    import hashlib, hmac, time

    def is_ours(secret: str, header: str, body: bytes) -> bool:
        parts = [part.partition("=") for part in header.split(",")]
        sent = next(value for name, _, value in parts if name == "t")
        wanted = hmac.new(secret.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()
        found = [value for name, _, value in parts if name == "v1" and value.isascii()]
        fits = any([hmac.compare_digest(wanted, value) for value in found])
        return fits and abs(time.time() - int(sent)) < 300
"""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import httpx
import msgspec
import trio
from msgspec import Meta
from voiced_plugins._courier import Again, Limits, Outcome
from voiced_plugins._http import Header, new_client, new_request, url_parts
from voiced_plugins._receiver import judge, sign
from voiced_plugins._spool import Item, Stored
from voiced_plugins._spooling import MIB, Spooler

from voiced.plugin import (
    Host,
    Plugin,
    Settings,
    Summary,
    ToolUse,
    Words,
)

__all__ = ["Deliveries", "Secret", "Webhook", "WebhookSettings"]

Event = Literal[
    "call_start",
    "media",
    "state",
    "session_ready",
    "speech_started",
    "speech_stopped",
    "transcript",
    "transcript_piece",
    "barge_in",
    "digit",
    "tool",
    "response_done",
    "engine_error",
    "call_end",
]

USUAL: Final[tuple[Event, ...]] = (
    "call_start",
    "media",
    "transcript",
    "barge_in",
    "tool",
    "engine_error",
    "call_end",
)

MOST_OF_ANSWER: Final = 65_536
"""Bytes of an answer that are read, for the sake of the connection; what they say is ignored."""

MAX_BODY: Final = 1_048_576
"""Of an event: only the summary of a very long call comes near, and loses its first lines."""


class Secret(Settings, frozen=True):
    """A further secret."""

    value: str | None = None
    """The secret."""
    value_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    value_env: str | None = None
    """The environment variable with it."""

    def mistakes(self) -> Iterator[str]:
        """No secret at all."""
        if self.value is None and self.value_file is None and self.value_env is None:
            yield "the secret has no value; add value, value_file or value_env"

    def __repr__(self) -> str:
        return "Secret()"


class WebhookSettings(Settings, frozen=True):
    """Whom to tell, and what."""

    url: str
    """Where events are sent to."""
    secret: str | None = None
    """What they are signed with; at least 16 characters."""
    secret_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    secret_env: str | None = None
    """The environment variable with it."""
    more_secrets: tuple[Secret, ...] = ()
    """They sign as well: while a secret is replaced, receivers may know the old one or the new."""
    unsigned: bool = False
    """Send events without a signature, for a receiver that knows the sender by other means."""
    secret_headers: tuple[Header, ...] = ()
    """Headers with a secret, such as `Authorization`."""
    events: tuple[Event, ...] = USUAL
    """What is told: `call_start`, `media` (audio flows), `state`, `session_ready`, \
`speech_started`, `speech_stopped`, `transcript` (whole sentences), `transcript_piece`, \
`barge_in`, `digit`, `tool`, `response_done`, `engine_error` and `call_end`. A key that \
another plugin takes, a digit of a PIN say, is not told."""
    tool_arguments: bool = False
    """Tell the arguments of tools as well as their names."""
    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 10.0
    """How long one attempt may take."""
    retry_s: Annotated[float, Meta(ge=1)] = 86_400.0
    """How long an event is worth sending."""
    at_once: Annotated[int, Meta(ge=1, le=64)] = 8
    """How many events are sent at the same time, each of another call."""
    max_events: Annotated[int, Meta(ge=1)] = 20_000
    """How many may wait; of more the oldest are given up."""
    max_mb: Annotated[int, Meta(ge=1)] = 64
    """What may wait, in MiB."""

    def mistakes(self) -> Iterator[str]:
        """Nobody to tell, nothing to tell, or no good secret."""
        parts = url_parts(self.url)
        if parts is None:
            yield f'url: "{self.url}" is none; write https://host/path'
        elif "@" in parts.netloc or "#" in self.url:
            yield "url: it has a user or a fragment; use secret_headers"
        signed = self.secret or self.secret_file or self.secret_env
        if not (signed or self.unsigned):
            yield "there is no secret; add secret_env, or unsigned = true"
        if self.unsigned and (signed or self.more_secrets):
            yield "unsigned: there is a secret as well; remove one of them"
        if any(len(each) < 16 for each in self.secrets):
            yield "a secret has less than 16 characters; make one: openssl rand -hex 32"
        if not self.events:
            yield "events: there are none; leave it out for the usual ones"

    def __repr__(self) -> str:
        return f"WebhookSettings({self.url})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets, the present one first."""
        every = (self.secret, *(each.value for each in self.more_secrets))
        return tuple(each for each in every if each)


class Deliveries(Spooler):
    """What has to be sent, and the connections."""

    config: WebhookSettings

    def __init__(self, config: WebhookSettings, host: Host) -> None:
        super().__init__(config, host)
        self._client: httpx.AsyncClient | None = None

    def limits(self) -> Limits:
        """What may wait, and how long."""
        config = self.config
        return Limits(
            max_items=config.max_events,
            max_bytes=config.max_mb * MIB,
            deadline_s=config.retry_s,
            at_once=config.at_once,
        )

    async def open(self) -> None:
        """Open the spool. Raises PluginError."""
        await super().open()
        # It reads the certificates of all authorities: 0.1 s, in which live calls would stutter.
        self._client = await trio.to_thread.run_sync(new_client)

    async def close(self) -> None:
        """Leave the rest to the next start."""
        try:
            await super().close()
        finally:  # also where the time for it is over
            if self._client is not None:
                await self._client.aclose()

    async def deliver(self, stored: Stored) -> Outcome:
        """Send an event once; the answer decides what becomes of it."""
        assert self._client is not None
        request = self._request(stored.item, stored.tries + 1)
        with trio.move_on_after(self.config.timeout_s):
            try:
                response = await self._client.send(request, stream=True, follow_redirects=False)
                async with aclosing(response):
                    outcome = judge(response.status_code, response.headers, time.time())
                    await _skim(response)
            except httpx.TransportError as error:
                return Again(f"{type(error).__name__}: {error}"[:200])
            return outcome
        return Again(f"no answer within {self.config.timeout_s:g} s")

    def _request(self, item: Item, attempt: int) -> httpx.Request:
        config = self.config
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "voiced",
            "Accept-Encoding": "identity",
            "Voiced-Delivery": item.name,
            "Voiced-Event": item.kind,
            "Voiced-Attempt": str(attempt),
        }
        if config.secrets:
            # The time is that of the attempt: receivers take nothing that is old.
            headers["Voiced-Signature"] = sign(config.secrets, int(time.time()), item.body)
        for each in config.secret_headers:
            headers[each.name] = each.prefix + (each.value or "")
        return new_request("POST", config.url, headers, item.body, config.timeout_s)


async def _skim(response: httpx.Response) -> None:
    """Read a short answer, so that the connection can be used again; drop a long one."""
    size = 0
    # What is too large is cancelled, not left: httpx's generators are unwound by nothing else.
    with trio.CancelScope() as scope:
        try:
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > MOST_OF_ANSWER:
                    scope.cancel()
        except httpx.TransportError:
            return  # the status has been said


class Webhook(Plugin):
    """Tells of one call."""

    Config = WebhookSettings
    Service = Deliveries
    config: WebhookSettings
    service: Deliveries

    def __init__(self, call: Any, config: Any, service: Any) -> None:
        super().__init__(call, config, service)
        self._sequence = 0

    async def on_call_start(self) -> None:
        """A call comes, or is placed."""
        self._tell("call_start", {"parameters": dict(self.call.parameters)})

    async def on_media(self) -> None:
        """Audio flows."""
        self._tell(
            "media", {"encoding": self.call.format.encoding.value, "rate": self.call.format.rate}
        )

    async def on_state(self, previous: str, state: str) -> None:
        """The call goes on to another state."""
        self._tell("state", {"previous": previous, "state": state})

    async def on_session_ready(self) -> None:
        """The model listens."""
        self._tell("session_ready", {"engine": self.call.engine})

    async def on_speech_started(self) -> None:
        """The caller speaks."""
        self._tell("speech_started", {})

    async def on_speech_stopped(self) -> None:
        """The caller is silent."""
        self._tell("speech_stopped", {})

    async def on_transcript(self, words: Words) -> None:
        """Something was said."""
        self._tell(
            "transcript" if words.final else "transcript_piece",
            {
                "role": words.role,
                "item_id": words.item_id,
                "text": words.text,
                "cut": words.cut,
            },
        )

    async def on_barge_in(self, heard_ms: int) -> None:
        """The caller interrupted."""
        self._tell("barge_in", {"heard_ms": heard_ms})

    async def on_digit_passed(self, digit: str) -> None:
        """A key was pressed, and nobody has taken it."""
        self._tell("digit", {"digit": digit})

    async def on_tool_call(self, use: ToolUse) -> str | None:
        """The model calls a tool."""
        arguments = {"arguments": use.arguments} if self.config.tool_arguments else {}
        self._tell("tool", {"use": use.call_id, "name": use.name, **arguments})
        return None

    async def on_response_done(self, response_id: str, status: str) -> None:
        """An answer has ended."""
        self._tell("response_done", {"response_id": response_id, "status": status})

    async def on_engine_error(self, code: str, message: str, lost: bool) -> None:
        """The model has trouble."""
        self._tell("engine_error", {"code": code, "message": message, "lost": lost})

    async def on_call_over(self, summary: Summary) -> None:
        """The call is over, and the others have noted what they know of it."""
        self._tell("call_end", _summary(summary))
        await self.service.written()

    def _tell(self, event: Event, data: Mapping[str, Any]) -> None:
        courier = self.service.courier
        if event not in self.config.events or courier is None:
            return
        self._sequence += 1
        call, now, name = self.call, time.time(), uuid.uuid4().hex
        told = {
            "id": name,
            "event": event,
            "at": round(now, 3),
            "at_ms": call.media_ms,
            "sequence": self._sequence,
            "call": {
                "call_id": call.call_id,
                "carrier": call.carrier,
                "carrier_call_id": call.carrier_call_id,
                "direction": call.direction,
                "caller": call.caller,
                "called": call.called,
                "trunk": call.trunk,
                "agent": call.agent,
            },
            "data": data,
        }
        courier.put(Item(call.call_id, name, event, _json(told), now))


def _summary(summary: Summary) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(summary)
    lines = data["transcript"]
    sizes = deque(len(_json(each)) + 1 for each in lines)
    first, size = 0, sum(sizes)
    while size > MAX_BODY:
        size -= sizes.popleft()
        first += 1
    if first:
        data["transcript"] = lines[first:]
        data["transcript_shortened"] = True
    return data


def _json(value: object) -> bytes:
    # What callers' telephones and models say need not be UTF-8.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")
