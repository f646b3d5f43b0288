from __future__ import annotations

import math
from array import array

import pytest

from voiced import clips
from voiced.vad import Vad, VadStarted, VadStopped


@pytest.mark.parametrize("clip", clips.all_clips(), ids=lambda clip: clip.name)
def test_each_clip_is_clean_speech_at_telephone_level(clip: clips.Clip) -> None:
    samples = array("h", clip.pcm)
    rms = 20 * math.log10(math.sqrt(sum(s * s for s in samples) / len(samples)) / 32768)
    assert -23 < rms < -19
    assert 3000 < max(map(abs, samples)) < 30000  # heard, and not clipped
    assert abs(sum(samples) / len(samples)) < 5  # no DC
    assert max(map(abs, (*samples[:8], *samples[-8:]))) < 300  # faded
    assert clip.duration_ms == len(samples) // 8


@pytest.mark.parametrize("clip", clips.all_clips("caller"), ids=lambda clip: clip.name)
def test_a_callers_line_is_one_turn_for_the_default_turn_detection(clip: clips.Clip) -> None:
    events = Vad().feed(bytes(8000) + clip.pcm + bytes(16000))
    assert [type(e) for e in events] == [VadStarted, VadStopped]


def test_every_callers_line_has_an_answer_in_its_language() -> None:
    for clip in clips.all_clips("caller"):
        assert clip.answer
        assert clips.load(clip.answer).role == "agent"
        assert clips.load(clip.answer).language == clip.language


def test_what_the_demo_and_the_calls_rely_on() -> None:
    assert clips.load("opening_hours").duration_ms >= 8000  # long enough to be interrupted
    prompts = ("unavailable", "still_there", "one_moment", "farewell")
    assert set(clips.names("prompt")) == {
        name + language for name in prompts for language in ("", "_tr", "_ja")
    }
    assert {c.language for c in clips.all_clips("caller")} == {"en", "tr", "ja"}


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        clips.load("nothing")


@pytest.mark.parametrize(
    ("language", "ending"),
    [("tr", "_tr"), ("tr-TR", "_tr"), ("TR", "_tr"), ("ja", "_ja"), ("ja-JP", "_ja")]
    + [(other, "") for other in ("en", "en-GB", "auto", "de", "")],
)
def test_a_line_is_found_in_a_language_or_stays_english(language: str, ending: str) -> None:
    for name in ("unavailable", "still_there", "one_moment", "farewell"):
        assert clips.translated(name, language) == name + ending
    assert clips.load(f"farewell{ending}").language == (ending[1:] or "en")
