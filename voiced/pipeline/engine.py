"""The engine: its providers, made once, and a session for each call."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, final

import msgspec
import trio

from voiced.completing import Pay
from voiced.config import types
from voiced.config.prices import EMULATOR, Billed, billed
from voiced.engine import EngineFault, Plan, Usage
from voiced.pipeline.bill import Bill
from voiced.pipeline.client import Http
from voiced.pipeline.openai_chat import OpenAiChat
from voiced.pipeline.openai_stt import OpenAiStt
from voiced.pipeline.openai_tts import OpenAiTts
from voiced.pipeline.providers import (
    Detector,
    DetectorSettings,
    Kind,
    Message,
    ProviderError,
    Providers,
)
from voiced.pipeline.session import PipelineSession
from voiced.pipeline.steps import Providing, Steps
from voiced.pipeline.turns import Guarded, Turns, detector_settings, energy

__all__ = ["PipelineEngine", "at_emulator"]

OPENAI: Final = "openai"
ENERGY: Final = "energy"
RATES: Final = (8000, 16000, 24000, 48000)  # what the resampler takes
NO_PROVIDERS: Final[Providers] = MappingProxyType({})

# Servers that have answered are not asked again whether they are there, for as long as an idle
# connection to them is kept.
FRESH_S: Final = 60.0
# A server that takes longer to say which models it has may still be quick to speak.
CHECK_S: Final = 4.0


def at_emulator(config: types.PipelineEngine, url: str) -> types.PipelineEngine:
    """Put `url`, an emulator's, in place of each step whose provider is `emulator`.

    `url` is where its API begins, "http://127.0.0.1:PORT/v1".
    """
    moved: dict[str, types.Provider] = {
        field: msgspec.structs.replace(step, provider=OPENAI, url=url, api_key=None, model=EMULATOR)
        for field in ("stt", "chat", "tts")
        if (step := getattr(config, field)).provider == EMULATOR
    }
    return msgspec.structs.replace(config, **moved) if moved else config


def _nobody(fault: EngineFault) -> None:
    """Nobody has to know that a plugin's question was asked twice."""


def _nothing(model: str, usage: Usage) -> None:
    """Nobody adds up costs."""


