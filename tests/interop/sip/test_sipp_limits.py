"""Who is not served: strangers, callers of a full daemon, callers of one that is about to stop."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.e2e.house import run_strictly, sample, until
from tests.interop.sip.house import STRANGER, sip_house
from tests.interop.sip.sipp import sipp

pytestmark = pytest.mark.interop


def test_strangers_hear_nothing(tmp_path: Path) -> None:
    """Neither OPTIONS nor INVITE is answered, each is counted; who is known is served meanwhile."""

    async def main() -> None:
        async with sip_house(tmp_path, {"plain": ""}) as house:
            before = sample("voiced_refused_total", what="sip", why="stranger")

            async def nothing_comes(scenario: str) -> None:
                result = await sipp(house, scenario, address=STRANGER, expect=1)
                assert not result.received("")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(nothing_comes, "uac_silence")
                nursery.start_soon(nothing_comes, "uac_silent_invite")
                await sipp(house, "uac_basic")
            assert sample("voiced_refused_total", what="sip", why="stranger") >= before + 2
            await house.nothing_left()

    run_strictly(main)


def test_strangers_are_forbidden_where_the_operator_says_so(tmp_path: Path) -> None:
    """403, still no call."""

    async def main() -> None:
        async with sip_house(tmp_path, {"plain": ""}, sip='strangers = "forbid"') as house:
            values = {"status": 403}
            await sipp(house, "uac_refused", address=STRANGER, values=values)
            assert not house.lines("call received")
            await house.nothing_left()

    run_strictly(main)


def test_a_full_daemon_sends_callers_to_another_node(tmp_path: Path) -> None:
    """503 with Retry-After, to INVITE and OPTIONS; room again when the call is over."""

    async def main() -> None:
        async with sip_house(tmp_path, {"plain": ""}, max_calls=1) as house:
            async with trio.open_nursery() as nursery:
                name = await nursery.start(partial(sipp, house, "uac_hangs_on"))
                call_id = await house.live(name)
                await sipp(house, "uac_retry_later")
                await sipp(house, "uac_options_busy")
                assert not house.operations.ready().ready
                house.operations.hangup(call_id, "operator")
            await house.nothing_left()
            await sipp(house, "uac_basic")
            await house.nothing_left()

    run_strictly(main)


def test_a_draining_daemon_takes_no_more_calls(tmp_path: Path) -> None:
    """After SIGTERM: 503 to INVITE and OPTIONS; the live call goes on, then hears a farewell."""

    async def main() -> None:
        async with (
            sip_house(tmp_path, {"plain": ""}, drain_s=4) as house,
            trio.open_nursery() as nursery,
        ):
            name = await nursery.start(partial(sipp, house, "uac_hangs_on"))
            await house.live(name)
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: bool(house.lines("stopping")), "the signal")
            await sipp(house, "uac_retry_later")
            await sipp(house, "uac_options_busy")
        row = house.here.rows()[0]
        assert row["carrier_call_id"] == name
        assert row["reason"] == "shutdown"
        assert row["duration_ms"] >= 4000
        assert house.lines("stopped")

    run_strictly(main)


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_thirty_calls(tmp_path: Path, transport: str) -> None:
    """Twenty a second, over UDP and over one TCP connection: each ends as it should."""

    async def main() -> None:
        async with sip_house(tmp_path, {"plain": ""}) as house:
            result = await sipp(house, "uac_many", calls=30, transport=transport)
            await house.nothing_left()
            ends = {row["carrier_call_id"]: row["reason"] for row in house.here.rows()}
            wanted = (f"{result.call_id}-{number}" for number in range(1, 31))
            assert ends == dict.fromkeys(wanted, "caller_hangup")

    run_strictly(main)
