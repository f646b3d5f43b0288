"""What comes in: every received sample once, in order, in time."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rtp.peer import CAPTURES, PTIME, audio, captured, digits, key, receiver, rtp, voice
from voiced import audio as native
from voiced.formats import PCM16_16K, PCMU_8K
from voiced.leg import CallerAudio, Digit
from voiced.rtp.codec import FADE, decoder
from voiced.rtp.receiver import MAX_AHEAD, MAX_WAITING_MS, PATIENCE_S, Receiver

SILENCE = b"\xff"


def play(
    it: Receiver, arrivals: list[tuple[float, bytes]], until: float = 0.0
) -> list[CallerAudio | Digit]:
    """Packets at their times, ticks every 20 ms, to the last packet or `until`."""
    ticks = 0.01
    taken: list[CallerAudio | Digit] = []
    for at, data in sorted(arrivals, key=lambda each: each[0]):
        while ticks <= at:
            it.tick(ticks)
            ticks += PTIME
        it.receive(data, at)
        taken += it.take()
    while ticks <= until:
        it.tick(ticks)
        ticks += PTIME
    return taken + it.take()


@pytest.mark.parametrize("first", [0, 0xFFF0, (1 << 32) // 160 - 8])
def test_in_order_everything_goes_on_at_once(first: int) -> None:
    """Over the wraps of sequence number and timestamp, too."""
    it = receiver()
    for n in range(40):
        it.receive(rtp(first + n, voice(n), marker=n % 7 == 0), n * PTIME)
        assert it.take() == [CallerAudio(voice(n))]
    assert (it.filled, it.resyncs, it.order.lost) == (0, 0, 0)
    assert it.jitter < 1


def test_what_one_wake_up_brings_is_one_event() -> None:
    it = receiver()
    for n in range(3):
        it.receive(rtp(n, voice(n)), 0.0)
    it.receive(key(3, 480, "7", 0), 0.0)
    for n in (4, 5):
        it.receive(rtp(n, voice(n), timestamp=2080 + (n - 4) * 160), 1.0)
    events = it.take()
    assert events[:2] == [CallerAudio(voice(0) + voice(1) + voice(2)), Digit("7")]
    assert len(events) == 3
    assert it.take() == []


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), min_size=2, max_size=60),
    st.integers(0, 0xFFFF),
    st.sampled_from([80, 160, 240, 320, 480]),
)
def test_every_received_sample_once_in_order_and_in_time(
    fate: list[tuple[int, bool, bool]], first: int, size: int
) -> None:
    """Late by two places, lost or doubled; the whole lasts as long as it did."""
    fate[0] = fate[-1] = (0, False, False)
    ptime = size / 8000
    it = receiver(hold_s=2 * ptime)
    arrivals = []
    for n, (late, lost, twice) in enumerate(fate):
        if not lost:
            data = rtp(first + n, voice(n, size), timestamp=first * 77 + n * size)
            arrivals += [((n + late * 1.05) * ptime, data)] * (1 + twice)
    times = sorted(at for at, _ in arrivals)
    taken = audio(play(it, arrivals))
    it.rest(times[-1])  # lets go of what is held
    taken += audio(it.take())
    kept = [n for n, (_, lost, _) in enumerate(fate) if not lost]
    at = 0
    for n in kept:
        at = taken.find(voice(n, size), at) + size
        assert at >= size
    ticks = len(fate) * size
    pause = max(b - a for a, b in itertools.pairwise(times))
    if pause < PATIENCE_S:
        assert len(taken) == ticks
    elif max(b - a for a, b in itertools.pairwise(kept)) * ptime < 1:
        assert ticks <= len(taken) <= ticks + MAX_AHEAD + 3 * size


def test_a_lost_frame_is_the_one_before_fading() -> None:
    it = receiver()
    frame = native.pcm_to_ulaw(b"\x00\x10" * 160)
    for n in (0, 1, 5):
        it.receive(rtp(n, frame), n * PTIME)
    it.tick(5 * PTIME + 0.04)
    out = audio(it.take())
    assert len(out) == 6 * 160
    levels = [native.energy(native.ulaw_to_pcm(out[at : at + 160])) for at in range(0, 960, 160)]
    assert levels == pytest.approx([4096, 4096, *(4096 * gain for gain in FADE), 4096], rel=0.05)


def test_beyond_60_ms_there_is_silence() -> None:
    it = receiver()
    for n in (0, 5):
        it.receive(rtp(n, voice(n)), 0.0)
    it.tick(0.04)
    out = audio(it.take())
    assert len(out) == 6 * 160
    assert out[4 * 160 : 5 * 160] == SILENCE * 160
    assert SILENCE * 8 not in out[: 4 * 160]
    assert it.filled == 4 * 160


def test_a_pause_without_loss_is_silence() -> None:
    """A sender that suppresses silence: numbers go on, the timestamp jumps."""
    it = receiver()
    arrivals = [(0.0, rtp(0, voice(0))), (0.5, rtp(1, voice(1), timestamp=4000, marker=True))]
    out = audio(play(it, arrivals))
    assert out == voice(0) + SILENCE * (4000 - 160) + voice(1)
    assert it.order.lost == 0


def test_a_pause_is_filled_while_it_lasts() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.take()
    it.tick(PATIENCE_S - 0.01)
    assert it.take() == []
    it.tick(PATIENCE_S)
    assert audio(it.take()) == SILENCE * (800 - 160)
    for n in range(1, 51):
        it.tick(PATIENCE_S + n * PTIME)
    assert len(audio(it.take())) == pytest.approx(8000, abs=160)


def test_words_that_were_only_late_are_all_delivered() -> None:
    """A network that held all back for 300 ms: no word is lost, later gaps make up for it."""
    it = receiver()
    arrivals = [(0.0 if n == 0 else 0.3, rtp(n, voice(n))) for n in range(16)]
    arrivals += [(n * PTIME, rtp(n, voice(n))) for n in range(16, 20)]
    out = audio(play(it, arrivals))
    assert out.replace(SILENCE, b"") == b"".join(voice(n) for n in range(20))
    ahead = len(out) - 20 * 160
    assert 0 < ahead <= 2400
    it.receive(rtp(20, voice(20), timestamp=20 * 160 + 4000), 20 * PTIME + 0.09)
    assert len(audio(it.take())) == 160 + 4000 - min(ahead, MAX_AHEAD)


@pytest.mark.parametrize("size", [160, 480])
def test_a_bad_network_makes_the_call_no_longer(size: int) -> None:
    """Five minutes with losses, doubles, delays of up to 50 ms and a stop of 200 ms a minute."""
    it, chance = receiver(), random.Random(3)
    ptime = size / 8000
    count = int(300 / ptime)
    arrivals = []
    for n in range(count):
        at = n * ptime + chance.random() ** 4 * 0.05
        if n * ptime % 60 > 59.8:
            at += 60 - n * ptime % 60
        copies = chance.choices((0, 1, 2), (0.05, 0.94, 0.01))[0]
        arrivals += [(at, rtp(n, voice(n, size), timestamp=n * size))] * copies
    out = audio(play(it, arrivals))
    assert len(out) / 8000 == pytest.approx(300, abs=0.3)
    assert it.order.lost / count == pytest.approx(0.05, abs=0.02)
    assert it.waiting == []


def test_a_jump_of_more_than_a_second_keeps_no_time() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.receive(rtp(1, voice(1), timestamp=160 + 8001), 0.02)
    assert audio(it.take()) == voice(0) + voice(1)
    it.receive(rtp(2, voice(2), timestamp=100), 0.04)  # and backwards
    assert audio(it.take()) == voice(2)
    it.receive(rtp(3, voice(3), timestamp=260), 0.06)
    assert audio(it.take()) == voice(3)
    assert (it.resyncs, it.filled) == (1, 0)


def test_a_new_sequence_begins_without_loss() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    for n in (20_000, 20_001, 20_002):
        it.receive(rtp(n, voice(n), timestamp=n * 7919), 0.02)
    assert audio(it.take())[160:320] == voice(20_000)
    assert it.resyncs >= 1


def test_a_new_source_begins_with_its_first_packet() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.receive(rtp(2, voice(2)), 0.02)  # waits for packet 1
    it.receive(rtp(900, voice(5), ssrc=8, timestamp=5), 0.04)
    it.receive(rtp(901, voice(6), ssrc=8, timestamp=165), 0.06)
    out = audio(it.take())
    assert out[:160] == voice(0)
    assert out[320:] == voice(2) + voice(5) + voice(6)
    source = it.source()
    assert source is not None
    assert source[:4] == (8, 901, 2, 2)


def test_two_sources_at_once_are_not_twice_the_time() -> None:
    it = receiver()
    for n in range(50):
        it.receive(rtp(n, voice(1)), n * PTIME)
        it.receive(rtp(n, voice(2), ssrc=8), n * PTIME)
    assert len(audio(it.take())) <= 51 * 160


@pytest.mark.parametrize("sizes", [[80], [160], [240], [320], [480], [80, 480, 1, 160, 7, 240]])
def test_any_packet_time(sizes: list[int]) -> None:
    it = receiver()
    stamp, sent = 0, b""
    for n in range(30):
        size = sizes[n % len(sizes)]
        it.receive(rtp(n, voice(n, size), timestamp=stamp), stamp / 8000)
        sent += voice(n, size)
        stamp += size
    assert audio(it.take()) == sent
    assert it.filled == 0


def test_an_empty_packet_is_only_a_number() -> None:
    it = receiver()
    for n in range(4):
        it.receive(rtp(n, b"" if n == 2 else voice(n), timestamp=min(n, 2) * 160), n * PTIME)
    assert audio(it.take()) == voice(0) + voice(1) + voice(3)
    assert it.order.lost == 0


def test_header_extensions_and_padding_are_no_audio() -> None:
    from voiced.rtp.packet import build

    it = receiver()
    it.receive(
        build(0, 0, 0, 7, voice(0), csrcs=(1, 2), extension=(0xBEDE, b"\1\2\3\4"), padding=4), 0.0
    )
    assert audio(it.take()) == voice(0)


def test_types_that_nobody_agreed_on() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.receive(rtp(1, voice(1), payload_type=8), 0.02)
    it.receive(rtp(1, voice(1)), 0.02)
    assert audio(it.take()) == voice(0) + voice(1)
    assert it.unexpected == 1


def test_what_was_agreed_on_before_is_still_on_its_way() -> None:
    """A re-INVITE changes codec and numbers; the packets of before come in behind its answer."""
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.configure(PCMU_8K, 8, {8: decoder("PCMA", PCMU_8K)}, {96: "telephone-event"})
    it.receive(rtp(1, voice(1)), 0.02)
    it.receive(key(2, 320, "7", 160, end=True), 0.04)
    taken = it.take()
    assert audio(taken)[:320] == voice(0) + voice(1)
    assert digits(taken) == "7"
    it.receive(rtp(3, native.pcm_to_alaw(native.ulaw_to_pcm(voice(2))), payload_type=8), 0.06)
    it.receive(rtp(4, voice(1), payload_type=3), 0.08)
    assert it.unexpected == 1
    assert it.order.lost == 0
    # A number that means something else now means only that.
    it.configure(PCMU_8K, 8, {8: decoder("PCMA", PCMU_8K)}, {0: "telephone-event"})
    it.receive(rtp(5, bytes([1, 0x8A, 0, 160]), timestamp=5 * 160), 0.1)
    assert it.take()[-1] == Digit("1")


def test_broken_packets_are_counted() -> None:
    it = receiver()
    it.receive(bytes.fromhex("8f0000010000000000000007"), 0.0)
    it.receive(key(0, 0, "1", 160)[:-1], 0.0)
    assert it.malformed == 2
    assert it.take() == []


@given(st.lists(st.binary(min_size=12, max_size=60), max_size=30))
def test_noise_breaks_nothing(noise: list[bytes]) -> None:
    it = receiver()
    for n, data in enumerate(noise):
        it.receive(data, n * PTIME)
        it.tick(n * PTIME)
        it.take()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers(0, 9000),
            st.sampled_from([0, 13, 101]),
            st.binary(max_size=8),
            st.floats(0, 0.5),
        ),
        max_size=80,
    )
)
def test_hostile_streams_stay_bounded(traffic: list[tuple[int, int, int, bytes, float]]) -> None:
    """Whatever a peer sends, and however long nobody takes it."""
    it, now = receiver(), 0.0
    for sequence, stamp, kind, payload, pause in traffic:
        now += pause
        it.receive(rtp(sequence, payload, timestamp=stamp, payload_type=kind), now)
        it.tick(now)
        assert sum(len(x) for x in it.waiting if isinstance(x, bytes)) <= MAX_WAITING_MS * 8
        assert len(it.waiting) < 1000
    it.take()


# ---- comfort noise


def test_the_source_before_may_speak_again_when_this_one_is_silent() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0), ssrc=7), 0.0)
    it.receive(rtp(0, voice(1), ssrc=8), 0.02)
    it.receive(rtp(1, voice(2), ssrc=7), 0.04)  # a straggler, or two who talk at once
    assert audio(it.take()) == voice(0) + voice(1)
    assert it.unexpected == 1
    it.receive(rtp(20, voice(3), ssrc=7), 0.3)
    assert audio(it.take()) == voice(3)


def test_speech_from_before_a_pause_conceals_nothing_after_it() -> None:
    it = receiver()
    arrivals = [(n * PTIME, rtp(n, voice(n))) for n in range(5)]
    arrivals += [(0.6, rtp(6, voice(30), timestamp=30 * 160))]
    out = audio(play(it, arrivals, until=0.8))
    assert out.startswith(b"".join(voice(n) for n in range(5)) + SILENCE * 25 * 160 + voice(30))
    assert it.order.lost == 1


def test_a_restart_is_reported_as_a_beginning() -> None:
    it = receiver()
    for n in (0, 1, 2, 30_000, 30_001):
        it.receive(rtp(n, voice(n)), (n % 1000) * PTIME)
    source = it.source()
    assert source is not None
    assert source[2] == source[3]  # nothing is missing


def test_comfort_noise_is_silence() -> None:
    """RFC 3389: payload type 13, whose payload is a level and never speech."""
    it = receiver()
    arrivals = [
        (0.0, rtp(0, voice(0))),
        (0.06, rtp(1, b"\x40", timestamp=480, payload_type=13)),
        (0.5, rtp(2, voice(2), timestamp=4000)),
    ]
    out = audio(play(it, arrivals))
    assert out == voice(0) + SILENCE * 3840 + voice(2)
    it.receive(rtp(3, b"\x40", timestamp=4160, payload_type=13), 0.52)
    it.tick(0.521 + PATIENCE_S)
    assert audio(it.take()) == SILENCE * 800  # it says so: nothing is waited for


# ---- digits


def test_a_digit_is_told_at_its_first_packet_and_once() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.receive(key(1, 160, "9", 0, marker=True), 0.02)
    assert digits(it.take()) == "9"
    for n, duration in enumerate((160, 320, 480)):
        it.receive(key(2 + n, 160, "9", duration, end=duration == 480), 0.04 + n * PTIME)
    it.receive(key(5, 160, "9", 480, end=True), 0.1)
    it.receive(key(5, 160, "9", 480, end=True), 0.1)
    assert digits(it.take()) == ""
    assert it.digits == 1


def test_a_press_takes_its_time_in_silence() -> None:
    it = receiver()
    arrivals = [(n * PTIME, rtp(n, voice(n))) for n in range(3)]
    arrivals += [
        ((3 + n) * PTIME, key(3 + n, 480, "5", 160 * (n + 1), end=n >= 4)) for n in range(5)
    ]
    arrivals += [(0.16 + n * PTIME, rtp(8 + n, voice(8 + n))) for n in range(3)]
    out = audio(play(it, arrivals))
    assert out == (
        b"".join(voice(n) for n in range(3))
        + SILENCE * 800
        + b"".join(voice(n) for n in (8, 9, 10))
    )


def test_the_tone_in_the_audio_is_not_heard() -> None:
    """A sender that goes on with audio while the key is down, in packets between the events."""
    it = receiver()
    tone = b"\x11" * 160
    arrivals = [(0.0, rtp(0, voice(0)))]
    number = 1
    for n in range(1, 11):
        if n % 2:
            stamp = 160 * n if n == 1 else 160
            arrivals.append((n * PTIME, key(number, stamp, "5", 160 * n, end=False)))
            number += 1
        arrivals.append((n * PTIME + 0.001, rtp(number, tone, timestamp=160 * n)))
        number += 1
    arrivals.append((11 * PTIME, key(number, 160, "5", 1600, end=True)))
    arrivals.append((11 * PTIME + 0.001, rtp(number + 1, voice(50), timestamp=160 * 11)))
    arrivals.append((12 * PTIME + 0.001, rtp(number + 2, voice(51), timestamp=160 * 12)))
    out = audio(play(it, arrivals))
    assert out == voice(0) + SILENCE * 1600 + voice(50) + voice(51)


def test_with_every_end_lost_the_audio_comes_back() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.receive(key(1, 160, "5", 160), 0.02)
    for n in range(2, 30):
        it.receive(rtp(n, voice(n)), n * PTIME)
    out = audio(it.take())
    assert len(out) == 30 * 160
    assert out.endswith(b"".join(voice(n) for n in range(12, 30)))
    assert out[160:640] == SILENCE * 480


def test_events_by_another_clock_than_the_audios_say_nothing_of_its_time() -> None:
    it = receiver()
    for n in range(6):
        data = key(n, 7_000_000, "4", 160 * n, end=n == 3) if n in (2, 3) else rtp(n, voice(n))
        it.receive(data, n * PTIME)
    taken = it.take()
    assert digits(taken) == "4"
    assert audio(taken) == b"".join(
        voice(n) if n not in (2, 3) else SILENCE * 160 for n in range(6)
    )
    assert it.resyncs == 0


def test_digits_of_another_source_beside_the_audio() -> None:
    """Gateways that give events their own SSRC: the audio's sequence is not disturbed."""
    it = receiver()
    for n in range(4):
        it.receive(rtp(n, voice(n)), n * PTIME)
        it.receive(key(n, 9999, "4", 160 * n, ssrc=99, end=n == 1), n * PTIME)
    taken = it.take()
    assert digits(taken) == "4"
    assert len(audio(taken)) == 4 * 160
    assert audio(taken).endswith(voice(2) + voice(3))
    assert it.order.lost == 0


