"""WAV files that are whole at any moment."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voiced_plugins._wavfile import HEAD, WavFile, lock, repair, wav_call_of

from voiced.plugin import PCM16_8K, AudioFormat, Encoding, parse_wav

PCMU = AudioFormat(Encoding.PCMU, 8000)
CALL = "00112233445566aa"


def read_stereo(path: Path) -> tuple[int, bytes]:
    """Rate and frames, as the standard library has them."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        return file.getframerate(), file.readframes(file.getnframes())


def sox_ms(path: Path) -> float:
    """Its length, as sox sees it; sox does not like what it finds wrong."""
    done = subprocess.run(["soxi", "-D", path], capture_output=True, text=True, check=True)
    assert "WARN" not in done.stderr, done.stderr
    return float(done.stdout) * 1000


def test_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.wav"
    file = WavFile(path, PCM16_8K, 2, CALL)
    sound = b""
    for number in range(3):
        assert read_stereo(path) == (8000, sound)
        piece = bytes([number, 1]) * 800
        file.write(piece)
        sound += piece
    assert path.stat().st_size == file.size
    file.close()
    assert read_stereo(path) == (8000, sound)
    assert sox_ms(path) == 150
    assert wav_call_of(path.read_bytes()[:HEAD]) == CALL
    assert path.stat().st_mode & 0o007 == 0  # nobody else's business


def test_mu_law_of_odd_length_is_padded(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    file = WavFile(path, PCMU, 1, CALL)
    file.write(b"\x01" * 801)
    file.close()
    content = path.read_bytes()
    assert struct.unpack_from("<I", content, 4)[0] + 8 == len(content)
    assert parse_wav(content).data == b"\x01" * 801
    assert sox_ms(path) == pytest.approx(100.125)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    WavFile(tmp_path / "a.wav", PCM16_8K, 2, CALL).close()
    with pytest.raises(FileExistsError):
        WavFile(tmp_path / "a.wav", PCM16_8K, 2, CALL)


def test_one_that_grows_is_locked(tmp_path: Path) -> None:
    file = WavFile(tmp_path / "a.wav", PCM16_8K, 2, CALL)
    with (tmp_path / "a.wav").open("r+b") as other:
        assert not lock(other.fileno())
        file.close()
        assert lock(other.fileno())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(PCM16_8K, 2), (PCM16_8K, 1), (PCMU, 1), (PCMU, 2)]),
    st.integers(0, 3000),
    st.integers(0, 3000),
)
def test_repaired_whatever_is_left(
    tmp_path_factory: pytest.TempPathFactory,
    kind: tuple[AudioFormat, int],
    said: int,
    there: int,
) -> None:
    """The header says `said` bytes, `there` follow."""
    form, channels = kind
    width = form.sample_bytes * channels
    path = tmp_path_factory.mktemp("r") / "a.wav"
    file = WavFile(path, form, channels, CALL)
    file.write(bytes(said - said % width))
    file.close()
    head = len(path.read_bytes()) - (said - said % width) - (said - said % width) % 2
    os.truncate(path, head + there)
    with path.open("r+b") as again:
        assert repair(again.fileno()) == there - there % width
    content = path.read_bytes()
    assert struct.unpack_from("<I", content, 4)[0] + 8 == len(content)
    if channels == 1:
        assert len(parse_wav(content).data) == there - there % width
    assert wav_call_of(content) == CALL


def test_what_is_no_recording_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    with path.open("r+b") as file:
        assert repair(file.fileno()) == 0
    assert path.read_bytes() == b"RIFF\x24\0\0\0WAVEfmt "
    assert wav_call_of(path.read_bytes()) is None
    assert wav_call_of(b"OggS" + bytes(50)) is None


KILLED = """
import sys
from pathlib import Path
from voiced.plugin import PCM16_8K
from voiced_plugins._wavfile import WavFile
file = WavFile(Path(sys.argv[1]), PCM16_8K, 2, "00112233445566aa")
print("begun", flush=True)
while True:
    file.write(bytes(range(256)) * 125)
    print("second", flush=True)
"""


@pytest.mark.parametrize("seconds", [0, 1, 7, 40])
def test_a_killed_writer_leaves_a_file_that_plays(tmp_path: Path, seconds: int) -> None:
    """SIGKILL at no particular moment of the next write."""
    path = tmp_path / "a.wav"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(seconds + 1):
            writer.stdout.readline()
        writer.kill()
    rate, sound = read_stereo(path)
    assert rate == 8000
    assert len(sound) >= seconds * 32000
    assert sound == (bytes(range(256)) * 125 * (len(sound) // 32000 + 1))[: len(sound)]
    assert sox_ms(path) == pytest.approx(len(sound) / 32, abs=1)
