"""Calls and plugins for tests of the dispatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import structlog
import trio

from voiced.formats import PCMU_8K
from voiced.hooks import CallHooks, Enabled
from voiced.plugin import AudioFormat, Call, Plugin, Settings, Summary

SUMMARY = Summary("c1", "caller_hangup", 0.0, 1.0, 1000, 900, (), {}, {}, None, (), {})


class NoCall:
    """As much of a call as the dispatch itself looks at."""

    format: AudioFormat = PCMU_8K
    log = structlog.get_logger()


class Counts(dict[tuple[str, str], int]):
    """What was counted."""

    def __call__(self, name: str, what: str) -> None:
        self[name, what] = self.get((name, what), 0) + 1


def make_call(name: str) -> Call:
    return cast("Call", NoCall())


def hooks_of(
    *plugins: type[Plugin],
    count: Callable[[str, str], None] | None = None,
    services: Mapping[str, Any] | None = None,
    nursery: trio.Nursery | None = None,
) -> CallHooks:
    """The hooks of a call that has these plugins, named after their classes."""
    enabled = [
        Enabled(each.__name__, each, Settings(), (services or {}).get(each.__name__))
        for each in plugins
    ]
    return CallHooks(
        enabled, make_call, structlog.get_logger(), Counts() if count is None else count, nursery
    )
