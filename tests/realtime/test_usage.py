"""Token counts as servers tell them: whole, in part, or not at all."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from voiced.engine import Usage
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
        ({"input_token_details": {"text_tokens": None}}, Usage()),
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


@pytest.mark.parametrize("told", [None, [], "7", {"input_tokens": "7"}, {"input_tokens": 1.5}])
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
