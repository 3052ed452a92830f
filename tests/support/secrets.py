"""Looks for secrets in what a run leaves: as they are, encoded, and inside what is compressed."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

#: What may be base64: long enough to hold something, as ConfigMaps and Secrets keep bytes.
_ENCODED: Final = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")
_DEPTH: Final = 4


class Hunt:
    """Finds any of some secrets; `places` is what has been looked at, by name, with all that was found inside."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._forms = [form for secret in secrets for form in forms(secret)]
        self.places: dict[str, list[bytes]] = {}

    def look(self, place: str, data: bytes | str) -> None:
        """Look there, and fail where a secret is found, naming the place but never the secret."""
        layers = list(unpacked(data.encode() if isinstance(data, str) else data))
        self.places.setdefault(place, []).extend(layers)
        assert not any(form in layer for form in self._forms for layer in layers), f"a secret is in {place}"

    def look_into(self, directory: Path, *, but: Sequence[Path] = ()) -> None:
        """Look at every file below, its name and where it links to, but for those that hold the secrets for us."""
        for path in sorted(directory.rglob("*")):
            self.look(f"the name of {path}", str(path))
            if path.is_symlink():
                self.look(f"the target of {path}", str(path.readlink()))
            elif path.is_file() and path not in but:
                self.look(str(path), path.read_bytes())

    def seen(self, text: str) -> bool:
        """Whether that text was in anything looked at: a search that sees nothing finds nothing."""
        return any(text.encode() in layer for layers in self.places.values() for layer in layers)


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it is, quoted, in hexadecimal, and the part that base64 shows of it wherever it begins."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        yield encoded[(0, 2, 3)[offset] : len(raw) // 3 * 4]


def unpacked(data: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """The bytes, and what comes out where they, or words in them, are base64, zlib or gzip, again and again."""
    yield data
    if not depth:
        return
    for inner in (*_inflated(data), *_decoded(data)):
        yield from unpacked(inner, depth - 1)


def _inflated(data: bytes) -> Iterator[bytes]:
    try:
        if data.startswith(b"\x1f\x8b"):
            yield gzip.decompress(data)
        elif data[:1] == b"\x78":
            yield zlib.decompress(data)
    except (zlib.error, OSError, EOFError):
        pass  # it only looked like that


def _decoded(data: bytes) -> Iterator[bytes]:
    for word in _ENCODED.findall(data):
        with contextlib.suppress(binascii.Error):
            yield base64.b64decode(word, validate=True)
