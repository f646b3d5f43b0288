"""The configuration as frozen, checked values: one struct per TOML table.

The tables stand by subject in `types_*.py`, and all of them here. The string under a field is its
line in `etc/README.md`. Names end in their unit (`_s`, `_ms`). Secrets stand as `x`, `x_file` or
`x_env`, exactly one; `load` resolves them into `x`, and reads `instructions_file` into
`instructions`. Paths that come out of `load` are absolute.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from voiced.config.table import (
    SECRETS,
    DaysOrForever,
    Dollars,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Seconds,
    SecondsOrNever,
    Table,
)
from voiced.config.types_agent import (
    DEFAULT_GREETING,
    DEFAULT_INSTRUCTIONS,
    GIVE_UP,
    Agent,
    OwnVad,
    SemanticVad,
    ServerVad,
    TurnDetection,
    default_agent,
)
from voiced.config.types_cost import Cost, Price
from voiced.config.types_daemon import Admin, Daemon, Http, Twilio
from voiced.config.types_engine import (
    Chat,
    EmulatorEngine,
    EngineConfig,
    PipelineEngine,
    Provider,
    RealtimeEngine,
    SpeechToText,
    TextToSpeech,
)
from voiced.config.types_number import Number
from voiced.config.types_sip import Sip, Trunk

__all__ = [
    "DEFAULT_GREETING",
    "DEFAULT_INSTRUCTIONS",
    "GIVE_UP",
    "SECRETS",
    "Admin",
    "Agent",
    "Chat",
    "Config",
    "Cost",
    "Daemon",
    "DaysOrForever",
    "Dollars",
    "EmulatorEngine",
    "EngineConfig",
    "Fraction",
    "Http",
    "Name",
    "NonNegative",
    "Number",
    "OwnVad",
    "PipelineEngine",
    "Positive",
    "Price",
    "Provider",
    "RealtimeEngine",
    "Seconds",
    "SecondsOrNever",
    "SemanticVad",
    "ServerVad",
    "Sip",
    "SpeechToText",
    "Table",
    "TextToSpeech",
    "Trunk",
    "TurnDetection",
    "Twilio",
    "default_agent",
]


class Config(Table, frozen=True):
    """The whole file, its drop-ins and defaults, checked."""

    daemon: Daemon = field(default_factory=Daemon)
    http: Http = field(default_factory=Http)
    twilio: Twilio = field(default_factory=Twilio)
    admin: Admin = field(default_factory=Admin)
    sip: Sip = field(default_factory=Sip)
    engine: dict[Name, EngineConfig] = field(default_factory=lambda: {"offline": EmulatorEngine()})
    agent: dict[Name, Agent] = field(default_factory=lambda: {"reception": default_agent()})
    number: tuple[Number, ...] = (Number(match="*", agent="reception"),)
    price: dict[Name, Price] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    plugins: dict[Name, dict[str, Any]] = field(default_factory=dict)
    """Each plugin's own table, as written but for its secrets; `voiced.hooks` checks it."""
