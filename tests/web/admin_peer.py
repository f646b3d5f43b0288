"""A small daemon behind the admin listener: calls that do as operators say, and notes of it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import msgspec
import trio
from prometheus_client import CollectorRegistry, Counter
from quart_trio import QuartTrio

from voiced.web.admin import create_admin_app
from voiced.web.listening import serve_admin
from voiced.web.operations import (
    BanView,
    CallView,
    DialRequest,
    EngineView,
    OperationRefused,
    Operations,
    Readiness,
    Said,
    TransferResult,
    TrunkView,
    ambiguous,
    by_prefix,
    no_such_call,
)

TOKEN = "a-token-of-the-tests"
NOW = 1_790_000_000.0


def view(call_id: str, **fields: Any) -> CallView:
    defaults: dict[str, Any] = {
        "carrier": "sip",
        "carrier_call_id": "x@192.0.2.1",
        "trunk": "berlin",
        "direction": "inbound",
        "caller": "+4930111",
        "called": "+4930222",
        "agent": "reception",
        "engine": "offline",
        "model": "emulator",
        "state": "listening",
        "model_state": "ready",
        "since": NOW,
        "started_at": NOW,
        "duration_s": 12.5,
        "statistics": {"lost": 1, "jitter_ms": 0.5},
        "parameters": {"X-Ticket": "77"},
        "transcript": (Said("agent", "Good morning."), Said("caller", "Hello?", cut=True)),
    }
    return CallView(id=call_id, **{**defaults, **fields})


def row(call_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "call_id": call_id,
        "carrier": "twilio",
        "carrier_call_id": "CA1",
        "direction": "inbound",
        "caller": "+4930333",
        "called": "+4930222",
        "agent": "reception",
        "engine": "offline",
        "model": "emulator",
        "started_at": NOW - 3600,
        "ended_at": NOW - 3540,
        "reason": "caller_hangup",
        "duration_ms": 60_250,
        "media_ms": 59_000,
        "states": [["ringing", 0], ["media_ready", 200], ["ended", 60_250]],
        "latencies": {"greeting_ms": 60, "answers_ms": [700, 900]},
        "usage": {"audio_in": 100},
        "cost_usd": 0.0125,
        "transcript": [{"role": "agent", "text": "Good morning.", "cut": False}],
        **fields,
    }


class Daemon:
    """An `Operations` of some calls. `deeds` says what was asked of it."""

    def __init__(self) -> None:
        self.calls: dict[str, CallView] = {}
        self.rows: list[dict[str, Any]] = []
        self.deeds: list[tuple[object, ...]] = []
        self.refusal: OperationRefused | None = None
        self.transferred = TransferResult(done=True, status=200, text="OK")
        self.readiness = Readiness(ready=True, calls=0, max_calls=100)
        self.dialled: Iterator[CallView | None] = iter(())
        """What `find` says next of a dialled call; None: it has ended."""
        self._ids = (f"d1a1{number:012x}" for number in itertools.count())

    def live(self) -> list[CallView]:
        return list(self.calls.values())

    def find(self, text: str) -> CallView | None:
        if text.startswith("d1a1"):
            return next(self.dialled, None)
        return by_prefix(self.calls.values(), text)

    async def journal(self, limit: int) -> list[dict[str, Any]]:
        self.deeds.append(("journal", limit))
        await trio.lowlevel.checkpoint()
        return self.rows[:limit]

    async def journalled(self, text: str) -> dict[str, Any] | None:
        await trio.lowlevel.checkpoint()
        found = [each for each in self.rows if each["call_id"].startswith(text)]
        if len(found) > 1:
            raise ambiguous(text)
        return found[0] if found else None

    async def dial(self, request: DialRequest) -> str:
        await trio.lowlevel.checkpoint()
        self._do("dial", request)
        return next(self._ids)

    def hangup(self, call_id: str, reason: str) -> None:
        self._do("hangup", call_id, reason)
        if self.calls.pop(call_id, None) is None:
            raise no_such_call(call_id)

    def say(self, call_id: str, text: str, exactly: bool) -> None:
        self._do("say", call_id, text, exactly)

    async def transfer(self, call_id: str, to: str) -> TransferResult:
        await trio.lowlevel.checkpoint()
        self._do("transfer", call_id, to)
        return self.transferred

    def digits(self, call_id: str, digits: str) -> None:
        self._do("digits", call_id, digits)

    def trunks(self) -> list[TrunkView]:
        return [
            TrunkView(name="berlin", registration="registered", until=NOW + 300, calls=1),
            TrunkView(name="twilio", kind="twilio", last_error="HTTP 401"),
        ]

    def engines(self) -> list[EngineView]:
        return [
            EngineView(
                name="openai",
                state="closed",
                answered=True,
                sessions=3,
                requests=7,
                requests_per_minute=60,
            ),
            EngineView(
                name="spare", state="open", failures=5, last_error="http_429", retry_in_s=12.4
            ),
            EngineView(name="new", state="closed"),
            EngineView(name="shaky", state="closed", failures=2, last_error="unreachable"),
        ]

    def bans(self) -> list[BanView]:
        return [BanView(source="203.0.113.7", until=NOW + 600, why="scanner")]

    def ready(self) -> Readiness:
        return self.readiness

    def _do(self, *deed: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.deeds.append(deed)


class Site:
    """The app over a `Daemon`, its counts, and where it listens."""

    def __init__(self, operations: Operations | None = None) -> None:
        self.daemon = Daemon()
        self.counted: list[tuple[str, str]] = []
        self.registry = CollectorRegistry()
        Counter("voiced_tests_total", "For the tests", registry=self.registry).inc(3)
        self.app: QuartTrio = create_admin_app(
            operations or self.daemon,
            TOKEN,
            hosts=["Voice.example.net"],
            count=lambda what, result: self.counted.append((what, result)),
            registry=self.registry,
        )
        self.address = ""

    def client(self, **headers: str) -> httpx.AsyncClient:
        """An HTTP client that shows the token, unless `headers` say otherwise."""
        headers = {"Authorization": f"Bearer {TOKEN}", **headers}
        path = self.address.removeprefix("unix:")
        unix = path != self.address
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=path if unix else None),
            base_url="http://voiced" if unix else f"http://{self.address}",
            headers={name.replace("_", "-"): value for name, value in headers.items() if value},
            timeout=10,
        )


@asynccontextmanager
async def site(listen: str = "127.0.0.1:0") -> AsyncIterator[Site]:
    """Serve a `Site` on this loop."""
    made, stop = Site(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[str]) -> None:
            await serve_admin(listen, made.app, stop=stop, task_status=task_status)

        made.address = await nursery.start(serve)
        yield made
        stop.set()


@contextmanager
def site_in_thread(listen: str = "127.0.0.1:0") -> Iterator[Site]:
    """Serve a `Site` from a thread, for clients that block."""
    made = Site()
    started, token = threading.Event(), list[trio.lowlevel.TrioToken]()
    stop = trio.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def serve(*, task_status: trio.TaskStatus[str]) -> None:
                await serve_admin(listen, made.app, stop=stop, task_status=task_status)

            made.address = await nursery.start(serve)
            token.append(trio.lowlevel.current_trio_token())
            started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert started.wait(10)
        yield made
    finally:
        trio.from_thread.run_sync(stop.set, trio_token=token[0])
        thread.join(10)
        assert not thread.is_alive()


def as_json(value: object) -> Any:
    """What a struct looks like on the wire."""
    return msgspec.json.decode(msgspec.json.encode(value))
