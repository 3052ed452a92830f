"""Keeps the schemas of API servers in the user's cache directory, by the hash that the server gives each.

It only saves time: whatever is wrong with it, the schema is fetched again, and nothing is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Final

import platformdirs

from renderer.manifest.jsontypes import JsonObject

#: How many documents are kept, of all clusters together; a cluster has about ten of some 50 kB.
_KEPT: Final = 100
_HASH: Final = re.compile(r"[0-9A-Za-z]{16,128}")


def directory() -> Path:
    """Where they are kept (`XDG_CACHE_HOME` moves it)."""
    return Path(platformdirs.user_cache_path("on-demand-job-runner", appauthor=False)) / "openapi"


class SchemaCache:
    """Documents by group version and hash. Threads and processes may share it; it never raises."""

    def __init__(self, place: Path, *, form: str) -> None:
        """Keep them in that directory, in a form of that name; one of another form is never read.

        The directory is made when the first is kept. A relative one means that this account has no home: none is.
        """
        self._place = place
        self._form = form

    def get(self, api_version: str, hash_: str) -> JsonObject | None:
        """The document as it was put, or None: absent, unreadable, cut off or changed."""
        path = self._path(api_version, hash_)
        try:
            digest, _, text = path.read_bytes().partition(b"\n") if path else (b"", b"", b"")
        except OSError:
            return None
        if not text or digest != _digest(text):
            return None
        document: JsonObject = json.loads(text)  # what has the right digest is what was put
        return document

    def put(self, api_version: str, hash_: str, document: JsonObject) -> None:
        """Keep it, readable by this user only; a reader sees all of it or nothing."""
        path = self._path(api_version, hash_)
        if path is None:
            return
        text = json.dumps(document, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._place)  # mode 0600
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_digest(text) + b"\n" + text)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._forget_the_oldest()

    def _path(self, api_version: str, hash_: str) -> Path | None:
        if not self._place.is_absolute() or not _HASH.fullmatch(hash_):
            return None
        return self._place / f"{api_version.replace('/', '_')}-{self._form}-{hash_}.json"

    def _forget_the_oldest(self) -> None:
        found = sorted(((path.stat().st_mtime_ns, path) for path in self._place.iterdir()), reverse=True)
        for _, path in found[_KEPT:]:
            path.unlink(missing_ok=True)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
