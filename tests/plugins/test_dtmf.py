"""Key menus on a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog
import trio
from voiced_plugins.dtmf import Dtmf, Menus

from tests.plugins.digits import shows
from tests.plugins.standin import StandInCall, press, standing_in
from voiced.plugin import Tool, Transferred


def settings(**tables: Any) -> Menus:
    return msgspec.convert(tables, Menus, dec_hook=lambda kind, value: kind(value))


ORDERS = {
    "main": {
        "keys": {
            "0": {"transfer": "+4930123456"},
            "1": {"menu": "orders"},
            "2": {"tell": "They pressed two.", "play": ["thanks.wav"]},
            "3": {"hang_up": True, "play": ["bye.wav"]},
            "4": {
                "collect": {
                    "prompt": "pin.wav",
                    "min_length": 4,
                    "max_length": 4,
                    "secret": True,
                    "then": {
                        "tool": "check_pin",
                        "arguments": {"pin": "{digits}", "deep": [{"again": "{digits}"}]},
                        "tell": "The check of the PIN says: {result}",
                    },
                }
            },
        },
        "pass_on": True,
    },
    "orders": {"prompt": "orders.wav", "keys": {"9": {"say": "Goodbye orders."}}},
}


@asynccontextmanager
async def with_menus(**tables: Any) -> AsyncIterator[tuple[StandInCall, Dtmf]]:
    config = settings(**({"menu": ORDERS} | tables))
    async with standing_in() as call:
        plugin = Dtmf(call, config, None)
        await plugin.on_media()
        await trio.testing.wait_all_tasks_blocked()
        yield call, plugin


async def test_a_key_transfers(autojump_clock: object) -> None:
    async with with_menus() as (call, plugin):
        assert await press(plugin, "0") == [True]
        assert call.done == [("transfer", "+4930123456")]


async def test_a_transfer_that_fails_is_told(autojump_clock: object) -> None:
    async with with_menus() as (call, plugin):
        call.transferred = Transferred(False, 486, "Busy Here")
        await press(plugin, "0")
        assert call.done[-1][0] == "tell"
        assert "nobody could be reached" in call.done[-1][1]


async def test_other_keys_are_the_models(autojump_clock: object) -> None:
    async with with_menus() as (call, plugin):
        assert await press(plugin, "78") == [None, None]
        assert call.done == []


async def test_a_menu_has_the_caller_to_itself(autojump_clock: object) -> None:
    async with with_menus() as (call, plugin):
        await press(plugin, "1", gap_s=5)
        assert call.done == [("alone", True), ("play", "orders.wav")]
        await press(plugin, "9")
        assert call.done[2:] == [("alone", False), ("say", "Goodbye orders.")]


async def test_clips_come_before_words_and_are_a_farewell(autojump_clock: object) -> None:
    async with with_menus() as (call, plugin):
        await press(plugin, "2", gap_s=1)
        assert call.done == [("play", "thanks.wav")]
        await trio.sleep(1.1)
        assert call.done[1:] == [("tell", "They pressed two.")]
        await press(plugin, "3")
        assert call.done[2:] == [("hang_up", "bye.wav", "keys")]


async def test_a_key_cuts_a_prompt_off_or_waits_for_it(autojump_clock: object) -> None:
    for setting, seconds in (("interrupt", 0.1), ("keep", 2.0)):
        async with with_menus(while_speaking=setting) as (call, plugin):
            began = trio.current_time()
            await press(plugin, "1", gap_s=0.1)
            await press(plugin, "9", gap_s=0)
            while call.done[-1][0] != "say":
                await trio.sleep(0.01)
            assert trio.current_time() - began == pytest.approx(seconds, abs=0.05)


async def test_who_types_ahead_hears_no_prompt_that_is_answered(autojump_clock: object) -> None:
    """Keys come faster than prompts begin: of those that are over when their turn comes none is."""
    again = {"prompt": "again.wav", "keys": {"1": {"menu": "orders"}}}
    collect = {"collect": {"prompt": "number.wav", "max_length": 3, "then": {"tell": "{digits}"}}}
    main = {"keys": {"1": {"menu": "again"}, "5": collect}}
    menus = {"main": main, "again": again, "orders": ORDERS["orders"]}
    for keys, setting, played in (
        ("11", "interrupt", ["orders.wav"]),
        ("112", "interrupt", ["orders.wav"]),
        ("5", "interrupt", ["number.wav"]),
        ("57", "interrupt", []),
        ("5777", "interrupt", []),
        ("11", "keep", ["orders.wav"]),
        ("57", "keep", ["number.wav"]),
    ):
        async with with_menus(menu=menus, while_speaking=setting) as (call, plugin):
            for key in keys:
                await plugin.on_digit(key)  # at once: nothing has begun to be heard
            await trio.sleep(4)
            assert [done[1] for done in call.done if done[0] == "play"] == played, keys


async def test_keys_can_be_ignored_while_the_caller_hears_something(
    autojump_clock: object,
) -> None:
    async with with_menus(while_speaking="ignore") as (call, plugin):
        call.state = "speaking"
        assert await press(plugin, "0") == [True]
        assert call.done == []
        call.state = "listening"
        await press(plugin, "10", gap_s=0.5)
        assert call.done == [("alone", True), ("play", "orders.wav")]


async def test_secret_digits_reach_the_tool_and_nothing_else(
    autojump_clock: object,
) -> None:
    got: list[Mapping[str, Any]] = []

    async def check_pin(arguments: Mapping[str, Any]) -> str:
        got.append(arguments)
        return f"PIN {arguments['pin']} is wrong"

    with structlog.testing.capture_logs() as logs:
        async with with_menus() as (call, plugin):
            call.register_tool(Tool("check_pin", "", check_pin))
            assert await press(plugin, "48273", gap_s=0.2) == [True] * 5
            await trio.sleep(5)
    assert got == [{"pin": "8273", "deep": [{"again": "8273"}]}]
    assert call.done[-1] == ("tell", "The check of the PIN says: PIN … is wrong")
    assert logs
    assert not shows(repr((logs, call.done, call.facts)), "8273")


async def test_a_tool_that_fails_costs_a_word(autojump_clock: object) -> None:
    async def fail(arguments: Mapping[str, Any]) -> str:
        raise RuntimeError(f"no such PIN {arguments['pin']}")

    with structlog.testing.capture_logs() as logs:
        async with with_menus() as (call, plugin):
            await press(plugin, "48273", gap_s=0.2)
            await trio.sleep(5)
            call.register_tool(Tool("check_pin", "", fail))
            await press(plugin, "48273", gap_s=0.2)
            await trio.sleep(5)
    told = [note for note in call.done if note[0] == "tell"]
    assert told == [("tell", "The check of the PIN says: that did not work")] * 2
    assert [log["event"] for log in logs].count("tool failed") == 1
    assert [log["event"] for log in logs].count("no plugin has this tool") == 1
    assert not shows(repr(logs), "8273")


async def test_a_menu_can_come_before_the_conversation(autojump_clock: object) -> None:
    first = {"prompt": "main.wav", "alone": True, "timeout_s": 3, "tries": 2}
    menu = {"main": first | {"keys": {"1": {"say": "Hello."}}}}
    async with with_menus(menu=menu) as (call, _):
        assert call.done == [("alone", True), ("play", "main.wav")]
        await trio.sleep(20)
        assert call.done[2:] == [("play", "main.wav"), ("alone", False)]


async def test_more_keys_than_can_be_done_cost_a_log_line(autojump_clock: object) -> None:
    with structlog.testing.capture_logs() as logs:
        async with with_menus(while_speaking="keep") as (_, plugin):
            for _ in range(100):
                await plugin.on_digit("2")
    assert "too many keys at a time: some are passed over" in [log["event"] for log in logs]


async def test_a_flood_of_keys_does_not_leave_the_caller_alone(autojump_clock: object) -> None:
    """All that keys lead to is done, also the way home, when an action has kept them waiting."""
    lines = {"1": {"menu": "deeper"}}
    menus = {
        "main": {"keys": {"1": {"menu": "lines"}}},
        "lines": {"prompt": "lines.wav", "keys": lines},
        "deeper": {"prompt": "deeper.wav", "keys": {"1": {"menu": "lines"}}, "tries": 2},
    }
    for flood in range(10, 40):
        async with with_menus(menu=menus, while_speaking="keep") as (call, plugin):
            for key in "1" * flood + "9" * 9:
                assert await plugin.on_digit(key)
            await trio.sleep(600)
            for key in "9" * 9:  # wherever the caller is now
                await plugin.on_digit(key)
            await trio.sleep(600)
            assert not call.quiet


def test_menus_that_are_not_there_are_named() -> None:
    with pytest.raises(msgspec.ValidationError, match="there is main"):
        settings(menu=ORDERS, start="mian")
    lost = {"keys": {"1": {"collect": {"then": {"menu": "orders"}}}}}
    with pytest.raises(msgspec.ValidationError, match="there is no such menu"):
        settings(menu={"main": lost})
