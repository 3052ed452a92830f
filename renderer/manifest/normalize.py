"""What of an object is content: the rest is the server's, and is neither written, compared nor counted.

The rules are what the API server itself does with what it is sent (measured; a server test holds them).
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import Kind

#: metadata that only the server sets.
SERVER_METADATA: Final = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


def content(body: JsonObject, kind: Kind) -> JsonObject:
    """The object without what the server sets or drops: status, server metadata, empty label and annotation maps."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in SERVER_METADATA}
    if not kind.namespaced:
        metadata.pop("namespace", None)
    for section in ("labels", "annotations"):
        if not metadata.get(section):
            metadata.pop(section, None)
        else:
            metadata[section] = {key: "" if value is None else value for key, value in metadata[section].items()}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": metadata}


def digest(value: Json) -> str:
    """SHA-256, in hexadecimal, of the value as JSON with sorted keys: equal content, equal digest."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
