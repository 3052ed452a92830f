"""The key that signs journals: derived from a secret that both the dead run and the recovering one have."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from renderer.errors import ConfigurationError

_PURPOSE: Final = b"insights-applier journal 1"
_SHORTEST_BYTES: Final = 16
_LONGEST_BYTES: Final = 64 * 1024


class Key:
    """Signs and verifies. It is derived, so that a journal's signature is of no use as the secret; shown as stars."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        """Derive it from a secret."""
        self._key = hmac.digest(secret, _PURPOSE, hashlib.sha256)

    def sign(self, data: bytes) -> str:
        """HMAC-SHA256 of the data, in hexadecimal."""
        return hmac.digest(self._key, data, hashlib.sha256).hex()

    def verifies(self, data: bytes, signature: str) -> bool:
        """Whether this key made that signature of the data."""
        return hmac.compare_digest(self.sign(data).encode(), signature.encode())

    def __repr__(self) -> str:
        return "Key(***)"


def read_key(path: Path) -> Key:
    """The key derived from what a file holds, spaces around it apart. Raises ConfigurationError."""
    setting = f"The key file {str(path)!r} (--journal-key)"
    try:
        with path.open("rb") as file:
            secret = file.read(_LONGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ConfigurationError(f"{setting} can't be read: {reason}.") from error
    if not _SHORTEST_BYTES <= len(secret.strip()) <= _LONGEST_BYTES:
        raise ConfigurationError(
            f"{setting} has to hold {_SHORTEST_BYTES} to {_LONGEST_BYTES} bytes.",
            hint=f"Make one with `openssl rand -hex 32 > {path}`, and give every run the same.",
        )
    return Key(secret.strip())
