from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from voiced.emulator.answers import Line, choose, language_of
from voiced.emulator.items import Item
from voiced.emulator.options import Faults, OptionsError, parse_faults
from voiced.emulator.speech import Voice

HOURS = Item({"id": "i", "type": "message", "role": "user"}, clip="hours", heard_speech=True)
SPEECH = Item({"id": "i", "type": "message", "role": "user"}, heard_speech=True)


def test_faults_of_a_table() -> None:
    assert parse_faults({}) == Faults()
    table = {"close_code": 1011, "close_in_answer_ms": 700, "silent": True}
    assert parse_faults(table) == Faults(close_code=1011, close_in_answer_ms=700, silent=True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"close_cod": 1011}, "unknown fault 'close_cod'; did you mean 'close_code'?"),
        ({"zzzz": 1}, "unknown fault 'zzzz'; known are "),
        ({"silent": 3}, "fault 'silent': expected `bool`, got `int`"),
        ({"refuse_status": 404}, "fault 'refuse_status': invalid enum value 404"),
        ({"late_created_ms": -1}, "fault 'late_created_ms': expected `int` >= 0"),
    ],
)
def test_mistakes_are_named(table: Mapping[str, object], said: str) -> None:
    with pytest.raises(OptionsError) as caught:
        parse_faults(table)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("instructions", "context", "language", "expected"),
    [
        (None, [], "en", "greeting"),
        (None, [], "tr", "greeting_tr"),
        ("Greet the caller.", [HOURS], "ja", "greeting_ja"),
        (None, [HOURS], "en", "opening_hours"),
        (None, [SPEECH], "en", "not_understood"),
        (None, [HOURS, SPEECH], "tr", "not_understood_tr"),
    ],
)
def test_what_is_answered(
    instructions: str | None, context: list[Item], language: str, expected: str
) -> None:
    assert choose(instructions, context, language, 0).clips == (expected,)


def test_exact_words() -> None:
    words = 'Say exactly the following words and nothing else: "{}"'
    assert choose(words.format('He said "no".'), [HOURS], "en", 0) == Line('He said "no".', "en")
    assert choose(words.format("こんにちは"), [], "en", 0).language == "ja"
    recorded = choose(words.format("Thank you for calling. Goodbye."), [], "en", 0)
    assert recorded.clips == ("farewell",)
    assert language_of("Çalışma saatleriniz nedir?", "en") == "tr"
    assert language_of("Guten Tag", "de") == "de"
    assert language_of("営業時間", "ja") == "ja"
    assert language_of("営業時間", "en") == "zh"


async def test_a_recording_is_chosen_where_nothing_can_be_synthesised() -> None:
    spoken = await Voice("clips").say(Line("When are you open on Saturdays?", "en"), "marin", b"")
    assert "Saturdays" in spoken.text
    assert len(spoken.pcm) > 16000


async def test_the_callers_words_come_back() -> None:
    voice = Voice("echo")
    assert (await voice.say(Line("x", "en"), "marin", b"\1\2" * 99)).pcm == b"\1\2" * 99


async def test_espeak() -> None:
    voice = Voice("espeak")
    high = await voice.say(Line("Merhaba, nasılsınız?", "tr"), "marin", b"")
    low = await voice.say(Line("Merhaba, nasılsınız?", "tr"), "cedar", b"")
    assert len(high.pcm) > 8000
    assert high.pcm != low.pcm
    assert (await voice.say(Line("Merhaba, nasılsınız?", "tr"), "marin", b"")) == high


@pytest.mark.parametrize("script", ["exit 1", "echo no sound", ":"])
async def test_a_synthesiser_that_fails_costs_nothing_but_the_words(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    spoken = await Voice("espeak").say(Line("Thank you, goodbye.", "en"), "marin", b"")
    assert spoken.text == "Thank you for your call. Goodbye."


def test_espeak_has_to_be_there_when_it_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OptionsError, match="install it"):
        Voice("espeak")
    Voice("auto")
