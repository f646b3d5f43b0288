"""G.711 against two independent oracles, over every code and every sample; PCM arithmetic.

`g711` scales float32 by 32768 and cuts towards zero, so that sample / 32768 is exact for it. It
agrees with ITU-T G.191's reference code throughout, and so do we. `audioop` (to Python 3.12) shifts
a negative sample right before negating it, where G.191 complements first: for the four samples
next to each of the 127 negative mu-law decision values its code is one louder.
"""

from __future__ import annotations

import math
import sys
import warnings
from array import array
from collections.abc import Callable
from itertools import zip_longest
from types import ModuleType

import g711
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.audio import (
    alaw_to_pcm,
    alaw_to_ulaw,
    energy,
    interleave,
    mean_squares,
    mix,
    pcm_to_alaw,
    pcm_to_ulaw,
    ulaw_to_alaw,
    ulaw_to_pcm,
)

audioop: ModuleType | None = None
if sys.version_info < (3, 13):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop

needs_audioop = pytest.mark.skipif(audioop is None, reason="audioop ended with Python 3.12")

SAMPLES = np.arange(-32768, 32768, dtype="<i2")
EVERY_SAMPLE = SAMPLES.tobytes()
EVERY_CODE = bytes(range(256))

Codec = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("encode", "oracle"),
    [(pcm_to_ulaw, g711.encode_ulaw), (pcm_to_alaw, g711.encode_alaw)],
    ids=["ulaw", "alaw"],
)
def test_every_sample_is_encoded_as_g711_does(encode: Codec, oracle: Callable[..., bytes]) -> None:
    assert encode(EVERY_SAMPLE) == oracle((SAMPLES / np.float32(32768)).astype(np.float32))


@pytest.mark.parametrize(
    ("decode", "oracle"),
    [(ulaw_to_pcm, g711.decode_ulaw), (alaw_to_pcm, g711.decode_alaw)],
    ids=["ulaw", "alaw"],
)
def test_every_code_is_decoded_as_g711_does(
    decode: Codec, oracle: Callable[[bytes], np.ndarray[tuple[int], np.dtype[np.float32]]]
) -> None:
    levels = np.frombuffer(decode(EVERY_CODE), "<i2")
    assert np.array_equal(levels, oracle(EVERY_CODE) * 32768)


@needs_audioop
def test_audioop_agrees_but_for_the_samples_it_rounds_away_from_zero() -> None:
    assert audioop is not None
    assert ulaw_to_pcm(EVERY_CODE) == audioop.ulaw2lin(EVERY_CODE, 2)
    assert alaw_to_pcm(EVERY_CODE) == audioop.alaw2lin(EVERY_CODE, 2)
    assert pcm_to_alaw(EVERY_SAMPLE) == audioop.lin2alaw(EVERY_SAMPLE, 2)
    ours = np.frombuffer(pcm_to_ulaw(EVERY_SAMPLE), np.uint8).astype(int)
    theirs = np.frombuffer(audioop.lin2ulaw(EVERY_SAMPLE, 2), np.uint8).astype(int)
    differ = ours != theirs
    assert np.count_nonzero(differ) == 127 * 4
    assert SAMPLES[differ].max() == -1
    assert np.all(ours[differ] - theirs[differ] == 1)  # a lower code is a louder one


@pytest.mark.parametrize(
    ("encode", "decode", "silent_twin"),
    [(pcm_to_ulaw, ulaw_to_pcm, 0x7F), (pcm_to_alaw, alaw_to_pcm, None)],
    ids=["ulaw", "alaw"],
)
def test_codes_survive_decoding_and_encoding(
    encode: Codec, decode: Codec, silent_twin: int | None
) -> None:
    """Mu-law has two zeros: minus zero comes back as plus zero."""
    back = encode(decode(EVERY_CODE))
    assert [c for c in range(256) if back[c] != c] == ([] if silent_twin is None else [silent_twin])


@pytest.mark.parametrize(
    ("transcode", "decode", "encode"),
    [(ulaw_to_alaw, ulaw_to_pcm, pcm_to_alaw), (alaw_to_ulaw, alaw_to_pcm, pcm_to_ulaw)],
    ids=["ulaw to alaw", "alaw to ulaw"],
)
def test_transcoding_goes_by_way_of_the_level(
    transcode: Codec, decode: Codec, encode: Codec
) -> None:
    assert transcode(EVERY_CODE) == encode(decode(EVERY_CODE))


def test_the_louder_sample_never_gets_the_quieter_level() -> None:
    for encode, decode in ((pcm_to_ulaw, ulaw_to_pcm), (pcm_to_alaw, alaw_to_pcm)):
        levels = np.frombuffer(decode(encode(EVERY_SAMPLE)), "<i2").astype(int)
        assert np.all(np.diff(levels) >= 0)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 15, 17, 32767, 32768, 32769, 65537, 200_001])
def test_any_length_is_the_codes_one_by_one(size: int) -> None:
    """Beyond the native call's room the data passes in pieces."""
    codes = (EVERY_CODE * (size // 256 + 1))[:size]
    level = [ulaw_to_pcm(bytes([code])) for code in range(256)]
    assert ulaw_to_pcm(codes) == b"".join(level[code] for code in codes)
    assert pcm_to_alaw(ulaw_to_pcm(codes)) == ulaw_to_alaw(codes)


def test_half_a_sample_is_left_out() -> None:
    assert pcm_to_ulaw(b"\0\0\0") == b"\xff"
    assert pcm_to_alaw(b"\0") == b""


def test_only_bytes_are_taken() -> None:
    with pytest.raises(TypeError):
        ulaw_to_pcm("text")  # type: ignore[arg-type]


pcm = st.lists(st.integers(-32768, 32767), max_size=300)


@given(pcm)
def test_energy_is_the_root_mean_square(samples: list[int]) -> None:
    expected = math.sqrt(sum(s * s for s in samples) / len(samples)) if samples else 0.0
    assert energy(array("h", samples).tobytes()) == pytest.approx(expected)


@given(pcm, st.integers(1, 50))
def test_mean_squares_of_whole_frames(samples: list[int], size: int) -> None:
    starts = range(0, len(samples) - size + 1, size)
    expected = [sum(s * s for s in samples[i : i + size]) / size for i in starts]
    assert mean_squares(array("h", samples).tobytes(), size) == expected


def test_full_scale_energy_is_exact() -> None:
    assert energy(array("h", [-32768] * 100_000).tobytes()) == 32768.0


@pytest.mark.parametrize("size", [0, -1])
def test_a_frame_has_samples(size: int) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        mean_squares(b"\0\0", size)


@given(pcm, pcm)
def test_mix_and_interleave_end_in_silence(a: list[int], b: list[int]) -> None:
    left, right = array("h", a).tobytes(), array("h", b).tobytes()
    pairs = list(zip_longest(a, b, fillvalue=0))
    limited = [max(-32768, min(32767, x + y)) for x, y in pairs]
    assert mix(left, right) == array("h", limited).tobytes()
    assert interleave(left, right) == array("h", [s for pair in pairs for s in pair]).tobytes()
