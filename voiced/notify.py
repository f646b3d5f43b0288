"""What the service manager is told: sd_notify(3), where `NOTIFY_SOCKET` says that it listens.

`systemctl start` returns once calls are taken, `systemctl status` shows how many there are, a drain
that takes longer than `TimeoutStopSec` is waited for, and a daemon whose loop stands still is
started anew (`WatchdogSec`). It is no network: datagrams to the process that started this one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

__all__ = ["Manager"]

log = structlog.get_logger("voiced.notify")

STATUS_S: Final = 10.0
"""Between two looks at what there is to say, where no watchdog asks for more."""


class Manager:
    """The service manager, or nobody: then nothing is sent."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the abstract namespace (unix(7)); other kinds of addresses are not ours.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._there = path.startswith(("/", "@"))
        self._deaf = False  # the last word did not reach it, which has been said
        self.watchdog_s: float | None = None
        """Within which it wants to hear of us (sd_watchdog_enabled(3)); None: not at all."""
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            microseconds = environ.get("WATCHDOG_USEC", "")
            if microseconds.isascii() and microseconds.isdigit() and int(microseconds):
                self.watchdog_s = int(microseconds) / 1e6

    def ready(self, status: str) -> None:
        """Calls are taken, since the start or since a reload."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is read again; `ready` ends that."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, within_s: float) -> None:
        """The end has begun and takes so long at the most, whatever the unit says."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_s * 1e6)}")

    async def run(self, status: Callable[[], str]) -> None:
        """Say that the loop turns, and what there is, until cancelled."""
        if not self._there:
            return
        # Half of what is allowed, as sd_watchdog_enabled(3) recommends.
        period_s = STATUS_S if self.watchdog_s is None else min(STATUS_S, self.watchdog_s / 2)
        while True:
            self._tell("WATCHDOG=1", f"STATUS={status()}")
            await trio.sleep(period_s)

    def _tell(self, *lines: str) -> None:
        if not self._there:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)  # calls do not wait for it
                manager.connect(self._address)
                manager.send("\n".join(lines).encode())
            self._deaf = False
        except OSError as error:
            if not self._deaf:  # once, and not every few seconds
                log.warning("service manager not told", lines=lines[0], why=error.strerror)
            self._deaf = True
