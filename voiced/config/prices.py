"""What models cost: the bundled list, under the operator's own figures, and who bills what."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import msgspec

from voiced.config.types import (
    Agent,
    Config,
    EmulatorEngine,
    EngineConfig,
    Price,
    Provider,
    RealtimeEngine,
)

__all__ = ["EMULATOR", "Billed", "billed", "billed_models", "bundled_prices", "prices"]

EMULATOR: Final = "emulator"
"""The name of voiced's own server in the price table, whatever it does."""


@dataclass(frozen=True, slots=True)
class Billed:
    """The models that a conversation is billed by, as `[price."MODEL"]` names them.

    None: nobody does that step, or it is a part of what `model` costs.
    """

    model: str
    transcription: str | None = None
    speech: str | None = None


def prices(config: Config) -> dict[str, Price]:
    """Make the price table by model name; an entry of the file replaces the bundled one whole."""
    return {**bundled_prices(), **config.price}


@cache
def bundled_prices() -> dict[str, Price]:
    """Read the list that comes with voiced."""
    text = resources.files("voiced").joinpath("prices.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text)["price"], dict[str, Price])


def billed(engine: EngineConfig, agent: Agent) -> Billed:
    """Say which models bill the conversations of `agent` with `engine`."""
    if isinstance(engine, EmulatorEngine):
        return Billed(EMULATOR)
    if isinstance(engine, RealtimeEngine):
        if engine.model == EMULATOR:  # it writes down what it hears by itself
            return Billed(EMULATOR)
        return Billed(engine.model, agent.transcription_model)
    return Billed(
        _of_step(engine.chat, engine.chat.model),
        _of_step(engine.stt, engine.stt.model),
        _of_step(engine.tts, engine.tts.model),
    )


def billed_models(config: Config) -> set[str]:
    """Name every model that a call may be billed by."""
    found: set[str | None] = set()
    for agent in config.agent.values():
        for name in (agent.engine, agent.fallback_engine):
            if name is not None and name in config.engine:
                by = billed(config.engine[name], agent)
                found |= {by.model, by.transcription, by.speech}
    return {name for name in found if name is not None}


def _of_step(step: Provider, model: str) -> str:
    """A plugin's step without a `model` of its own is billed by the plugin's name."""
    if step.provider == EMULATOR:
        return EMULATOR
    default = getattr(type(step)(), "model", None)
    return step.provider if step.provider != "openai" and model == default else model
