"""What plugin authors test with: a real call, its telephone and its model, in no time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from voiced.config.types import Agent
from voiced.plugin import (
    Host,
    Plugin,
    PluginError,
    Service,
    Settings,
    Summary,
    Tool,
    Unsupported,
    Words,
)
from voiced.testing import ConfigError, PluginFailed, call_with, virtual_time


class Config(Settings, frozen=True):
    key: str = "9"
    folder: Path | None = None


class Keeper(Service):
    seen: list[object]

    async def open(self) -> None:
        self.seen = []
        (self.host.state_dir / "open").write_text("")

    async def run(self) -> None:
        await trio.sleep_forever()

    async def close(self) -> None:
        (self.host.state_dir / "open").unlink()


class Everything(Plugin):
    Config = Config
    Service = Keeper

    async def on_call_start(self) -> None:
        async def weather(arguments: Mapping[str, Any]) -> str:
            await trio.sleep(1)
            return f"sunny in {arguments['city']}"

        self.call.register_tool(Tool("weather", "Tells the weather.", weather))

    async def on_digit(self, digit: str) -> bool | None:
        if digit == self.config.key:
            self.call.tell("They pressed the key.")
            return True
        if digit == "0":
            self.call.start(self.hand_over)
            return True
        return None

    async def hand_over(self) -> None:
        try:
            await self.call.transfer("+4930123456")
        except Unsupported:
            self.call.set_fact("transferred", False)

    async def on_transcript(self, words: Words) -> None:
        if words.final:
            self.service.seen.append((words.role, words.text))

    async def on_call_end(self, summary: Summary) -> None:
        self.call.set_fact("reason", summary.reason)


async def test_a_conversation_is_played_and_read(autojump_clock: object) -> None:
    async with call_with(Everything, {"key": "5"}) as call:
        assert call.state == "listening"
        assert list(call.tools) == ["weather"]
        await call.caller_says("How is the weather?")
        await call.agent_says("I will see.", ms=700)
        assert await call.model_calls("weather", {"city": "Berlin"}) == "sunny in Berlin"
        await call.press("95")
        assert call.told[-1] == ("system", "They pressed the key.")
        assert len(call.played) == 700 * 8
        await call.press("0")
        assert call.leg.transfers == ["+4930123456"]
        assert call.facts == {"transferred": False}
        await call.hang_up()
        said = [(line.role, line.text) for line in call.summary.transcript]
        assert ("caller", "How is the weather?") in said
        assert ("agent", "I will see.") in said
    assert call.facts == {"transferred": False, "reason": "caller_hangup"}


async def test_a_transfer_may_succeed(autojump_clock: object) -> None:
    async with call_with(Everything) as call:
        call.transfers_succeed()
        await call.press("0")
        assert (await call.ended()).reason == "transferred"


async def test_a_service_is_opened_and_closed(autojump_clock: object, tmp_path: Path) -> None:
    async with call_with(Everything, state_dir=tmp_path):
        assert (tmp_path / "plugins" / "test_scene" / "open").exists()
    assert not (tmp_path / "plugins" / "test_scene" / "open").exists()


async def test_settings_are_checked_as_a_file_is(autojump_clock: object) -> None:
    with pytest.raises(ConfigError, match=r"kee: unknown key; did you mean key\?"):
        async with call_with(Everything, {"kee": "5"}):
            pass

    class Relative(Plugin):
        Config = Config

        async def on_media(self) -> None:
            assert self.config.folder == Path.cwd() / "somewhere"

    async with call_with(Relative, {"folder": "somewhere"}):
        pass


async def seven(plugin: type[Plugin]) -> None:
    async with call_with(plugin) as call:
        await call.press("7")
        assert call.state == "listening"


async def test_what_a_test_finds_wrong_comes_out_as_it_is(autojump_clock: object) -> None:
    with pytest.raises(AssertionError, match="says the test"):
        async with call_with(Plugin):
            raise AssertionError("says the test")


async def test_a_test_that_fails_says_what_the_plugin_did_wrong_before(
    autojump_clock: object,
) -> None:
    class Broken(Plugin):
        async def on_call_start(self) -> None:
            self.call.register_tool(Tool("look", "Looks.", self._look))

        async def _look(self, arguments: Mapping[str, Any]) -> str:
            return arguments["where"]  # type: ignore[no-any-return]

    async def look() -> None:
        async with call_with(Broken) as call:
            told = await call.model_calls("look")
            assert told == "found", "no answer"

    with pytest.raises(AssertionError, match="no answer") as caught:
        await look()
    assert caught.value.__notes__ == ["the plugin has failed before:\ntool: KeyError: 'where'"]


async def test_a_tool_whose_call_ends_tells_the_model_nothing(autojump_clock: object) -> None:
    class Desk(Plugin):
        async def on_call_start(self) -> None:
            self.call.register_tool(Tool("put_through", "Transfers.", self._put_through))

        async def _put_through(self, arguments: Mapping[str, Any]) -> str:
            outcome = await self.call.transfer("+4930123456")
            return "nobody answers" if outcome.status == 486 else "it is odd"

    async with call_with(Desk) as call:
        call.transfers_fail()
        assert await call.model_calls("put_through") == "nobody answers"
        call.transfers_succeed()
        assert await call.model_calls("put_through") == ""
        assert (await call.ended()).reason == "transferred"


async def test_what_a_call_passes_over_fails_the_test(autojump_clock: object) -> None:
    class Broken(Plugin):
        async def on_digit(self, digit: str) -> bool | None:
            raise KeyError(digit)

    with pytest.raises(PluginFailed, match="on_digit: KeyError: '7'") as caught:
        await seven(Broken)
    assert isinstance(caught.value.__cause__, KeyError)
    async with call_with(Broken) as call:
        await call.press("7")
        call.failures.clear()


async def test_a_service_that_cannot_open_says_so(autojump_clock: object) -> None:
    class Shut(Service):
        async def open(self) -> None:
            raise PluginError("the index is missing; make it")

    class Closed(Plugin):
        Service = Shut

    with pytest.raises(PluginError, match=r"\[plugins.test_scene\] cannot start: the index is"):
        async with call_with(Closed):
            pass


async def test_before_the_answer_there_is_no_audio(autojump_clock: object) -> None:
    class Early(Plugin):
        async def on_call_start(self) -> None:
            assert self.call.media_ms == 0
            self.call.set_fact("started", True)

    async with call_with(Early, media=False) as call:
        await call.settle()
        assert call.facts == {"started": True}
        assert call.state == "answering"
        await call.answer()
        assert call.state == "listening"
        await call.caller_waits(100)


async def test_the_agent_can_be_another(autojump_clock: object) -> None:
    async with call_with(Plugin, agent=Agent(greeting="Greet.")) as call:
        assert call.asked == ["Greet."]


async def test_waiting_in_vain_is_an_assertion(autojump_clock: object) -> None:
    async with call_with(Plugin) as call:
        with pytest.raises(AssertionError, match="not so within 2 s"):
            await call.until(lambda: False, within_s=2)
        with pytest.raises(AssertionError, match="goes on after 3 s"):
            await call.ended(within_s=3)


def test_an_hour_takes_no_time() -> None:
    passed = []

    @virtual_time
    async def an_hour(some: str) -> None:
        async with call_with(Plugin) as call:
            await trio.sleep(1700)
            passed.append((call.state, some))

    began = time.monotonic()
    an_hour("argument")
    assert passed == [("listening", "argument")]
    assert time.monotonic() - began < 600


def test_files_that_a_thread_writes_do_not_make_time_jump() -> None:
    class Writer(Plugin):
        time_limit_s = 1.0

        async def on_digit(self, digit: str) -> bool | None:
            await trio.to_thread.run_sync(time.sleep, 0.002)
            return True

    @virtual_time
    async def keys() -> None:
        async with call_with(Writer) as call:
            await call.press("123")
            assert not call.told

    keys()


def test_the_host_is_a_host() -> None:
    host: Any = Host
    assert {"annotate", "complete", "state_dir"} <= set(vars(host))


class Interrupted(Plugin):
    """Notes how much was heard of what the caller interrupted."""

    async def on_barge_in(self, heard_ms: int) -> None:
        self.call.set_fact("heard_ms", heard_ms)


@virtual_time
async def test_a_caller_can_interrupt() -> None:
    async with call_with(Interrupted) as call:
        await call.agent_says("A long story.", 5000, wait=False)
        await trio.sleep(1)
        await call.caller_says("Wait.")
        assert call.facts["heard_ms"] == pytest.approx(1050, abs=100)