def test_digits_that_nobody_takes_are_bounded() -> None:
    it = receiver()
    for n in range(500):
        it.receive(key(n, n * 1600, "1", 160, end=True), n * 0.2)
    assert len(digits(it.take())) == 64


@pytest.mark.parametrize("name", ["1", "star"])
def test_a_captured_digit(name: str) -> None:
    it = receiver()
    packets = [data for _, data in captured(CAPTURES / f"dtmf_2833_{name}.pcap")]
    for n, data in enumerate(packets):
        it.receive(data, n * PTIME)
    taken = it.take()
    assert digits(taken) == {"star": "*"}.get(name, name)
    assert set(audio(taken)) <= {0xFF}


# ---- codecs, rest, reports


def test_a_captured_stream_in_another_law_and_packet_time() -> None:
    """PCMA in 30 ms packets into a leg that speaks mu-law."""
    it = Receiver(0.04, 0.0)
    it.configure(PCMU_8K, 8, {8: decoder("PCMA", PCMU_8K)}, {})
    packets = list(captured(CAPTURES / "g711a.pcap"))
    wanted = b""
    for at, data in packets:
        it.receive(data, at)
        wanted += data[12:]
        assert len(it.waiting) < 200
    assert audio(it.take())[-4000:] == native.alaw_to_ulaw(wanted)[-4000:]
    assert (it.order.lost, it.filled, it.resyncs) == (0, 0, 0)


