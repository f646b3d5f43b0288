"""For plugin authors: a call without a network, on a virtual clock.

`call_with` runs a real call between a fake telephone and a fake model; `virtual_time` makes its
seconds take no time. `plugins/README.md` shows both at work.
"""

from __future__ import annotations

from voiced.config import ConfigError
from voiced.config.types import Agent
from voiced.leg import CallFacts
from voiced.testing.clock import virtual_time
from voiced.testing.engine import FakeEngine, FakeSession
from voiced.testing.leg import FakeLeg
from voiced.testing.scene import FACTS, PluginFailed, Scene, call_with

__all__ = [
    "FACTS",
    "Agent",
    "CallFacts",
    "ConfigError",
    "FakeEngine",
    "FakeLeg",
    "FakeSession",
    "PluginFailed",
    "Scene",
    "call_with",
    "virtual_time",
]
