from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiced.audio import EchoFrame, EchoPath
from voiced.interruption.judge import LOUD_LINE, Findings, find


def frame(near: float, echo: float, rest: float, tone: float = 0.0) -> EchoFrame:
    """One whose powers are the same in both bands."""
    return EchoFrame(near, echo, rest, near, echo, rest, tone, digit=0, fresh=0)


QUIET = frame(100.0, 0.0, 100.0)
VOICE = frame(1e6, 0.0, 1e6)
TONE = frame(1e6, 0.0, 1e6, tone=0.95)
ECHO = frame(1e6, 1e6, 2e4)
OVER = frame(2e6, 1e6, 1e6)
START = [QUIET] * 10
LINE = EchoPath(100, 1, True, 20.0, 0.9, gain=0.06, played=1e6, low_played=1e6)  # -12 dB
LOUD = LINE._replace(gain=1.01 * LOUD_LINE)


def asked_for(
    frames: list[EchoFrame], count_from: int = 0, path: EchoPath = LINE, may_echo: int = 99
) -> tuple[list[bytes], Findings]:
    """What is asked of `Echo.voice`: of the band of pitch, of the envelope; and again, settled."""
    asked: list[bytes] = []

    def voice(counts: bytes) -> float:
        asked.append(counts)
        return float(sum(count > 0 for count in counts))

    found = find(frames, count_from, voice, path, may_echo)
    return asked, found


def judged(
    frames: list[EchoFrame], count_from: int = 0, path: EchoPath = LINE, may_echo: int = 99
) -> tuple[bytes, Findings]:
    """Which frames may speak for the caller, and what is found; all of them are a voice."""
    asked, found = asked_for(frames, count_from, path, may_echo)
    return asked[0], found


def test_loud_frames_on_a_quiet_line_speak_for_the_caller() -> None:
    counts, found = judged([*START, *[VOICE] * 5, QUIET])
    assert counts == bytes([0] * 10 + [2] * 5 + [0])
    assert (found.voice, found.rest_ms, found.tone_ms, found.echo_share) == (7.5, 100, 0, 0.0)


def test_the_envelope_above_is_asked_for_where_the_band_of_pitch_is_hidden() -> None:
    """A closed vowel: its first formant is weaker than the echo, the others are far louder."""
    vowel = EchoFrame(9e6, 3e5, 9e6, 3.1e5, 3e5, 2e4, 0.0, digit=0, fresh=0)
    echo = EchoFrame(3e5, 3e5, 6e3, 3e5, 3e5, 6e3, 0.0, digit=0, fresh=0)
    asked, found = asked_for([*START, *[echo] * 20, *[vowel] * 5])
    assert asked[0] == bytes(35)
    assert asked[1] == bytes([0] * 30 + [3] * 5)
    assert found.voice == 5.0


def test_both_bands_together_are_more_of_a_voice_than_either() -> None:
    both = asked_for([*START, *[VOICE] * 4])[1].voice
    hiss = VOICE._replace(low_near=100.0, low_rest=100.0)
    assert both > asked_for([*START, *[hiss] * 4])[1].voice == 4.0


def test_what_lies_before_the_window_does_not_count() -> None:
    counts, found = judged([*START, *[VOICE] * 5, *START], 15)
    assert not any(counts)
    assert found.rest_ms == 0


def test_tones_are_no_voice() -> None:
    counts, found = judged([*START, *[TONE] * 10])
    assert not any(counts)
    assert found.tone_ms == 200


def test_hiss_above_the_band_of_pitch_is_no_voice() -> None:
    hiss = VOICE._replace(low_near=5e3, low_rest=5e3)
    counts, found = judged([*START, *[hiss] * 10])
    assert not any(counts)
    assert found.rest_ms == 200


def test_what_an_echo_leaves_unexplained_is_no_voice() -> None:
    counts, found = judged([*START, *[ECHO] * 20])
    assert not any(counts)
    assert found.echo_share > 0.95


def test_a_voice_over_an_echo_counts_and_over_a_good_path_whatever_its_pitch() -> None:
    frames = [*START, *[ECHO] * 20, *[OVER] * 5, *[ECHO] * 5]
    assert judged(frames)[0][30:35] == bytes([2, 2, 2, 2, 2])
    worse = [f._replace(rest=1e5, low_rest=1e5) if f is ECHO else f for f in frames]
    assert judged(worse)[0][30:35] == bytes([1, 1, 1, 1, 1])


def test_a_voice_after_the_echo_counts() -> None:
    counts, _ = judged([*START, *[ECHO] * 20, *[QUIET] * 10, *[VOICE] * 5])
    assert counts[-5:] == bytes([2] * 5)


def test_a_room_that_rings_on_is_no_voice() -> None:
    tail = [frame(p, 0.0, p) for p in (3e5, 1e5, 3e4, 1e4)]
    loud = ECHO._replace(rest=1e5, low_rest=1e5)
    assert not any(judged([*START, *[loud] * 20, *tail])[0])


def test_a_tail_beyond_the_paths_taps_is_no_voice_but_on_a_loud_line() -> None:
    ring = 1e6 / (1 - 0.6)
    tail = [frame(0.25 * p, 0.0, 0.25 * p) for p in (ring * 0.6, ring * 0.36, ring * 0.216)]
    frames = [*START, *[ECHO] * 20, *tail]
    assert not any(judged(frames)[0])
    assert any(judged(frames, path=LOUD)[0])
    louder = [*START, *[ECHO] * 20, frame(1e6, 1e4, 9e5)]
    assert judged(louder)[0][-1]


