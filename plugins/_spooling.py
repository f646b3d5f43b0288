"""A service whose work waits on the disk, in its own folder, until it is done."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import trio
from voiced_plugins._courier import Courier, Limits, Outcome
from voiced_plugins._spool import Item, Stored

from voiced.plugin import Host, PluginError, Service

__all__ = ["MIB", "Spooler"]

WRITTEN_S: Final = 3.0
"""How long the end of a call may wait for the disk; the call itself is over."""

MIB: Final = 2**20


class Spooler(Service):
    """Opens the spool, works it off, and leaves the rest to the next start."""

    def __init__(self, config: Any, host: Host) -> None:
        super().__init__(config, host)
        self.courier: Courier | None = None

    def limits(self) -> Limits:
        """What may wait, and how long."""
        raise NotImplementedError

    async def deliver(self, stored: Stored) -> Outcome:
        """Do a piece of work once."""
        raise NotImplementedError

    def lost(self, item: Item, why: str) -> None:
        """It will not be done."""

    async def open(self) -> None:
        """Open the spool. Raises PluginError."""
        folder = self.host.state_dir
        try:
            courier = Courier(folder, self.deliver, self.limits(), self.host.log, on_lost=self.lost)
            await courier.open()
        except (OSError, sqlite3.Error) as error:
            raise PluginError(f"the spool in {folder}: {error}") from None
        self.courier = courier

    async def run(self) -> None:
        """Work."""
        assert self.courier is not None
        await self.courier.run()

    async def close(self) -> None:
        """Leave the rest to the next start."""
        if self.courier is not None:
            await self.courier.close()

    async def written(self) -> None:
        """Wait, not for long, until what was put so far is on the disk."""
        if self.courier is not None:
            with trio.move_on_after(WRITTEN_S):
                await self.courier.written()
