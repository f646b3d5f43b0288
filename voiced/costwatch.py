"""What a call costs as it goes on, and its end shortly before a cap strikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import trio

from voiced.budget import Meter
from voiced.config.types import Price
from voiced.record import CallRecord

__all__ = ["CostWatch"]

COST_WATCH_S: Final = 1.0


class CostWatch:
    """One call's. Without a cap there is nothing to watch, and the end alone counts."""

    def __init__(self, record: CallRecord, prices: Mapping[str, Price], meter: Meter | None):
        self._record = record
        self._prices = prices
        self._meter = meter

    @property
    def usd(self) -> float | None:
        """What the call has cost so far; None where the price table lacks a model."""
        return self._record.spending.usd(self._prices, trio.current_time())

    @property
    def capped(self) -> bool:
        """Whether there is anything to watch."""
        return self._meter is not None and self._meter.capped

    async def watch(self, wind_down: Callable[[str, Literal["farewell"]], None]) -> None:
        """Wind the call down shortly before a cap strikes; ends by cancellation."""
        if self._meter is None:
            return
        unpriced: set[str] = set()
        told = False
        while True:
            usd, lacking = self._known()
            for model in lacking - unpriced:
                unpriced.add(model)
                self._record.log.warning("cost not counted: no price", model=model)
            if (cap := self._meter.update(usd)) is not None:
                if not told:  # a transfer or a farewell may be under way for long
                    self._record.log.warning("cost cap reached", cap=cap, cost_usd=round(usd, 5))
                told = True
                wind_down(f"cost_{cap}", "farewell")
            await trio.sleep(COST_WATCH_S)

    def close(self) -> None:
        """The call is over: what it has cost in the end counts."""
        if self._meter is not None:
            self._meter.update(self._known()[0])
            self._meter.close()

    def _known(self) -> tuple[float, set[str]]:
        return self._record.spending.known_usd(self._prices, trio.current_time())
