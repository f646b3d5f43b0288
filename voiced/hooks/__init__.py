"""Plugins: found, checked, given their calls; kept apart from them."""

from __future__ import annotations

from voiced.hooks.calls import NO_HOOKS, CallHooks
from voiced.hooks.enabled import Enabled
from voiced.hooks.house import House
from voiced.hooks.registry import Registry, Unusable
from voiced.hooks.tables import check_plugins

__all__ = [
    "NO_HOOKS",
    "CallHooks",
    "Enabled",
    "House",
    "Registry",
    "Unusable",
    "check_plugins",
]
