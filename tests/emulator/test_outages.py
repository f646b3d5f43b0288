"""Faults that a client survives: refused at first, lost once, a while without a server, money."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, wrap_client_stream

from tests.emulator.test_server import Client, connecting, refusal, streams
from voiced.emulator.options import EmulatorOptions, Faults, parse_faults
from voiced.emulator.server import Server


async def lives(client: Client) -> bool:
    """Whether the session answers within a second of its clock."""
    try:
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
    except ConnectionClosed:
        return False
    return True


async def status(server: Server) -> int:
    """What a handshake is answered with; 0 where it is granted."""
    with trio.move_on_after(1):
        return (await refusal(server))[0]
    return 0


def server(**faults: Any) -> Server:
    return Server(EmulatorOptions(speech="clips", faults=parse_faults(faults)))


@pytest.mark.parametrize(("refuse_status", "expected"), [(0, 503), (429, 429), (500, 500)])
async def test_the_first_connections_are_refused(
    refuse_status: int, expected: int, autojump_clock: MockClock
) -> None:
    ours = server(refuse_first=2, refuse_status=refuse_status)
    assert [await status(ours) for _ in range(3)] == [expected, expected, 0]


async def test_connections_are_refused_for_a_while(autojump_clock: MockClock) -> None:
    ours = server(refuse_for_ms=5000, refuse_status=429)
    assert await status(ours) == 429
    await trio.sleep(4.9)
    assert await status(ours) == 429
    await trio.sleep(0.2)
    assert await status(ours) == 0


async def test_a_code_for_the_first_session_only(autojump_clock: MockClock) -> None:
    async with connecting(Faults(refuse_code="invalid_api_key", refuse_first=1)) as connect:
        assert (await (await connect()).receive())["type"] == "error"
        assert (await (await connect()).receive())["type"] == "session.created"


async def test_no_money(autojump_clock: MockClock) -> None:
    got, body = await refusal(server(quota=True))
    assert got == 429
    assert json.loads(body)["error"]["code"] == "insufficient_quota"


async def test_only_the_first_session_is_lost(autojump_clock: MockClock) -> None:
    async with connecting(Faults(close_after_ms=1000, faulty_sessions=1)) as connect:
        first = await connect()
        assert await lives(first)
        await trio.sleep(1.5)
        assert not await lives(first)
        second = await connect()
        await trio.sleep(5)
        assert await lives(second)


async def test_every_session_is_lost_after_its_time(autojump_clock: MockClock) -> None:
    async with connecting(Faults(close_after_ms=1000)) as connect:
        for _ in range(3):
            client = await connect()
            assert await lives(client)
            await trio.sleep(1.5)
            assert not await lives(client)


async def test_only_the_first_session_is_silent(autojump_clock: MockClock) -> None:
    async with connecting(Faults(silent=True, faulty_sessions=1)) as connect:
        for expected in (False, True):
            client = await connect()
            await client.send("response.create")
            with trio.move_on_after(10):
                await client.until("response.done")
            assert bool(client.of("response.done")) == expected


async def test_all_are_lost_at_once_and_the_server_comes_back(autojump_clock: MockClock) -> None:
    ours = server(lose_all_after_ms=2000, outage_ms=3000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.lose_all)
        assert await status(ours) == 0  # and a second has passed
        assert await status(ours) == 0
        assert await status(ours) == 503
        await trio.sleep(3.1)
        assert await status(ours) == 0


async def test_all_are_lost_and_new_ones_taken_at_once(autojump_clock: MockClock) -> None:
    ours = server(lose_all_after_ms=2000)
    async with trio.open_nursery() as nursery:

        async def connect() -> Client:
            near, far = streams()
            nursery.start_soon(ours.connected, far)
            path = "/v1/realtime?model=m"
            return Client(await wrap_client_stream(nursery, near, "test", path))

        nursery.start_soon(ours.lose_all)
        clients = [await connect() for _ in range(2)]
        assert [await lives(client) for client in clients] == [True, True]
        await trio.sleep(2.1)
        assert [await lives(client) for client in clients] == [False, False]
        assert await lives(await connect())
        nursery.cancel_scope.cancel()


def test_what_heals_and_what_stays() -> None:
    sick = Faults(
        refuse_first=3,
        late_created_ms=5,
        silent=True,
        fail_all=True,
        close_after_ms=7,
        half_open_in_answer_ms=1,
        reject_truncate=True,
        chat_status=500,
        outage_ms=9,
    )
    assert sick.healed() == Faults(refuse_first=3, late_created_ms=5, chat_status=500, outage_ms=9)
    assert msgspec.structs.replace(sick, faulty_sessions=1).healed().faulty_sessions == 0
