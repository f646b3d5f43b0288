"""Makes engines from their configuration, guards them, and runs the offline servers on loopback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from voiced.completing import Complete
from voiced.config import types
from voiced.config.types import Agent, EngineConfig
from voiced.emulator.options import EmulatorOptions, parse_faults
from voiced.engine import Engine
from voiced.realtime.client import RealtimeEngine
from voiced.steady import Guard, Guarded, SteadyEngine

if TYPE_CHECKING:
    from voiced.pipeline.providers import Providers

__all__ = ["Engines"]

log = structlog.get_logger("voiced.engines")


def _count_nothing(_what: str, _why: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Made:
    config: EngineConfig
    providers: Providers
    engine: Engine


class Engines:
    """The engines of a daemon; unchanged ones survive a reload, with what they learnt."""

    def __init__(
        self, nursery: trio.Nursery, count: Callable[[str, str], None] = _count_nothing
    ) -> None:
        """`nursery` runs the offline engines' servers.

        `count` is told what happened, and to which engine or with which code: `lost` and
        `attempt_failed` with the code (a server's choice), `renewed`, `breaker_open`, `no_session`
        and `no_request` with the engine's name.
        """
        self._nursery = nursery
        self._count = count
        self._made: dict[str, _Made] = {}  # of the configuration in force
        self._guards: dict[str, Guard] = {}
        self._emulator: str | None = None  # where the steps of pipelines find theirs

    async def make(
        self, configs: Mapping[str, EngineConfig], providers: Providers | None = None
    ) -> dict[str, Engine]:
        """An engine for each `[engine.NAME]`, without its guard; see `for_agent`.

        `providers` are plugins' steps of pipelines. Raises ValueError for impossible settings,
        OSError; then nothing has changed.

        An emulator that a reload no longer names goes on for the calls that still use it; it costs
        an idle socket.
        """
        steps = dict(providers or {})
        made: dict[str, _Made] = {}
        for name, config in configs.items():
            known = self._made.get(name)
            # Plugins' steps may be others after a reload; only pipelines have any.
            plugged = steps if isinstance(config, types.PipelineEngine) else {}
            if known is not None and known.config == config and known.providers == plugged:
                made[name] = known
            else:
                made[name] = _Made(config, plugged, await self._make(name, config, plugged))
        for name, each in made.items():
            self._guard(name, each.config, changed=each is not self._made.get(name))
        self._made = made
        return {name: each.engine for name, each in made.items()}

    def for_agent(self, agent: Agent) -> SteadyEngine:
        """The engine of one call of `agent`: its own, and its fallback. KeyError for unknown ones.

        Make one per call: it tells which of both talks.
        """
        fallback = agent.fallback_engine
        return SteadyEngine(
            self._guarded(agent.engine), None if fallback is None else self._guarded(fallback)
        )

    async def chat_models(self) -> dict[str, Complete]:
        """Those engines that can answer a text with a text, for plugins' work after a call."""
        from voiced.pipeline import PipelineEngine, at_emulator

        found: dict[str, Complete] = {}
        for name, each in self._made.items():
            engine = each.engine
            if isinstance(each.config, types.EmulatorEngine):
                config = types.PipelineEngine(
                    stt=types.SpeechToText(provider="emulator"),
                    chat=types.Chat(provider="emulator"),
                    tts=types.TextToSpeech(provider="emulator"),
                )
                engine = PipelineEngine(name, at_emulator(config, await self._offline_url()), {})
            if isinstance(engine, PipelineEngine):
                found[name] = engine.complete
        return found

    def health(self) -> dict[str, dict[str, str | int | float | None]]:
        """How each engine does: its breaker's state, its sessions, its answers in this minute."""
        return {name: self._guards[name].health() for name in self._made}

    def _guarded(self, name: str) -> Guarded:
        return Guarded(self._made[name].engine, self._guards[name])

    def _guard(self, name: str, config: EngineConfig, *, changed: bool) -> None:
        """The guard of an engine outlives it: the calls of its former self count as well."""
        sessions, requests = config.max_sessions, config.requests_per_minute
        guard = self._guards.get(name)
        if guard is None:
            self._guards[name] = Guard(
                name, max_sessions=sessions, requests_per_minute=requests, count=self._count
            )
        elif changed:
            guard.configure(max_sessions=sessions, requests_per_minute=requests)

    async def _make(self, name: str, config: EngineConfig, providers: Providers) -> Engine:
        if isinstance(config, types.PipelineEngine):
            # Only who uses it pays for it.
            from voiced.pipeline import PipelineEngine, at_emulator

            if any(step.provider == "emulator" for step in (config.stt, config.chat, config.tts)):
                config = at_emulator(config, await self._offline_url())
            return PipelineEngine(name, config, providers)
        if isinstance(config, types.EmulatorEngine):
            options = EmulatorOptions(speech=config.speech, faults=parse_faults(config.faults))
            port = await self._serve(options)
            log.info("offline engine started", engine=name, port=port)
            config = types.RealtimeEngine(
                url=f"ws://127.0.0.1:{port}/v1/realtime",
                model="emulator",
                dialect=options.faults.dialect,
                server="other",
                max_session_s=config.max_session_s,
            )
        return RealtimeEngine(name, config)

    async def _offline_url(self) -> str:
        """Where the pipelines' emulated steps are; one server for all of them."""
        if self._emulator is None:
            port = await self._serve(EmulatorOptions())
            log.info("offline server of pipelines started", port=port)
            self._emulator = f"http://127.0.0.1:{port}/v1"
        return self._emulator

    async def _serve(self, options: EmulatorOptions) -> int:
        """Run the offline model; returns its port."""
        from voiced.emulator.server import serve

        port: int = await self._nursery.start(serve, "127.0.0.1", 0, options)
        return port
