"""A daemon in this process, and what tests do to it: calls, webhooks, raw media sockets.

What a test module wants of a daemon it lets run side by side in one `trio.run`, and judges
afterwards: see `played`. Nobody waits for time to pass, though the parts speak over sockets; but
with peers that are processes, which have a clock of their own.
"""

from __future__ import annotations

import json
import signal
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
import structlog
import structlog.testing
import trio
from prometheus_client import REGISTRY

from tests.e2e.virtual import run_virtually
from voiced import config, daemon, metrics
from voiced.journal import Journal
from voiced.record import CallRecord
from voiced.simulate import CallResult, Network, Script, call
from voiced.simulate.client import MediaSocket, Response, SocketClosed
from voiced.simulate.signature import sign
from voiced.simulate.speech import SILENT_PAYLOAD
from voiced.simulate.twiml import parse_twiml
from voiced.simulate.wire import Identifiers, Narrator

T = TypeVar("T")

SOON_S = 20.0
"""How long anything may take that should be there at once: a machine that is slow is no defect."""

VOICE = "/twilio/voice"

TRUNK = """
[sip]
listen = ["udp://127.0.0.1:0"]

[[sip.trunk]]
name = "carrier"
host = "127.0.0.1"
allow = ["127.0.0.1/32"]
"""
"""A trunk on loopback; whatever follows, up to the next table, is said of it."""


def sample(name: str, **labels: str) -> float:
    """The present value of a metric."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def until(true: Callable[[], bool], what: str) -> None:
    """Wait until `true`; an AssertionError that names `what` if that takes too long."""
    with trio.move_on_after(SOON_S):
        while not true():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"never came: {what}")


def open_files() -> int:
    """How many file descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@dataclass
