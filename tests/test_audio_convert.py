"""Streams through a converter: where they are cut does not matter."""

from __future__ import annotations

import itertools
import random
import runpy
import sys
import threading
import warnings
from array import array
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.audio import (
    Converter,
    Quality,
    alaw_to_pcm,
    converter,
    pcm_to_alaw,
    pcm_to_ulaw,
    ulaw_to_alaw,
    ulaw_to_pcm,
)
from voiced.formats import (
    PCM16_8K,
    PCM16_16K,
    PCM16_24K,
    PCM16_48K,
    PCMA_8K,
    PCMU_8K,
    AudioFormat,
    Encoding,
)

audioop: ModuleType | None = None
if sys.version_info < (3, 13):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop

Codec = Callable[[bytes], bytes]
FORMATS = [PCMU_8K, PCMA_8K, PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K]
QUALITIES: list[Quality] = ["fir", "linear"]
PAIRS = [(a, b, q) for a, b in itertools.permutations(FORMATS, 2) for q in QUALITIES]
ODD_RATES = [(11025, 8000), (44100, 24000), (8000, 44100), (4000, 192000), (192000, 4000)]
PAIRS += [
    (AudioFormat(Encoding.PCM16, a), AudioFormat(Encoding.PCM16, b), "linear") for a, b in ODD_RATES
]


def make(source: AudioFormat, target: AudioFormat, quality: Quality = "fir") -> Converter:
    made = converter(source, target, quality)
    assert made is not None
    return made


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@given(
    st.sampled_from(PAIRS),
    st.binary(max_size=3000),
    st.lists(st.integers(0, 3000), max_size=12),
)
def test_cuts_do_not_matter(
    pair: tuple[AudioFormat, AudioFormat, Quality], data: bytes, cuts: list[int]
) -> None:
    whole = make(*pair)
    expected = whole.convert(data) + whole.flush()
    parts = make(*pair)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    out = b"".join(parts.convert(data[a:b]) for a, b in itertools.pairwise(bounds))
    assert out + parts.flush() == expected


@pytest.mark.parametrize(("source", "target", "quality"), PAIRS, ids=str)
@pytest.mark.parametrize("step", [1, 2, 7, 160, 961, 4001])
def test_every_pair_of_formats_in_steps_of_any_size(
    source: AudioFormat, target: AudioFormat, quality: Quality, step: int
) -> None:
    data = noise(4002)
    parts = make(source, target, quality)
    out = b"".join(parts.convert(data[i : i + step]) for i in range(0, len(data), step))
    assert out == make(source, target, quality).convert(data)


@pytest.mark.parametrize(("source", "target", "quality"), PAIRS[:60], ids=str)
def test_frames_in_make_frames_out(
    source: AudioFormat, target: AudioFormat, quality: Quality
) -> None:
    stream = make(source, target, quality)
    for seed in range(5):
        assert len(stream.convert(noise(source.frame_bytes, seed))) == target.frame_bytes


@pytest.mark.parametrize(("source", "target", "quality"), PAIRS, ids=str)
def test_wider_vectors_make_the_same(
    source: AudioFormat, target: AudioFormat, quality: Quality
) -> None:
    """Which the processor has does not matter, from one call to the next."""
    narrow, mixed = make(source, target, quality), make(source, target, quality)
    if not mixed._state.avx2:
        pytest.skip("this processor has no AVX2")
    narrow._state.avx2 = 0
    data = noise(12_000) + array("h", ([32767] * 13 + [-32768] * 13) * 100).tobytes()
    for i, start in enumerate(range(0, len(data), 1001)):
        mixed._state.avx2 = i % 2 == 0
        part = data[start : start + 1001]
        assert mixed.convert(part) == narrow.convert(part)
    assert mixed.flush() == narrow.flush()


def test_longer_than_the_native_room_is_the_same_as_frames() -> None:
    data = noise(3 * 64 * 1024 + 1)
    whole = make(PCM16_8K, PCM16_48K).convert(data)
    frames = make(PCM16_8K, PCM16_48K)
    step = PCM16_8K.frame_bytes
    out = b"".join(frames.convert(data[i : i + step]) for i in range(0, len(data), step))
    assert whole == out
    assert len(whole) == len(data) // 2 * 12


