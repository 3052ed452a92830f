"""Pure: whether a policy may see what this program writes itself; most match Pods and the like, and may not.

It never says no where it cannot tell: whoever may see one of our writes is then evaluated on it. The rules are those of
admissionregistration.k8s.io/v1 (MatchResources) and Kyverno's (MatchResources of kyverno.io/v1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from renderer.manifest.jsontypes import Json, JsonObject

#: What the server sets on every namespace.
NAME_LABEL: Final = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnWrite:
    """An object that this program writes: where it is served, what is done to it, and as what it is written."""

    group: str
    plural: str
    operations: frozenset[str]
    body: JsonObject
    policy: bool = False

    @property
    def namespace(self) -> str:
        """Its namespace, "" where its kind has none."""
        return str(self.body["metadata"].get("namespace", ""))

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    def __str__(self) -> str:
        return "/".join(part for part in (self.body["kind"], self.namespace, self.name) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The labels of the namespaces that could be read; of the others only the name is known."""

    labels: Mapping[str, Mapping[str, str]]

    def may_match(self, selector: Json, namespace: str) -> bool:
        """Whether a namespaceSelector may select that namespace."""
        known = self.labels.get(namespace)
        return selects(selector, {**(known or {}), NAME_LABEL: namespace}, complete=known is not None)


def seen_operations(constraints: Json, write: OwnWrite, namespaces: Namespaces) -> frozenset[str]:
    """What of that write matchConstraints may match, by operation; a binding's matchResources may have no rules."""
    if not isinstance(constraints, dict):
        return write.operations
    # Only what is in a namespace can be left out by one.
    if write.namespace and not namespaces.may_match(constraints.get("namespaceSelector"), write.namespace):
        return frozenset()
    if not selects(constraints.get("objectSelector"), write.body["metadata"].get("labels") or {}, complete=True):
        return frozenset()
    rules = items(constraints.get("resourceRules"))
    seen = {op for rule in rules for op in _rule_operations(rule, write)} if rules else set(write.operations)
    for rule in items(constraints.get("excludeResourceRules")):
        if "*" in items(rule.get("apiVersions")):
            seen -= _rule_operations(rule, write)
    return frozenset(seen)


def _rule_operations(rule: Any, write: OwnWrite) -> set[str]:
    if not isinstance(rule, dict):
        return set(write.operations)
    names = items(rule.get("resourceNames"))
    resources = {part for part in items(rule.get("resources")) if part in ("*", "*/*", write.plural)}
    if not {"*", write.group} & set(items(rule.get("apiGroups"))) or not resources:
        return set()
    if (names and write.name not in names) or rule.get("scope") not in (None, "*", _scope(write)):
        return set()
    operations = set(items(rule.get("operations")))
    return set(write.operations) if "*" in operations else operations & write.operations


def _scope(write: OwnWrite) -> str:
    return "Namespaced" if write.namespace else "Cluster"


def rule_may_see(rule: JsonObject, write: OwnWrite, namespaces: Namespaces) -> bool:
    """Whether the match of one rule of a ClusterPolicy or Policy may match that write."""
    match = rule.get("match")
    if not isinstance(match, dict):
        return True
    filters = [match, *items(match.get("any")), *items(match.get("all"))]
    blocks = [block["resources"] for block in filters if isinstance(block, dict) and block.get("resources")]
    return not blocks or any(_resources_may_match(block, write, namespaces) for block in blocks)


def _resources_may_match(resources: Json, write: OwnWrite, namespaces: Namespaces) -> bool:
    if not isinstance(resources, dict):
        return True
    operations = set(items(resources.get("operations")))
    if operations and not operations & write.operations:
        return False
    kinds = items(resources.get("kinds"))
    if kinds and not any(_kind_may_match(str(kind), write) for kind in kinds):
        return False
    patterns = items(resources.get("namespaces"))
    if patterns and not any(fnmatchcase(write.namespace, str(pattern)) for pattern in patterns):
        return False
    selector = resources.get("namespaceSelector")
    # What is in no namespace has the labels of none.
    return namespaces.may_match(selector, write.namespace) if write.namespace else selects(selector, {}, complete=True)


def _kind_may_match(pattern: str, write: OwnWrite) -> bool:
    """`Kind`, `version/Kind`, `group/version/Kind`; each may hold wildcards, and be followed by a subresource."""
    return any(fnmatchcase(str(write.body["kind"]), part) for part in pattern.replace(".", "/").split("/"))


def selects(selector: Json, labels: Mapping[str, str], *, complete: bool) -> bool:
    """Whether a label selector may select these labels; where they are not `complete`, others may be there."""
    if not isinstance(selector, dict):
        return True
    for key, value in (selector.get("matchLabels") or {}).items():
        if (key in labels or complete) and labels.get(key) != value:
            return False
    return all(
        not (expression.get("key") in labels or complete) or _holds(expression, labels)
        for expression in items(selector.get("matchExpressions"))
    )


def _holds(expression: JsonObject, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(str(expression.get("key"))), items(expression.get("values"))
    answers = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return answers.get(str(expression.get("operator")), True)


#: An object that sets something else first; one that sets nothing is fine.
_NOT_METADATA: Final = re.compile(r"\bObject\s*\{(?!\s*(?:metadata\s*:|\}))")
_CONTENT: Final = re.compile(r"\b(?:spec|data|binaryData|immutable)\s*:")
_OPERATION: Final = re.compile(r"\bop[\"']?\s*:")
_PATH: Final = re.compile(r"\bpath[\"']?\s*:\s*[\"']?([^\s\"',}]*)")
_IN_METADATA: Final = re.compile(r"/metadata/(?:labels|annotations)\b")


def mutates_more_than_metadata(policy: JsonObject) -> bool:
    """Whether a mutating policy of any kind may change more of a request's object than its labels and annotations."""
    spec = policy.get("spec") or {}
    rules = (rule.get("mutate") for rule in items(spec.get("rules")) if isinstance(rule, dict))
    # With targets, it changes these, in the background.
    patches = [rule for rule in rules if rule and not rule.get("targets")]
    return any(_beyond_metadata(*part) for patch in [*patches, *items(spec.get("mutations"))] for part in patch.items())


def _beyond_metadata(how: str, what: Any) -> bool:
    if how == "patchStrategicMerge" and isinstance(what, dict):
        # Kyverno's anchors, such as +(metadata), say when to patch and not what.
        return any(key.strip("+<>()^=") != "metadata" for key in what)
    if how == "patchesJson6902":
        return not _only_metadata(str(what), len(_OPERATION.findall(str(what))))
    if how == "foreach":
        entries = [entry.items() if isinstance(entry, dict) else () for entry in items(what)]
        return any(_beyond_metadata(*part) for entry in entries for part in entry if part[0] in _PATCHES)
    expression = str(what.get("expression", "")) if isinstance(what, dict) else ""
    if how == "applyConfiguration":
        known = "Object" in expression and not _NOT_METADATA.search(expression)
        return not known or _CONTENT.search(expression) is not None
    if how == "jsonPatch":
        return not _only_metadata(expression, expression.count("JSONPatch{"))
    return how != "patchType"


_PATCHES: Final = ("patchStrategicMerge", "patchesJson6902", "foreach")


def _only_metadata(text: str, operations: int) -> bool:
    paths = _PATH.findall(text)
    return len(paths) == operations and all(map(_IN_METADATA.match, paths))


def items(value: Any) -> list[Any]:
    """The value if it is a list, else none."""
    return value if isinstance(value, list) else []
