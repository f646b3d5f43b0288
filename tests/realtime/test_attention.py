"""A server that hears nothing any more is found out, and one that hears is never suspected."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.realtime.script import Script, plan
from tests.realtime.test_turns import AGENT
from voiced import clips
from voiced.audio import convert, pcm_to_ulaw
from voiced.config.types import Agent, RealtimeEngine, SemanticVad
from voiced.engine import DEAF, Lost, Plan
from voiced.formats import PCM16_8K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from voiced.realtime.attention import Attention
from voiced.realtime.session import RealtimeMachine

BUFFER = "input_audio_buffer"
WORDS = ("interrupt", "thanks", "recall")


def speech(name: str, gain_db: float = 0.0) -> bytes:
    """A clip at a level, mu-law."""
    pcm = clips.load(name).pcm
    gain = 10 ** (gain_db / 20)
    samples = struct.iter_unpack("<h", pcm)
    return pcm_to_ulaw(b"".join(struct.pack("<h", int(each * gain)) for (each,) in samples))


def noise(ms: int, dbfs: float, seed: int = 1) -> bytes:
    """White noise, mu-law."""
    chance, sigma = random.Random(seed), 32768 * 10 ** (dbfs / 20)
    limited = (max(-32768, min(32767, int(chance.gauss(0, sigma)))) for _ in range(8 * ms))
    return pcm_to_ulaw(b"".join(struct.pack("<h", each) for each in limited))


def quiet(ms: int) -> bytes:
    return PCMU_8K.silence(ms)


def deaf_after_ms(payload: bytes, form: AudioFormat = PCMU_8K, *, heard: bool = True) -> int | None:
    """When a server that tells nothing is found out, of so much of the caller's audio."""
    attention = Attention(form)
    if heard:
        attention.heard()
        attention.stopped()
    for at in range(0, len(payload), form.frame_bytes):
        if attention.deaf(payload[at : at + form.frame_bytes]):
            return at // form.bytes_per_ms
    return None


@pytest.mark.parametrize("form", [PCMU_8K, PCMA_8K, PCM16_8K, PCM16_24K])
@pytest.mark.parametrize("name", WORDS)
def test_words_that_nobody_hears_are_noticed(name: str, form: AudioFormat) -> None:
    said = quiet(2000) + speech(name) + quiet(6000)
    at_ms = deaf_after_ms(convert(said, PCMU_8K, form), form)
    assert at_ms is not None
    over_ms = 2000 + clips.load(name).duration_ms
    assert over_ms + 2000 <= at_ms <= over_ms + 3500, "no server takes so long"


def test_who_asks_again_and_again_is_noticed_too() -> None:
    hello = speech("thanks") + quiet(900)
    at_ms = deaf_after_ms(quiet(2000) + hello * 6)
    assert at_ms is not None
    assert 9000 <= at_ms <= 11_000


@pytest.mark.parametrize("name", WORDS)
def test_words_amid_noise_are_noticed(name: str) -> None:
    loud = speech(name, 0)
    amid = noise(3000, -55) + loud + noise(6000, -55, 2)
    assert deaf_after_ms(amid) is not None


@pytest.mark.parametrize(
    "sound",
    [
        quiet(60_000),
        noise(20_000, -20),
        quiet(3000) + noise(20_000, -60),
        noise(3000, -50) + speech("thanks", -25) + noise(8000, -50),  # far from the telephone
        (quiet(1500) + noise(150, -15)) * 40,  # knocks, coughs
        (quiet(1500) + noise(400, -20)) * 30,
    ],
    ids=["silence", "noise", "hiss", "murmur", "knocks", "coughs"],
)
def test_what_is_no_speech_is_nobodys_fault(sound: bytes) -> None:
    assert deaf_after_ms(sound) is None


def test_a_session_that_has_heard_nothing_yet_is_not_judged() -> None:
    assert deaf_after_ms(quiet(2000) + speech("thanks") + quiet(6000), heard=False) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([speech("thanks"), noise(700, -20), quiet(800)]), max_size=12),
    st.integers(200, 2900),
)
def test_a_server_that_tells_anything_is_not_suspected(sounds: list[bytes], every_ms: int) -> None:
    attention, told = Attention(PCMU_8K), 0
    attention.heard()
    sound = b"".join(sounds)
    for at in range(0, len(sound), 160):
        if at // 8 - told >= every_ms:
            attention.sign()
            told = at // 8
        assert not attention.deaf(sound[at : at + 160])


