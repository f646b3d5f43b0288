"""A real call with several plugins, in the order given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from voiced.config.types import Agent
from voiced.leg import CallFacts
from voiced.plugin import Plugin
from voiced.testing import FACTS, Scene, call_with


def call_with_all(
    plugins: Sequence[tuple[type[Plugin], Mapping[str, Any]]],
    agent: Agent | None = None,
    facts: CallFacts = FACTS,
) -> AbstractAsyncContextManager[Scene]:
    """As `voiced.testing.call_with`, which has the first of several apart."""
    (plugin, settings), *others = plugins
    return call_with(plugin, settings, agent=agent, facts=facts, others=others)
