"""Bundled plugins on real calls, alone and with each other, and their examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio
from voiced_plugins.dtmf import Dtmf
from voiced_plugins.prompts import Prompts, PromptService
from voiced_plugins.recorder import Recorder
from voiced_plugins.tools import Tools
from voiced_plugins.voicemail import Voicemail

from tests.plugins.digits import shows
from tests.plugins.sounds import a_wav
from tests.plugins.together import call_with_all
from tests.plugins.webserver import Answer, serving
from voiced import clips
from voiced.acting import MAX_OWN
from voiced.audio import pcm_to_ulaw
from voiced.config import ConfigError, load
from voiced.config.types import Agent
from voiced.plugin import Plugin, Tool
from voiced.testing import Scene, call_with, virtual_time

SPEECH = pcm_to_ulaw(clips.load("hours").pcm)


async def say(scene: Scene, audio: bytes) -> None:
    for at in range(0, len(audio), 800):
        scene.leg.say(audio[at : at + 800])
        await trio.sleep(0.1)


# ---- dtmf ----


class PinCheck(Plugin):
    """Has the tool that a PIN goes to."""

    got: list[Mapping[str, Any]] = []  # noqa: RUF012 - what a test looks at

    async def on_call_start(self) -> None:
        parameters = {
            "type": "object",
            "properties": {"pin": {"type": "string", "pattern": "^[1-9][0-9]{3}$"}},
            "required": ["pin"],
        }
        self.call.register_tool(Tool("check_pin", "Checks.", self._check, parameters))

    async def _check(self, arguments: Mapping[str, Any]) -> str:
        self.got.append(arguments)
        return f"PIN {arguments['pin']} is right"


def pin_menu(folder: Path) -> dict[str, Any]:
    collect = {
        "prompt": a_wav(folder, "pin.wav", 1000),
        "min_length": 4,
        "max_length": 4,
        "secret": True,
        "then": {
            "tool": "check_pin",
            "arguments": {"pin": "{digits}"},
            "tell": "The PIN was checked: {result}",
        },
    }
    return {"menu": {"main": {"pass_on": True, "keys": {"4": {"collect": collect}}}}}


@virtual_time
async def test_a_secret_number_is_seen_by_its_tool_and_by_nothing_else(tmp_path: Path) -> None:
    PinCheck.got.clear()
    with structlog.testing.capture_logs() as logs:
        async with call_with_all([(Dtmf, pin_menu(tmp_path)), (PinCheck, {})]) as call:
            await call.caller_says("My PIN, please.")
            await call.agent_says("Press four.")
            await call.press("4")
            await trio.sleep(1.5)
            del call.model.heard[:]
            await say(call, SPEECH)  # the caller murmurs it: the model does not hear that either
            silence = bytes(call.model.heard)
            await call.press("8273#")
            await call.until(lambda: call.told)
            await call.press("40123")  # no PIN: the tool is not run, and its schema keeps still
            await call.until(lambda: len(call.told) == 2)
            shown = repr(call.model.commands), call.call.plan.history()
    assert PinCheck.got == [{"pin": "8273"}]
    assert silence == b"\xff" * len(silence)
    assert call.told == [
        ("system", "The PIN was checked: PIN … is right"),
        ("system", "The PIN was checked: that did not work"),
    ]
    row = msgspec.json.encode(msgspec.to_builtins(call.call.record.row, enc_hook=repr)).decode()
    for secret in ("8273", "0123"):
        for text in (repr(logs), repr(shown), row):
            assert not shows(text, secret)
    assert any(log["event"] == "tool failed" for log in logs)


@virtual_time
async def test_a_key_silences_the_agent_and_transfers(tmp_path: Path) -> None:
    settings = {"menu": {"main": {"keys": {"0": {"transfer": "+4930123456"}}}}}
    async with call_with(Dtmf, settings) as call:
        call.transfers_succeed()
        with trio.move_on_after(0.3):
            await call.agent_says("A long sentence that nobody wants to hear to its end.", 8000)
        await call.press("0")
        summary = await call.ended()
    assert summary.reason == "transferred"
    assert call.leg.transfers == ["+4930123456"]
    assert call.leg.clears


@virtual_time
async def test_a_menu_before_the_conversation_and_a_clip_as_farewell(tmp_path: Path) -> None:
    menu = {
        "prompt": a_wav(tmp_path, "menu.wav", 2000),
        "alone": True,
        "timeout_s": 2,
        "tries": 2,
        "keys": {"9": {"hang_up": True, "play": [a_wav(tmp_path, "bye.wav", 600)]}},
    }
    agent = Agent(greeting="", silence_prompt_s=1, silence_hangup_s=2)
    async with call_with(Dtmf, {"menu": {"main": menu}}, agent=agent) as call:
        await trio.sleep(4.5)  # the prompt, silence, and the prompt again
        assert len(call.played) > 8 * 2000
        await call.press("9")
        summary = await call.ended()
        assert call.told == []
        assert call.asked == []
    assert summary.reason == "keys"
    assert call.leg.clears  # the second prompt was cut off


@virtual_time
async def test_after_a_menu_before_the_conversation_the_agent_greets(tmp_path: Path) -> None:
    """Not before: the caller would hear the beginning of a greeting, and nothing after the menu."""
    prompt = a_wav(tmp_path, "menu.wav", 500)
    keys = {"1": {"say": "Here you are."}, "2": {"play": [prompt]}}
    menu = {"prompt": prompt, "alone": True, "tries": 1, "keys": keys}
    agent = partial(Agent, silence_prompt_s=0, silence_hangup_s=0)
    greets, words = agent(greeting="Greet the caller."), agent(greeting_text="Hello there.")
    for who, key, told, exactly in (
        (greets, "5", [("system", "Greet the caller.")], None),
        (greets, "2", [("system", "Greet the caller.")], None),
        (words, "5", [], "Hello there."),
        (greets, "1", [], "Here you are."),
        (agent(greeting=""), "5", [], None),
    ):
        async with call_with(Dtmf, {"menu": {"main": menu}}, agent=who) as call:
            await trio.sleep(1)
            assert call.model.commands == []
            assert len(call.played) == 8 * 500  # the prompt
            await call.press(key)
            await trio.sleep(1)
            assert call.told == told
            assert len(call.asked) == (1 if told or exactly else 0)
            if exactly:
                assert exactly in str(call.asked[0])
            await call.agent_says("So I do.")
            asked = list(call.asked)
            await call.press("2")
            await trio.sleep(1)
            assert call.asked == asked, "greeted once, if at all"


@virtual_time
async def test_an_announcement_is_heard_before_such_a_menu(tmp_path: Path) -> None:
    announced = (Prompts, {"open": {"files": [a_wav(tmp_path, "welcome.wav", 700)]}})
    menu = {"prompt": a_wav(tmp_path, "menu.wav", 500), "alone": True, "keys": {"1": {"say": "x"}}}
    async with call_with_all([announced, (Dtmf, {"menu": {"main": menu}})]) as call:
        await trio.sleep(2)
        assert len(call.played) == 8 * 1200


@virtual_time
async def test_a_menu_beside_the_conversation_leaves_the_greeting_alone(tmp_path: Path) -> None:
    menu = {"keys": {"1": {"say": "Here you are."}}}
    async with call_with(Dtmf, {"menu": {"main": menu}}, agent=Agent(greeting="Greet.")) as call:
        await call.press("5")
        assert call.asked == ["Greet."]


# ---- tools ----


async def test_the_models_request_reaches_the_service() -> None:
    answer = Answer(body=b'{"state": "on its way"}')
    async with serving(answer) as server:
        tool = {
            "name": "order_status",
            "description": "Where an order is.",
            "url": f"{server.url}/orders/{{order}}",
            "extract": "/state",
            "parameters": {
                "properties": {"order": {"type": "string", "pattern": "^[0-9]+$"}},
                "required": ["order"],
            },
        }
        settings = {"http": [tool], "transfer": {"sales": "+4930123456"}}
        async with call_with(Tools, settings) as call:
            assert call.tools == ["order_status", "end_call", "transfer"]
            assert await call.model_calls("order_status", {"order": "77"}) == "on its way"
            wrong = json.loads(await call.model_calls("order_status", {"order": "../77"}))
            assert "order must match" in wrong["error"]
        assert [each.target for each in server.requests] == ["/orders/77"]


@virtual_time
async def test_the_model_ends_the_call_after_its_sentence() -> None:
    async with call_with(Tools, {}) as call, trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(call.agent_says, "I wish you a nice evening.", 3000)
        await trio.sleep(0.5)
        nursery.start_soon(call.model_calls, "end_call")
        summary = await call.ended()
        nursery.cancel_scope.cancel()
    assert summary.reason == "model"
    farewell = len(call.played) - 8 * 3000
    assert farewell > 8 * 500
    assert all(at >= began + 3.0 for at in call.leg.clears)


@virtual_time
async def test_a_transfer_waits_for_the_models_sentence() -> None:
    async with call_with(Tools, {"transfer": {"sales": "+4930123456"}}) as call:
        call.transfers_succeed()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.agent_says, "I will connect you.", 2000)
            await trio.sleep(0.5)
            nursery.start_soon(call.model_calls, "transfer", {"target": "sales"})
            summary = await call.ended()
            nursery.cancel_scope.cancel()
    assert summary.reason == "transferred"
    assert trio.current_time() - began >= 2.0


# ---- together ----


@virtual_time
async def test_a_closed_shop_takes_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sunday = datetime(2026, 6, 14, 10, 0, tzinfo=UTC)
    monkeypatch.setattr(PromptService, "now", lambda self: sunday)
    folder = tmp_path / "messages"
    prompts = {
        "hours": {"mon": ["09:00-17:00"]},
        "closed": {"files": [a_wav(tmp_path, "closed.wav", 1000)], "then": "voicemail"},
    }
    agent = Agent(greeting="Greet them.", silence_prompt_s=1, silence_hangup_s=2)
    async with call_with_all(
        [(Prompts, prompts), (Voicemail, {"folder": str(folder)})], agent=agent
    ) as call:
        await trio.sleep(1.6)
        await say(call, SPEECH)
        await call.press("#")
        summary = await call.ended()
        assert call.asked == []
    assert summary.reason == "voicemail"
    assert summary.facts["prompts"] == "closed"
    assert len(list(folder.glob("*.wav"))) == 1


@virtual_time
async def test_a_key_leads_to_voicemail(tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    menu = {"main": {"keys": {"7": {"tool": "take_message"}}}}
    async with call_with_all(
        [(Dtmf, {"menu": menu}), (Voicemail, {"folder": str(folder)})]
    ) as call:
        await call.press("7")
        await trio.sleep(0.6)
        await say(call, SPEECH)
        await call.hang_up()
    assert len(list(folder.glob("*.wav"))) == 1


# ---- settings, as an operator writes them ----

BAD = """\
[plugins.dtmf.menu.main.keys]
1 = { menu = "lost" }