MONOLOGUE = (speech("interrupt") + quiet(400)) * 12
"""Half a minute, in which a server tells nothing after it has told that the caller speaks."""


@pytest.mark.parametrize("gain_db", [0, -25])
def test_a_long_turn_is_listened_to(gain_db: float) -> None:
    attention = Attention(PCMU_8K)
    attention.heard()
    sound = (speech("interrupt", gain_db) + quiet(400)) * 12 + quiet(8000)
    assert not any(attention.deaf(sound[at : at + 160]) for at in range(0, len(sound), 160))


def test_a_turn_that_never_ends_is_noticed() -> None:
    attention = Attention(PCMU_8K)
    attention.heard()
    sound = MONOLOGUE + quiet(12_000)
    at = [at for at in range(0, len(sound), 160) if attention.deaf(sound[at : at + 160])]
    assert (len(MONOLOGUE) / 8 + 9500) <= at[0] / 8 <= (len(MONOLOGUE) / 8 + 11_500)


def test_the_echo_of_the_agent_is_none_of_the_callers_words() -> None:
    attention, echo = Attention(PCMU_8K), speech("interrupt")
    attention.heard()
    attention.sounds(len(echo) / 8)
    sound = echo + quiet(8000)
    assert not any(attention.deaf(sound[at : at + 160]) for at in range(0, len(sound), 160))


def test_who_interrupts_the_agent_need_not_wait_for_the_rest_of_it() -> None:
    attention = Attention(PCMU_8K)
    attention.heard()
    attention.sounds(60_000)
    attention.heard()  # they interrupt
    attention.stopped()
    sound = quiet(2000) + speech("thanks") + quiet(6000)
    assert any(attention.deaf(sound[at : at + 160]) for at in range(0, len(sound), 160))


# ---- in a session


def says(script: Script, payload: bytes) -> list[str]:
    """The codes of the losses, if the caller says this."""
    for at in range(0, len(payload), 160):
        script.machine.send_audio(payload[at : at + 160])
    return [each.code for each in script.heard() if isinstance(each, Lost)]


SAID = quiet(3000) + speech("thanks") + quiet(6000)


def heard_once(script: Script) -> Script:
    script.ready()
    return script.says(f"{BUFFER}.speech_started", item_id="i").says(
        f"{BUFFER}.speech_stopped", item_id="i"
    )


@pytest.mark.parametrize("agent", [Agent(), Agent(turn_detection=SemanticVad())])
def test_a_session_whose_server_is_deaf_is_lost(agent: Agent) -> None:
    assert says(heard_once(Script(agent=agent)), SAID) == [DEAF]
    assert says(Script(agent=agent).ready(), SAID) == []


def test_a_turn_that_its_server_is_at_is_no_silence() -> None:
    script = Script().ready().says(f"{BUFFER}.speech_started", item_id="i")
    assert says(script, MONOLOGUE) == []
    script.says(f"{BUFFER}.speech_stopped", item_id="i")
    assert says(script, MONOLOGUE) == [DEAF]


def test_an_answer_is_heard_out_first() -> None:
    script = heard_once(Script()).created().delta(bytes(8 * 9000))
    assert says(script, quiet(500) + speech("thanks") + quiet(6000)) == []
    assert says(script, quiet(3000) + speech("thanks") + quiet(6000)) == [DEAF]


def test_with_turns_of_our_own_the_server_need_not_hear() -> None:
    assert says(heard_once(Script(agent=AGENT)), SAID) == []


def test_who_is_not_to_listen_does_not() -> None:
    script = Script()
    asked: Plan = plan()
    script.machine = RealtimeMachine(
        Plan(asked.call_id, asked.agent, "", PCMU_8K, attentive=False), RealtimeEngine()
    )
    assert says(heard_once(script), SAID) == []
