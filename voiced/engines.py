"""Makes engines from their configuration, and runs the offline ones on loopback."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
import trio

from voiced.config import types
from voiced.config.types import EngineConfig
from voiced.emulator.options import EmulatorOptions, parse_faults
from voiced.emulator.server import serve
from voiced.engine import Engine
from voiced.realtime.client import RealtimeEngine

__all__ = ["Engines"]

log = structlog.get_logger("voiced.engines")


class Engines:
    """The engines of a daemon; unchanged ones survive a reload, with what they learnt."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """`nursery` runs the offline engines' servers."""
        self._nursery = nursery
        self._made: dict[str, tuple[EngineConfig, Engine]] = {}

    async def make(self, configs: Mapping[str, EngineConfig]) -> dict[str, Engine]:
        """An engine for each `[engine.NAME]`. Raises ValueError for impossible faults, OSError.

        An emulator that a reload no longer names goes on for the calls that still use it; it costs
        an idle socket.
        """
        for name, config in configs.items():
            if name not in self._made or self._made[name][0] != config:
                self._made[name] = (config, await self._make(name, config))
        return {name: self._made[name][1] for name in configs}

    async def _make(self, name: str, config: EngineConfig) -> Engine:
        if isinstance(config, types.EmulatorEngine):
            options = EmulatorOptions(speech=config.speech, faults=parse_faults(config.faults))
            port = await self._nursery.start(serve, "127.0.0.1", 0, options)
            log.info("offline engine started", engine=name, port=port)
            config = types.RealtimeEngine(
                url=f"ws://127.0.0.1:{port}/v1/realtime", model="emulator", server="other"
            )
        return RealtimeEngine(name, config)
