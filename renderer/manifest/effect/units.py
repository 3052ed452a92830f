"""The parts of a policy that act on their own: each rule of a ClusterPolicy, or the policy as a whole.

Parts of two versions are then compared field by field (comparison.py). Rules are known by their names, image
checks by their place in the rule; settings at a deprecated place are moved to where the rules have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from renderer.manifest.effect import enforcement, fields
from renderer.manifest.effect.covering import items, mapping
from renderer.manifest.effect.enforcement import OFF, Enforcement
from renderer.manifest.effect.facets import Facet
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import POLICIES, Kind


class Act(Enum):
    """What a part does."""

    CHECK = "checks requests"
    MUTATE = "mutates"
    GENERATE = "generates"
    DELETE = "deletes"
    EXCEPT = "exempts resources from policies"
    FEED = "gives policies data"
    SETTINGS = "settings of all the rules"
    IMAGES = "verifies images, as part of a rule that checks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One part: `key` pairs it with the same part of another version, `subject` starts a sentence about it.

    `downstream` is True when to remove it deletes what it generated; `part_of` is the key of its rule.
    """

    key: tuple[str, int]
    act: Act
    subject: str
    path: str
    body: JsonObject
    facets: tuple[Facet, ...] = ()
    enforcement: Enforcement = OFF
    downstream: bool = False
    part_of: tuple[str, int] | None = None


def units(body: JsonObject | None, kind: Kind) -> list[Unit]:
    """List the parts of one version of a policy, none for None; raises UnreadableError as covering.py."""
    if body is None:
        return []
    spec = mapping(body.get("spec"))
    if kind.name in ("ClusterPolicy", "Policy"):
        return list(_kyverno_policy(spec, mapping(mapping(body.get("metadata")).get("annotations"))))
    act, facets, subject = _WHOLE[_table_name(kind)]
    decide = _ENFORCEMENT.get(_table_name(kind))
    return [
        Unit(
            key=("", 0),
            act=act,
            subject=subject,
            path="spec",
            body={key: part for key, part in spec.items() if not (decide and key == "validationActions")},
            facets=facets,
            enforcement=decide(spec) if decide else OFF,
            downstream=act is Act.GENERATE and _cel_downstream(spec),
        )
    ]


# --- kinds that act as a whole ---------------------------------------------------------------------

_THE_POLICY: Final = "the policy"
_WHOLE: Final[dict[str, tuple[Act, tuple[Facet, ...], str]]] = {
    "ValidatingPolicy": (Act.CHECK, fields.VALIDATING, _THE_POLICY),
    "ImageValidatingPolicy": (Act.CHECK, fields.IMAGE_VALIDATING, _THE_POLICY),
    "MutatingPolicy": (Act.MUTATE, fields.MUTATING, _THE_POLICY),
    "GeneratingPolicy": (Act.GENERATE, fields.GENERATING, _THE_POLICY),
    "DeletingPolicy": (Act.DELETE, fields.DELETING, _THE_POLICY),
    "CleanupPolicy": (Act.DELETE, fields.CLEANUP, _THE_POLICY),
    "PolicyException": (Act.EXCEPT, fields.LEGACY_EXCEPTION, "the exception"),
    f"PolicyException.{POLICIES}": (Act.EXCEPT, fields.EXCEPTION, "the exception"),
    "GlobalContextEntry": (Act.FEED, (), "the context entry"),
    "ValidatingAdmissionPolicy": (Act.CHECK, fields.ADMISSION_POLICY, _THE_POLICY),
    "ValidatingAdmissionPolicyBinding": (Act.CHECK, fields.BINDING, "the binding"),
    "MutatingAdmissionPolicy": (Act.MUTATE, fields.MUTATING_ADMISSION_POLICY, _THE_POLICY),
    "MutatingAdmissionPolicyBinding": (Act.MUTATE, fields.BINDING, "the binding"),
}
_ENFORCEMENT: Final[dict[str, Callable[[JsonObject], Enforcement]]] = {
    "ValidatingPolicy": enforcement.of_cel_policy,
    "ImageValidatingPolicy": enforcement.of_cel_policy,
    "ValidatingAdmissionPolicy": enforcement.of_admission_policy,
    "ValidatingAdmissionPolicyBinding": enforcement.of_binding,
}


def _table_name(kind: Kind) -> str:
    """Kinds that differ in scope only share a table; two groups have a PolicyException."""
    if kind.name == "PolicyException" and kind.group == POLICIES:
        return f"PolicyException.{POLICIES}"
    name = kind.name.removeprefix("Namespaced")
    return "CleanupPolicy" if name == "ClusterCleanupPolicy" else name


