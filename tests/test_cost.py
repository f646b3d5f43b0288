"""Tokens and minutes times prices."""

from __future__ import annotations

import pytest

from voiced.config.types import Price
from voiced.cost import cost_usd
from voiced.engine import Usage

PRICES = {
    "full": Price(
        text_in=4, cached_text_in=0.4, text_out=24, audio_in=32, cached_audio_in=0.4, audio_out=64
    ),
    "minute": Price(per_minute=0.05),
}


def test_a_minute_of_each_side_costs_what_the_price_list_says() -> None:
    # openai-realtime section 13: 600 tokens in, 1200 out, about 0.096 dollars.
    usage = Usage(audio_in=600, audio_out=1200)
    assert cost_usd(PRICES, "full", usage, 120) == pytest.approx(0.096)


def test_cached_tokens_are_a_part_of_the_input() -> None:
    usage = Usage(text_in=1000, cached_text_in=900, audio_in=100, cached_audio_in=100, text_out=10)
    expected = (100 * 4 + 900 * 0.4 + 100 * 0.4 + 10 * 24) / 1e6
    assert cost_usd(PRICES, "full", usage, 0) == pytest.approx(expected)


def test_price_by_the_minute() -> None:
    assert cost_usd(PRICES, "minute", Usage(), 90) == pytest.approx(0.075)


def test_unknown_model_has_no_price_rather_than_a_wrong_one() -> None:
    assert cost_usd(PRICES, "other", Usage(audio_in=1), 60) is None


def test_usage_adds_up_field_by_field() -> None:
    total = Usage(text_in=1, transcription_s=0.5) + Usage(text_in=2, audio_out=3)
    assert total == Usage(text_in=3, audio_out=3, transcription_s=0.5)
