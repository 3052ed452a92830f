"""Pure: from a desired policy and the live object to the RFC 6902 patch between them."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import jsonpatch
from jsonpointer import escape

from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content
from renderer.manifest.ownership import managed_keys

FIELD_MANAGER: Final = "insights-applier"

#: The API server takes 10,000 operations in one patch; some are left for the preconditions.
MOST_OPERATIONS: Final = 9_900

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
    """The operations that lead from one content to the other; none when they are equal.

    As few and as small as can be; where they would be more than the server takes, whole sections are replaced.
    """
    if _same(before, after):
        return ()
    operations = tuple(jsonpatch.make_patch(before, after).patch)
    return operations if len(operations) <= MOST_OPERATIONS else tuple(_by_section(before, after))


def _same(before: JsonObject, after: JsonObject) -> bool:
    # Nearly every policy of a plan is as it was, and this costs a third of what the patch would. To Python true, 1 and
    # 1.0 are equal; as JSON they are not.
    return before == after and json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)


def _by_section(before: JsonObject, after: JsonObject, path: str = "") -> Iterator[JsonObject]:
    for key in sorted(before.keys() | after.keys()):
        place = f"{path}/{escape(key)}"
        if key not in after:
            yield {"op": "remove", "path": place}
        elif key not in before:
            yield {"op": "add", "path": place, "value": after[key]}
        elif key == "metadata" and not path:
            # The live object has more in it than contents do.
            yield from _by_section(before[key], after[key], place)
        elif before[key] != after[key]:
            yield {"op": "replace", "path": place, "value": after[key]}


def pinned(live: JsonObject, operations: Sequence[JsonObject]) -> list[JsonObject]:
    """The operations, for this very object only (422 for another of the same name)."""
    return [{"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]}, *operations]


def guarded(live: JsonObject, operations: Sequence[JsonObject]) -> list[JsonObject]:
    """The operations, for this very object, unchanged since it was read (409)."""
    # A test would say "unprocessable" whatever is wrong; replacing a stale version is a clear conflict.
    version = live["metadata"]["resourceVersion"]
    return pinned(live, [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *operations])


def with_tests(live: JsonObject, operations: Sequence[JsonObject], kind: Kind) -> list[JsonObject]:
    """The operations with every precondition that a patch can carry, for whoever applies it outside of this program.

    For this very object only (where its UID is known), and only while each place that is replaced, removed or moved
    holds what it held: the server answers 422 otherwise. (RFC 6902 has no test for a place that must be empty.)
    """
    present = copy.deepcopy(content(live, kind))
    if 2 * len(operations) > MOST_OPERATIONS:
        operations = tuple(_by_section(present, jsonpatch.apply_patch(present, operations)))
    tested = pinned(live, ()) if "uid" in live["metadata"] else []
    for operation in operations:
        place = operation["from" if operation["op"] == "move" else "path"]
        if operation["op"] in ("replace", "remove", "move"):
            held = copy.deepcopy(jsonpatch.JsonPointer(place).resolve(present))
            tested.append({"op": "test", "path": place, "value": held})
        tested.append(operation)
        # The next operation is about what this one left; what it puts there must not change with it.
        following = [copy.deepcopy(operation)]
        present = jsonpatch.apply_patch(present, following, in_place=True)  # pragma: no mutate (a copy is only slower)
    return tested


def managed(body: JsonObject, keys: Mapping[str, Collection[str]], kind: Kind) -> JsonObject:
    """What of an object is Insights' business: all but its metadata, and of its labels and annotations these keys.

    Its apiVersion is the server's: the same object stored in another version is the same policy.
    """
    whole = content(body, kind)
    metadata = {
        section: {key: value for key, value in whole["metadata"].get(section, {}).items() if key in keys[section]}
        for section in _SECTIONS
    }
    return {**{key: value for key, value in whole.items() if key != "apiVersion"}, "metadata": metadata}


def keys_in_question(*bodies: JsonObject | None) -> Mapping[str, Collection[str]]:
    """The labels and annotations that Insights set on any of these states of one object."""
    return {
        section: frozenset().union(*(managed_keys(body, section) for body in bodies if body)) for section in _SECTIONS
    }


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
