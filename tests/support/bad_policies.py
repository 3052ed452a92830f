"""One good policy of each kind, and mistakes to make in it: each is refused, by a layer that is known.

No mistakes to Kyverno 1.19, and so none here: no rules at all, an empty foreach, context variables in a circle, a bad
regular expression in JMESPath, no validations or mutations at all, a bad selector in matchConstraints. Bad schedules
of clean-up policies are found by a webhook of the clean-up controller, which is not part of the test bed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from applier.verdict import Layer
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.policyset import PolicySet
from tests.support.policies import desired

NAMESPACE: Final = "default"
#: In the place of a value: there is none.
ABSENT: Final = object()

_PODS: Final = {"any": [{"resources": {"kinds": ["Pod"]}}]}
_ON_PODS: Final = {
    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
}
_PATTERN: Final = {"message": "Set the label team.", "pattern": {"metadata": {"labels": {"team": "?*"}}}}
_RULE: Final = {"name": "team", "match": _PODS, "validate": _PATTERN}
_LABELLED: Final = "has(object.metadata.labels)"
_CONDITIONS: Final = [{"name": "labelled", "expression": _LABELLED}]
_VALIDATE: Final = {
    "validationActions": ["Audit"],
    "matchConstraints": _ON_PODS,
    "validations": [{"expression": _LABELLED, "message": "It needs labels."}],
}
_MUTATE: Final = {
    "matchConstraints": _ON_PODS,
    "mutations": [
        {
            "patchType": "ApplyConfiguration",
            "applyConfiguration": {
                "expression": 'Object{metadata: Object.metadata{labels: Object.metadata.labels{a: "b"}}}'
            },
        }
    ],
}
_GENERATE: Final = {
    "matchConstraints": _ON_PODS,
    "variables": [{"name": "made", "expression": '[{"apiVersion": dyn("v1"), "kind": dyn("ConfigMap")}][0]'}],
    "generate": [{"expression": "generator.Apply(object.metadata.name, [variables.made])"}],
}
_GENERATE_HERE: Final = {
    **_GENERATE,
    "variables": [{"name": "made", "expression": '[{"apiVersion": dyn("v1"), "kind": dyn("ConfigMap")}]'}],
    "generate": [{"expression": "generator.apply(variables.made)"}],
}
_DELETE: Final = {"matchConstraints": _ON_PODS, "schedule": "*/5 * * * *", "conditions": _CONDITIONS}
_IMAGES: Final = {
    "matchConstraints": _ON_PODS,
    "matchImageReferences": [{"glob": "ghcr.io/*"}],
    "attestors": [{"name": "notary", "notary": {"certs": {"value": "x"}}}],
    "validations": [
        {"expression": "images.containers.map(i, verifyImageSignatures(i, [attestors.notary])).all(e, e > 0)"}
    ],
}
_CLEANUP: Final = {"schedule": "*/5 * * * *", "match": _PODS}
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
_CEL: Final = "policies.kyverno.io/v1"

#: The good ones, by a name for their kind: its apiVersion and its spec.
GOOD: Final[Mapping[str, tuple[str, JsonObject]]] = {
    "ClusterPolicy": ("kyverno.io/v1", {"rules": [_RULE]}),
    "Policy": ("kyverno.io/v1", {"rules": [_RULE]}),
    "ClusterCleanupPolicy": ("kyverno.io/v2", _CLEANUP),
    "CleanupPolicy": ("kyverno.io/v2", _CLEANUP),
    "PolicyException": (
        "kyverno.io/v2",
        {"match": _PODS, "exceptions": [{"policyName": "other", "ruleNames": ["team"]}]},
    ),
    "GlobalContextEntry": ("kyverno.io/v2", {"kubernetesResource": {"version": "v1", "resource": "namespaces"}}),
    "ValidatingPolicy": (_CEL, _VALIDATE),
    "NamespacedValidatingPolicy": (_CEL, _VALIDATE),
    "MutatingPolicy": (_CEL, _MUTATE),
    "NamespacedMutatingPolicy": (_CEL, _MUTATE),
    "GeneratingPolicy": (_CEL, _GENERATE),
    "NamespacedGeneratingPolicy": (_CEL, _GENERATE_HERE),
    "DeletingPolicy": (_CEL, _DELETE),
    "NamespacedDeletingPolicy": (_CEL, _DELETE),
    "ImageValidatingPolicy": (_CEL, _IMAGES),
    "NamespacedImageValidatingPolicy": (_CEL, _IMAGES),
    "CEL PolicyException": (_CEL, {"policyRefs": [{"name": "other", "kind": "ValidatingPolicy"}]}),
    "ValidatingAdmissionPolicy": (_ADMISSION, {"matchConstraints": _ON_PODS, "validations": [{"expression": "true"}]}),
    "ValidatingAdmissionPolicyBinding": (_ADMISSION, {"policyName": "other", "validationActions": ["Warn"]}),
    "MutatingAdmissionPolicy": (
        _ADMISSION,
        {**_MUTATE, "reinvocationPolicy": "Never"},
    ),
    "MutatingAdmissionPolicyBinding": (_ADMISSION, {"policyName": "other"}),
}
_NAMESPACED: Final = frozenset(
    {"Policy", "CleanupPolicy", "PolicyException", "CEL PolicyException"}
    | {kind for kind in GOOD if kind.startswith("Namespaced")}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A mistake in an otherwise good policy of that kind, and the first layer that finds it."""

    mistake: str
    kind: str
    layer: Layer
    changes: tuple[tuple[tuple[str | int, ...], Any], ...]

    @property
    def name(self) -> str:
        """The policy's own name, which says what is wrong with it."""
        return f"{self.kind}-{self.mistake}".lower().replace(" ", "-")

    @property
    def body(self) -> JsonObject:
        """The policy with its mistake."""
        body = good(self.kind, self.name)
        for path, value in self.changes:
            _set(body, path, value)
        return body

    @property
    def policy(self) -> Policy:
        """The same as the renderer reads it."""
        (policy,) = desired(self.body)
        return policy