def _cel_downstream(spec: JsonObject) -> bool:
    """GeneratingPolicySpec: SynchronizationEnabled, OrphanDownstreamOnPolicyDeleteEnabled; off by default."""
    evaluation = mapping(spec.get("evaluation"))
    synchronize, orphan = (
        mapping(evaluation.get(key)).get("enabled") for key in ("synchronize", "orphanDownstreamOnPolicyDelete")
    )
    return bool(synchronize) and not orphan


# --- ClusterPolicy and Policy ----------------------------------------------------------------------

_OF_RULES: Final = frozenset(
    {
        "rules",
        "validationFailureAction",
        "validationFailureActionOverrides",
        "mutateExistingOnPolicyUpdate",
        "generateExisting",
    }
)
_MOVED: Final = {"failurePolicy": "failurePolicy", "webhookTimeoutSeconds": "timeoutSeconds"}
_AUTOGEN: Final = "pod-policies.kyverno.io/autogen-controllers"
_POD_CONTROLLERS: Final = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
]


def _kyverno_policy(spec: JsonObject, annotations: JsonObject) -> Iterator[Unit]:
    rules = [mapping(rule) for rule in items(spec.get("rules"))]
    settings = {key: part for key, part in spec.items() if key not in _OF_RULES and key not in _MOVED}
    webhook = {new: spec[old] for old, new in _MOVED.items() if spec.get(old) is not None}
    settings["webhookConfiguration"] = {**webhook, **mapping(spec.get("webhookConfiguration"))}
    settings["autogen"] = _controllers(annotations.get(_AUTOGEN))
    yield Unit(
        key=("", 0),
        act=Act.SETTINGS,
        subject=_THE_POLICY,
        path="spec",
        body=settings,
        facets=fields.KYVERNO_POLICY,
    )
    seen: dict[str, int] = {}
    for index, rule in enumerate(rules):
        name = str(rule.get("name", ""))
        seen[name] = seen.get(name, 0) + 1
        yield from _rule(rule, spec, (f"rule {quoted(name)}", seen[name]), f"spec.rules[{index}]")


def _controllers(annotation: Json) -> list[str]:
    """Read the pod controllers that rules on pods also hold for (autogen); all of them unless it says so."""
    if annotation in (None, "", "all"):
        return _POD_CONTROLLERS
    named = {part.strip() for part in str(annotation).split(",")} - {"none", ""}
    return sorted(named)


def _rule(rule: JsonObject, spec: JsonObject, key: tuple[str, int], path: str) -> Iterator[Unit]:
    subject = key[0]
    body = {field: part for field, part in rule.items() if field != "name"}
    if mapping(rule.get("mutate")):
        on_update = spec.get("mutateExistingOnPolicyUpdate") is True
        body["mutate"] = {"mutateExistingOnPolicyUpdate": on_update, **body["mutate"]}
        yield Unit(key=key, act=Act.MUTATE, subject=subject, path=path, body=body, facets=fields.MUTATE_RULE)
    elif generate := mapping(rule.get("generate")):
        body["generate"] = {"generateExisting": spec.get("generateExisting") is True, **generate}
        yield Unit(
            key=key,
            act=Act.GENERATE,
            subject=subject,
            path=path,
            body=body,
            facets=fields.GENERATE_RULE,
            downstream=bool(generate.get("synchronize")) and not generate.get("orphanDownstreamOnPolicyDelete"),
        )
    else:
        yield from _check(rule, spec, key, path)


def _check(rule: JsonObject, spec: JsonObject, key: tuple[str, int], path: str) -> Iterator[Unit]:
    """List the rule itself and each of its image checks; what its enforcement says already is left out."""
    decided = enforcement.of_rule(rule, spec)
    body = {field: part for field, part in rule.items() if field not in ("name", "verifyImages")}
    if "validate" in body:
        body["validate"] = _without_action(mapping(body["validate"]))
    yield Unit(
        key=key,
        act=Act.CHECK,
        subject=key[0],
        path=path,
        body=body,
        facets=fields.CHECK_RULE,
        enforcement=decided,
    )
    for index, entry in enumerate(items(rule.get("verifyImages"))):
        yield Unit(
            key=(f"{key[0]}, image check {index + 1}", key[1]),
            act=Act.IMAGES,
            subject=f"{key[0]}, image check {index + 1},",
            path=f"{path}.verifyImages[{index}]",
            body=_without_action(mapping(entry)),
            facets=fields.IMAGE_CHECK,
            enforcement=decided,
            part_of=key,
        )


def _without_action(body: JsonObject) -> JsonObject:
    return {
        field: part
        for field, part in body.items()
        if field not in ("failureAction", "failureActionOverrides", "assert")
    }


_PLAIN: Final = re.compile(r"[\w./:*, -]{1,80}")


def quoted(text: str) -> str:
    """Give a name for a sentence: as it is where it is plain, else quoted and cut, on one line."""
    return text if _PLAIN.fullmatch(text) else repr(text[:80])