class House:
    """A running daemon."""

    address: str
    state_dir: Path
    logs: Sequence[Mapping[str, Any]]
    auth_token: str | None = None
    public_url: str | None = None
    network: Network = field(default_factory=Network)

    @property
    def webhook(self) -> str:
        """Where calls are announced."""
        return self.address + VOICE

    async def call(self, script: Script, to: str, **more: Any) -> CallResult:
        """Hold a simulated call with the agent `to`."""
        return await call(
            script,
            webhook_url=self.webhook,
            to=address_of(to),
            auth_token=self.auth_token,
            public_url=self.public_url,
            network=self.network,
            **more,
        )

    async def post(
        self,
        path: str = VOICE,
        fields: Mapping[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        *,
        signed: bool = True,
    ) -> Response:
        """POST a webhook, signed where the house has a token."""
        pairs = list((fields or announcement(Identifiers())).items())
        own = list(headers)
        if self.auth_token and signed:
            url = (self.public_url or self.address) + path
            own.append(("X-Twilio-Signature", sign(self.auth_token, url, pairs)))
        return await self.network.post_form(
            self.address + path, pairs, headers=own, timeout_s=SOON_S
        )

    async def admit(self, to: str, ids: Identifiers) -> str:
        """Announce a call; returns the stream's URL."""
        answer = await self.post(fields=announcement(ids, address_of(to)))
        assert answer.status == 200, answer
        return parse_twiml(answer.body).url

    async def over(self, ids: Identifiers, status: str = "completed") -> None:
        """Say that a call is over at the carrier."""
        fields = {"CallSid": ids.call_sid, "AccountSid": ids.account_sid, "CallStatus": status}
        answer = await self.post("/twilio/status", fields)
        assert answer.status == 204, answer

    @asynccontextmanager
    async def stream(self, to: str) -> AsyncIterator[Stream]:
        """A call with its media socket in the test's own hands, `start` sent."""
        ids = Identifiers()
        url = await self.admit(to, ids)
        async with self.network.open_media(url, timeout_s=SOON_S) as socket:
            stream = Stream(socket, ids, Narrator(ids), self)
            await socket.send(stream.narrator.connected())
            await socket.send(stream.narrator.start({}))
            yield stream

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the journal."""
        return Journal(self.state_dir).calls(100_000)

    async def row(self, call_sid: str) -> dict[str, Any]:
        """The row of a call, once the call has ended."""
        found: list[dict[str, Any]] = []

        def complete() -> bool:
            found[:] = [
                row
                for row in self.rows()
                if row["carrier_call_id"] == call_sid and row["ended_at"] is not None
            ]
            return bool(found)

        await until(complete, f"the journal row of {call_sid}")
        assert len(found) == 1
        return found[0]

    async def idle(self) -> None:
        """Wait until no call is live and the journal, which writes behind, has them all."""

        def settled() -> bool:
            received = sum(line["event"] == "call received" for line in self.logs)
            over = sum(row["ended_at"] is not None for row in self.rows())
            return sample("voiced_calls_live") == 0 and over == received

        await until(settled, "the end of all calls")

    def lines_of(self, call_sid: str) -> list[Mapping[str, Any]]:
        """What was logged of one call at level warning or above."""
        call_ids = {
            line["call"]
            for line in self.logs
            if line["event"] == "call received" and line["carrier_call"] == call_sid
        }
        return [
            line
            for line in self.logs
            if line["log_level"] in ("warning", "error", "critical")
            and (line.get("carrier_call") == call_sid or line.get("call") in call_ids)
        ]

    def tracebacks(self) -> list[Mapping[str, Any]]:
        """Log lines with an exception in them."""
        return [line for line in self.logs if "exception" in line]


@dataclass
class Stream:
    """A media socket without a telephone behind it."""

    socket: MediaSocket
    ids: Identifiers
    narrator: Narrator
    house: House
    chunks: int = 0

    async def speak(self, frames: int = 1, payload: str = SILENT_PAYLOAD) -> None:
        """Send 20 ms frames, at once."""
        for _ in range(frames):
            self.chunks += 1
            text = self.narrator.media(self.chunks, 20 * (self.chunks - 1), payload)
            await self.socket.send(text)

    async def hears(self, event: str = "media") -> dict[str, Any]:
        """Wait for a message of the daemon's."""
        with trio.fail_after(SOON_S):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.receive())
                if message["event"] == event:
                    return message

    async def closed(self) -> int:
        """Wait for the daemon's end of the stream; returns the close code."""
        with trio.fail_after(SOON_S):
            try:
                while True:
                    await self.socket.receive()
            except SocketClosed as end:
                return end.code

    async def hang_up(self) -> dict[str, Any]:
        """End the call as a caller does; returns its journal row."""
        await self.socket.send(self.narrator.stop())
        await self.closed()
        return await self.house.row(self.ids.call_sid)


def agent(name: str, engine: str, more: str = "") -> str:
    """The `[agent.NAME]` and the number that it answers, which is its name."""
    return (
        f'[agent.{name}]\nengine = "{engine}"\n{more}\n'
        f'[[number]]\nmatch = "{address_of(name)}"\nagent = "{name}"\n'
    )


def address_of(name: str) -> str:
    """What a caller dials to reach the agent of this name."""
    return name if name.startswith("+") else f"sip:{name}@voiced.test"


def announcement(ids: Identifiers, to: str = "+15550100") -> dict[str, str]:
    """The fields of a voice webhook."""
    return {
        "CallSid": ids.call_sid,
        "AccountSid": ids.account_sid,
        "From": "+15550199",
        "To": to,
        "CallStatus": "ringing",
        "Direction": "inbound",
    }