def good(kind: str, name: str) -> JsonObject:
    """The good policy of that kind, under that name."""
    api_version, spec = GOOD[kind]
    metadata = {"name": name, **({"namespace": NAMESPACE} if kind in _NAMESPACED else {})}
    body = {"apiVersion": api_version, "kind": kind.removeprefix("CEL "), "metadata": metadata, "spec": spec}
    return copy.deepcopy(body)


def all_bad() -> PolicySet:
    """Every bad policy, as one answer of Insights."""
    return desired(*(case.body for case in BAD))


def _set(body: Json, path: tuple[str | int, ...], value: Any) -> None:
    *parents, last = path
    for part in parents:
        body = body[part]
    if value is ABSENT:
        del body[last]
    else:
        body[last] = value


def _bad(layer: Layer, kind: str, mistake: str, *changes: Any) -> Bad:
    """`changes` are paths below spec (dots between, numbers are items), each followed by its value."""
    pairs = zip(changes[::2], changes[1::2], strict=True)
    return Bad(
        mistake=mistake,
        kind=kind,
        layer=layer,
        changes=tuple(
            (("spec", *(int(part) if part.isdigit() else part for part in path.split("."))), value)
            for path, value in pairs
        ),
    )


def _deny(key: str, operator: str = "Equals", value: Json = "x") -> JsonObject:
    return {"message": "m", "deny": {"conditions": {"any": [{"key": key, "operator": operator, "value": value}]}}}


def _generate(**fields: Any) -> JsonObject:
    target = {"apiVersion": "v1", "kind": "ConfigMap", "name": "made", "namespace": "default", "data": {"data": {}}}
    return {"name": "team", "match": _PODS, "generate": target | fields}


_SYNTAX: Final = "object.metadata.labels ==="
_TYPES: Final = "1 + 'a' == 2"
_UNDECLARED: Final = "nothing.here == 1"
_SCHEMA, _CLI, _SERVER = Layer.SCHEMA, Layer.CLI, Layer.SERVER

