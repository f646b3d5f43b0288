"""One answer of an engine's chat model, for plugins that work on a call after it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from voiced.engine import Usage
from voiced.plugin import PluginError

__all__ = ["Complete", "Completer", "Pay", "Used"]

LIMIT_S: Final = 60.0
"""For one answer: a summary of an hour's call takes a model a few seconds."""

Pay = Callable[[str, Usage], None]
"""Takes the model, as `[price."MODEL"]` names it, and what it has used."""


class Complete(Protocol):
    """A chat model: messages in, one answer out. Raises OSError where the server fails.

    `pay` is told once what an answer has used, also where it failed or was broken off.
    """

    def __call__(self, messages: Sequence[Mapping[str, str]], pay: Pay) -> Awaitable[str]:
        """Ask for one answer."""


@dataclass(frozen=True, slots=True)
class Used:
    """What an answer has used, and of which call, where the plugin says so."""

    call_id: str | None
    model: str
    usage: Usage


def _nobody(used: Used) -> None:
    """Nobody adds up costs."""


class Completer:
    """The chat models of the configuration's engines, by name; set anew at each reload."""

    def __init__(self) -> None:
        self.models: Mapping[str, Complete] = {}
        self.used: Callable[[Used], None] = _nobody
        """Is told what each answer has used: whoever adds up what calls cost."""

    async def __call__(
        self, engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None = None
    ) -> str:
        """Ask for one answer. Raises PluginError, or OSError where the server fails."""
        model = self.models.get(engine)
        if model is None:
            known = ", ".join(sorted(self.models)) or "none"
            raise PluginError(f"[engine.{engine}] has no chat model; those that have one: {known}")

        def pay(name: str, usage: Usage) -> None:
            self.used(Used(call_id, name, usage))

        with trio.move_on_after(LIMIT_S):
            return await model(messages, pay)
        raise TimeoutError(f"[engine.{engine}] gave no answer within {LIMIT_S:g} s")