@pytest.mark.parametrize(("source", "target", "quality"), PAIRS, ids=str)
def test_reset_and_flush_begin_a_new_stream(
    source: AudioFormat, target: AudioFormat, quality: Quality
) -> None:
    stream = make(source, target, quality)
    fresh = stream.convert(noise(1001))
    stream.reset()
    assert stream.convert(noise(1001)) == fresh
    stream.flush()
    assert stream.convert(noise(1001)) == fresh


@pytest.mark.parametrize(("source", "target", "quality"), PAIRS[:60], ids=str)
def test_flush_is_as_long_as_the_filter_is_late(
    source: AudioFormat, target: AudioFormat, quality: Quality
) -> None:
    stream = make(source, target, quality)
    stream.convert(noise(source.frame_bytes))
    tail = len(stream.flush()) // target.sample_bytes
    held = stream.delay_ms * target.rate / 1000 if quality == "fir" else 0
    assert tail == held
    assert stream.delay_ms < 3


def test_a_click_arrives_when_delay_ms_says_and_flush_does_not_lose_it() -> None:
    for source, target in itertools.permutations([PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K], 2):
        stream = make(source, target)
        frame = array("h", [0] * (source.rate // 50))
        frame[-source.rate // 2000] = 30000  # half a millisecond before the end
        out = array("h", stream.convert(frame.tobytes()) + stream.flush())
        peak = max(range(len(out)), key=lambda i: out[i]) * 1000 / target.rate
        assert peak == pytest.approx(20 - 0.5 + stream.delay_ms)


def test_half_a_sample_is_kept_for_the_next_call_and_forgotten_by_flush() -> None:
    stream = make(PCM16_8K, PCMU_8K)
    assert stream.convert(b"\x01") == b""
    assert stream.convert(b"\x7d\x00") == pcm_to_ulaw(b"\x01\x7d")
    assert stream.flush() == b""
    assert stream.convert(b"\x01\x7d") == pcm_to_ulaw(b"\x01\x7d")


def test_same_format_needs_no_converter() -> None:
    assert converter(PCMU_8K, PCMU_8K) is None
    assert make(PCMU_8K, PCMA_8K).convert(bytes(range(256))) == ulaw_to_alaw(bytes(range(256)))


@pytest.mark.parametrize(
    ("telephone", "decode", "encode"),
    [(PCMU_8K, ulaw_to_pcm, pcm_to_ulaw), (PCMA_8K, alaw_to_pcm, pcm_to_alaw)],
    ids=["ulaw", "alaw"],
)
@pytest.mark.parametrize("target", [PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K], ids=str)
@pytest.mark.parametrize("quality", QUALITIES)
def test_fused_is_the_same_as_codec_and_resampler(
    telephone: AudioFormat, decode: Codec, encode: Codec, target: AudioFormat, quality: Quality
) -> None:
    codes = noise(1600)
    plain = decode(codes)
    up = make(telephone, target, quality).convert(codes)
    assert up == (plain if target == PCM16_8K else make(PCM16_8K, target, quality).convert(plain))
    down = make(target, telephone, quality).convert(up)
    back = up if target == PCM16_8K else make(target, PCM16_8K, quality).convert(up)
    assert down == encode(back)


def test_upsampling_by_filter_keeps_the_samples_and_so_the_codes() -> None:
    """Phase 0 is the input: what goes up is found in what comes out, 8 samples late."""
    codes = noise(800)
    up = memoryview(make(PCMU_8K, PCM16_24K).convert(codes)).cast("h")
    heard = array("h", up[24::3].tolist()).tobytes()
    assert heard == ulaw_to_pcm(codes)[: len(heard)]


def test_full_scale_is_limited_not_wrapped() -> None:
    square = array("h", ([32767] * 13 + [-32768] * 13) * 40).tobytes()
    out = array("h", make(PCM16_8K, PCM16_24K).convert(square))
    assert max(out) == 32767
    assert min(out) == -32768
    steps = [abs(a - b) for a, b in itertools.pairwise(out)]
    assert max(steps) < 45000  # a wrapped sample would jump by nearly 65,536


@pytest.mark.parametrize("level", [32767, -32768, 1, -1, 12345])
@pytest.mark.parametrize("quality", QUALITIES)
def test_a_constant_passes_unchanged(level: int, quality: Quality) -> None:
    for source, target in itertools.permutations([PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K], 2):
        constant = array("h", [level] * source.rate).tobytes()
        out = array("h", make(source, target, quality).convert(constant))
        assert set(out[target.rate // 100 :]) == {level}


@pytest.mark.parametrize(
    ("source", "target", "quality"),
    [
        (AudioFormat(Encoding.PCM16, 44100), PCM16_8K, "fir"),
        (AudioFormat(Encoding.PCM16, 3999), PCM16_8K, "linear"),
        (PCM16_8K, AudioFormat(Encoding.PCM16, 192001), "linear"),
    ],
)
def test_rates_without_conversion_say_what_there_is(
    source: AudioFormat, target: AudioFormat, quality: Quality
) -> None:
    with pytest.raises(ValueError, match=f"no '{quality}' conversion from {source} to {target}"):
        converter(source, target, quality)


@pytest.mark.parametrize(
    ("source_rate", "target_rate"),
    [*itertools.permutations([8000, 16000, 24000, 48000], 2), *ODD_RATES],
)
def test_linear_is_interpolation_rounded(source_rate: int, target_rate: int) -> None:
    """Within half a unit, and what half a unit of a weight of 15 bits makes of the step between two
    samples: one unit for steps of half the scale. The last output of a frame is its last sample."""
    source = AudioFormat(Encoding.PCM16, source_rate)
    target = AudioFormat(Encoding.PCM16, target_rate)
    data = noise(20_000)
    made = np.frombuffer(make(source, target, "linear").convert(data), "<i2").astype(np.int64)
    samples = np.concatenate([[0], np.frombuffer(data, "<i2").astype(np.int64), [0]])
    assert len(made) == 10_000 * target_rate // source_rate
    # In whole numbers, of which `target_rate` make a unit.
    at = np.arange(1, len(made) + 1) * source_rate
    before, part = at // target_rate, at % target_rate
    step = samples[before + 1] - samples[before]
    wrong = made * target_rate - (samples[before] * target_rate + step * part)
    assert np.all(abs(wrong) * 2**16 <= target_rate * (2**15 + abs(step)))
    halves = 2**15 * part % target_rate == 0  # the weights are exact, and halves go up
    assert np.all(2 * wrong[halves] > -target_rate)


@pytest.mark.skipif(audioop is None, reason="audioop ended with Python 3.12")
@pytest.mark.parametrize(
    ("source_rate", "target_rate"),
    [(8000, 24000), (24000, 8000), (16000, 24000), (24000, 16000), (8000, 48000), *ODD_RATES],
)
def test_linear_is_what_ratecv_makes(source_rate: int, target_rate: int) -> None:
    """`ratecv` holds the first sample to be at time zero; given a zero before it and without the
    first output it does as we do. It cuts towards zero where we round, hence one unit of slack, and
    our weights have 15 bits, hence another for loud noise."""
    assert audioop is not None
    source = AudioFormat(Encoding.PCM16, source_rate)
    ours = make(source, AudioFormat(Encoding.PCM16, target_rate), "linear").convert(noise(20_000))
    theirs, _ = audioop.ratecv(b"\0\0" + noise(20_000), 2, 1, source_rate, target_rate, None)
    a, b = array("h", ours), array("h", theirs[2:])
    assert len(a) == len(b) == 10_000 * target_rate // source_rate
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 2


def test_threads_do_not_share_results() -> None:
    """The interpreter lock is released in native calls; each thread has its own memory."""
    data = [bytes([code]) * 20_000 for code in range(4)]
    expected = [ulaw_to_pcm(codes) for codes in data]
    wrong: list[int] = []

    def work(index: int) -> None:
        if any(ulaw_to_pcm(data[index]) != expected[index] for _ in range(200)):
            wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_filter_tables_are_what_the_design_script_computes() -> None:
    script = Path(__file__).parent.parent / "native" / "design_filters.py"
    source = script.with_name("resample.c").read_text("utf-8")
    assert runpy.run_path(str(script))["rewritten"](source) == source
