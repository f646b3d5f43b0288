"""The configuration: TOML in, frozen and checked values out."""

from __future__ import annotations

from voiced.config.addresses import parse_host, parse_listen, parse_sip_listen
from voiced.config.load import Loaded, load
from voiced.config.mistakes import ConfigError, Mistake
from voiced.config.numbers import Asked, number_for
from voiced.config.paths import state_dir
from voiced.config.prices import prices
from voiced.config.types import Config

__all__ = [
    "Asked",
    "Config",
    "ConfigError",
    "Loaded",
    "Mistake",
    "load",
    "number_for",
    "parse_host",
    "parse_listen",
    "parse_sip_listen",
    "prices",
    "state_dir",
]
