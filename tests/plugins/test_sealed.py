"""Sealed recordings: only the private key opens them, and nothing can be changed unnoticed."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins._sealed import (
    BadKey,
    NotSealed,
    SealedFile,
    private_key,
    public_key,
    unseal,
)
from voiced_plugins._shelf import sealed_call_of

from voiced.plugin import PCM16_8K, AudioFormat, Encoding, parse_wav

KEY = X25519PrivateKey.generate()
CALL = "00112233445566aa"


def sealed(folder: Path, *pieces: bytes, close: bool = True) -> bytes:
    path = folder / "a.wav.sealed"
    file = SealedFile(path, PCM16_8K, 1, CALL, KEY.public_key())
    for piece in pieces:
        file.write(piece)
    if close:
        file.close()
    assert path.stat().st_size == file.size
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sealed(tmp_path_factory.mktemp("s"), *(bytes([n]) * 16000 for n in range(3)))


def test_comes_out_as_it_went_in(example: bytes) -> None:
    out = io.BytesIO()
    found = unseal(io.BytesIO(example), out, KEY)
    sound = parse_wav(out.getvalue())
    assert sound.data == b"".join(bytes([n]) * 16000 for n in range(3))
    assert sound.format == PCM16_8K
    assert struct.unpack_from("<I", out.getvalue(), 4)[0] + 8 == len(out.getvalue())
    assert (found.call_id, found.audio_bytes, found.whole) == (CALL, 48000, True)
    assert sealed_call_of(example[:64]) == CALL


def test_large_pieces_and_odd_mu_law(tmp_path: Path) -> None:
    path, form = tmp_path / "b", AudioFormat(Encoding.PCMU, 8000)
    file = SealedFile(path, form, 1, CALL, KEY.public_key())
    file.write(b"\x7f" * 3_000_001)
    file.close()
    out = io.BytesIO()
    with path.open("rb") as source:
        unseal(source, out, KEY)
    assert parse_wav(out.getvalue()).data == b"\x7f" * 3_000_001


def test_what_a_killed_process_left_can_be_read(tmp_path: Path) -> None:
    """Cut anywhere: all that had been written whole comes out, and it is said to be cut."""
    content = sealed(tmp_path, b"\x01" * 800, b"\x02" * 800, close=False)
    for end in range(len(content), len(content) - 900, -77):
        out = io.BytesIO()
        found = unseal(io.BytesIO(content[:end]), out, KEY)
        assert not found.whole
        assert found.audio_bytes == len(parse_wav(out.getvalue()).data)
        assert found.audio_bytes == (1600 if end == len(content) else 800 if end > 975 else 0)


@given(st.data())
def test_one_bit_that_is_changed_is_noticed(example: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(example) - 1))
    changed = bytearray(example)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    out = io.BytesIO()
    try:
        found = unseal(io.BytesIO(changed), out, KEY)
    except NotSealed:
        return
    assert not found.whole  # a length that reaches beyond the end


def segments(content: bytes) -> list[bytes]:
    found, at = [], 56
    while at < len(content):
        (length,) = struct.unpack_from("<I", content, at)
        found.append(content[at : at + 4 + length])
        at += 4 + length
    return found


def test_segments_cannot_be_moved_left_out_or_added(example: bytes, tmp_path: Path) -> None:
    head, parts = example[:56], segments(example)
    other = segments(sealed(tmp_path, bytes(16000)))
    for bad in (
        [parts[0], parts[2], parts[1], *parts[3:]],
        [parts[0], *parts[2:]],
        [parts[0], other[1], *parts[2:]],
        [*parts[:-1], parts[1]],
    ):
        with pytest.raises(NotSealed):
            unseal(io.BytesIO(head + b"".join(bad)), io.BytesIO(), KEY)
    shorter = unseal(io.BytesIO(head + b"".join(parts[:-1])), io.BytesIO(), KEY)
    assert not shorter.whole


def test_another_key_opens_nothing(example: bytes) -> None:
    with pytest.raises(NotSealed, match="another key"):
        unseal(io.BytesIO(example), io.BytesIO(), X25519PrivateKey.generate())


def test_the_same_call_twice_looks_different(tmp_path: Path) -> None:
    first, second = (segments(sealed(tmp_path, bytes(100))) for _ in range(2))
    assert not set(first) & set(second)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"VOICEDR1", b"VOICEDR1" + bytes(48)])
def test_what_is_no_sealed_recording_is_refused(content: bytes) -> None:
    with pytest.raises(NotSealed):
        unseal(io.BytesIO(content), io.BytesIO(), KEY)


def test_nothing_follows_what_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk; a nonce must not serve twice, and what was there still opens."""
    path = tmp_path / "c"
    file = SealedFile(path, PCM16_8K, 1, CALL, KEY.public_key())
    file.write(b"\x01" * 800)
    real, full = os.pwrite, [True]

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="space"):
        file.write(b"\x02" * 800)
    full[0] = False
    with pytest.raises(OSError, match="before"):
        file.write(b"\x03" * 800)
    file.close()
    with path.open("rb") as source:
        found = unseal(source, out := io.BytesIO(), KEY)
    assert found.whole
    assert parse_wav(out.getvalue()).data == b"\x01" * 800


def test_keys_of_openssl(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "pub.pem"
    openssl = ["openssl", "genpkey", "-algorithm", "x25519", "-out", str(private)]
    subprocess.run(openssl, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    mine = private_key(private).public_key().public_bytes_raw()
    assert public_key(public).public_bytes_raw() == mine


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [("ed25519", "x25519"), (None, "PEM"), ("missing", "cannot be read")],
)
def test_a_wrong_key_says_what_would_be_right(
    tmp_path: Path, algorithm: str | None, says: str
) -> None:
    path = tmp_path / "pub.pem"
    if algorithm is None:
        path.write_text("no key")
    elif algorithm != "missing":
        private = tmp_path / "key.pem"
        openssl = ["openssl", "genpkey", "-algorithm", algorithm, "-out", str(private)]
        subprocess.run(openssl, check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", path], check=True)
        with pytest.raises(BadKey, match="X25519"):
            private_key(private)
    with pytest.raises(BadKey, match=says):
        public_key(path)
    with pytest.raises(BadKey):
        private_key(path)
