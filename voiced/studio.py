"""Makes greetings without a telephone: real calls, whose callers say nothing and hear at once.

A plugin that keeps greetings (any that has `on_greeting_made`) takes part in them; no other does,
and no journal knows of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import trio
from msgspec import UNSET

from voiced import config as configuration
from voiced.call import Call, Services
from voiced.config.types import Agent, Config
from voiced.engines import Engines
from voiced.formats import PCM16_16K, PCMU_8K, AudioFormat
from voiced.hooks import CallHooks, Enabled, House
from voiced.hooks.tables import decode
from voiced.journal import Journal
from voiced.leg import CallFacts, LegEvent, Transferred, Unsupported
from voiced.plugin import Audio, Greeting, Plugin, PluginError
from voiced.prompts import Prompts
from voiced.switchboard import engine_shape, new_call_id

__all__ = ["Take", "greeters", "make"]

TAKE_S: Final = 40.0
"""How long a greeting may take: a slow connection, and half a minute of speech."""


@dataclass(frozen=True, slots=True)
class Take:
    """What became of one agent's greeting, for calls of one sampling rate.

    made: the model has spoken it, and it is kept. known: it was there already. refused: no plugin
    kept what the model said. failed: it said nothing.
    """

    agent: str
    rate: int
    outcome: Literal["made", "known", "refused", "failed"]
    ms: int = 0
    text: str = ""
    why: str = ""


def greeters(config: Config) -> dict[str, str | None]:
    """The agents whose callers meet a plugin that keeps greetings; why not, where one cannot.

    Raises PluginError where `config` has not been through `load`.
    """
    keepers = set(_keepers(config))
    found: dict[str, str | None] = {}
    for number in config.number:
        names = tuple(config.plugins) if number.plugins is UNSET else number.plugins
        if keepers & set(names):
            found[number.agent] = _why_not(config.agent[number.agent])
    return found


def _why_not(agent: Agent) -> str | None:
    if not (agent.greeting_text or agent.greeting):
        return "its greeting is not the model's to speak"
    if agent.facts:
        return "it is told of each caller (facts), so that no two of its greetings are the same"
    return None


def _keepers(config: Config) -> Iterator[str]:
    for name, (_, plugin, _) in decode(config).items():
        if plugin.on_greeting_made is not Plugin.on_greeting_made:
            yield name


def _steps(config: Config) -> Iterator[str]:
    """The plugins without which no engine speaks."""
    for name, (_, plugin, _) in decode(config).items():
        if plugin.providers:
            yield name


async def make(config: Config, agents: Collection[str], report: Callable[[Take], None]) -> None:
    """Have each of `agents` greet, one after the other; `report` is told what came of it.

    Raises PluginError, ValueError or OSError, perhaps in a group, where nothing can be made.
    """
    keepers, steps = tuple(_keepers(config)), set(_steps(config))
    tables = {
        name: table for name, table in config.plugins.items() if name in keepers or name in steps
    }
    config = msgspec.structs.replace(config, plugins=tables)
    async with _studio(config, keepers) as studio:
        for agent in agents:
            for form in _formats(config):
                report(await studio.take(agent, form))


def _formats(config: Config) -> Sequence[AudioFormat]:
    """One for each sampling rate that calls may have."""
    wide = any("g722" in trunk.codecs for trunk in config.sip.trunk)
    return (PCMU_8K, PCM16_16K) if wide else (PCMU_8K,)


@asynccontextmanager
async def _studio(config: Config, keepers: Sequence[str]) -> AsyncIterator[_Studio]:
    with tempfile.TemporaryDirectory(prefix="voiced-") as folder:
        # Never run: what is handed to it is gone with it.
        journal = Journal(Path(folder))
        async with (
            trio.open_nursery() as nursery,
            House.open(configuration.state_dir(config), _forget, _no_chat) as house,
        ):
            await house.set_up(config)
            engines = Engines(nursery)
            await engines.make(config.engine, house.providers)
            yield _Studio(config, keepers, engines, house, Services(journal, Prompts()))
            nursery.cancel_scope.cancel()


def _forget(call_id: str, name: str, value: object) -> None:
    """There is no journal row to annotate."""


async def _no_chat(engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None) -> str:
    raise PluginError("there is no chat model where greetings are made")


class _Studio:
    def __init__(
        self,
        config: Config,
        keepers: Sequence[str],
        engines: Engines,
        house: House,
        services: Services,
    ) -> None:
        self._config = config
        self._keepers = keepers
        self._engines = engines
        self._house = house
        self._services = services

    async def take(self, name: str, form: AudioFormat) -> Take:
        """Have an agent greet somebody who is not there."""
        agent = self._config.agent[name]
        watch = _Watch()

        def hooks(make_call: Callable[[str], Any]) -> CallHooks:
            watcher = Enabled("studio", _Watcher, watch)
            return CallHooks((*self._house.enabled(self._keepers), watcher), make_call)

        call = Call(
            CallFacts(new_call_id(), "studio", "", "", ""),
            name,
            agent,
            self._engines.for_agent(agent),
            form,
            self._services,
            make_hooks=hooks,
            engine_shape=engine_shape(self._config.engine[agent.engine], self._config.plugins),
        )
        call.attach(_Nobody(form))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run)
            with trio.move_on_after(TAKE_S):
                async with trio.open_nursery() as either:
                    either.start_soon(_first, watch.over, either.cancel_scope)
                    either.start_soon(_first, call.ended, either.cancel_scope)
            call.end("studio")
        return self._judge(name, form, watch, call)

    def _judge(self, name: str, form: AudioFormat, watch: _Watch, call: Call) -> Take:
        audio = watch.known or watch.made
        if audio is None:
            return Take(name, form.rate, "failed", why=watch.trouble or "the model said nothing")
        ms = len(audio.payload) // audio.format.bytes_per_ms
        if watch.known is not None:
            return Take(name, form.rate, "known", ms, audio.text)
        if call.record.row.facts.get("greeting_kept"):
            return Take(name, form.rate, "made", ms, audio.text)
        why = "too long, silent, without words, or not to be written: the log says which"
        return Take(name, form.rate, "refused", ms, audio.text, why)


async def _first(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


class _Watch:
    """What is seen of a greeting."""

    def __init__(self) -> None:
        self.known: Audio | None = None
        self.made: Audio | None = None
        self.trouble = ""
        self.over = trio.Event()


class _Watcher(Plugin):
    """Stands last among the plugins, and sees what came of the greeting."""

    config: _Watch

    async def greeting(self, planned: Greeting) -> Greeting | None:
        """It may be there already."""
        if planned.audio is not None:
            self.config.known = planned.audio
            self.config.over.set()
        return None

    async def on_greeting_made(self, audio: Audio) -> None:
        """The model has spoken."""
        self.config.made = audio
        self.config.over.set()

    async def on_engine_error(self, code: str, message: str, lost: bool) -> None:
        """Why it may say nothing; other attempts may follow."""
        self.config.trouble = f"{message} ({code})"[:300]


class _Nobody:
    """A leg without a telephone: what is sent has been heard."""

    lead_ms = 60_000

    def __init__(self, form: AudioFormat) -> None:
        self.format = form
        self._sent = 0

    async def receive(self) -> Sequence[LegEvent]:
        """Nobody says anything."""
        await trio.sleep_forever()
        raise AssertionError

    def send(self, payload: bytes) -> None:
        """Heard."""
        self._sent += len(payload)

    async def ready(self) -> None:
        """Always."""
        await trio.lowlevel.checkpoint()

    def sent(self) -> int:
        """In this generation."""
        return self._sent

    def heard(self) -> int:
        """All of it."""
        return self._sent

    def seconds_until(self, position: int) -> float:
        """None."""
        return 0.0

    def clear(self) -> int:
        """There is nothing to clear."""
        heard, self._sent = self._sent, 0
        return heard

    async def drained(self) -> None:
        """Always."""
        await trio.lowlevel.checkpoint()

    async def transfer(self, target: str) -> Transferred:
        """Nobody to hand over."""
        raise Unsupported("there is no caller")

    def send_digits(self, digits: str) -> None:
        """Nobody hears them."""
        raise Unsupported("there is no caller")

    def facts(self) -> Mapping[str, int | float | str | bool | None]:
        """No figures."""
        return {}

    async def hang_up(self) -> None:
        """Nobody is there."""
        await trio.lowlevel.checkpoint()
