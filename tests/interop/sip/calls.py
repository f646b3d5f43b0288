"""Calls between the daemon and sipp, from and to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.interop.sip.house import SipHouse, free_port
from tests.interop.sip.sipp import Listening, Sipp, listening, sipp

__all__ = ["Outgoing", "calling", "held", "states"]


async def held(house: SipHouse, scenario: str, trunk: str = "plain", **more: Any) -> Sipp:
    """A call that the caller ends; its signalling is seen by sipp, its end by the journal."""
    result = await sipp(house, scenario, trunk, **more)
    row = await house.here.row(result.call_id)
    assert row["reason"] == "caller_hangup"
    assert row["trunk"] == trunk
    assert not house.here.lines_of(result.call_id)
    return result


async def states(house: SipHouse, result: Sipp) -> list[str]:
    """Of the call, in their order."""
    row = await house.here.row(result.call_id)
    return [state for state, _ in row["states"]]


class Outgoing:
    """A call of ours to sipp."""

    def __init__(self, house: SipHouse, call_id: str, peer: Listening) -> None:
        self.house = house
        self.call_id = call_id
        self._peer = peer

    @property
    def sipp(self) -> Sipp:
        """Once the call is over."""
        assert self._peer.result is not None
        return self._peer.result

    async def answered(self) -> None:
        """Wait until there is audio."""
        view = self.house.operations.find(self.call_id)
        assert view is not None
        await self.house.live(view.carrier_call_id)

    def hang_up(self) -> None:
        self.house.operations.hangup(self.call_id, "operator")

    async def row(self) -> dict[str, Any]:
        return await self.house.row_of(self.call_id)

    async def states(self) -> list[str]:
        return [state for state, _ in (await self.row())["states"]]


@asynccontextmanager
async def calling(
    house: SipHouse,
    scenario: str,
    trunk: str = "plain",
    to: str | None = None,
    dial: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Outgoing]:
    """A call that sipp takes; leaving waits until sipp is done with it, and for the journal."""
    if not dial or "trunk" not in dial:
        # Otherwise it listens where the trunk's configuration says.
        more.setdefault("port", free_port(house.addresses[trunk][0]))
    async with listening(house, scenario, trunk, **more) as peer:
        tcp = str(more.get("transport", "u1")).startswith("t")
        uri = peer.uri + (";transport=tcp" if tcp else "")
        yield Outgoing(house, await house.dial(to or uri, **(dial or {})), peer)