def test_what_a_path_adds_is_no_voice() -> None:
    over = frame(1e6, 1.8e6, 9e5)  # the rest is the echo's opposite, by 0.67
    assert not any(judged([*START, *[ECHO] * 20, *[over] * 5])[0])
    beside = frame(1e6, 6e5, 9e5)  # by 0.34: chance does as much
    assert sum(count > 0 for count in judged([*START, *[ECHO] * 20, *[beside] * 5])[0]) == 5


def test_an_echo_that_is_not_where_it_was_looked_for_is_no_voice() -> None:
    missed = frame(1e6, 1e6, 1e6)
    assert not any(judged([*START, *[ECHO] * 20, *[missed] * 5])[0])
    fresh = OVER._replace(fresh=1)
    assert not any(judged([*START, *[ECHO] * 20, *[fresh] * 5])[0])
    louder = frame(6e6, 1e6, 6e6)
    assert sum(judged([*START, *[ECHO] * 20, *[louder] * 5])[0]) == 10


def test_an_echo_that_is_gone_may_be_heard_a_little_later() -> None:
    """What comes within 160 ms of an echo that should have been heard and was not has to be louder
    than that; where it was heard, not."""
    gone, late = frame(100.0, 1e6, 100.0), frame(1e6, 0.0, 1e6)
    assert not any(judged([*START, *[ECHO] * 20, *[gone] * 4, *[late] * 3])[0])
    assert sum(judged([*START, *[ECHO] * 20, *[QUIET] * 8, *[late] * 3])[0]) == 6
    louder = frame(3e6, 0.0, 3e6)
    assert any(judged([*START, *[ECHO] * 20, *[gone] * 4, *[louder] * 3])[0])
    assert any(judged([*START, *[ECHO] * 20, *[gone] * 4, *[late] * 3], path=LOUD)[0])


def test_a_rest_that_is_the_echos_opposite_for_long_is_no_voice() -> None:
    """A correlation of -0.4, which a frame may have by chance, but hardly three."""
    over = frame(1e6, 1e6, 6.2e5)
    assert not any(judged([*START, *[ECHO] * 20, *[over] * 5])[0][31:])


def test_what_is_far_weaker_than_the_echo_was_is_no_voice() -> None:
    weak = frame(1e4, 0.0, 1e4)
    assert not any(judged([*START, *[ECHO] * 20, *[QUIET] * 20, *[weak] * 5])[0])
    alone = LINE._replace(played=0.0, low_played=0.0)
    assert sum(judged([*START, *[weak] * 5], path=alone)[0]) == 10


power = st.floats(0, 2.0**30, width=32)
frames = st.lists(
    st.builds(
        EchoFrame,
        near=power,
        echo=power,
        rest=power,
        low_near=power,
        low_echo=power,
        low_rest=power,
        tone=st.floats(0, 1),
        digit=st.integers(0, 15),
        fresh=st.integers(0, 1),
    ),
    max_size=55,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames, st.integers(0, 60))
def test_any_frames_are_judged_within_their_length(some: list[EchoFrame], count_from: int) -> None:
    counts, found = judged(some, count_from)
    most = 20 * max(0, len(some) - count_from)
    assert len(counts) == len(some)
    assert not any(counts[:count_from])
    assert 20 * found.voice <= 1.5 * most
    assert 0 <= found.tone_ms <= found.rest_ms <= most
    assert 0 <= found.echo_share <= 1


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames)
def test_a_louder_rest_is_never_less_voice(some: list[EchoFrame]) -> None:
    alone = [frame(max(f.rest, 1.0), 0.0, f.rest) for f in some]
    louder = [frame(2 * f.near, 0.0, 2 * f.rest) for f in alone]
    assert judged([*START, *louder], 10)[1].voice >= judged([*START, *alone], 10)[1].voice


def test_nobody_who_speaks_up_is_far_softer_than_the_agent_was() -> None:
    """On a line that echoes, frame by frame; where none was found a syllable's edges count too."""
    played = LINE._replace(played=5e7, low_played=5e7)
    soft = [*START, *[VOICE] * 5]
    assert sum(judged(soft, path=played)[0]) == 10
    softer = LINE._replace(played=1.2e8, low_played=1.2e8)
    assert not any(judged(soft, path=softer)[0])
    assert sum(judged(soft, path=softer, may_echo=0)[0]) == 10
    assert sum(judged(soft, path=softer._replace(gain=0.1))[0]) == 10
    assert judged(soft, path=softer)[1].rest_ms == 100
    edge = frame(3e5, 0.0, 3e5)
    syllable = [*START, *[edge] * 5, VOICE, *[edge] * 5]
    counts, _ = judged(syllable, path=softer, may_echo=0)
    assert counts[10:] == bytes([0, 0, 2, 2, 2, 2, 2, 2, 2, 0, 0])
    softest = LINE._replace(played=4e8, low_played=4e8)
    assert not any(judged(soft, path=softest, may_echo=0)[0])


def test_the_softer_a_line_echoes_the_more_of_it_may_come_late() -> None:
    """An echo of -16 dB is softer than callers; one of -9 dB hides them."""
    late = [*START, *[ECHO] * 20, *[frame(2e5, 1e4, 1.9e5)] * 3]
    for gain, counts in ((0.02, False), (0.06, False), (0.12, True)):
        assert any(judged(late, path=LINE._replace(gain=gain))[0]) == counts
    louder = [*START, *[ECHO] * 20, *[frame(9e5, 1e4, 8.9e5)] * 3]
    for gain, counts in ((0.02, False), (0.06, True), (0.12, True)):
        assert any(judged(louder, path=LINE._replace(gain=gain))[0]) == counts
