"""Tokens, characters and minutes times prices, each of the model that did the work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from voiced.config.prices import Billed, billed, billed_models, bundled_prices
from voiced.config.types import (
    Agent,
    Chat,
    Config,
    EmulatorEngine,
    PipelineEngine,
    Price,
    RealtimeEngine,
    SpeechToText,
    TextToSpeech,
)
from voiced.cost import (
    MOST,
    Spending,
    cost_usd,
    expected_usd_s,
    speech_usd,
    transcription_usd,
)
from voiced.engine import Usage, exact_words, exactly

FULL = Price(
    text_in=4, cached_text_in=0.4, text_out=24, audio_in=32, cached_audio_in=0.4, audio_out=64
)
EARS = Price(audio_in=3, text_in=1.25, text_out=5)
VOICE = Price(characters=15)
PRICES = {"full": FULL, "ears": EARS, "voice": VOICE, "minute": Price(per_minute=0.06)}
TALK = Usage(audio_in=600, audio_out=1200)


def test_a_minute_of_each_side_costs_what_the_price_list_says() -> None:
    # openai-realtime section 13: 600 tokens in, 1200 out, about 0.096 dollars.
    assert cost_usd(FULL, TALK, 120) == pytest.approx(0.096)


def test_a_second_is_expected_to_cost_what_its_models_take_for_both_sides() -> None:
    seconds = expected_usd_s(PRICES, Billed("full"))
    assert 60 * seconds == pytest.approx(cost_usd(FULL, TALK, 0))
    assert expected_usd_s(PRICES, Billed("minute")) == pytest.approx(0.001)
    assert expected_usd_s(PRICES, Billed("none of the table")) == 0
    ears = expected_usd_s(PRICES, Billed("none", transcription="ears"))
    assert ears == pytest.approx(transcription_usd(EARS, Usage(transcription_s=1)))
    voice = expected_usd_s(PRICES, Billed("none", speech="voice"))
    assert voice == pytest.approx(speech_usd(VOICE, Usage(speech_characters=15)))


def test_cached_tokens_are_a_part_of_the_input() -> None:
    usage = Usage(text_in=1000, cached_text_in=900, audio_in=100, cached_audio_in=100, text_out=10)
    expected = (100 * 4 + 900 * 0.4 + 100 * 0.4 + 10 * 24) / 1e6
    assert cost_usd(FULL, usage, 0) == pytest.approx(expected)


def test_price_by_the_minute() -> None:
    assert cost_usd(Price(per_minute=0.05), Usage(), 90) == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("price", "usage", "usd"),
    [
        (EARS, Usage(transcription_in=600, transcription_out=100), (600 * 3 + 100 * 5) / 1e6),
        (EARS, Usage(transcription_s=60), 600 * 3 / 1e6),  # a server that tells no tokens
        (Price(per_minute=0.006), Usage(transcription_s=30), 0.003),
        (Price(per_minute=0.006), Usage(transcription_in=300), 0.003),  # one that tells no time
        (Price(text_in=2, text_out=10), Usage(transcription_in=600), 600 * 2 / 1e6),
        (EARS, TALK, 0.0),
    ],
)
def test_what_is_written_down(price: Price, usage: Usage, usd: float) -> None:
    assert transcription_usd(price, usage) == pytest.approx(usd)


def test_what_is_spoken() -> None:
    usage = Usage(speech_characters=2000, speech_s=120)
    assert speech_usd(VOICE, usage) == pytest.approx(0.03)
    assert speech_usd(Price(per_minute=0.015), usage) == pytest.approx(0.03)


def test_usage_adds_up_field_by_field() -> None:
    total = Usage(text_in=1, transcription_s=0.5) + Usage(text_in=2, audio_out=3)
    assert total == Usage(text_in=3, audio_out=3, transcription_s=0.5)


def test_each_step_is_billed_by_its_model() -> None:
    spending = Spending(Billed("full", "ears", "voice"))
    spending.use(Usage(text_in=1000, text_out=100, speech_characters=500))
    spending.use(Usage(transcription_in=50, transcription_out=9))
    assert spending.by_model(PRICES, 0) == {
        "full": pytest.approx((1000 * 4 + 100 * 24) / 1e6),
        "ears": pytest.approx((50 * 3 + 9 * 5) / 1e6),
        "voice": pytest.approx(500 * 15 / 1e6),
    }


def test_a_failover_bills_both() -> None:
    spending = Spending(Billed("full", "ears"))
    spending.begin(10)
    spending.connect(True, 10)
    spending.use(TALK)
    spending.connect(False, 20)
    spending.switch(Billed("minute", None, "voice"), 25)
    spending.connect(True, 25)
    spending.use(Usage(transcription_s=5, speech_characters=1000))  # it hears for itself
    assert spending.by_model(PRICES, 55) == {
        "full": pytest.approx(0.096),
        "minute": pytest.approx(0.03),  # of the 30 s since it is connected
        "voice": pytest.approx(0.015),
    }
    assert spending.usd(PRICES, 55) == pytest.approx(0.141)
    assert spending.usd(PRICES, 85) == pytest.approx(0.171)


def test_time_is_paid_for_while_audio_flows_to_a_model() -> None:
    spending = Spending(Billed("minute"))
    spending.connect(True, 0)  # while the carrier still connects
    assert spending.usd(PRICES, 60) == 0
    spending.begin(60)
    assert spending.usd(PRICES, 120) == pytest.approx(0.06)
    spending.connect(False, 180)
    assert spending.usd(PRICES, 999) == pytest.approx(0.12)


def test_an_unknown_model_has_no_price_rather_than_a_wrong_one() -> None:
    spending = Spending(Billed("full", "other"))
    spending.use(TALK)
    assert spending.usd(PRICES, 0) == pytest.approx(0.096)  # it has not been used
    spending.use(Usage(transcription_in=1))
    assert spending.usd(PRICES, 0) is None
    known, lacking = spending.known_usd(PRICES, 0)
    assert known == pytest.approx(0.096)
    assert lacking == {"other"}


NAMES = st.sampled_from(["full", "ears", "voice", "minute"])
BILLED = st.builds(Billed, NAMES, st.none() | NAMES, st.none() | NAMES)
AMOUNTS = st.integers(0, 100_000)
USAGES = st.builds(
    Usage, *[AMOUNTS] * 2, st.just(0), st.just(0), *[AMOUNTS] * 4, st.floats(0, 60), AMOUNTS
)


@given(BILLED, st.lists(st.tuples(BILLED | st.none() | st.booleans(), USAGES, st.floats(0, 60))))
def test_the_models_add_up(
    first: Billed, steps: list[tuple[Billed | bool | None, Usage, float]]
) -> None:
    """Whatever is used, by whom and in which order: the sum is that of each part by itself."""
    spending, talks, now = Spending(first), first, 0.0
    spending.begin(now)
    connected, expected, total = False, 0.0, Usage()
    for change, usage, seconds in steps:
        if isinstance(change, Billed):
            talks = change
            spending.switch(change, now)
        elif change is not None:
            connected = change
            spending.connect(change, now)
        # Transcriptions are counted one way here, or one stands in for the other.
        usage = replace(usage, transcription_in=0)
        spending.use(usage)
        now += seconds
        total += usage
        expected += cost_usd(PRICES[talks.model], usage, seconds if connected else 0)
        if talks.transcription:
            expected += transcription_usd(PRICES[talks.transcription], usage)
        if talks.speech:
            expected += speech_usd(PRICES[talks.speech], usage)
        assert spending.usd(PRICES, now) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    by_model = spending.by_model(PRICES, now)
    assert sum(usd or 0 for usd in by_model.values()) == spending.usd(PRICES, now)
    assert spending.usage.text_in == total.text_in


@pytest.mark.parametrize(
    ("engine", "models"),
    [
        (EmulatorEngine(), Billed("emulator")),
        (RealtimeEngine(model="emulator"), Billed("emulator")),
        (RealtimeEngine(model="full"), Billed("full", "ears")),
        (
            PipelineEngine(stt=SpeechToText(model="a"), chat=Chat(model="b")),
            Billed("b", "a", "gpt-4o-mini-tts"),
        ),
        (
            PipelineEngine(
                stt=SpeechToText(provider="emulator"),
                chat=Chat(provider="local"),
                tts=TextToSpeech(provider="local", model="piper"),
            ),
            Billed("local", "emulator", "piper"),
        ),
    ],
)
def test_who_bills_what(
    engine: EmulatorEngine | RealtimeEngine | PipelineEngine, models: Billed
) -> None:
    agent = Agent(engine="e", transcription_model="ears")
    assert billed(engine, agent) == models
    config = Config(engine={"e": engine, "unused": EmulatorEngine()}, agent={"a": agent})
    found = {models.model, models.transcription, models.speech} - {None}
    assert billed_models(config) == found


def test_what_is_the_default_has_a_price() -> None:
    for engine in (EmulatorEngine(), RealtimeEngine(), PipelineEngine()):
        by = billed(engine, Agent())
        assert {by.model, by.transcription, by.speech} - {None} <= bundled_prices().keys()


@given(st.text())
def test_exact_words_are_known_again(text: str) -> None:
    assert exact_words(exactly(text)) == text
    assert exact_words(text) is None


def test_cached_tokens_without_a_price_cost_what_others_do() -> None:
    usage = Usage(text_in=1000, cached_text_in=900, audio_in=100, cached_audio_in=100)
    price = Price(text_in=4, audio_in=32)
    assert cost_usd(price, usage, 0) == pytest.approx((1000 * 4 + 100 * 32) / 1e6)
    free = Price(text_in=4, cached_text_in=0, audio_in=32, cached_audio_in=0)
    assert cost_usd(free, usage, 0) == pytest.approx(100 * 4 / 1e6)


def test_more_cached_tokens_than_tokens_are_no_gain() -> None:
    usage = Usage(text_in=10, cached_text_in=1000, audio_in=10, cached_audio_in=1000)
    assert cost_usd(FULL, usage, 0) == pytest.approx(20 * 0.4 / 1e6)


@pytest.mark.parametrize("wrong", [-1, MOST + 1, 10**400, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", Usage.__slots__)
def test_a_figure_that_is_none_counts_as_nothing(name: str, wrong: Any) -> None:
    spending = Spending(Billed("full", "ears", "voice"))
    with structlog.testing.capture_logs() as logs:
        spending.use(replace(TALK, **{name: wrong}))
    assert [(line["event"], line["figures"]) for line in logs] == [
        ("usage not counted: no such figures", [name])
    ]
    assert spending.usage == replace(TALK, **{name: 0})
    assert spending.usd(PRICES, 0) == pytest.approx(cost_usd(FULL, replace(TALK, **{name: 0}), 0))


def test_the_largest_figure_that_can_be_counts() -> None:
    spending = Spending(Billed("full"))
    spending.use(Usage(text_in=MOST))
    assert spending.usage.text_in == MOST


def test_a_server_that_tells_nothing_is_billed_by_time() -> None:
    spending = Spending(Billed("full"))
    spending.begin(0)
    spending.connect(True, 0)
    assert spending.usd(PRICES, 60) == 0, "nobody has asked it for anything"
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            spending.untold(1.0)
    assert [(line["event"], line["model"]) for line in logs] == [
        ("no usage told, cost is an estimate by time", "full")
    ]
    assert spending.usd(PRICES, 60) == pytest.approx(60 * expected_usd_s(PRICES, Billed("full")))
    assert Spending(Billed("none")).known_usd(PRICES, 0) == (0, set())
    spending.use(TALK)
    assert spending.usd(PRICES, 60) == pytest.approx(cost_usd(FULL, TALK, 60)), "told after all"
    again = Spending(Billed("full"))
    again.use(TALK)
    with structlog.testing.capture_logs() as logs:
        again.untold(1.0)
    assert logs == [], "one answer of which nothing is told, among others"


def test_an_answer_of_which_nothing_is_told_costs_what_was_heard_of_it() -> None:
    spending = Spending(Billed("full", speech="voice"))
    spending.use(TALK)
    told = cost_usd(FULL, TALK, 0)
    assert spending.usd(PRICES, 0) == pytest.approx(told)
    spending.broken_off(10)
    heard = Usage(audio_in=TALK.audio_in, audio_out=200, text_out=37)  # read again, and spoken
    spoken = speech_usd(VOICE, Usage(speech_characters=150))
    assert spending.usd(PRICES, 0) == pytest.approx(told + cost_usd(FULL, heard, 0) + spoken)
    spending.untold(10)
    twice = told + 2 * cost_usd(FULL, heard, 0) + 2 * spoken
    assert spending.usd(PRICES, 0) == pytest.approx(twice), "of a server that tells of others"
    assert spending.usage == TALK, "an estimate is no usage"


def test_before_anything_is_told_an_answer_costs_its_sound_or_the_time() -> None:
    spending = Spending(Billed("full"))
    spending.begin(0)
    spending.connect(True, 0)
    spending.broken_off(10)
    assert spending.usd(PRICES, 60) == pytest.approx((200 * 64 + 37 * 24) / 1e6)
    spending.untold(10)  # of its answers nothing is ever told
    assert spending.usd(PRICES, 60) == pytest.approx(60 * expected_usd_s(PRICES, Billed("full")))


def test_a_model_without_a_price_has_none_whoever_asks_it() -> None:
    spending = Spending(Billed("none"))
    spending.use(TALK)
    spending.use_beside("none", TALK, 1.0)
    assert spending.by_model(PRICES, 0) == {"none": None}


def test_each_engine_of_a_call_is_estimated_by_itself() -> None:
    spending = Spending(Billed("full"))
    spending.begin(0)
    spending.connect(True, 0)
    spending.use(TALK)
    spending.switch(Billed("ears"), 60)
    spending.untold(1.0)
    assert spending.by_model(PRICES, 90) == {
        "full": pytest.approx(0.096),
        "ears": pytest.approx(30 * expected_usd_s(PRICES, Billed("ears"))),
    }


def test_minutes_are_billed_as_they_are_whatever_is_told() -> None:
    spending = Spending(Billed("minute"))
    spending.begin(0)
    spending.connect(True, 0)
    spending.untold(1.0)
    assert spending.usd(PRICES, 60) == pytest.approx(0.06)