BAD: Final = (
    # What the schemas of the cluster know: fields, types, values, what is needed and what excludes what.
    _bad(_SCHEMA, "ClusterPolicy", "unknown field", "rulez", []),
    _bad(_SCHEMA, "ClusterPolicy", "unknown field in a rule", "rules.0.validates", _PATTERN),
    _bad(_SCHEMA, "ClusterPolicy", "text for a boolean", "background", "maybe"),
    _bad(_SCHEMA, "ClusterPolicy", "text for a list of rules", "rules", "none"),
    _bad(_SCHEMA, "ClusterPolicy", "unknown failure action", "validationFailureAction", "Sometimes"),
    _bad(_SCHEMA, "Policy", "unknown field", "nope", 1),
    _bad(_SCHEMA, "ClusterCleanupPolicy", "no schedule", "schedule", ABSENT),
    _bad(_SCHEMA, "CleanupPolicy", "a list for a match", "match", []),
    _bad(_SCHEMA, "PolicyException", "no exceptions", "exceptions", ABSENT),
    _bad(_SCHEMA, "PolicyException", "unknown field", "nope", 1),
    _bad(_SCHEMA, "GlobalContextEntry", "unknown field", "nope", 1),
    _bad(_SCHEMA, "GlobalContextEntry", "number for a text", "kubernetesResource.version", 1),
    _bad(_SCHEMA, "ValidatingPolicy", "unknown field", "validationz", []),
    _bad(_SCHEMA, "ValidatingPolicy", "unknown action", "validationActions", ["Explode"]),
    _bad(_SCHEMA, "ValidatingPolicy", "text for match conditions", "matchConditions", "no"),
    _bad(_SCHEMA, "ValidatingPolicy", "validation without an expression", "validations.0", {"message": "m"}),
    _bad(_SCHEMA, "NamespacedValidatingPolicy", "unknown field", "nope", 1),
    _bad(_SCHEMA, "NamespacedMutatingPolicy", "unknown field", "nope", 1),
    _bad(_SCHEMA, "GeneratingPolicy", "unknown field", "nope", 1),
    _bad(_SCHEMA, "NamespacedGeneratingPolicy", "text for a list", "generate", "all"),
    _bad(_SCHEMA, "DeletingPolicy", "no schedule", "schedule", ABSENT),
    _bad(_SCHEMA, "NamespacedDeletingPolicy", "unknown propagation", "deletionPropagationPolicy", "Sideways"),
    _bad(_SCHEMA, "ImageValidatingPolicy", "no attestors", "attestors", ABSENT),
    _bad(_SCHEMA, "NamespacedImageValidatingPolicy", "unknown field", "nope", 1),
    _bad(_SCHEMA, "CEL PolicyException", "no policies", "policyRefs", ABSENT),
    _bad(_SCHEMA, "ValidatingAdmissionPolicy", "unknown field", "nope", 1),
    _bad(_SCHEMA, "ValidatingAdmissionPolicyBinding", "unknown field", "nope", 1),
    _bad(_SCHEMA, "MutatingAdmissionPolicy", "number for a text", "reinvocationPolicy", 1),
    _bad(_SCHEMA, "ClusterPolicy", "rule without a match", "rules.0.match", ABSENT),
    _bad(_SCHEMA, "ClusterPolicy", "long rule name", "rules.0.name", "x" * 64),
    _bad(
        _SCHEMA,
        "GlobalContextEntry",
        "bad interval",
        "kubernetesResource",
        ABSENT,
        "apiCall",
        {"urlPath": "/api", "refreshInterval": "often"},
    ),
    _bad(_SCHEMA, "GlobalContextEntry", "no source", "kubernetesResource", ABSENT),
    _bad(_SCHEMA, "ClusterPolicy", "empty rule", "rules.0", {}),
    _bad(
        _SCHEMA,
        "ClusterPolicy",
        "context with two sources",
        "rules.0.context",
        [{"name": "one", "variable": {"value": "a"}, "configMap": {"name": "a", "namespace": "b"}}],
    ),
    _bad(_SCHEMA, "ClusterPolicy", "context without a source", "rules.0.context", [{"name": "one"}]),
    _bad(_SCHEMA, "ClusterPolicy", "unknown operation", "rules.0.match.any.0.resources.operations", ["JUMP"]),
    _bad(_SCHEMA, "ClusterPolicy", "match any and all", "rules.0.match", {"any": _PODS["any"], "all": _PODS["any"]}),
    _bad(
        _SCHEMA,
        "ValidatingPolicy",
        "same variable twice",
        "variables",
        [{"name": "one", "expression": "1"}, {"name": "one", "expression": "2"}],
    ),
    _bad(_SCHEMA, "MutatingPolicy", "text for constraints", "matchConstraints", "pods"),
    _bad(_SCHEMA, "GeneratingPolicy", "nothing to generate", "generate", []),
    _bad(_SCHEMA, "DeletingPolicy", "list for a schedule", "schedule", ["daily"]),
    _bad(_SCHEMA, "ValidatingAdmissionPolicyBinding", "unknown action", "validationActions", ["Explode"]),
    _bad(_SCHEMA, "GlobalContextEntry", "two sources", "apiCall", {"urlPath": "/api", "refreshInterval": "10m"}),
    # What Kyverno's own code checks in its command line too: variables, rule types, CEL.
    _bad(_CLI, "ClusterPolicy", "unknown operator", "rules.0.validate", _deny("a", "Resembles")),
    _bad(_CLI, "ClusterPolicy", "undefined variable", "rules.0.validate", _deny("{{ nope }}")),
    _bad(_CLI, "ClusterPolicy", "bad jmespath", "rules.0.validate", _deny("{{ request.object.[ }}")),
    _bad(_CLI, "ClusterPolicy", "duplicate rule names", "rules", [_RULE, _RULE]),
    _bad(_CLI, "ClusterPolicy", "two rule types in one", "rules.0.mutate", {"patchStrategicMerge": {"metadata": {}}}),
    _bad(_CLI, "ClusterPolicy", "rule without a type", "rules.0.validate", ABSENT),
    _bad(
        _CLI, "ClusterPolicy", "background and the user", "rules.0.validate", _deny("{{ request.userInfo.username }}")
    ),
    _bad(
        _CLI,
        "ClusterPolicy",
        "bad label selector",
        "rules.0.match.any.0.resources.selector",
        {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]},
    ),
    _bad(_CLI, "ClusterPolicy", "pattern beside any pattern", "rules.0.validate.anyPattern", [{"metadata": {}}]),
    _bad(_CLI, "ClusterPolicy", "bad anchor", "rules.0.validate.pattern", {"metadata": {"+(labels)": {"a": "b"}}}),
    _bad(
        _CLI,
        "ClusterPolicy",
        "bad json patch",
        "rules.0",
        {"name": "team", "match": _PODS, "mutate": {"patchesJson6902": "- op: jump\n  path: /a"}},
    ),
    _bad(
        _CLI,
        "ClusterPolicy",
        "image rule without a reference",
        "rules.0",
        {
            "name": "team",
            "match": _PODS,
            "verifyImages": [{"attestors": [{"entries": [{"keys": {"publicKeys": "k"}}]}]}],
        },
    ),
    _bad(_CLI, "Policy", "generates elsewhere", "rules.0", _generate(namespace="kube-system")),
    _bad(_CLI, "ClusterPolicy", "empty match", "rules.0.match", {"any": []}),
    _bad(
        _CLI,
        "ClusterPolicy",
        "bad image reference",
        "rules.0",
        {
            "name": "team",
            "match": _PODS,
            "verifyImages": [{"imageReferences": [], "attestors": [{"entries": [{"keys": {"publicKeys": "k"}}]}]}],
        },
    ),
    _bad(_CLI, "ClusterPolicy", "wildcard kind with a pattern", "rules.0.match.any.0.resources.kinds", ["*"]),
    _bad(_CLI, "ClusterPolicy", "bad subject", "rules.0.match.any.0.subjects", [{"kind": "Robot", "name": "r"}]),
    _bad(
        _CLI,
        "ValidatingPolicy",
        "cyclic variables",
        "variables",
        [{"name": "one", "expression": "variables.two"}, {"name": "two", "expression": "variables.one"}],
    ),
    _bad(
        _CLI,
        "MutatingPolicy",
        "bad json patch",
        "mutations",
        [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 1}]"}}],
    ),
    _bad(_CLI, "ValidatingPolicy", "bad cel", "validations.0.expression", _SYNTAX),
    _bad(_CLI, "ValidatingPolicy", "cel of wrong types", "validations.0.expression", _TYPES),
    _bad(_CLI, "ValidatingPolicy", "undeclared name", "validations.0.expression", _UNDECLARED),
    _bad(_CLI, "ValidatingPolicy", "undefined variable", "validations.0.expression", "variables.nope == 1"),
    _bad(_CLI, "ValidatingPolicy", "bad match condition", "matchConditions", [{"name": "c", "expression": _SYNTAX}]),
    _bad(
        _CLI,
        "ValidatingPolicy",
        "variables in the wrong order",
        "variables",
        [
            {"name": "one", "expression": "variables.two"},
            {"name": "two", "expression": "1"},
        ],
    ),
    _bad(_CLI, "ValidatingPolicy", "message that is no text", "validations.0.messageExpression", "1 + 1"),
    _bad(_CLI, "NamespacedValidatingPolicy", "bad cel", "validations.0.expression", _SYNTAX),
    _bad(_CLI, "MutatingPolicy", "bad cel", "mutations.0.applyConfiguration.expression", "Object{"),
    _bad(_CLI, "NamespacedMutatingPolicy", "bad cel", "mutations.0.applyConfiguration.expression", "Object{"),
    _bad(_CLI, "GeneratingPolicy", "bad cel", "variables.0.expression", "nothing("),
    _bad(_CLI, "NamespacedGeneratingPolicy", "bad cel", "variables.0.expression", "nothing("),
    _bad(_CLI, "DeletingPolicy", "bad cel", "conditions.0.expression", _SYNTAX),
    _bad(_CLI, "NamespacedDeletingPolicy", "cel of wrong types", "conditions.0.expression", _TYPES),
    _bad(_CLI, "ImageValidatingPolicy", "bad cel", "validations.0.expression", _SYNTAX),
    _bad(_CLI, "NamespacedImageValidatingPolicy", "cel of wrong types", "validations.0.expression", _TYPES),
    _bad(_CLI, "ValidatingAdmissionPolicy", "bad cel", "validations.0.expression", _SYNTAX),
    _bad(_CLI, "ValidatingAdmissionPolicy", "bad regex", "validations.0.expression", "'a'.matches('(')"),
    _bad(_CLI, "ValidatingPolicy", "bad regex", "validations.0.expression", "'a'.matches('(')"),
    _bad(_CLI, "ImageValidatingPolicy", "bad image reference", "matchImageReferences", [{"expression": _SYNTAX}]),
    # What only the server knows, or kinds that the command line does not.
    _bad(_SERVER, "MutatingAdmissionPolicyBinding", "list for a name", "policyName", []),
    _bad(
        _SERVER, "Policy", "matches cluster-wide kinds", "rules.0.match", {"any": [{"resources": {"kinds": ["Node"]}}]}
    ),
    _bad(
        _SERVER, "ClusterPolicy", "clones what is not there", "rules.0", _generate(kind="Gadget", apiVersion="x.io/v1")
    ),
    _bad(
        _SERVER,
        "PolicyException",
        "background and the user",
        "match",
        {"any": [{"resources": {"kinds": ["Pod"]}, "subjects": [{"kind": "User", "name": "u"}]}]},
    ),
    _bad(_SERVER, "CEL PolicyException", "bad cel", "matchConditions", [{"name": "c", "expression": _SYNTAX}]),
    _bad(_SERVER, "CEL PolicyException", "empty policies", "policyRefs", []),
    _bad(_SERVER, "ValidatingAdmissionPolicy", "no validations", "validations", []),
    _bad(
        _SERVER,
        "ValidatingAdmissionPolicy",
        "cyclic variables",
        "variables",
        [{"name": "one", "expression": "variables.two"}, {"name": "two", "expression": "variables.one"}],
    ),
    _bad(
        _SERVER,
        "MutatingAdmissionPolicyBinding",
        "bad selector",
        "matchResources",
        {"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}},
    ),
    _bad(_SERVER, "MutatingAdmissionPolicy", "bad cel", "mutations.0.applyConfiguration.expression", "Object{"),
    _bad(_SERVER, "ValidatingPolicy", "matches nothing", "matchConstraints", {"resourceRules": []}),
    _bad(_SERVER, "DeletingPolicy", "bad cron", "schedule", "at noon"),
    _bad(
        _SERVER,
        "ValidatingAdmissionPolicy",
        "bad label selector",
        "matchConstraints.namespaceSelector",
        {"matchLabels": {"a b": "c d"}},
    ),
    _bad(_SERVER, "ValidatingAdmissionPolicyBinding", "deny and warn", "validationActions", ["Deny", "Warn"]),
    _bad(_SERVER, "MutatingAdmissionPolicyBinding", "no policy", "policyName", ""),
)
