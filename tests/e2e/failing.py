"""A daemon whose models are lost when a test says so, and callers over both carriers.

Each scenario has, for each carrier, an agent and a number of its own, and a model behind a `Wire`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import trio

from tests.e2e.ears import AUDIBLE, locate, samples
from tests.e2e.house import SOON_S, TRUNK, House, house, sip_address, until
from tests.e2e.virtual import at_a_service
from tests.e2e.wire import Wire
from tests.twilio.fake_rest import ACCOUNT, TOKEN, FakeRest, fake_rest
from voiced import clips
from voiced.emulator.options import EmulatorOptions
from voiced.emulator.server import serve
from voiced.simulate import CallResult, Script
from voiced.simulate.events import CallerStarted, CallEvent, MediaStarted
from voiced.simulate.script import Step
from voiced.simulate.sip_caller import call as sip_call
from voiced.simulate.wire import Identifiers

__all__ = ["CARRIERS", "Line", "Outcome", "Plot", "Stage", "stage"]

CARRIERS = ("twilio", "sip")
KNOWN_BY = 8 * 700
"""Samples by which a clip is told from others."""

PUBLIC = "https://voice.example.net"

QUICK = "reconnect_s = 6\nsilence_prompt_s = 0\n"

SPARE = '[engine.spare]\nkind = "emulator"\nspeech = "clips"\n'
HEAD = f"""
[http]
public_url = "{PUBLIC}"
{TRUNK}options_s = 0

{SPARE}
"""


@dataclass(frozen=True)
class Plot:
    """What a scenario needs: the model's options, further lines of its agent and of its engine."""

    options: EmulatorOptions = field(default_factory=lambda: EmulatorOptions(speech="clips"))
    agent: str = ""
    engine: str = ""
    number: str = ""


@dataclass
class Outcome:
    """A call that is over. Times are ms since its media began, by the caller's clock."""

    result: CallResult
    row: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    losses_ms: Sequence[float]

    def said(self, role: str) -> str:
        """All that was understood of one side."""
        return " ".join(each["text"] for each in self.row["transcript"] if each["role"] == role)

    @property
    def codes(self) -> list[str]:
        """Why the model was lost, each time."""
        return [line["code"] for line in self.lines if line["event"] == "model lost"]

    def hears(self, clip: str) -> float | None:
        """When the caller begins to hear a clip, told by any `KNOWN_BY` samples of it.

        A telephone without a buffer makes a step in the sound of a packet that is 1 ms late.
        """
        sound = np.frombuffer(clips.load(clip).pcm, "<i2").astype(np.float64)
        heard = samples(self.result)
        loud = int(np.flatnonzero(np.abs(sound) > AUDIBLE)[0])
        for start in range(loud, len(sound) - KNOWN_BY, KNOWN_BY // 2):
            at_ms = locate(heard, sound[start : start + KNOWN_BY])
            if at_ms is not None:
                return at_ms - (start - loud) / 8
        return None

    def dead_air_ms(self, since_ms: float) -> float:
        """The longest silence of both sides from then on until the agent speaks last."""
        sounds = sorted(
            (said.start_ms, said.end_ms) for said in (*self.result.agent, *self.result.caller)
        )
        last = max((said.start_ms for said in self.result.agent), default=since_ms)
        longest, at = 0.0, since_ms
        for start, end in sounds:
            if start > last:
                break
            longest = max(longest, start - at)
            at = max(at, end)
        return longest


@dataclass
class Line:
    """One scenario's call over one carrier."""

    stage: Stage
    name: str
    carrier: str
    number: str
    wire: Wire
    media_at: float | None = None
    caller_speaks_at: float | None = None
    """When the caller began to speak last, on Trio's clock."""
    ids: Identifiers = field(default_factory=partial(Identifiers, account_sid=ACCOUNT))
    _beside: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _earlier: int = 0  # calls of its agent, before its own
    _cancels: bool = False

    def beside(self, act: Callable[[], Awaitable[None]], *, to_the_end: bool = False) -> None:
        """Do this while the next call lives; `to_the_end`: it never ends by itself."""
        self._beside.append(act)
        self._cancels = to_the_end

    async def call(self, *steps: Step) -> Outcome:
        """Hold a call with `steps`; returns it when nothing of it is left."""
        self.media_at = self.caller_speaks_at = None
        self.ids = Identifiers(account_sid=ACCOUNT)
        self.stage.rest.calls[self.ids.call_sid] = {
            "sid": self.ids.call_sid,
            "account_sid": ACCOUNT,
            "status": "in-progress",
            "direction": "inbound",
        }
        self.begins()
        before, acts, self._beside = len(self.wire.lost_at), self._beside, []
        async with trio.open_nursery() as nursery:
            for act in acts:
                nursery.start_soon(act)
            result = await self._call(Script(self.name, "", steps))
            patience_s = 0 if self._cancels else SOON_S
            nursery.cancel_scope.deadline = trio.current_time() + patience_s
        here = self.stage.here
        row = await here.row(result.call_sid)
        began = self.media_at or trio.current_time()
        losses = [(at - began) * 1000 for at in self.wire.lost_at[before:]]
        return Outcome(result, row, here.lines_of(result.call_sid), losses)

    def begins(self) -> None:
        """The next call of its agent is the one that is meant from now on."""
        self._earlier = len(self._calls)

    async def _call(self, script: Script) -> CallResult:
        here = self.stage.here
        if self.carrier == "twilio":
            return await here.call(
                script, self.number, observer=self._observe, identifiers=self.ids
            )
        host, port = self.stage.sip
        uri = f"sip:{self.number}@{host}:{port}"
        return await sip_call(script, uri=uri, observer=self._observe, deadline_s=90)

    def _observe(self, event: CallEvent) -> None:
        if isinstance(event, MediaStarted):
            self.media_at = trio.current_time() - event.at_ms / 1000
        elif isinstance(event, CallerStarted):
            self.caller_speaks_at = trio.current_time()

    # ---- what the daemon says of it while it lives

    @property
    def _calls(self) -> list[str]:
        return [
            line["call"]
            for line in self.stage.here.logs
            if line["event"] == "call received" and line["agent"] == self.agent
        ]

    @property
    def calls(self) -> list[str]:
        """The ids of the call that was made last, one at most."""
        return self._calls[self._earlier :][:1]

    def logged(self, event: str) -> list[Mapping[str, Any]]:
        """What was logged of the call under this name."""
        mine = self.calls
        return [
            line
            for line in self.stage.here.logs
            if line["event"] == event and line.get("call") in mine
        ]

    @property
    def agent(self) -> str:
        """Its agent, and its engine."""
        return f"{self.name}-{self.carrier}"

    @property
    def now(self) -> str:
        """The call's state."""
        return str(self.logged("call state")[-1]["state"])

    def entered(self, state: str) -> int:
        """How often the call has entered a state."""
        return len([0 for line in self.logged("call state") if line["state"] == state])

    async def state(self, state: str, times: int = 1) -> None:
        """Wait until the call has entered a state so often."""
        await until(lambda: self.entered(state) >= times, f"{self.agent}: {state}")

    def was_model(self, state: str) -> int:
        """How often the model's connection has come into a state."""
        return len([0 for line in self.logged("model state") if line["state"] == state])

    async def model(self, state: str, times: int = 1) -> None:
        """Wait until the model's connection has come into a state so often."""
        await until(lambda: self.was_model(state) >= times, f"{self.agent}: model {state}")


@dataclass
class Stage:
    """The daemon, and who talks to it."""

    here: House
    rest: FakeRest
    admin: httpx.AsyncClient
    sip: tuple[str, int]
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)

    async def engine(self, name: str) -> dict[str, Any]:
        """How an engine does."""
        answer = await self.admin.get("/api/engines")
        assert answer.status_code == 200, answer.text
        (found,) = (each for each in answer.json()["engines"] if each["name"] == name)
        return dict(found)

    async def degraded(self) -> list[str]:
        """What /readyz complains of."""
        answer = await self.admin.get("/readyz")
        return list(answer.json()["degraded"])


