"""Announcements on real calls."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from voiced_plugins.prompts import Prompts, PromptService, PromptSettings, Sequence

from tests.plugins.sounds import a_wav
from voiced.config.types import Agent
from voiced.formats import PCMU_8K
from voiced.leg import CallFacts
from voiced.plugin import PluginError
from voiced.testing import FACTS, call_with, virtual_time

MONDAY = datetime(2026, 6, 8, 10, 0, tzinfo=UTC)
SUNDAY = datetime(2026, 6, 14, 10, 0, tzinfo=UTC)
GREETS = Agent(greeting="Greet them.", silence_prompt_s=0, silence_hangup_s=0)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time is what stands in here."""
    times = [MONDAY]
    monkeypatch.setattr(PromptService, "now", lambda self: times[-1])
    return times


def shop(folder: Path, **closed: Any) -> dict[str, Any]:
    return {
        "hours": {"mon": ["09:00-17:00"]},
        "holidays": ["06-15"],
        "open": {"files": [a_wav(folder, "one.wav", 600), a_wav(folder, "two.wav", 900)]},
        "closed": {"files": [a_wav(folder, "closed.wav", 1200)]} | closed,
    }


@virtual_time
async def test_when_it_is_open_the_files_come_before_the_greeting(
    tmp_path: Path, now: list[datetime]
) -> None:
    async with call_with(Prompts, shop(tmp_path), agent=GREETS) as call:
        await call.until(lambda: len(call.played) >= 8 * 1500)
        assert len(call.played) == 8 * 1500
        assert call.asked == ["Greet them."]
        await call.agent_says("Hello, how can I help?")
        await call.caller_says("Hello.")
    assert call.summary.facts["prompts"] == "open"
    assert call.summary.reason == "test_over"


@virtual_time
async def test_when_it_is_closed_the_call_can_end(tmp_path: Path, now: list[datetime]) -> None:
    now.append(SUNDAY)
    settings = shop(tmp_path, then="hang_up")
    settings["closed"]["files"] *= 2
    async with call_with(Prompts, settings, agent=GREETS) as call:
        summary = await call.ended()
        assert call.asked == []
    assert summary.reason == "prompts"
    assert summary.facts["prompts"] == "closed"
    assert len(call.played) == 8 * 2400
    assert summary.media_ms == pytest.approx(2400, abs=60)


@virtual_time
async def test_a_call_can_end_with_the_agents_farewell_alone(now: list[datetime]) -> None:
    async with call_with(Prompts, {"open": {"then": "hang_up"}}, agent=GREETS) as call:
        summary = await call.ended()
    assert summary.reason == "prompts"
    assert len(call.played) > 0


@virtual_time
async def test_a_transfer_that_succeeds_ends_the_call(tmp_path: Path, now: list[datetime]) -> None:
    now.append(datetime(2026, 6, 15, 10, 0, tzinfo=UTC))  # a holiday, as closed
    settings = shop(tmp_path, then="transfer", target="+4930123456")
    async with call_with(Prompts, settings, agent=GREETS) as call:
        call.transfers_succeed()
        summary = await call.ended()
    assert summary.reason == "transferred"
    assert summary.facts["prompts"] == "holiday"
    assert call.leg.transfers == ["+4930123456"]
    assert len(call.played) == 8 * 1200


@virtual_time
async def test_a_transfer_that_fails_begins_the_conversation(
    tmp_path: Path, now: list[datetime]
) -> None:
    now.append(SUNDAY)
    settings = shop(tmp_path, then="transfer", target="+4930123456")
    async with call_with(Prompts, settings, agent=GREETS) as call:
        await call.until(lambda: call.asked)
        assert "Greet the caller" in call.told[0][1]
        await call.agent_says("Hello, nobody is there, can I help?")
        del call.model.heard[:]
        await call.caller_says("Yes.")
        assert bytes(call.model.heard) != PCMU_8K.silence(len(call.model.heard) // 8)


@virtual_time
async def test_without_the_voicemail_plugin_the_conversation_begins(
    tmp_path: Path, now: list[datetime]
) -> None:
    now.append(SUNDAY)
    with structlog.testing.capture_logs() as logs:
        async with call_with(Prompts, shop(tmp_path, then="voicemail"), agent=GREETS) as call:
            await call.until(lambda: call.asked)
    assert "no message taken" in [log["event"] for log in logs]


@virtual_time
async def test_calls_of_ours_hear_announcements_only_where_asked_for(
    tmp_path: Path, now: list[datetime]
) -> None:
    facts = CallFacts(FACTS.call_id, "sip", "x", FACTS.called, FACTS.caller, "outbound")
    for outbound, played in ((False, 0), (True, 1500)):
        settings = shop(tmp_path) | {"outbound": outbound}
        async with call_with(Prompts, settings, facts=facts) as call:
            await call.caller_waits(2000)
            assert len(call.played) == 8 * played


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"time_zone": "Berlin"}, "write one like"),
        ({"time_zone": "../etc/passwd"}, "write one like"),
        ({"hours": {"mon": ["9-17"]}}, "are no hours"),
        ({"holidays": ["Easter"]}, "is no day"),
        ({"open": {"then": "transfer"}}, "target belongs"),
        ({"closed": {"target": "+491234567"}}, "target belongs"),
        ({"hours": {"monday": []}}, "unknown field"),
    ],
)
def test_mistakes_are_found_in_the_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(settings, PromptSettings)


@virtual_time
async def test_a_file_that_has_gone_since_the_check_is_named_at_the_start(tmp_path: Path) -> None:
    settings = PromptSettings(holiday=Sequence(files=(tmp_path / "gone.wav",)))
    with pytest.raises(PluginError, match=r"gone\.wav cannot be read"):
        async with call_with(Prompts, settings):
            pass
