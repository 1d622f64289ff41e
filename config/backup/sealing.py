"""Files that only the installation's keys open, written and read as streams.

A backup holds phone numbers, texts and the keys of WhatsApp sessions, so all of it is encrypted: AES-256-GCM in chunks,
numbered and with the last one marked, so that nothing can be changed, exchanged, left out or cut off unnoticed (the
STREAM construction; Hoang, Reyhanitabar, Rogaway, Vizár, 2015). Each file has a key of its own, derived by HKDF-SHA256
from the newest of ``FLOTILLA_FIELD_KEYS`` and a random salt. Which key that was stands in the head of the file, by a
fingerprint that tells nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config.backup.problems import BackupProblem

_MAGIC: Final = b"flotilla sealed 1\n"
_SALT_BYTES, _TAG_BYTES, _FINGERPRINT = 32, 16, 16
CHUNK: Final = 1 << 20
"""Bytes of plain text per chunk; only the last may be shorter."""


def fingerprint(key: str) -> str:
    """By what a key is known: 16 hexadecimal digits."""
    return sha256(b"flotilla.backup.id:" + key.encode()).hexdigest()[:_FINGERPRINT]


class Sealer:
    """A file to write to. It is whole only once :meth:`close` was called; an error leaves it cut off."""

    def __init__(self, path: Path, *, key: str) -> None:
        salt = os.urandom(_SALT_BYTES)
        self._cipher = _cipher(key, salt)
        self._waiting = bytearray()
        self._number = 0
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._file.write(_MAGIC + fingerprint(key).encode() + salt)

    def write(self, data: bytes) -> int:
        """Take in more."""
        self._waiting += data
        while len(self._waiting) > CHUNK:  # one chunk always stays behind: it may be the last
            self._put(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]
        return len(data)

    def close(self) -> None:
        """Mark the end, and wait until the disk has it."""
        self._put(bytes(self._waiting), last=True)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Sealer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()

    def _put(self, data: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last=last), data, None))
        self._number += 1


def key_of(path: Path) -> str:
    """The fingerprint of the key that opens the file. Raises :class:`BackupProblem`."""
    with path.open("rb") as file:
        return _head(file, path)[0]


def unseal(path: Path, *, keys: Sequence[str]) -> Iterator[bytes]:
    """What is in the file, piece by piece. Raises :class:`BackupProblem`, at the latest with the last piece."""
    with path.open("rb") as file:
        wanted, salt = _head(file, path)
        key = next((each for each in keys if fingerprint(each) == wanted), None)
        if key is None:
            raise BackupProblem(
                f"{path.name} was sealed with the key {wanted}, and FLOTILLA_FIELD_KEYS does not hold it: set the"
                " variables that the installation had when the backup was made."
            )
        cipher, number = _cipher(key, salt), 0
        chunk = file.read(CHUNK + _TAG_BYTES)
        while True:
            following = file.read(CHUNK + _TAG_BYTES)
            try:
                yield cipher.decrypt(_nonce(number, last=not following), chunk, None)
            except InvalidTag:
                raise BackupProblem(f"{path.name} is damaged or cut off: use another backup.") from None
            if not following:
                return
            chunk, number = following, number + 1


def _head(file: BinaryIO, path: Path) -> tuple[str, bytes]:
    head = file.read(len(_MAGIC) + _FINGERPRINT + _SALT_BYTES)
    if len(head) < len(_MAGIC) + _FINGERPRINT + _SALT_BYTES or not head.startswith(_MAGIC):
        raise BackupProblem(f"{path.name} is no part of a backup, or of a newer Flotilla's.")
    rest = head[len(_MAGIC) :]
    return rest[:_FINGERPRINT].decode("ascii", "replace"), rest[_FINGERPRINT:]


def _cipher(key: str, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"flotilla backup").derive(key.encode()))


def _nonce(number: int, *, last: bool) -> bytes:
    """12 bytes: the chunk's number, and whether it is the last. No two files share a key."""
    return number.to_bytes(11, "big") + bytes([last])