[[plugins.tools.http]]
name = "x"
description = ""
url = "http://{host}/"
retrys = 3

[plugins.prompts]
time_zone = "Mars"

[plugins.voicemail]
max_s = "long"
"""


def test_mistakes_are_told_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(BAD, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    text = str(caught.value)
    for words in ("no such menu", "retrys", "retries", "Mars", "max_s"):
        assert words in text


class Checker(Plugin):
    """Fails, and repeats what it was given."""

    async def on_call_start(self) -> None:
        self.call.register_tool(Tool("check_pin", "", self.check))

    async def check(self, arguments: Mapping[str, Any]) -> str:
        raise ValueError(f"{arguments['pin']} is no PIN")


@virtual_time
async def test_a_tool_that_fails_does_not_say_the_secret_digits_it_got() -> None:
    menus = {
        "main": {
            "keys": {
                "1": {
                    "collect": {
                        "secret": True,
                        "max_length": 4,
                        "then": {"tool": "check_pin", "arguments": {"pin": "{digits}"}},
                    }
                }
            }
        }
    }
    with structlog.testing.capture_logs() as logs:
        async with call_with_all([(Checker, {}), (Dtmf, {"menu": menus})]) as call:
            await call.press("18273")
            await call.caller_waits(500)
            call.failures.clear()
    assert "ValueError" in repr(logs)
    assert not shows(repr(logs), "8273")


# ---- one that takes what there is ----


class Greedy(Plugin):
    """Takes as many tools and facts as it gets."""

    refused: list[str] = []  # noqa: RUF012 - what a test looks at

    async def on_call_start(self) -> None:
        self._flood(lambda n: self.call.register_tool(Tool(f"tool_{n}", "Nothing.", self._nothing)))
        self._flood(lambda n: self.call.set_fact(f"fact_{n}", n))
        self.call.set_fact("fact_1", "one of its own can be said anew")

    def _flood(self, act: Callable[[int], None]) -> None:
        try:
            for number in range(1000):
                act(number)
        except ValueError as error:
            self.refused.append(str(error))

    async def _nothing(self, arguments: Mapping[str, Any]) -> None: ...


async def test_a_greedy_plugin_leaves_tools_and_facts_to_the_others() -> None:
    Greedy.refused = []
    tools = {"transfer": {"sales": "+4930123456"}}
    plugins: list[tuple[type[Plugin], Mapping[str, Any]]] = [(Greedy, {}), (Tools, tools)]
    async with call_with_all([*plugins, (Recorder, {"min_free_mb": 0})]) as call:
        assert len(call.tools) == MAX_OWN + 2
        assert {"end_call", "transfer"} <= set(call.tools)
        await call.caller_says("Good morning.")
        await call.hang_up()
    facts = call.summary.facts
    assert len([name for name in facts if name.startswith("fact_")]) == MAX_OWN
    assert facts["fact_1"] == "one of its own can be said anew"
    assert int(str(facts["recording_ms"])) >= 1000
    assert Greedy.refused == [
        f"a plugin has at most {MAX_OWN} {what} in a call" for what in ("tools", "facts")
    ]
