"""The daemon's plugins: services that open, run, change with a reload and close."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
from msgspec import UNSET, structs
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hooks.strangers import SUMMARY, Counts, make_call
from voiced import plugin as api
from voiced.config import Config, load
from voiced.hooks import NO_HOOKS, House
from voiced.hooks.house import ABANDONED
from voiced.plugin import Json, Plugin, PluginError, Settings

SERVICE = """
import trio
from voiced.plugin import Plugin, PluginError, Service, Settings

class Own(Settings, frozen=True):
    text: str = ""

class Keeper(Service):
    async def open(self):
        self.write("open")
        if self.config.text == "refuse":
            raise PluginError("no room; make some")
        if self.config.text == "break":
            raise ZeroDivisionError("of its own")
        if self.config.text == "hang":
            await trio.sleep_forever()

    async def run(self):
        self.write("run")
        if self.config.text == "fail":
            raise ValueError("in the background")
        try:
            await trio.sleep_forever()
        finally:
            if self.config.text == "deaf":
                with trio.CancelScope(shield=True):
                    await trio.sleep(20)
            self.write("stopped")

    async def close(self):
        self.write("close")
        if self.config.text == "slow":
            await trio.sleep(60)

    def write(self, word):
        with (self.host.state_dir / "log").open("a") as file:
            file.write(f"{self.config.text}:{word}\\n")

class Mine(Plugin):
    Config = Own
    Service = Keeper
    async def on_media(self):
        self.service.write("media")

    async def on_call_end(self, summary):
        self.service.write("ended")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "mine.py").write_text(SERVICE)
    return tmp_path


def config(folder: Path, text: str, **tables: str) -> Config:
    lines = [f'[plugins.{name}]\nplugin = "mine"\ntext = "{text}"' for name, text in tables.items()]
    lines += ["[plugins.mine]", f'text = "{text}"']
    file = folder / "voiced.toml"
    file.write_text('[daemon]\nplugin_dir = "plugins"\n' + "\n".join(lines))
    return load(file, environ={}).config


def written(folder: Path, name: str = "mine") -> list[str]:
    return (folder / "state" / "plugins" / name / "log").read_text().split()


@asynccontextmanager
async def house_in(folder: Path, counts: Counts | None = None) -> AsyncIterator[House]:
    notes: list[Any] = []

    def annotate(call_id: str, name: str, value: Json) -> None:
        notes.append((call_id, name, value))

    async def complete(
        engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None
    ) -> str:
        return f"{engine}: {messages[0]['content']}"

    count = Counts() if counts is None else counts
    async with House.open(folder / "state", annotate, complete, count) as house:
        yield house
    assert all(note[0] == "c1" for note in notes)


async def test_a_service_is_opened_run_and_closed(folder: Path) -> None:
    async with house_in(folder) as house:
        assert house.enabled() == ()
        assert house.hooks(UNSET, make_call) is NO_HOOKS
        await house.set_up(config(folder, "a"))
        await wait_all_tasks_blocked()
        assert written(folder) == ["a:open", "a:run"]
        assert (folder / "state" / "plugins" / "mine").stat().st_mode & 0o777 == 0o750
        (enabled,) = house.enabled()
        assert enabled.service is not None
        host = enabled.service.host
        assert host.name == "mine"
        host.annotate("c1", "x", 1)
        assert await host.complete("chat", [{"role": "user", "content": "hi"}]) == "chat: hi"
    assert written(folder) == ["a:open", "a:run", "a:stopped", "a:close"]


async def test_a_call_has_the_plugins_of_its_number_in_order(folder: Path) -> None:
    async with house_in(folder) as house:
        await house.set_up(config(folder, "a", first="1", second="2"))
        assert [each.name for each in house.enabled()] == ["first", "second", "mine"]
        assert [each.name for each in house.enabled(("second", "mine"))] == ["second", "mine"]
        assert [each.kind for each in house.enabled()] == ["mine"] * 3
        assert house.hooks((), make_call) is NO_HOOKS
        assert house.hooks(("first",), make_call)


