"""Recordings that only the holder of a private key can play: the daemon cannot, nor a thief of it.

A file is sealed to an X25519 public key, which `openssl genpkey -algorithm x25519` and `openssl
pkey -pubout` make. The primitives are those of the `cryptography` library. The container:

    header   8 bytes `VOICEDR1`, 32 bytes ephemeral public key, 16 bytes call id (ASCII)
    segment  4 bytes length (little-endian), then so many bytes of AES-256-GCM, tag last; repeated

The file's key is HKDF-SHA256 of the X25519 secret of both keys, with the two public keys as salt
and `voiced recording` as info. Nonces are the segment's number in 11 bytes, big-endian, and a byte
that is 1 in the last segment, 0 before, so that segments can be neither moved, nor lost, nor cut
off unnoticed. The header is what every segment authenticates besides. The first segment holds the
header of a WAV file without a length, the others its audio, the last nothing.

A killed process leaves a file without its last segment: all whole ones can be read.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from voiced_plugins._shelf import SEALED_MAGIC, sealed_call_of
from voiced_plugins._wavfile import create, write_all

from voiced.plugin import AudioFormat, read_file, wav_header

__all__ = [
    "BadKey",
    "NotSealed",
    "SealedFile",
    "Unsealed",
    "private_key",
    "public_key",
    "unseal",
]

_HEAD: Final = struct.Struct("<8s32s16s")
_TAG: Final = 16
_MAX_KEY: Final = 16 * 1024  # bytes of a PEM file; far above any key
_MAX_SEGMENT: Final = 2**20  # plaintext; a recorder writes a second or so at a time


class BadKey(Exception):
    """Not a key that can be used here; the text says what would be."""


class NotSealed(Exception):
    """Not a sealed recording, or one that was tampered with or sealed to another key."""


def public_key(path: Path) -> X25519PublicKey:
    """The key to seal to, of a PEM file. Raises BadKey."""
    try:
        key = load_pem_public_key(read_file(path, _MAX_KEY))
    except OSError as error:
        raise BadKey(f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise BadKey("is not a PEM public key; write it with openssl pkey -pubout") from None
    if not isinstance(key, X25519PublicKey):
        raise BadKey("is not an X25519 key; make one with openssl genpkey -algorithm x25519")
    return key


def private_key(path: Path) -> X25519PrivateKey:
    """The key to unseal with, of a PEM file without a passphrase. Raises BadKey.

    It may come from a pipe: a command asks for it, not the daemon.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(_MAX_KEY), None)
    except OSError as error:
        raise BadKey(f"cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise BadKey("is not a PEM private key without a passphrase") from None
    if not isinstance(key, X25519PrivateKey):
        raise BadKey("is not an X25519 key")
    return key


def _cipher(secret: bytes, ephemeral: bytes, recipient: bytes) -> AESGCM:
    kdf = HKDF(algorithm=SHA256(), length=32, salt=ephemeral + recipient, info=b"voiced recording")
    return AESGCM(kdf.derive(secret))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class SealedFile:
    """A sealed recording being written, from a worker thread, by one at a time."""

    def __init__(
        self, path: Path, form: AudioFormat, channels: int, call_id: str, key: X25519PublicKey
    ) -> None:
        """Make the file. Raises OSError."""
        own = X25519PrivateKey.generate()
        ephemeral, recipient = own.public_key().public_bytes_raw(), key.public_bytes_raw()
        self._cipher = _cipher(own.exchange(key), ephemeral, recipient)
        self._head = _HEAD.pack(SEALED_MAGIC, ephemeral, call_id.encode()[:16])
        self._number = 0
        self._failed = False
        self._fd = create(path)
        self.size = 0
        """Bytes of the file."""
        try:
            self._append(self._head)
            self.write(wav_header(form, channels, 0))
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)  # nothing of a call but its caller's name
            raise

    def write(self, data: bytes) -> None:
        """Append audio. Raises OSError: what was there before can be read, nothing may follow.

        What failed is not tried again with other audio: no nonce may serve twice.
        """
        if self._failed:
            raise OSError("the file has failed before")
        for start in range(0, len(data), _MAX_SEGMENT):
            self._segment(data[start : start + _MAX_SEGMENT], last=False)

    def close(self) -> None:
        """End the file. Raises OSError, closed or not."""
        try:
            os.ftruncate(self._fd, self.size)
            self._segment(b"", last=True)
        finally:
            os.close(self._fd)

    def _segment(self, data: bytes, *, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._number, last=last), data, self._head)
        try:
            self._append(struct.pack("<I", len(sealed)) + sealed)
        except OSError:
            self._failed = True
            raise
        self._number += 1

    def _append(self, data: bytes) -> None:
        write_all(self._fd, data, self.size)
        self.size += len(data)


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What came out of a sealed file. `whole`: nothing is missing at its end."""

    call_id: str
    audio_bytes: int
    whole: bool


def unseal(source: BinaryIO, out: BinaryIO, key: X25519PrivateKey) -> Unsealed:
    """Write the WAV file that `source` holds to `out`, which can seek.

    Raises NotSealed where it is none, was tampered with, or was sealed to another key; OSError.
    """
    head = source.read(_HEAD.size)
    call_id = sealed_call_of(head)
    if call_id is None:
        raise NotSealed("is not a sealed recording")
    ephemeral = _HEAD.unpack(head)[1]
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    except ValueError:  # a point that no honest writer chooses
        raise NotSealed("is damaged, or was tampered with") from None
    cipher = _cipher(secret, ephemeral, key.public_key().public_bytes_raw())
    wav, audio_bytes, number, whole = b"", 0, 0, False
    while not whole:
        segment = _read_segment(source)
        if segment is None:
            break  # a crash: there is no more
        data, whole = _open(cipher, segment, number, head)
        if number == 0:
            wav = data
            out.write(wav)
        else:
            out.write(data)
            audio_bytes += len(data)
        number += 1
    if not wav:
        raise NotSealed("holds nothing")
    _set_sizes(out, wav, audio_bytes)
    return Unsealed(call_id, audio_bytes, whole)


def _read_segment(source: BinaryIO) -> bytes | None:
    prefix = source.read(4)
    if len(prefix) < 4:
        return None
    (length,) = struct.unpack("<I", prefix)
    if not _TAG <= length <= _MAX_SEGMENT + _TAG:
        raise NotSealed("is damaged, or was tampered with")
    segment = source.read(length)
    return segment if len(segment) == length else None


def _open(cipher: AESGCM, segment: bytes, number: int, head: bytes) -> tuple[bytes, bool]:
    for last in (False, True):
        try:
            return cipher.decrypt(_nonce(number, last=last), segment, head), last
        except InvalidTag:
            continue
    if number == 0:
        raise NotSealed("was sealed to another key, or tampered with")
    raise NotSealed("is damaged, or was tampered with")


def _set_sizes(out: BinaryIO, wav: bytes, audio_bytes: int) -> None:
    if audio_bytes % 2:
        out.write(b"\0")
    out.seek(4)
    out.write(struct.pack("<I", len(wav) - 8 + audio_bytes + audio_bytes % 2))
    place = wav.find(b"fact")
    if place > 0:
        (width,) = struct.unpack_from("<H", wav, 32)
        out.seek(place + 8)
        out.write(struct.pack("<I", audio_bytes // width))
    out.seek(len(wav) - 4)
    out.write(struct.pack("<I", audio_bytes))
