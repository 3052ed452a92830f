"""Pure: which resources a policy matches, so that only those are listed.

The rules are Kyverno 1.19.1's (ParseKindSelector, autogen) and those of admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from applier.guards.own_writes import items
from renderer.manifest.jsontypes import JsonObject

_VERSION: Final = re.compile(r"v\d((alpha|beta)\d)?|\*")
_AUTOGEN: Final = "pod-policies.kyverno.io/autogen-controllers"
#: For these Kyverno makes rules of its own from one for Pods.
_CONTROLLERS: Final = {
    "CronJob": ("batch", "cronjobs"),
    "DaemonSet": ("apps", "daemonsets"),
    "Deployment": ("apps", "deployments"),
    "Job": ("batch", "jobs"),
    "ReplicaSet": ("apps", "replicasets"),
    "ReplicationController": ("", "replicationcontrollers"),
    "StatefulSet": ("apps", "statefulsets"),
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Served:
    """A kind in one version, as a server serves it or a manifest names it.

    `preferred` says that the server prefers this version; what is not `listable` can't be asked for.
    """

    group: str
    version: str
    kind: str
    plural: str
    listable: bool = True
    preferred: bool = True

    @property
    def api_version(self) -> str:
        """As a manifest has it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As kubectl names it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @classmethod
    def of_manifest(cls, body: JsonObject) -> Served:
        """The kind of a manifest; its plural is guessed, as the kyverno CLI does."""
        group, _, version = str(body["apiVersion"]).rpartition("/")
        return cls(group=group, version=version, kind=body["kind"], plural=_plural(body["kind"]))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pattern:
    """What a policy matches; each part may hold * and ?, and * is anything."""

    group: str = "*"
    version: str = "*"
    kind: str = "*"
    plural: str = "*"

    def matches(self, served: Served) -> bool:
        """Whether it matches that kind in that version."""
        return (
            fnmatchcase(served.group, self.group)
            and fnmatchcase(served.version, self.version)
            and fnmatchcase(served.kind, self.kind)
            and fnmatchcase(served.plural, self.plural)
        )


def of_rule(rule: JsonObject, annotations: JsonObject) -> set[Pattern]:
    """What a rule of a ClusterPolicy or Policy matches; nothing of subresources."""
    selectors = [str(kind) for block in _filters(rule.get("match")) for kind in items(block.get("kinds"))]
    found = {pattern for selector in selectors if (pattern := _of_selector(selector)) is not None}
    wanted = str(annotations.get(_AUTOGEN, ""))
    if wanted.strip() != "none" and any(pattern.kind == "Pod" for pattern in found):
        found |= {Pattern(group=group, kind=kind) for kind, (group, _) in _CONTROLLERS.items()}
    return found


def operations_of_rule(rule: JsonObject) -> set[str]:
    """The operations to which a rule of a ClusterPolicy or Policy is restricted; none where one filter is not."""
    filters = _filters(rule.get("match"))
    if any(not block.get("operations") for block in filters):
        return set()
    return {str(operation) for block in filters for operation in items(block["operations"])}


def _filters(match: Any) -> list[JsonObject]:
    if not isinstance(match, dict):
        return []
    blocks = [match, *items(match.get("any")), *items(match.get("all"))]
    return [block["resources"] for block in blocks if isinstance(block, dict) and block.get("resources")]


def _of_selector(selector: str) -> Pattern | None:
    """Read `Kind`, `version/Kind` or `group/version/Kind`; None for a subresource of one."""
    *first, last = selector.split("/")
    parts = [*first, *last.split(".")]
    if parts == ["*", "*"]:
        return Pattern()
    if len(parts) == 1:
        return Pattern(kind=parts[0])
    if len(parts) == 2 and _VERSION.fullmatch(parts[0]) and not (parts[0] == "*" and parts[1].islower()):
        return Pattern(version=parts[0], kind=parts[1])
    if len(parts) == 3 and not _VERSION.fullmatch(parts[0]):
        return Pattern(group=parts[0], version=parts[1], kind=parts[2])
    return None


def of_constraints(constraints: Any, autogen: Any = None) -> set[Pattern]:
    """What matchConstraints match on creation; nothing of subresources. `autogen` is what a ValidatingPolicy has."""
    rules = [rule for rule in items((constraints or {}).get("resourceRules")) if creates(rule)]
    found = set(_of_resource_rules(rules))
    only_pods = {(pattern.group, pattern.plural) for pattern in found} == {("", "pods")}
    return found | set(_of_autogen(autogen)) if autogen is not None and only_pods else found


def both(constraints: JsonObject, others: JsonObject) -> JsonObject:
    """The matchConstraints that match what both do, the others having no resourceRules of their own."""
    found = dict(constraints)
    for key in ("namespaceSelector", "objectSelector"):
        selectors = [side[key] for side in (constraints, others) if side.get(key)]
        if selectors:
            found[key] = {"matchExpressions": [part for one in selectors for part in _expressions(one)]}
    excluded = [*items(constraints.get("excludeResourceRules")), *items(others.get("excludeResourceRules"))]
    return {**found, **({"excludeResourceRules": excluded} if excluded else {})}


def _expressions(selector: JsonObject) -> Iterator[JsonObject]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield {"key": key, "operator": "In", "values": [value]}
    yield from items(selector.get("matchExpressions"))


def creates(rule: Any) -> bool:
    """Whether a rule of matchConstraints sees creations."""
    return isinstance(rule, dict) and bool({"CREATE", "*"} & set(items(rule.get("operations"))))


def _of_resource_rules(rules: Iterable[JsonObject]) -> Iterator[Pattern]:
    for rule in rules:
        for resource in items(rule.get("resources")):
            plural = "*" if resource == "*/*" else str(resource)
            if "/" in plural:
                continue
            for group in items(rule.get("apiGroups")):
                for version in items(rule.get("apiVersions")):
                    yield Pattern(group=str(group), version=str(version), plural=plural)


def _of_autogen(autogen: Any) -> Iterator[Pattern]:
    """What `spec.autogen` adds; all that Kyverno knows where it says nothing."""
    controllers = ((autogen or {}).get("podControllers") or {}).get("controllers")
    known = {plural: group for group, plural in _CONTROLLERS.values()}
    for name in known if controllers is None else items(controllers):
        plural, _, rest = str(name).partition(".")
        version, _, group = rest.partition(".")
        if plural in known:
            yield Pattern(group=known[plural], plural=plural)
        elif group:
            yield Pattern(group=group, version=version, plural=plural)


def chosen(patterns: Iterable[Pattern], served: Iterable[Served]) -> set[Served]:
    """Each kind that matches, once: in the version that the server prefers, if that one matches."""
    patterns = list(patterns)
    found: dict[tuple[str, str], Served] = {}
    for one in served:
        if any(pattern.matches(one) for pattern in patterns) and (
            one.preferred or (one.group, one.plural) not in found
        ):
            found[one.group, one.plural] = one
    return set(found.values())


def _plural(kind: str) -> str:
    """What the kyverno CLI takes for the plural (meta.UnsafeGuessKindToResource)."""
    name = kind.lower()
    if name.endswith("endpoints"):
        return name
    if name.endswith("s"):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
