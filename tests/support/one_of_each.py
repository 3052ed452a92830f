"""One small policy of every managed kind: of the baseline where it has one, else made of its nearest relative."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from renderer.render import Source, render
from tests.support.policies import identity_of, namespaced_policy

_SOURCES: Final = Path(__file__).parents[2] / "policies" / "sources"
#: Where those that live in one do; of the baseline's namespaces, only `default` is there in every cluster.
_NAMESPACE: Final = "default"
_CLEAN_UP: Final[JsonObject] = {
    "apiVersion": "kyverno.io/v2",
    "kind": "ClusterCleanupPolicy",
    "metadata": {"name": "finished"},
    "spec": {"match": {"any": [{"resources": {"kinds": ["ConfigMap"]}}]}, "schedule": "0 3 * * *"},
}


def one_of_each() -> list[JsonObject]:
    """The policies, without Insights' own annotations, in the order of KINDS; no two have the same identity."""
    found: dict[str, JsonObject] = {}
    sources = [Source(name=path.name, data=path.read_bytes()) for path in sorted(_SOURCES.rglob("*.yaml"))]
    for policy in render(sources):
        found.setdefault(policy.identity.kind.resource, {**policy.body, "apiVersion": policy.api_version})
    for body in (namespaced_policy("one"), _CLEAN_UP, {**_CLEAN_UP, "kind": "CleanupPolicy"}):
        found.setdefault(identity_of(_placed(body)).kind.resource, body)
    for kind in KINDS:
        relative = f"{kind.plural.removeprefix('namespaced')}.{kind.group}"
        found.setdefault(kind.resource, {**found[relative], "kind": kind.name})
    return [_placed(found[kind.resource]) for kind in KINDS]


def _placed(body: JsonObject) -> JsonObject:
    kind = str(body["kind"])
    namespaced = kind.startswith("Namespaced") or kind in {"Policy", "CleanupPolicy", "PolicyException"}
    metadata: dict[str, Any] = {"name": body["metadata"]["name"]}
    return {**body, "metadata": metadata | ({"namespace": _NAMESPACE} if namespaced else {})}
