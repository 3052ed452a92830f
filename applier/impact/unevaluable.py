"""Pure: what of a policy that checks can't be evaluated here, and why.

Whatever depends on more than the resource, as it is created, and its namespace: who sends the request, other objects of
the cluster, a registry, an update or a deletion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from applier.guards.own_writes import items
from applier.impact import patterns
from renderer.manifest.jsontypes import Json, JsonObject

#: Kinds of which nothing is evaluated.
OTHERS: Final = {
    "MutatingPolicy": "it mutates, and what it sets may satisfy other policies",
    "MutatingAdmissionPolicy": "it mutates, and what it sets may satisfy other policies",
    "GeneratingPolicy": "it generates, which blocks nothing",
    "DeletingPolicy": "it deletes, which blocks nothing",
    "CleanupPolicy": "it deletes, which blocks nothing",
    "ClusterCleanupPolicy": "it deletes, which blocks nothing",
    "ImageValidatingPolicy": "it verifies images, which only a registry can tell",
    "GlobalContextEntry": "it feeds policies that are not evaluated",
}
_NO_CHECKS: Final = {
    "mutate": "it mutates, and what it sets may satisfy other rules",
    "generate": "it generates, which blocks nothing",
    "verifyImages": "it verifies images, which only a registry can tell",
}
USER: Final = "it depends on who sends the request"
_CLUSTER: Final = "it reads other objects of the cluster"
_PARAMETERS: Final = "it reads its parameters from the cluster"
_REGISTRY: Final = "it asks an image registry"
_LATER: Final = "it acts on updates and deletions only"
_SUBRESOURCES: Final = "it matches subresources only"
UNREADABLE: Final = "a field has a type that the API does not know"
_BY_TEXT: Final = (
    (
        re.compile(
            r"\brequest\.(?:userInfo|roles|clusterRoles)\b|\bauthorizer\b|\bserviceAccountName(?:space)?\s*\}\}"
        ),
        USER,
    ),
    (re.compile(r"\b(?:resource|http|globalContext)\.(?:[Gg]et|[Ll]ist|[Pp]ost)\b"), _CLUSTER),
    (re.compile(r"\bimage\.[Gg]etMetadata\b|\bimageData\b"), _REGISTRY),
    (re.compile(r'"(?:paramKind|paramRef)":|\bparams\.'), _PARAMETERS),
)
_CONTEXTS: Final = {
    "apiCall": _CLUSTER,
    "configMap": _CLUSTER,
    "globalReference": _CLUSTER,
    "imageRegistry": _REGISTRY,
}


def rules(spec: JsonObject) -> list[JsonObject]:
    """The rules of a ClusterPolicy or Policy."""
    return [rule for rule in items(spec.get("rules")) if isinstance(rule, dict)]


def beyond_rules(spec: JsonObject) -> str:
    """Why nothing of a ClusterPolicy or Policy can be evaluated, "" when its rules may be."""
    conditions = (spec.get("webhookConfiguration") or {}).get("matchConditions")
    return "the match conditions of its webhook are evaluated by the API server only" if conditions else ""


def why_not(rule: JsonObject) -> str:
    """Why a rule of a ClusterPolicy or Policy can't be evaluated, "" when it can."""
    if reason := next((reason for key, reason in _NO_CHECKS.items() if rule.get(key)), ""):
        return reason
    validate = rule.get("validate")
    if not isinstance(validate, dict):
        return "it has no check"
    operations = patterns.operations_of_rule(rule)
    if operations and "CREATE" not in operations:
        return _LATER
    if not patterns.of_rule(rule, {}):
        return _SUBRESOURCES
    return next(_needs(rule, validate), "")


def _needs(rule: JsonObject, validate: JsonObject) -> Iterator[str]:
    """What of a check is not at hand."""
    if validate.get("manifests"):
        yield "it verifies signatures of manifests"
    if names_users(rule.get("match")) or names_users(rule.get("exclude")):
        yield USER
    yield from _of_contexts(rule)
    yield from _of_text(rule)


def why_not_in_cel(spec: JsonObject) -> str:
    """Why a policy in CEL can't be evaluated, "" when it can."""
    mode = (spec.get("evaluation") or {}).get("mode")
    if mode not in (None, "", "Kubernetes"):
        return "it checks no resources of Kubernetes"
    constraints = spec.get("matchConstraints") or {}
    if not any(map(patterns.creates, items(constraints.get("resourceRules")))):
        return _LATER
    if not patterns.of_constraints(constraints):
        return _SUBRESOURCES
    return next(_of_text({key: part for key, part in spec.items() if key != "matchConstraints"}), "")


def why_not_bound(binding: JsonObject) -> str:
    """Why the spec of a binding can't be taken into account, "" when it can."""
    if binding.get("paramRef"):
        return _PARAMETERS
    narrowed = binding.get("matchResources") or {}
    return "it chooses among the resources of its policy" if narrowed.get("resourceRules") else ""


def _of_text(value: Json) -> Iterator[str]:
    text = json.dumps(value)
    yield from (reason for pattern, reason in _BY_TEXT if pattern.search(text))


def _of_contexts(value: Json) -> Iterator[str]:
    """Why context entries, of the rule or of a loop in it, can't be had here."""
    if isinstance(value, dict):
        for entry in items(value.get("context")):
            yield from (_CONTEXTS[key] for key in entry if key in _CONTEXTS)
        for key, part in value.items():
            if key in ("validate", "foreach"):
                yield from _of_contexts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _of_contexts(part)


def names_users(match: Any) -> bool:
    """Whether a match or exclude block asks for who sends the request."""
    if not isinstance(match, dict):
        return False
    blocks: Iterable[Any] = (match, *items(match.get("any")), *items(match.get("all")))
    return any(
        isinstance(block, dict) and any(block.get(key) for key in ("subjects", "roles", "clusterRoles"))
        for block in blocks
    )
