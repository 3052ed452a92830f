"""Keeps JSON documents in the user's cache directory, by name.

It only saves time: whatever is wrong with it, the caller does its work again, and nothing is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from renderer.manifest.jsontypes import Json, JsonObject


def directory(name: str) -> Path:
    """Where documents of that sort are kept (`XDG_CACHE_HOME` moves it)."""
    return Path(platformdirs.user_cache_path("on-demand-job-runner", appauthor=False)) / name


class UserCache:
    """Documents by file name. Threads and processes may share it; it never raises."""

    def __init__(self, place: Path, *, kept: int) -> None:
        """Keep that many in that directory, the newest.

        The directory is made when the first is kept. A relative one means that this account has no home: none is.
        """
        self._place = place
        self._kept = kept

    def get(self, name: str) -> JsonObject | None:
        """The document as it was put, or None: absent, unreadable, cut off, changed, or not ours alone."""
        if not self._place.is_absolute():
            return None
        try:
            digest, _, text = _private_bytes(self._place / name).partition(b"\n")
        except OSError:
            return None
        if not text or digest != _digest(text):
            return None
        document: Json = json.loads(text)  # what has the right digest is what was put
        return document if isinstance(document, dict) else None

    def put(self, name: str, document: JsonObject) -> None:
        """Keep it, readable by this user only; a reader sees all of it or nothing."""
        if not self._place.is_absolute():
            return
        text = json.dumps(document, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._place)  # mode 0600
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_digest(text) + b"\n" + text)
                Path(temporary).replace(self._place / name)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        found = sorted(((path.stat().st_mtime_ns, path) for path in self._place.iterdir()), reverse=True)
        for _, path in found[self._kept :]:
            path.unlink(missing_ok=True)


def _private_bytes(path: Path) -> bytes:
    """The file's bytes, b"" when somebody else can have written it: that might say that a policy is valid."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
        return file.read() if ours else b""


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
