"""Keeps the schemas of API servers in the user's cache directory, by the hash that the server gives each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from applier.user_cache import UserCache
from applier.user_cache import directory as user_directory
from renderer.manifest.jsontypes import JsonObject

#: How many documents are kept, of all clusters together; a cluster has about ten of some 50 kB.
_KEPT: Final = 100
_HASH: Final = re.compile(r"[0-9A-Za-z]{16,128}")


def directory() -> Path:
    """Where they are kept (`XDG_CACHE_HOME` moves it)."""
    return user_directory("openapi")


class SchemaCache:
    """Documents by group version and hash. Threads and processes may share it; it never raises."""

    def __init__(self, place: Path, *, form: str) -> None:
        """Keep them in that directory, in a form of that name; one of another form is never read."""
        self._files = UserCache(place, kept=_KEPT)
        self._form = form

    def get(self, api_version: str, hash_: str) -> JsonObject | None:
        """The document as it was put, or None: absent, unreadable, cut off or changed."""
        return self._files.get(self._name(api_version, hash_)) if _HASH.fullmatch(hash_) else None

    def put(self, api_version: str, hash_: str, document: JsonObject) -> None:
        """Keep it, unless the server gives no proper hash."""
        if _HASH.fullmatch(hash_):
            self._files.put(self._name(api_version, hash_), document)

    def _name(self, api_version: str, hash_: str) -> str:
        return f"{api_version.replace('/', '_')}-{self._form}-{hash_}.json"
