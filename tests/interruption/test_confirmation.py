from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interruption import sounds
from tests.interruption.lines import ulaw
from tests.interruption.recordings import CALLERS, Signal, prompts
from voiced import audio
from voiced.formats import PCM16_16K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.interruption import Confirmation, Verdict

FRAME_S = 0.02
FORMATS = [PCMU_8K, PCMA_8K, PCM16_16K]


def speech() -> Signal:
    return prompts(CALLERS["held out"][0], "held out", 1000, 3000)[0]


def run(
    caller: Signal,
    *,
    leg_format: AudioFormat = PCMU_8K,
    confirm_ms: int = 400,
    digit_s: float | None = None,
) -> tuple[Verdict, int]:
    """The caller sounds after half a second of a quiet line, and speech is reported 100 ms later.

    Returns the verdict and how many ms after the report it came.
    """
    judge = Confirmation(leg_format, confirm_ms)
    convert = audio.converter(PCMU_8K, leg_format)
    draw = np.random.default_rng(1)
    line = draw.normal(0, 10, 16_000)
    line[4000 : 4000 + len(caller)] += caller[:12_000]
    began = 50 + 0.6
    for tick in range(100):
        now = 50 + FRAME_S * (tick + 1)
        coded = ulaw(line[160 * tick : 160 * tick + 160])
        judge.caller(convert.convert(coded) if convert else coded, now)
        if tick == 29:
            judge.begin(began)
        if digit_s is not None and tick == round(digit_s / FRAME_S):
            judge.digit(now)
        verdict = judge.verdict(now)
        if verdict is not None:
            return verdict, round((now - began) * 1000)
    raise AssertionError("no verdict")


@pytest.mark.parametrize("leg_format", FORMATS, ids=str)
@pytest.mark.parametrize("confirm_ms", [250, 400, 600])
def test_a_caller_who_speaks_interrupts_before_the_time_is_over(
    leg_format: AudioFormat, confirm_ms: int
) -> None:
    verdict, after_ms = run(speech(), leg_format=leg_format, confirm_ms=confirm_ms)
    assert verdict == "interruption"
    assert after_ms <= confirm_ms


@pytest.mark.parametrize("leg_format", FORMATS, ids=str)
def test_a_cough_does_not(leg_format: AudioFormat) -> None:
    cough = sounds.COUGHS["cough"](np.random.default_rng(3))
    assert run(cough, leg_format=leg_format) == ("cough", 400)


@pytest.mark.parametrize("leg_format", FORMATS, ids=str)
@pytest.mark.parametrize("digit", range(16))
def test_a_digits_tone_is_heard_at_once(leg_format: AudioFormat, digit: int) -> None:
    verdict, after_ms = run(sounds.dtmf(digit, 0, 150), leg_format=leg_format)
    assert verdict == "digit"
    assert after_ms <= 100


@pytest.mark.parametrize("digit_s", [0.3, 0.58, 0.7, 0.96])
def test_a_key_told_by_the_carrier_explains_a_sound(digit_s: float) -> None:
    click = sounds.COUGHS["clicks"](np.random.default_rng(1))
    assert run(click, digit_s=digit_s)[0] == "digit"


def test_a_key_pressed_long_before_does_not() -> None:
    click = sounds.COUGHS["clicks"](np.random.default_rng(1))
    assert run(click, digit_s=0.05)[0] == "cough"


def test_a_caller_who_speaks_and_presses_a_key_later_interrupts() -> None:
    assert run(speech(), digit_s=0.98)[0] == "interruption"


def test_there_is_a_verdict_in_time_without_any_audio() -> None:
    judge = Confirmation(PCMU_8K, 400)
    assert judge.verdict(1) is None
    judge.begin(1)
    assert judge.verdict(1.38) is None
    assert judge.verdict(1.4) == "cough"
    assert judge.verdict(1.5) is None


def test_the_end_of_the_speech_is_the_end_of_the_window() -> None:
    judge = Confirmation(PCMU_8K, 400)
    judge.begin(1)
    judge.speech_stopped(1.1)
    assert judge.verdict(1.1) == "cough"
    judge.begin(2)
    assert judge.verdict(2.1) is None


def test_what_was_judged_does_not_count_in_the_next_window() -> None:
    judge = Confirmation(PCMU_8K, 400)
    said = np.concatenate([np.zeros(1600), speech()[:4800], np.zeros(16_000)])
    now = 0.0
    for tick in range(40):
        now = FRAME_S * (tick + 1)
        judge.caller(ulaw(said[160 * tick : 160 * tick + 160]), now)
    judge.begin(now)
    assert judge.verdict(now) == "interruption"
    judge.begin(now)
    for tick in range(40, 60):
        now = FRAME_S * (tick + 1)
        judge.caller(ulaw(said[160 * tick : 160 * tick + 160]), now)
    assert judge.verdict(now) == "cough"


def test_what_speaks_as_playback_begins_may_be_its_echo_and_takes_more() -> None:
    after_ms = []
    for played_s in (-1.0, 0.4):
        judge = Confirmation(PCMU_8K, 400)
        said = speech()[:12_000]
        judge.played(ulaw(np.random.default_rng(2).normal(0, 3000, 24_000)), 10 + played_s)
        line = np.concatenate([np.zeros(6400), said])
        for tick in range(80):
            now = 10 + FRAME_S * (tick + 1)
            judge.caller(ulaw(line[160 * tick : 160 * tick + 160]), now)
            if tick == 44:
                judge.begin(now)
            if judge.verdict(now) == "interruption":
                after_ms.append(round((now - 10.9) * 1000))
                break
    assert len(after_ms) == 2
    assert after_ms[0] < after_ms[1] <= 400


steps = st.tuples(
    st.sampled_from(["played", "cleared", "caller", "digit", "begin", "speech_stopped", "verdict"]),
    st.floats(-0.5, 0.5),
    st.binary(max_size=400),
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(steps, max_size=40))
def test_whatever_happens_a_verdict_comes_once_and_in_time(
    leg_format: AudioFormat, script: list[tuple[str, float, bytes]]
) -> None:
    judge = Confirmation(leg_format, 400)
    began: float | None = None
    over = False
    for index, (what, away, data) in enumerate(script):
        now = 10 + 0.1 * index
        if what in ("played", "caller"):
            getattr(judge, what)(data, now + away)
        elif what == "verdict":
            verdict = judge.verdict(now)
            if began is None:
                assert verdict is None
            elif over or now >= began + 0.4:
                assert verdict is not None
            if verdict is not None:
                began = None
        else:
            getattr(judge, what)(now)
            if what == "begin":
                began, over = now, False
            over = over or what == "speech_stopped"
