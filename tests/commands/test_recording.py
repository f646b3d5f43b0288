"""`voiced recording decrypt`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from voiced_plugins._sealed import SealedFile

from voiced.cli import main
from voiced.plugin import PCM16_8K, parse_wav

KEY = X25519PrivateKey.generate()


def sealed(path: Path, key: X25519PrivateKey = KEY) -> Path:
    file = SealedFile(path, PCM16_8K, 1, "00112233445566aa", key.public_key())
    file.write(b"\x01\x02" * 8000)
    file.close()
    return path


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "private.pem"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def run(pem: Path, *arguments: Path | str) -> Result:
    return CliRunner().invoke(
        main, ["recording", "decrypt", "--key", str(pem), *map(str, arguments)]
    )


def test_a_sealed_file_beside_its_wav(tmp_path: Path, pem: Path) -> None:
    done = run(pem, sealed(tmp_path / "a.wav.sealed"))
    assert done.exit_code == 0, done.output
    assert "call 00112233445566aa, 16000 bytes" in done.output
    assert parse_wav((tmp_path / "a.wav").read_bytes()).data == b"\x01\x02" * 8000


def test_what_was_sealed_is_not_everybodys_now(tmp_path: Path, pem: Path) -> None:
    before = os.umask(0o022)
    try:
        assert run(pem, sealed(tmp_path / "a.wav.sealed")).exit_code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "a.wav").stat().st_mode & 0o077 == 0


def test_into_another_folder_and_never_over_another_file(tmp_path: Path, pem: Path) -> None:
    path = sealed(tmp_path / "a.wav.sealed")
    assert run(pem, path, "--directory", tmp_path / "out").exit_code == 0
    done = run(pem, path, "--directory", tmp_path / "out")
    assert done.exit_code == 1
    assert "is there already" in done.output


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path, pem: Path) -> None:
    bad = sealed(tmp_path / "bad.wav.sealed", X25519PrivateKey.generate())
    cut = sealed(tmp_path / "cut.wav.sealed")
    cut.write_bytes(cut.read_bytes()[:-25])
    done = run(pem, bad, tmp_path / "missing.wav.sealed", cut)
    assert done.exit_code == 1
    assert "another key" in done.output
    assert "missing.wav.sealed: No such file" in done.output
    assert "cut short" in done.output
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["cut.wav"]


def test_a_key_that_is_none(tmp_path: Path, pem: Path) -> None:
    pem.write_text("nothing")
    done = run(pem, sealed(tmp_path / "a.wav.sealed"))
    assert done.exit_code == 1
    assert "PEM private key" in done.output
    assert "Traceback" not in done.output