@asynccontextmanager
async def stage(
    folder: Path, plots: Mapping[str, Plot], more: str = "", *, of_daemon: str = ""
) -> AsyncIterator[Stage]:
    """A daemon with an agent for each plot and carrier.

    `more` is further configuration, `of_daemon` further lines of its table `[daemon]`.
    """
    wires: dict[tuple[str, str], Wire] = {}
    text, number = [f'{of_daemon}\n[admin]\nlisten = "127.0.0.1:0"\n', HEAD], 0
    async with trio.open_nursery() as nursery:
        for name, plot in plots.items():
            for carrier in CARRIERS:
                number += 1
                port = await nursery.start(serve, "127.0.0.1", 0, plot.options)
                wire = wires[name, carrier] = Wire(port)
                await nursery.start(wire.run)
                key = f"{name}-{carrier}"
                text.append(
                    f'[engine.{key}]\nkind = "realtime"\nserver = "other"\nmodel = "emulator"\n'
                    f'url = "ws://127.0.0.1:{wire.port}/v1/realtime"\n{plot.engine}\n'
                    f'[agent.{key}]\nengine = "{key}"\n{plot.agent}\n'
                    f'[[number]]\nmatch = "+1555{number:04}"\nagent = "{key}"\n{plot.number}\n'
                )
        with fake_rest() as rest, at_a_service(rest.url):
            twilio = (
                f'[twilio]\nauth_token = "{TOKEN}"\naccount_sid = "{ACCOUNT}"\n'
                f'api_url = "{rest.url}"\ncaller_id = "+15550100"\n'
            )
            made = "".join(text) + twilio + more
            async with house(folder, made, auth_token=TOKEN, public_url=PUBLIC) as here:
                (listening,) = [each for each in here.logs if each["event"] == "listening"]
                token = (here.state_dir / "admin.token").read_text().strip()
                async with httpx.AsyncClient(
                    base_url=f"http://{listening['admin']}",
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=SOON_S,
                ) as admin:
                    host, _, sip_port = sip_address(here.logs).rpartition(":")
                    there = Stage(here, rest, admin, (host, int(sip_port)))
                    for at, (key_, wire) in enumerate(wires.items(), 1):
                        name, carrier = key_
                        there.lines[key_] = Line(there, name, carrier, f"+1555{at:04}", wire)
                    yield there
        nursery.cancel_scope.cancel()


def words(clip: str) -> str:
    """What is said in a clip."""
    return clips.load(clip).text
