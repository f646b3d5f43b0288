"""Plugins as strangers write them, from the page for authors alone, and tested as it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
import trio

from voiced.plugin import (
    PCM16_16K,
    SILENCE,
    Call,
    Checked,
    Converter,
    Greeting,
    Plugin,
    Service,
    Settings,
    Summary,
    Unsupported,
    converter,
    read_file,
)
from voiced.testing import Agent, ConfigError, PluginFailed, call_with, virtual_time

GREETS = Agent(greeting="Greet the caller.", silence_prompt_s=0, silence_hangup_s=0)


# ---- who calls is looked up before the model greets ----


def read_customers(file: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(read_file(file, 1_000_000))
    return found


class LookupSettings(Settings, frozen=True):
    customers: Annotated[Path, Checked(read_customers)]


class Customers(Service):
    config: LookupSettings

    async def open(self) -> None:
        self.names = await trio.to_thread.run_sync(read_customers, self.config.customers)


class Lookup(Plugin):
    Config = LookupSettings
    Service = Customers
    service: Customers

    async def greeting(self, planned: Greeting) -> Greeting | None:
        if (name := self.service.names.get(self.call.caller)) is None:
            return None
        self.call.set_fact("customer", name)
        self.call.tell(f"The caller is {name}.", answer=False)
        with pytest.raises(Unsupported, match="nobody hears"):
            self.call.tell("Say so.")
        return Greeting(planned.before)  # not one for anybody


class Cache(Plugin):
    """Supplies a greeting, and would keep the model's."""

    async def greeting(self, planned: Greeting) -> Greeting | None:
        return Greeting(audio=SILENCE)

    async def on_greeting_made(self, audio: object) -> None:
        raise AssertionError("it is meant for one caller alone")


@virtual_time
async def test_a_file_that_is_not_there_is_a_mistake_as_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"customers: .*cannot be read: No such file"):
        async with call_with(Lookup, {"customers": Path("customers.json")}):
            pass


@virtual_time
async def test_a_caller_who_is_known_is_greeted_by_name(tmp_path: Path) -> None:
    file = tmp_path / "customers.json"
    file.write_text('{"+15550199": "Ada"}', "utf-8")
    for media in (True, False):
        lookup: tuple[type[Plugin], Mapping[str, Any]] = (Lookup, {"customers": file})
        async with call_with(Cache, agent=GREETS, media=media, others=[lookup]) as call:
            await call.until(lambda: call.asked)
            assert call.model.commands == [
                ("add_message", "system", "The caller is Ada."),
                ("respond", "Greet the caller."),
            ]
            if not media:
                await call.answer()
            await call.agent_says("Hello Ada.")
            assert call.facts == {"customer": "Ada"}


@virtual_time
async def test_nobody_greets_where_a_plugin_says_so() -> None:
    async with call_with(Cache, agent=GREETS) as call:
        await call.caller_waits(500)
        assert call.model.commands == []


class Late(Plugin):
    """Has something to say when the conversation is over."""

    async def on_state(self, previous: str, state: str) -> None:
        if state == "ending":
            with pytest.raises(Unsupported, match="no conversation now"):
                self.call.tell("By the way.", answer=False)
            self.call.set_fact("told", False)

    async def on_digit(self, digit: str) -> bool | None:
        self.call.hang_up()
        return True


@virtual_time
async def test_a_conversation_that_ends_is_told_nothing_more() -> None:
    async with call_with(Late) as call:
        await call.press("1")
        assert (await call.ended()).facts == {"told": False}
        assert call.told == []


# ---- a gate that the caller opens with a code ----


class GateSettings(Settings, frozen=True):
    code: str | None = None
    code_file: Path | None = None
    code_env: str | None = None


class Gate(Plugin):
    Config = GateSettings
    config: GateSettings

    def __init__(self, call: Call, config: GateSettings, service: Service) -> None:
        super().__init__(call, config, service)
        self._typed = ""
        self._opened = trio.Event()

    async def greeting(self, planned: Greeting) -> Greeting | None:
        return Greeting(planned.before, SILENCE)

    async def on_media(self) -> None:
        self.call.start(self._keep)

    async def _keep(self) -> None:
        async with self.call.take_over():
            self.call.play("one_moment")
            await self._opened.wait()
        self.call.tell("The caller knows the code. Greet the caller.")

    async def on_digit(self, digit: str) -> bool | None:
        if self._opened.is_set():
            return None
        self._typed += digit
        if self._typed == self.config.code:
            self._opened.set()
        elif digit == "#":
            self.call.hang_up(farewell="goodbye", reason="wrong_code")
        return True


