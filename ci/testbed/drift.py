"""Changes one leaf of a live policy, as a person with kubectl would: for demos and tests of drift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from applier.cluster.connection import JSON_PATCH, Connection
from applier.ports import ServerRefused
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.normalize import content

#: The field manager of the hand that does it.
HAND: Final = "kubectl-edit"


def change_a_leaf(connection: Connection, identity: Identity, live: JsonObject) -> str:
    """Change the first leaf of the spec that the server lets be changed, and give its path ("" when there is none)."""
    path = f"/apis/{live['apiVersion']}"
    if identity.namespace:
        path += f"/namespaces/{quote(identity.namespace)}"
    path += f"/{identity.kind.plural}/{quote(identity.name)}"
    for pointer, value in _leaves(live["spec"], "/spec"):
        for other in _others(value):
            operations = [{"op": "replace", "path": pointer, "value": other}]
            try:
                would_be = _patch(connection, path, operations, dryRun="All")
                if content(would_be, identity.kind) == content(live, identity.kind):
                    continue
                _patch(connection, path, operations)
            except ServerRefused:
                continue
            return pointer
    return ""


def _patch(connection: Connection, path: str, operations: Json, **query: Any) -> JsonObject:
    options = {"fieldManager": HAND, "fieldValidation": "Strict", **query}
    answer: JsonObject = connection.send("PATCH", path, options, operations, content_type=JSON_PATCH)
    return answer


def _leaves(value: Json, pointer: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{pointer}/{index}")
    else:
        yield pointer, value


def _others(value: Json) -> Iterator[Json]:
    """Values that are not this one, and that a field of its type may take."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, str):
        yield from (word for word in ("Audit", "Ignore", "Warn") if word != value)
        yield f"{value}-by-hand"
