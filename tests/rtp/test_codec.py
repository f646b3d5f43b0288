"""Payloads and the leg's audio."""

from __future__ import annotations

import math
import sys
from array import array

import pytest

from voiced import audio
from voiced.formats import PCM16_16K, PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat, Encoding
from voiced.rtp import codec
from voiced.rtp.codec import FADE, FORMATS, CodecUnavailable, decoder, encoder, faded


def tone(form: AudioFormat, ms: int = 400, hz: int = 440) -> bytes:
    """PCM16 at a format's rate."""
    count = form.rate * ms // 1000
    return array(
        "h", [int(8000 * math.sin(2 * math.pi * hz * n / form.rate)) for n in range(count)]
    ).tobytes()


def test_g711_passes_untouched() -> None:
    for name, form in (("PCMU", PCMU_8K), ("PCMA", PCMA_8K)):
        assert decoder(name, form) is None
        assert encoder(form, name) is None


def test_from_one_law_to_the_other() -> None:
    codes = bytes(range(256))
    to_ulaw, to_alaw = decoder("PCMA", PCMU_8K), encoder(PCMU_8K, "PCMA")
    assert to_ulaw is not None
    assert to_alaw is not None
    assert to_ulaw(codes) == audio.alaw_to_ulaw(codes)
    assert to_alaw(codes) == audio.ulaw_to_alaw(codes)


@pytest.mark.parametrize("leg", [PCM16_16K, PCMU_8K, PCM16_24K])
def test_g722_in_frames_of_20_ms(leg: AudioFormat) -> None:
    """160 bytes of payload are 20 ms, whatever the leg speaks, and the sound survives."""
    encode, decode = encoder(leg, "G722"), decoder("G722", leg)
    assert encode is not None
    assert decode is not None
    pcm = tone(leg)
    sound = audio.pcm_to_ulaw(pcm) if leg.encoding is Encoding.PCMU else pcm
    back = b""
    for at in range(0, len(sound), leg.frame_bytes):
        payload = encode(sound[at : at + leg.frame_bytes])
        assert len(payload) == 160
        back += decode(payload)
    assert len(back) == len(sound)
    heard = audio.ulaw_to_pcm(back) if leg.encoding is Encoding.PCMU else back
    settled = len(pcm) // 2
    assert audio.energy(heard[settled:]) == pytest.approx(audio.energy(pcm[settled:]), rel=0.1)


def test_g722_takes_any_number_of_bytes() -> None:
    decode = decoder("G722", PCM16_16K)
    assert decode is not None
    assert [len(decode(bytes(n))) for n in (0, 1, 7, 480)] == [0, 4, 28, 1920]


def test_unknown_codecs() -> None:
    with pytest.raises(ValueError, match="opus"):
        decoder("opus", PCMU_8K)
    with pytest.raises(ValueError, match="opus"):
        encoder(PCMU_8K, "opus")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "G722", None)
    with pytest.raises(CodecUnavailable, match="pip install"):
        decoder("G722", PCM16_16K)


@pytest.mark.parametrize("form", [*FORMATS.values()])
def test_fading(form: AudioFormat) -> None:
    pcm = tone(form)
    laws = {Encoding.PCMU: audio.pcm_to_ulaw, Encoding.PCMA: audio.pcm_to_alaw}
    sound = laws[form.encoding](pcm) if form.encoding in laws else pcm
    for lost, gain in enumerate((*FADE, FADE[-1])):
        quiet = faded(sound, form.encoding, lost)
        assert len(quiet) == len(sound)
        convert = audio.converter(form, AudioFormat(Encoding.PCM16, form.rate))
        heard = quiet if convert is None else convert.convert(quiet)
        assert audio.energy(heard) == pytest.approx(gain * audio.energy(pcm), rel=0.05)


def test_the_clock_is_that_of_g711_for_all() -> None:
    """RFC 3551 section 4.5.2."""
    assert codec.CLOCK == 8000
