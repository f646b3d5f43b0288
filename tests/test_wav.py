"""WAV files in and out."""

from __future__ import annotations

import io
import struct
import wave
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced import wav
from voiced.formats import PCM16_16K, PCMU_8K, AudioFormat


def riff(fmt: bytes, data: bytes, *, before: bytes = b"", size: int | None = None) -> bytes:
    chunks = struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + before
    chunks += struct.pack("<4sI", b"data", len(data) if size is None else size) + data
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def fmt(tag: int, channels: int, rate: int, bits: int) -> bytes:
    width = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits)


def test_what_the_standard_library_writes() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(b"\x01\x02" * 1600)
    found = wav.parse(buffer.getvalue())
    assert found == wav.Wav(PCM16_16K, b"\x01\x02" * 1600)
    assert found.duration_ms == 100


def test_mu_law_with_a_chunk_between_of_odd_length() -> None:
    content = riff(fmt(7, 1, 8000, 8), b"\xff" * 80, before=b"LIST\x03\x00\x00\x00abc\x00")
    assert wav.parse(content) == wav.Wav(PCMU_8K, b"\xff" * 80)


def test_extensible_header_names_its_format_in_the_guid() -> None:
    extension = struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes(14)
    content = riff(fmt(0xFFFE, 1, 16000, 16) + extension, b"\x00\x01")
    assert wav.parse(content).format == PCM16_16K


def test_file_of_a_writer_that_crashed_is_read_as_far_as_it_goes() -> None:
    content = riff(fmt(1, 1, 16000, 16), b"\x01\x00" * 10 + b"\x05", size=0xFFFFFFFF)
    assert wav.parse(content).data == b"\x01\x00" * 10


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a WAV file"),
        (b"ID3" + bytes(100), "not a WAV file"),
        (riff(fmt(1, 2, 16000, 16), b""), "convert it to mono"),
        (riff(fmt(1, 1, 44100, 16), b""), "44100 Hz"),
        (riff(fmt(85, 1, 8000, 16), b""), "format 85"),
        (riff(b"\x01\x00", b""), "damaged"),
        (b"RIFF\x04\x00\x00\x00WAVE", "no audio data"),
    ],
)
def test_refusals_say_what_would_do(content: bytes, says: str) -> None:
    with pytest.raises(wav.WavError, match=says):
        wav.parse(content)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(wav.WavError, match="cannot be read: No such file"):
        wav.read(tmp_path / "none.wav")


def test_stereo_is_what_the_standard_library_reads(tmp_path: Path) -> None:
    wav.write_stereo(tmp_path / "x.wav", b"\x01\x00\x02\x00" * 8000, 8000)
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert file.getparams()[:4] == (2, 2, 8000, 8000)
        assert file.readframes(1) == b"\x01\x00\x02\x00"


@given(st.binary(max_size=300))
def test_any_bytes_are_audio_or_an_error_that_says_so(data: bytes) -> None:
    for content in (data, b"RIFF\x00\x00\x00\x00WAVE" + data, riff(data, b"")):
        with suppress(wav.WavError):
            wav.parse(content)


@given(
    st.sampled_from([PCM16_16K, PCMU_8K]),
    st.binary(max_size=99),
    st.dictionaries(st.sampled_from(["ISFT", "ICMT", "ICRD"]), st.text(max_size=9)),
)
def test_header_and_audio_read_back(form: AudioFormat, data: bytes, info: dict[str, str]) -> None:
    info = {name: text.rstrip("\0") for name, text in info.items()}
    data = data[: len(data) - len(data) % form.sample_bytes]
    content = wav.header(form, 1, len(data), info) + data + bytes(len(data) % 2)
    assert wav.parse(content) == wav.Wav(form, data, info)
    assert struct.unpack_from("<I", content, 4)[0] + 8 == len(content)
    assert len(wav.header(form, 1, 10**9, info)) == len(wav.header(form, 1, 0, info))