@asynccontextmanager
async def house(
    folder: Path, text: str, *, max_calls: int = 100, **facts: Any
) -> AsyncIterator[House]:
    """A daemon on `text`, the configuration without `[daemon]` and `[http] listen`.

    Its log is kept in `House.logs`; leaving sends SIGTERM and waits for its end.
    """
    file = folder / "voiced.toml"
    state_dir = folder / "state"
    head = f'[daemon]\nstate_dir = "{state_dir}"\nmax_calls = {max_calls}\ndrain_s = 1\n'
    if "[http]" in text:
        text = text.replace("[http]", '[http]\nlisten = "127.0.0.1:0"', 1)
    else:
        head += '[http]\nlisten = "127.0.0.1:0"\n'
    if "[admin]" not in text:
        head += '[admin]\nlisten = "127.0.0.1:0"\n'
    file.write_text(head + text, "utf-8")
    file.chmod(0o600)
    loaded = config.load(file)
    metrics.CALLS_LIVE.set(0)  # other modules' tests in this process began records of their own
    with structlog.testing.capture_logs([structlog.processors.format_exc_info]) as logs:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(partial(daemon.serve, loaded, file))
            here = House(address, state_dir, logs, **facts)
            yield here
            if not any(line["event"] == "stopping" for line in logs):
                signal.raise_signal(signal.SIGTERM)


Outcomes = Mapping[str, Exception | None]

APART_S = 0.1
AFTERWARDS = "afterwards"


AT_ONCE = 10
"""Callers and the daemon share a process, which with peers in real time must not be busy."""


class Scenes(dict[str, Callable[[T], Awaitable[None]]], Generic[T]):
    """Scenarios that one stage, a daemon say, sees side by side; a decorator adds one."""

    @property
    def names(self) -> list[str]:
        """The outcomes that `play` returns."""
        return [*self, AFTERWARDS]

    def __call__(self, scenario: Callable[[T], Awaitable[None]]) -> None:
        """Add a scenario under its function's name."""
        self[getattr(scenario, "__name__", str(scenario))] = scenario

    async def play(
        self, stage: T, afterwards: Callable[[T], Awaitable[None]]
    ) -> dict[str, Exception | None]:
        """Run all; returns what each raised. One that fails does not stop the others."""
        outcomes: dict[str, Exception | None] = {}

        at_once = trio.CapacityLimiter(AT_ONCE)

        async def play(name: str, scenario: Callable[[T], Awaitable[None]]) -> None:
            try:
                async with at_once:
                    await scenario(stage)
            except Exception as error:
                outcomes[name] = error
            else:
                outcomes[name] = None

        async with trio.open_nursery() as nursery:
            for name, scenario in self.items():
                nursery.start_soon(play, name, scenario)
                # Not in step: what the model does at the end of a turn takes it 10 ms.
                await trio.sleep(APART_S)
        await play(AFTERWARDS, afterwards)
        return outcomes


async def nothing_more(_: object) -> None:
    """For scenes that have nothing in common that could be left."""
    await trio.lowlevel.checkpoint()


async def nothing_is_left(here: House) -> None:
    """No call lives on, no bug of ours came to light."""
    await here.idle()
    assert not here.tracebacks(), here.tracebacks()[0]["exception"]
    assert all(row["ended_at"] for row in here.rows())


def sip_address(log: Iterable[Mapping[str, Any]], transport: str = "udp") -> str:
    """Where a daemon listens for SIP, as `HOST:PORT`."""
    (line,) = (line for line in log if line["event"] == "sip listening")
    (found,) = (each for each in line["addresses"] if each.startswith(f"{transport}://"))
    return str(found).partition("://")[2]


def played(
    play: Callable[[Path], Coroutine[Any, Any, T]],
    folder: str = "house",
    run: Callable[[Callable[[], Coroutine[Any, Any, T]]], T] = run_virtually,
) -> Any:
    """The fixture that plays a module's scenes, once for all its tests: its value is `play`'s.

    `play` gets a new folder, of that name. With `run_strictly` for `run` time is real.
    """

    @pytest.fixture(scope="module")
    def outcomes(tmp_path_factory: pytest.TempPathFactory) -> T:
        return run(partial(play, tmp_path_factory.mktemp(folder)))

    return outcomes


def judge(outcomes: Outcomes, name: str) -> None:
    """Fail the test of a scenario that failed."""
    error = outcomes[name]
    if error is not None:
        raise error


def run_strictly(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`trio.run` for fixtures of a whole module: illegal changes of state raise here too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallRecord, "strict", True)
        return trio.run(main)