def test_g722_fills_in_its_own_clock() -> None:
    """RFC 3551 section 4.5.2: 160 ticks of the 8000 Hz clock are 320 samples at 16 kHz."""
    it = Receiver(0.04, 0.0)
    it.configure(PCM16_16K, 9, {9: decoder("G722", PCM16_16K)}, {})
    for n in (0, 1, 4):
        it.receive(rtp(n, bytes(160), payload_type=9), n * PTIME)
    it.tick(1.0)
    assert it.filled >= 320
    assert len(audio(it.take())) == (5 + (it.filled - 320) / 160) * 640


def test_after_a_rest_the_stream_begins_anew() -> None:
    it = receiver()
    it.receive(rtp(0, voice(0)), 0.0)
    it.take()
    it.rest(60.0)
    it.tick(61.0)
    assert it.take() == []
    it.receive(rtp(3000, voice(1), timestamp=99), 62.0)
    assert audio(it.take()) == voice(1)


def test_what_is_reported_of_the_source() -> None:
    it = receiver()
    assert it.source() is None
    for n in (0xFFFE, 0xFFFF, 0x10000, 0x10003, 0x10004, 0x10005):
        it.receive(rtp(n, voice(n)), (n - 0xFFFE) * PTIME)
    source = it.source()
    assert source is not None
    assert source[:4] == (7, 0x10005, 8, 6)
    assert source[4] < 1


def test_jitter() -> None:
    """RFC 3550 appendix A.8: arrivals 10 ms early and late in turn make 20 ms."""
    it = receiver()
    for n in range(400):
        it.receive(rtp(n, voice(n)), n * PTIME + (0.01 if n % 2 else 0.0))
        it.take()
    assert it.jitter / 8 == pytest.approx(10, rel=0.01)


def test_a_jump_of_the_timestamps_is_no_jitter() -> None:
    it = receiver()
    for n in range(20):
        stamp = n * 160 + (0 if n < 10 else 5_000_000)
        it.receive(rtp(n, voice(n), timestamp=stamp), n * PTIME)
    assert it.resyncs == 1
    assert it.jitter < 1
