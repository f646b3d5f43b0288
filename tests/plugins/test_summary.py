"""Summaries after calls: asked for, noted, tried again, kept over restarts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from voiced_plugins._spool import Spool
from voiced_plugins.summary import SETTLE_S, Summaries, SummaryPlugin, SummarySettings

from tests.plugins.standin import standing_in
from voiced.config import ConfigError, load
from voiced.hooks.calls import FINISH_S, STOP_S
from voiced.plugin import Json, Line, PluginError, Summary

ANSWER = json.dumps(
    {"summary": "Saatleri sordu.", "sentiment": "positive", "topics": ["a", "b"], "language": "tr"}
)


class House:
    """What a service needs of the daemon: a chat model, and the journal."""

    name = "summary"
    log = structlog.get_logger("voiced.plugin")

    def __init__(self, state_dir: Path, *answers: str | Exception) -> None:
        self.state_dir = state_dir
        self.answers = list(answers)
        self.asked: list[tuple[str, Sequence[Mapping[str, str]]]] = []
        self.notes: dict[tuple[str, str], Json] = {}

    def annotate(self, call_id: str, name: str, value: Json) -> None:
        self.notes[call_id, name] = value

    async def complete(
        self, engine: str, messages: Sequence[Mapping[str, str]], *, call_id: str | None = None
    ) -> str:
        assert call_id == "00000000000000aa"  # who pays for it
        self.asked.append((engine, messages))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def running(house: House, **settings: Any) -> AsyncIterator[Summaries]:
    service = Summaries(SummarySettings(**settings), house)
    await service.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        yield service
        nursery.cancel_scope.cancel()
    await service.close()


def ended(*texts: str, media_ms: int = 60_000) -> Summary:
    lines = [Line("caller" if n % 2 else "agent", text, False) for n, text in enumerate(texts)]
    return Summary(
        "00000000000000aa", "done", 0.0, 60.0, 60_000, media_ms, (), {}, {}, None, lines, {}
    )


async def end(service: Summaries, summary: Summary) -> None:
    async with standing_in() as call:
        await SummaryPlugin(call, service.config, service).on_call_end(summary)


async def until(true: Callable[[], object], within_s: float = 4000.0) -> None:
    # The clock jumps while threads work, which takes no time here but some there.
    with trio.fail_after(within_s):
        while not true():
            await trio.sleep(0.05)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real threads, and delays without much of a wait."""
    monkeypatch.setattr("voiced_plugins.summary.SETTLE_S", 0.0)
    monkeypatch.setattr("voiced_plugins._lanes.FIRST_S", 0.01)


@pytest.mark.usefixtures("quickly")
async def test_a_call_is_summed_up_by_the_engine_that_held_it(tmp_path: Path) -> None:
    house = House(tmp_path, f"Gladly!\n```json\n{ANSWER}\n```")
    async with running(house, language="Turkish") as service:
        await end(service, ended("Merhaba.", "Saat kaçta açıksınız?"))
        await until(lambda: len(house.notes) == 4, 20)
    assert house.notes == {
        ("00000000000000aa", "summary"): "Saatleri sordu.",
        ("00000000000000aa", "sentiment"): "positive",
        ("00000000000000aa", "topics"): "a, b",
        ("00000000000000aa", "caller_language"): "tr",
    }
    ((engine, messages),) = house.asked
    assert engine == "fake"
    assert "in Turkish" in messages[0]["content"]
    assert messages[1]["content"] == "agent: Merhaba.\ncaller: Saat kaçta açıksınız?"


@pytest.mark.usefixtures("quickly")
async def test_short_and_silent_calls_are_passed_over(tmp_path: Path) -> None:
    house = House(tmp_path, ANSWER)
    async with running(house, engine="other", min_s=5) as service:
        await end(service, ended("Hello."))
        await end(service, ended("Hello.", "Wrong number.", media_ms=4999))
        await end(service, ended("Hello.", "Right number.", media_ms=5000))
        await until(lambda: house.notes, 20)
    assert [engine for engine, _ in house.asked] == ["other"]
    assert "Right" in house.asked[0][1][1]["content"]


@pytest.mark.usefixtures("quickly")
async def test_failures_and_nonsense_are_asked_again(tmp_path: Path) -> None:
    house = House(tmp_path, OSError("down"), "I cannot.", PluginError("starting"), ANSWER)
    async with running(house) as service:
        await end(service, ended("Hello.", "Hi."))
        await until(lambda: house.notes, 20)
    assert len(house.asked) == 4
    assert house.notes["00000000000000aa", "summary"] == "Saatleri sordu."
    assert not [name for _, name in house.notes if name == "summary_failed"]


@pytest.mark.parametrize(
    ("answer", "why", "asked"),
    [
        ("I cannot.", "the model's answers have no summary", 4),
        (PluginError("[engine.fake] has no chat model"), "there is no chat model", 4),
    ],
)
@pytest.mark.usefixtures("quickly")
async def test_what_never_works_is_given_up_and_noted(
    tmp_path: Path, answer: str | Exception, why: str, asked: int
) -> None:
    house = House(tmp_path, answer)
    with structlog.testing.capture_logs() as logs:
        async with running(house) as service:
            for _ in range(2):
                await end(service, ended("Hello.", "Hi."))
                await until(lambda: house.notes, 20)
                await trio.sleep(0.1)
                assert house.notes == {("00000000000000aa", "summary_failed"): why}
                house.notes.clear()
    assert len(house.asked) == 2 * asked
    missing = [each for each in logs if each["event"] == "no summaries"]
    assert len(missing) == (1 if isinstance(answer, PluginError) else 0)
    assert not [each for each in logs if "Hi." in repr(each)]


async def test_a_restart_loses_none_and_rows_settle_first(tmp_path: Path) -> None:
    first = House(tmp_path, ANSWER)
    async with running(first) as service:
        await end(service, ended("Hello.", "Hi.", "a\udc80b"))
    assert first.asked == []  # it has not been SETTLE_S
    assert SETTLE_S > FINISH_S + 2 * STOP_S
    second = House(tmp_path, ANSWER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voiced_plugins.summary.SETTLE_S", 0.0)
        async with running(second):
            await until(lambda: second.notes, 20)
    assert second.asked[0][1][1]["content"] == "agent: Hello.\ncaller: Hi.\nagent: a?b"
    spool = Spool(tmp_path, max_items=9, max_bytes=999)
    assert spool.fill() == (0, 0)
    spool.close()


def test_a_prompt_has_to_ask_for_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text('[plugins.summary]\nprompt = "Sum it up."\n')
    with pytest.raises(ConfigError, match='the key "summary"'):
        load(file, environ={})
