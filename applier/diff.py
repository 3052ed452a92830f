"""Pure: from a desired policy and the live object to the RFC 6902 patch between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import jsonpatch

from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content
from renderer.manifest.ownership import managed_keys

FIELD_MANAGER: Final = "insights-applier"

_SECTIONS: Final = ("labels", "annotations")


def wanted(desired: JsonObject, live: JsonObject | None, *, kind: Kind, api_version: str) -> JsonObject:
    """What the object should hold: Insights' spec whole, its own labels and annotations, and others' metadata.

    Of labels and annotations only the keys that Insights set before or sets now are touched; finalizers,
    ownerReferences and everybody else's keys stay as they are live.
    """
    desired = content(desired, kind)
    result = {**desired, "apiVersion": api_version}
    if live is None:
        return result
    present = content(live, kind)["metadata"]
    metadata = {**present}
    for section in _SECTIONS:
        mine: dict[str, str] = desired["metadata"].get(section, {})
        dropped = managed_keys(live, section) - mine.keys()
        merged = {key: value for key, value in present.get(section, {}).items() if key not in dropped} | mine
        metadata.pop(section, None)
        if merged:
            metadata[section] = merged
    result["metadata"] = metadata
    return result


def patch(before: JsonObject, after: JsonObject) -> tuple[JsonObject, ...]:
    """The operations that lead from one content to the other; none when they are equal."""
    return tuple(jsonpatch.make_patch(before, after).patch)


def pinned(live: JsonObject, operations: Sequence[JsonObject]) -> list[JsonObject]:
    """The operations, for this very object only (422 for another of the same name)."""
    return [{"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]}, *operations]


def guarded(live: JsonObject, operations: Sequence[JsonObject]) -> list[JsonObject]:
    """The operations, for this very object, unchanged since it was read (409)."""
    # A test would say "unprocessable" whatever is wrong; replacing a stale version is a clear conflict.
    version = live["metadata"]["resourceVersion"]
    return pinned(live, [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *operations])


def other_managers(live: JsonObject) -> tuple[str, ...]:
    """Who else wrote the spec, by the server's record; for people to read, never to decide by."""
    entries = live["metadata"].get("managedFields") or []
    return tuple(
        sorted(
            {
                entry["manager"]
                for entry in entries
                if entry.get("manager") not in (None, FIELD_MANAGER) and "f:spec" in (entry.get("fieldsV1") or {})
            }
        )
    )