@final
class PipelineEngine:
    """Speech to text, chat and text to speech (`voiced.engine.Engine`).

    Args:
        name: the `[engine.NAME]`.
        config: its table. Steps of the `emulator` have to be placed by `at_emulator` before.
        providers: what plugins supply.
        http: for tests.

    Raises ValueError for a provider that nobody supplies, or that is none.
    """

    def __init__(
        self,
        name: str,
        config: types.PipelineEngine,
        providers: Providers = NO_PROVIDERS,
        *,
        http: Http | None = None,
    ) -> None:
        self._name = name
        self._config = config
        self._providers = providers
        self._http = http or Http()
        self._checked_at: float | None = None  # Trio's clock
        stt, chat, tts = config.stt, config.chat, config.tts
        self._providing = Providing(
            stt=self._make("stt", stt, OpenAiStt),
            chat=self._make("chat", chat, OpenAiChat),
            tts=self._make("tts", tts, OpenAiTts),
            stt_timeout_s=stt.timeout_s,
            chat_timeout_s=chat.timeout_s,
            tts_timeout_s=tts.timeout_s,
        )
        self._detector: Callable[[DetectorSettings], Detector] | None = None
        if config.detector != ENERGY:
            self._detector = self._plugged("detector", config.detector)
        self._servers = {
            (step.url, step.api_key): step for step in (stt, chat, tts) if step.provider == OPENAI
        }

    @property
    def name(self) -> str:
        """The `[engine.NAME]` of the configuration."""
        return self._name

    @property
    def model(self) -> str:
        """The model that thinks."""
        return self._config.chat.model

    def billed(self, agent: types.Agent) -> Billed:
        """The models of the three steps."""
        return billed(self._config, agent)

    @asynccontextmanager
    async def open(self, plan: Plan) -> AsyncGenerator[PipelineSession, None]:
        """A session that connects in the background; leaving closes it within 1 s."""
        settings = detector_settings(plan.agent, plan.leg_format.rate)
        detector: Detector = energy(settings)
        if self._detector is not None:
            detector = Guarded(self._detector, settings)
        turns = Turns(
            plan.leg_format,
            detector,
            prefix_ms=settings.prefix_padding_ms,
            longest_ms=int(self._config.max_utterance_s * 1000),
        )
        session = PipelineSession(
            plan,
            self._providing,
            turns,
            voice=self._config.tts.voice or plan.agent.voice,
            max_messages=self._config.chat.max_history,
            check=self._check,
        )
        async with self._http.in_use():
            # The nursery is left by hand: an exception of the body need not come out as a group.
            manager = trio.open_nursery()
            nursery = await manager.__aenter__()
            nursery.start_soon(session.run)
            try:
                yield session
            finally:
                session.close()
                if session.broken:
                    self._checked_at = None  # the next session does not rely on it
                nursery.cancel_scope.cancel()
                await manager.__aexit__(None, None, None)

    async def complete(self, messages: Sequence[Mapping[str, str]], pay: Pay = _nothing) -> str:
        """Ask the chat model for one answer, whole; `messages` have a `role` and a `content`.

        `pay` is told once what it has used, also where it was broken off. Raises OSError where the
        server fails.
        """
        told = [Message(m["role"], m["content"]) for m in messages]  # type: ignore[arg-type]
        bill = Bill()
        bill.ask(told, ())
        texts: list[str] = []
        begun = False
        try:
            async with (
                self._http.in_use(),
                aclosing(Steps(self._providing, _nobody).chat(told, ())) as pieces,
            ):
                async for piece in pieces:
                    begun = True
                    bill.take(piece)
                    if isinstance(piece, str):
                        texts.append(piece)
        except ProviderError as error:
            if not begun:
                bill.refused()
            raise OSError(f"{error.code}: {error.message}") from error
        finally:
            if (usage := bill.usage()) is not None:
                pay(billed(self._config, types.Agent()).model, usage)
        return "".join(texts)

    async def _check(self) -> None:
        """Find out whether the servers are there and know the key. Raises ProviderError.

        Connections made for it are kept, so the first request need not wait for one.
        """
        now = trio.current_time()
        if self._checked_at is not None and now - self._checked_at < FRESH_S:
            return
        failures: list[ProviderError] = []

        async def reach(server: types.Provider) -> None:
            try:
                with trio.move_on_after(CHECK_S):
                    await self._http.reach(server)
            except ProviderError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for server in self._servers.values():
                nursery.start_soon(reach, server)
        if failures:
            # The one that lasts says more than one that passes.
            raise min(failures, key=lambda error: error.verdict == "retry")
        self._checked_at = trio.current_time()

    def _make(self, kind: Kind, config: types.Provider, own: Callable[[Any, Http], Any]) -> Any:
        if config.provider == OPENAI:
            return own(config, self._http)
        make = self._plugged(kind, config.provider)
        try:
            step = make(config)
        except Exception as error:  # anybody's code: the operator is told whose
            raise ValueError(
                f"engine {self._name!r}: plugin {config.provider!r} cannot make its {kind}: "
                f"{type(error).__name__}: {error}"
            ) from error
        method = "transcribe" if kind == "stt" else "stream"
        function = getattr(step, method, None)
        fits = inspect.iscoroutinefunction if kind == "stt" else inspect.isasyncgenfunction
        if not fits(function):
            wanted = "a coroutine function" if kind == "stt" else "an async generator function"
            raise ValueError(
                f"engine {self._name!r}: the {kind} provider of plugin {config.provider!r} must "
                f"have {wanted} `{method}`"
            )
        if kind == "tts" and step.rate not in RATES:
            raise ValueError(
                f"engine {self._name!r}: plugin {config.provider!r} speaks at {step.rate} Hz; "
                f"it can be {', '.join(map(str, RATES))}"
            )
        return step

    def _plugged(self, kind: Kind, plugin: str) -> Callable[[Any], Any]:
        try:
            return self._providers[plugin][kind]
        except KeyError:
            raise ValueError(
                f"engine {self._name!r}: no plugin {plugin!r} supplies {kind}; enable "
                f"[plugins.{plugin}], or name another provider"
            ) from None
