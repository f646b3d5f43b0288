"""One answer of an engine's chat model, for plugins that work on a call after it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from voiced.plugin import PluginError

__all__ = ["Complete", "Completer"]

LIMIT_S: Final = 60.0
"""For one answer: a summary of an hour's call takes a model a few seconds."""

Complete = Callable[[Sequence[Mapping[str, str]]], Awaitable[str]]


class Completer:
    """The chat models of the configuration's engines, by name; set anew at each reload."""

    def __init__(self) -> None:
        self.models: Mapping[str, Complete] = {}

    async def __call__(self, engine: str, messages: Sequence[Mapping[str, str]]) -> str:
        """Ask for one answer. Raises PluginError, or OSError where the server fails."""
        model = self.models.get(engine)
        if model is None:
            known = ", ".join(sorted(self.models)) or "none"
            raise PluginError(f"[engine.{engine}] has no chat model; those that have one: {known}")
        with trio.move_on_after(LIMIT_S):
            return await model(messages)
        raise TimeoutError(f"[engine.{engine}] gave no answer within {LIMIT_S:g} s")
