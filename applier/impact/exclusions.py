"""Pure: what Kyverno's own settings keep it from being asked about, from its ConfigMap.

The rules are Kyverno 1.19.1's (pkg/config, ToFilter): `resourceFilters` and the webhooks' namespaceSelector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from applier.guards.own_writes import selects
from applier.impact.model import Resource
from renderer.manifest.jsontypes import Json, JsonObject

_FILTER: Final = re.compile(r"\[([^\][]*)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusions:
    """Filters of kind, namespace and name, each with * and ?, and which namespaces Kyverno is asked about."""

    filters: tuple[tuple[str, str, str], ...] = ()
    namespaces: Json = None

    @classmethod
    def of(cls, config_map: JsonObject) -> Exclusions:
        """Read Kyverno's ConfigMap; what can't be read excludes nothing."""
        data = config_map.get("data") or {}
        filters = []
        for entry in _FILTER.findall(str(data.get("resourceFilters") or "")):
            kind, namespace, name, *_ = [*(part.strip() for part in entry.split(",")), "", "", ""]
            # `group/version/Kind/subresource`; only whole resources are evaluated.
            if kind in ("*", "*/*") or "/" not in kind:
                filters.append(("*" if kind == "*/*" else kind, namespace or "*", name or "*"))
        return cls(filters=tuple(filters), namespaces=_selector(data.get("webhooks")))

    def leave_out(self, resource: Resource, labels: Mapping[str, str]) -> bool:
        """Whether Kyverno is not asked about that resource, in a namespace with these labels."""
        own = resource.name if resource.kind == "Namespace" else resource.namespace
        if any(
            fnmatchcase(resource.kind, kind)
            and (
                fnmatchcase(resource.namespace, namespace)
                or (resource.kind == "Namespace" and fnmatchcase(own, namespace))
            )
            and fnmatchcase(resource.name, name)
            for kind, namespace, name in self.filters
        ):
            return True
        return bool(own) and not selects(self.namespaces, labels, complete=True)

    def leave_out_kind(self, kind: str) -> bool:
        """Whether Kyverno is asked about nothing of that kind."""
        return any(fnmatchcase(kind, pattern) and namespace == name == "*" for pattern, namespace, name in self.filters)


def _selector(webhooks: Json) -> Json:
    """The namespaceSelector of the webhooks; they were a list of one before Kyverno 1.12."""
    try:
        found = json.loads(webhooks or "{}")
    except (TypeError, ValueError):
        return None
    first = found[0] if isinstance(found, list) and found else found
    return first.get("namespaceSelector") if isinstance(first, dict) else None