@virtual_time
async def test_the_model_is_out_of_it_until_the_code_is_right(tmp_path: Path) -> None:
    file = tmp_path / "code"
    file.write_text("1234\n", "utf-8")
    async with call_with(Gate, {"code_file": file}, agent=GREETS) as call:
        await call.caller_says("Let me in.")
        await call.press("123")
        assert call.model.commands == []
        assert set(call.model.heard) <= {0xFF}
        assert call.played
        await call.press("4")
        assert call.told == [("system", "The caller knows the code. Greet the caller.")]
        assert call.asked == [None]
        await call.agent_says("Hello.")
        await call.caller_says("Thank you.")
        assert 0x21 in call.model.heard
        await call.press("5")
        assert call.told[1:] == [("system", "The caller pressed the key 5.")]


@virtual_time
async def test_a_wrong_code_ends_the_call() -> None:
    async with call_with(Gate, {"code": "1234"}, agent=GREETS) as call:
        await call.press("12#")
        assert (await call.ended()).reason == "wrong_code"


# ---- the sound of a call, written elsewhere in another format ----


class TapSettings(Settings, frozen=True):
    folder: Path
    copies: tuple[Path, ...] = ()


class Tap(Plugin):
    Config = TapSettings
    config: TapSettings
    audio_ms = 500

    async def on_call_start(self) -> None:
        self._in = self._converter()
        self._out = self._converter()

    def _converter(self) -> Converter:
        made = converter(self.call.format, PCM16_16K)
        assert made is not None  # telephones speak no wideband PCM
        return made

    async def on_caller_audio(self, payload: bytes, at_ms: int) -> None:
        await self._write("caller", self._in.convert(payload))

    async def on_agent_audio(self, payload: bytes, at_ms: int) -> None:
        await self._write("agent", self._out.convert(payload))

    async def on_call_end(self, summary: Summary) -> None:
        await self._write("caller", self._in.flush())
        await self._write("agent", self._out.flush())

    async def _write(self, side: str, sound: bytes) -> None:
        def work() -> None:
            for folder in (self.config.folder, *self.config.copies):
                with (folder / side).open("ab") as file:
                    file.write(sound)

        await trio.to_thread.run_sync(work)


@virtual_time
async def test_both_sides_come_whole_and_in_the_format_wanted(tmp_path: Path) -> None:
    (copy := tmp_path / "copy").mkdir()
    async with call_with(Tap, {"folder": tmp_path, "copies": [copy]}) as call:
        await call.caller_says("Good day.", 2000)
        await call.agent_says("And to you.", 1500)
        await call.hang_up()
    for side, ms in (("caller", 2000), ("agent", 1500)):
        size = (tmp_path / side).stat().st_size
        assert (copy / side).read_bytes() == (tmp_path / side).read_bytes()
        assert 0 <= size / PCM16_16K.bytes_per_ms - ms <= 1  # what the filter held


# ---- a service that asks a chat model, and what is wrong in any of several ----


class Judge(Plugin):
    async def on_call_end(self, summary: Summary) -> None:
        answer = await self.service.host.complete("chat", [{"role": "user", "content": "Well?"}])
        self.call.set_fact("answer", answer)


class Noter(Plugin):
    async def on_media(self) -> None:
        self.call.set_fact("noted", True)


class Careless(Plugin):
    async def on_media(self) -> None:
        raise KeyError("x")


@virtual_time
async def test_the_chat_model_is_the_test_s() -> None:
    async def complete(
        engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None
    ) -> str:
        return f"{engine}: {messages[0]['content']}"

    async with call_with(Judge, complete=complete) as call:
        await call.hang_up()
        await call.settle()
        assert call.facts == {"answer": "chat: Well?"}
    with pytest.raises(PluginFailed, match="give call_with one"):
        async with call_with(Judge):
            pass


@virtual_time
async def test_what_any_plugin_does_wrong_fails_the_test() -> None:
    with pytest.raises(PluginFailed, match="on_media: KeyError"):
        async with call_with(Noter, others=[(Careless, None)]) as call:
            await call.settle()


# ---- clips that are cut off ----


class Impatient(Plugin):
    """Has one clip after the other, and none of them but the last."""

    async def on_digit(self, digit: str) -> bool | None:
        self.call.start(self._play, digit)
        return True

    async def _play(self, digit: str) -> None:
        first = self.call.play("opening_hours", "who")
        if digit == "2":
            await trio.sleep(0.5)  # by now it is being heard
        second = self.call.play("opening_hours")
        self.call.interrupt()
        last = self.call.play("one_moment")
        heard = [await each.heard() for each in (first, second, last)]
        self.call.set_fact(f"heard_{digit}", str(heard))


@virtual_time
async def test_what_is_interrupted_before_it_was_read_is_not_heard_either() -> None:
    async with call_with(Impatient) as call:
        for key in "12":
            began = trio.current_time()
            await call.press(key)
            await call.until(lambda: f"heard_{key}" in call.facts)  # noqa: B023
            assert call.facts[f"heard_{key}"] == "[False, False, True]"
            assert trio.current_time() - began < 3  # the last has 1.6 s
