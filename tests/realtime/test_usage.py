"""Token counts as servers tell them: whole, in part, or not at all."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.realtime.script import Script
from tests.realtime.test_turns import AGENT, say, tone
from voiced.config.types import Agent
from voiced.engine import CallerTranscript, Usage
from voiced.formats import PCMU_8K
from voiced.realtime.usage import response_usage, transcription_usage

DETAILS: dict[str, Any] = {"text_tokens": 3, "audio_tokens": 4}


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 5}, Usage(text_in=7, text_out=5)),
        ({"input_tokens": 7, "input_token_details": {}}, Usage(text_in=7)),
        (
            {"input_tokens": 7, "input_token_details": {"audio_tokens": 4}},
            Usage(text_in=3, audio_in=4),
        ),
        (
            {"input_tokens": 1, "input_token_details": {"audio_tokens": 4}},
            Usage(text_in=0, audio_in=4),
        ),
        (
            {"input_tokens": 9, "input_token_details": DETAILS, "output_token_details": DETAILS},
            Usage(text_in=3, audio_in=4, text_out=3, audio_out=4),
        ),
        ({"output_tokens": 7, "output_token_details": {"audio_tokens": 7}}, Usage(audio_out=7)),
        (
            {
                "input_token_details": {
                    **DETAILS,
                    "cached_tokens_details": {"text_tokens": 2, "audio_tokens": 1},
                }
            },
            Usage(text_in=3, audio_in=4, cached_text_in=2, cached_audio_in=1),
        ),
    ],
)
def test_a_total_is_counted_whole(told: dict[str, Any], expected: Usage) -> None:
    assert response_usage(raw(told)) == expected


NOUGHTS = {"input_tokens": 0, "output_tokens": 0, "seconds": 0, "output_token_details": {}}


@pytest.mark.parametrize(
    "told",
    [
        *(None, [], "7", {"input_tokens": "7"}, {"input_tokens": 1.5}),
        *({}, {"input_tokens": None}, {"input_token_details": {"text_tokens": None}}, NOUGHTS),
    ],
)
def test_what_cannot_be_read_is_not_told(told: object) -> None:
    assert response_usage(raw(told)) is None
    assert transcription_usage(raw(told)) is None


def test_a_transcription_is_told_in_tokens_or_seconds() -> None:
    assert transcription_usage(raw({"type": "duration", "seconds": 2.5})) == Usage(
        transcription_s=2.5
    )
    assert transcription_usage(raw({"input_tokens": 7, "output_tokens": 2})) == Usage(
        transcription_in=7, transcription_out=2
    )


BUFFER = "input_audio_buffer"
WRITTEN = "conversation.item.input_audio_transcription.completed"


def written(script: Script) -> list[Usage | None]:
    """The usage of each transcript that the call has been told since the last time."""
    return [each.usage for each in script.heard() if isinstance(each, CallerTranscript)]


def test_a_transcription_of_which_nothing_is_told_counts_by_its_length() -> None:
    script = Script().ready()
    script.says(f"{BUFFER}.speech_started", item_id="a", audio_start_ms=1000)
    script.says(f"{BUFFER}.speech_stopped", item_id="a", audio_end_ms=3500)
    script.says(f"{BUFFER}.committed", item_id="a")
    script.says(f"{BUFFER}.speech_started", item_id="b", audio_start_ms=4000)
    script.says(WRITTEN, item_id="a", transcript="hello")
    script.says(f"{BUFFER}.speech_stopped", item_id="b", audio_end_ms=5000)
    script.says(f"{BUFFER}.committed", item_id="b")
    script.says(WRITTEN, item_id="b", transcript="hello", usage={"type": "tokens"})
    assert written(script) == [Usage(transcription_s=2.5), Usage(transcription_s=1.0)]


def test_what_is_told_of_a_transcription_counts() -> None:
    script = Script().ready()
    script.says(f"{BUFFER}.speech_started", item_id="a", audio_start_ms=1000)
    script.says(f"{BUFFER}.speech_stopped", item_id="a", audio_end_ms=3500)
    script.says(f"{BUFFER}.committed", item_id="a")
    script.says(WRITTEN, item_id="a", transcript="hello", usage={"input_tokens": 7})
    assert written(script) == [Usage(transcription_in=7)]


def test_a_turn_that_we_found_counts_by_its_length() -> None:
    script = Script(agent=AGENT).ready()
    say(script, PCMU_8K.silence(1000) + tone(600) + PCMU_8K.silence(400))
    script.says(f"{BUFFER}.committed", item_id="a").says(WRITTEN, item_id="a", transcript="hello")
    assert written(script) == [Usage(transcription_s=1.0)]  # as in `test_turns`


def test_a_turn_without_times_counts_by_its_words() -> None:
    script = Script().ready().says(WRITTEN, item_id="a", transcript="fifteen letters")
    assert written(script) == [Usage(transcription_s=1.0)]


def test_who_wants_no_transcripts_pays_for_none() -> None:
    script = Script(agent=Agent(transcription_model=None)).ready()
    script.says(WRITTEN, item_id="a", transcript="fifteen letters")
    assert written(script) == [None]