async def test_a_reload_keeps_what_has_not_changed_and_lets_calls_end(folder: Path) -> None:
    async with house_in(folder) as house:
        await house.set_up(config(folder, "a", other="o"))
        await wait_all_tasks_blocked()
        hooks = house.hooks(("mine", "other"), make_call)
        async with trio.open_nursery() as call:
            await call.start(hooks.run)
            await house.set_up(config(folder, "b", other="o"))
            await wait_all_tasks_blocked()
            hooks.emit("on_media")
            await wait_all_tasks_blocked()
            assert written(folder, "other") == ["o:open", "o:run", "o:media"]
            assert written(folder) == ["a:open", "a:run", "b:open", "b:run", "a:media"]
            await hooks.finish(SUMMARY)
        await wait_all_tasks_blocked()
        assert written(folder)[5:] == ["a:ended", "a:stopped", "a:close"]
        await house.set_up(structs.replace(config(folder, "b"), plugins={}))
        await wait_all_tasks_blocked()
        assert written(folder)[8:] == ["b:stopped", "b:close"]
        assert written(folder, "other")[3:] == ["o:ended", "o:stopped", "o:close"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("refuse", r"\[plugins.mine\] cannot start: no room; make some"),
        ("break", r"\[plugins.mine\] cannot start: ZeroDivisionError: of its own"),
        ("hang", r"\[plugins.mine\] takes longer than 60 s"),
    ],
)
async def test_what_cannot_start_changes_nothing(
    folder: Path, text: str, why: str, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05  # the configuration is decoded in a thread
    async with house_in(folder) as house:
        await house.set_up(config(folder, "a"))
        before = house.enabled()
        with structlog.testing.capture_logs(), pytest.raises(PluginError, match=why):
            await house.set_up(config(folder, text, first="1"))
        assert house.enabled() == before
        await wait_all_tasks_blocked()
        assert written(folder, "first") == ["1:open", "1:close"]
        assert written(folder) == ["a:open", "a:run", f"{text}:open"]


async def test_background_work_that_fails_costs_nothing_else(folder: Path) -> None:
    counts = Counts()
    with structlog.testing.capture_logs() as logs:
        async with house_in(folder, counts) as house:
            await house.set_up(config(folder, "fail"))
            await wait_all_tasks_blocked()
            assert [each.name for each in house.enabled()] == ["mine"]
    assert counts == {("mine", "failed"): 1}
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["plugin"], line["hook"]) == ("mine", "Service.run")
    assert written(folder)[-1] == "fail:close"


async def test_a_service_that_will_not_close_is_left(
    folder: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    with structlog.testing.capture_logs() as logs:
        began = trio.current_time()
        async with house_in(folder) as house:
            await house.set_up(config(folder, "slow"))
        assert 2.5 < trio.current_time() - began < 4
    assert [line["event"] for line in logs] == ["plugin takes too long to close"]


async def test_a_service_whose_work_will_not_end_is_closed_all_the_same(
    folder: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with house_in(folder) as house:
        await house.set_up(config(folder, "deaf"))
        await wait_all_tasks_blocked()
    assert written(folder) == ["deaf:open", "deaf:run", "deaf:close", "deaf:stopped"]


async def test_a_plugin_that_could_not_be_stopped_again_and_again_gets_no_more_calls(
    folder: Path,
) -> None:
    async with house_in(folder) as house:
        await house.set_up(config(folder, "a", other="o"))
        stuck = house.enabled(("mine",))[0]
        stuck.abandoned.update(range(ABANDONED - 1))
        assert [each.name for each in house.enabled()] == ["other", "mine"]
        stuck.abandoned.add("one more")
        assert [each.name for each in house.enabled()] == ["other"]
        await house.set_up(config(folder, "a", other="o"))
        assert [each.name for each in house.enabled()] == ["other", "mine"]


async def test_settings_that_were_not_checked_are_refused(folder: Path) -> None:
    async with house_in(folder) as house:
        with pytest.raises(PluginError, match=r"\[plugins.none\]: there is no plugin none"):
            await house.set_up(Config(plugins={"none": {}}))
        with pytest.raises(PluginError, match=r"\[plugins.recorder\]: Object contains unknown"):
            await house.set_up(Config(plugins={"recorder": {"x": 1}}))
        assert house.providers == {}


async def test_steps_of_pipelines_are_made_with_the_plugins_service(folder: Path) -> None:
    step = "def step(settings, service):\n    return settings, service.config.text\n\n"
    supplies = SERVICE.replace(
        "class Mine(Plugin):\n", 'class Mine(Plugin):\n    providers = {"tts": step}\n'
    )
    (folder / "plugins" / "mine.py").write_text(supplies.replace("class Mine", step + "class Mine"))
    async with house_in(folder) as house:
        await house.set_up(config(folder, "a", other="o"))
        before = house.providers
        assert before["mine"]["tts"]("its settings") == ("its settings", "a")
        assert before["other"]["tts"]("its settings") == ("its settings", "o")
        await house.set_up(config(folder, "a", other="o"))
        assert house.providers == before, "engines that use them need not be made again"
        await house.set_up(config(folder, "b", other="o"))
        assert house.providers["mine"] != before["mine"]
        assert house.providers["mine"]["tts"](1) == (1, "b")


async def test_who_keeps_voiced_from_ending_is_named(folder: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with house_in(folder) as house:
            await house.set_up(config(folder, "a"))
            before = house.enabled()[0]
            before.lingering = 1
            await house.set_up(config(folder, "a"))
    (line,) = [line for line in logs if "keep voiced from ending" in line["event"]]
    assert line["tasks"] == {"mine": 1}


async def nobody(engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None) -> str:
    raise PluginError("there is no chat model here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders for others")
async def test_what_root_makes_belongs_to_whom_the_state_belongs(tmp_path: Path) -> None:
    """`sudo voiced greeting make` must not keep the daemon from its own folder."""
    os.chown(tmp_path, 12345, 54321)
    folders = []

    class Keeper(Plugin):
        class Service(api.Service):
            async def open(self) -> None:
                folders.append(self.host.state_dir)

    async with House.open(tmp_path, lambda *fact: None, nobody) as house:
        await house.add("keeper", Keeper, Settings())
    (folder,) = folders
    for each in (folder, folder.parent):
        assert (each.stat().st_uid, each.stat().st_gid) == (12345, 54321)
        assert each.stat().st_mode & 0o777 == 0o750
