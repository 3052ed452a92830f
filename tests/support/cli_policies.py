"""Policies by what the kyverno CLI makes of them: good, bad, not seen, not judged; and programs in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from renderer.manifest import kinds
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity

Spec = dict[str, Any]


def policy(kind: str, name: str, spec: Spec, *, version: str = "", namespace: str = "") -> Policy:
    api_version = version or ("kyverno.io/v1" if kind in {"ClusterPolicy", "Policy"} else "policies.kyverno.io/v1")
    found = kinds.find(api_version.rpartition("/")[0], kind)
    assert found is not None
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
    return Policy(identity=Identity(kind=found, namespace=namespace, name=name), body=body)


PODS: Final = {"any": [{"resources": {"kinds": ["Pod"]}}]}
PATTERN: Final = {"message": "m", "pattern": {"metadata": {"labels": {"team": "?*"}}}}
ON_PODS: Final = {
    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]
}
KYVERNO_V2: Final = "kyverno.io/v2"
BUILT_IN: Final = "admissionregistration.k8s.io/v1"
SYNTAX: Final = "object.metadata.labels.foo ==="
TYPES: Final = "1 + 'a' == 2"


def rule(**fields: Any) -> Spec:
    return {"name": "r", "match": PODS, "validate": PATTERN, **fields}


def deny(condition: Spec) -> Spec:
    return rule(validate={"message": "m", "deny": {"conditions": {"any": [condition]}}})


def legacy(name: str, *rules: Spec, **fields: Any) -> Policy:
    return policy("ClusterPolicy", name, {"rules": list(rules), **fields})


def validating(name: str, expression: str, **fields: Any) -> Policy:
    spec = {
        "matchConstraints": ON_PODS,
        "validations": [{"expression": expression, "message": "m"}],
        **fields,
    }
    return policy("ValidatingPolicy", name, spec)


def mutation(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    }


def generation(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "variables": [{"name": "made", "expression": expression}],
        "generate": [{"expression": "generator.Apply(object.metadata.name, [variables.made])"}],
    }


def deletion(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "schedule": "*/5 * * * *",
        "conditions": [{"name": "c", "expression": expression}],
    }


def image_check(expression: str) -> Spec:
    return {
        "matchConstraints": ON_PODS,
        "matchImageReferences": [{"glob": "ghcr.io/*"}],
        "attestors": [{"name": "n", "notary": {"certs": {"value": "x"}}}],
        "validations": [{"expression": expression, "message": "m"}],
    }


def built_in(name: str, *expressions: str, **fields: Any) -> Policy:
    spec = {
        "matchConstraints": ON_PODS,
        "validations": [{"expression": each} for each in expressions],
        **fields,
    }
    return policy("ValidatingAdmissionPolicy", name, spec, version=BUILT_IN)


CLEANUP: Final = {"schedule": "*/5 * * * *", "match": PODS}
LABELLED: Final = "has(object.metadata.labels)"
MADE: Final = '[{"apiVersion": dyn("v1"), "kind": dyn("ConfigMap")}][0]'
PATCH: Final = 'Object{metadata: Object.metadata{labels: Object.metadata.labels{a: "b"}}}'
SIGNED: Final = "images.containers.map(i, verifyImageSignatures(i, [attestors.n])).all(e, e > 0)"

GOOD: Final = (
    legacy("pattern", rule()),
    legacy("umlaut", rule(validate=PATTERN | {"message": 'Grüße \U0001f600 \x85\x7f\u2028 "\\ \t'})),
    policy("Policy", "pattern", {"rules": [rule()]}, namespace="team-a"),
    policy("Policy", "pattern", {"rules": [rule()]}, namespace="team-b"),
    # Each of these fails on the probe that the CLI is given, which is what they are for.
    legacy("every-kind", rule(match={"any": [{"resources": {"kinds": ["Lease"]}}]})),
    policy("ClusterCleanupPolicy", "leases", CLEANUP, version=KYVERNO_V2),
    policy("CleanupPolicy", "pods", CLEANUP, version=KYVERNO_V2, namespace="team-a"),
    policy(
        "PolicyException",
        "except",
        {"exceptions": [{"policyName": "pattern", "ruleNames": ["r"]}], "match": PODS},
        version=KYVERNO_V2,
        namespace="team-a",
    ),
    validating("pattern", LABELLED),
    validating("in-json", "object.a == 'b'", evaluation={"mode": "JSON"}),
    policy("NamespacedValidatingPolicy", "pattern", validating("x", LABELLED).body["spec"], namespace="team-a"),
    policy("MutatingPolicy", "labels", mutation(PATCH)),
    policy("NamespacedMutatingPolicy", "labels", mutation(PATCH), namespace="team-a"),
    policy("GeneratingPolicy", "maps", generation(MADE)),
    policy("DeletingPolicy", "old", deletion(LABELLED)),
    policy("NamespacedDeletingPolicy", "old", deletion(LABELLED), namespace="team-a"),
    policy("ImageValidatingPolicy", "signed", image_check(SIGNED)),
    policy(
        "ImageValidatingPolicy",
        "signed-sometimes",
        image_check(SIGNED)
        | {
            "failurePolicy": "Ignore",
            "matchConditions": [{"name": "never", "expression": "has(object.metadata.deletionTimestamp)"}],
            "evaluation": {"background": {"enabled": False}},
        },
    ),
    policy("NamespacedImageValidatingPolicy", "signed", image_check(SIGNED), namespace="team-a"),
    built_in("labelled", LABELLED, "object.spec.replicas > 1"),
    built_in("never", LABELLED, matchConditions=[{"name": "no", "expression": "false"}], failurePolicy="Ignore"),
)

#: A bad policy, and words that its finding must have.
BAD: Final = (
    (
        policy("ClusterPolicy", "unknown-field", {"rulez": [], "rules": [rule()]}),
        "spec.rulez: .*unknown field",
    ),
    (legacy("unknown-in-rule", rule(validates=PATTERN)), r"spec.rules\[0\].validates: .*unknown field"),
    (legacy("wrong-type", rule(), background="maybe"), "spec.background: .*boolean"),
    (
        legacy("bad-enum", rule(), validationFailureAction="Sometimes"),
        "spec.validationFailureAction: .*Sometimes",
    ),
    (legacy("undefined-variable", deny({"key": "{{ nope }}", "operator": "Equals", "value": "x"})), "nope"),
    (
        legacy("bad-jmespath", deny({"key": "{{ request.object.[ }}", "operator": "Equals", "value": "x"})),
        "request",
    ),
    (legacy("bad-operator", deny({"key": "a", "operator": "Resembles", "value": "x"})), "operator"),
    (legacy("duplicate-names", rule(), rule()), r"spec.rules\[1\].name: .*[Dd]uplicate"),
    (legacy("two-types", rule(mutate={"patchStrategicMerge": {"metadata": {}}})), "operation"),
    (legacy("no-type", {"name": "r", "match": PODS}), "operation"),
    (legacy("no-match", {"name": "r", "validate": PATTERN}), "match"),
    (
        policy(
            "Policy",
            "other-namespace",
            {
                "rules": [
                    {
                        "name": "r",
                        "match": PODS,
                        "generate": {
                            "apiVersion": "v1",
                            "kind": "ConfigMap",
                            "name": "c",
                            "namespace": "kube-system",
                            "data": {"data": {}},
                        },
                    }
                ]
            },
            namespace="team-a",
        ),
        "other namespaces",
    ),
    (policy("ClusterCleanupPolicy", "no-schedule", {"match": PODS}, version=KYVERNO_V2), "schedule"),
    (
        policy("CleanupPolicy", "bad-match", CLEANUP | {"match": []}, version=KYVERNO_V2, namespace="n"),
        "match",
    ),
    (
        policy("PolicyException", "no-exceptions", {"match": PODS}, version=KYVERNO_V2, namespace="n"),
        "exceptions",
    ),
    (validating("vpol-unknown-field", LABELLED, validationz=[]), "spec.validationz: .*unknown field"),
    (validating("vpol-wrong-type", LABELLED, matchConditions="no"), "spec.matchConditions"),
    (validating("vpol-bad-enum", LABELLED, validationActions=["Explode"]), "Explode"),
    (validating("vpol-syntax", SYNTAX), r"spec.validations\[0\].expression: .*Syntax error"),
    (validating("vpol-types", TYPES), "no matching overload"),
    (validating("vpol-undeclared", "nothing.here == 1"), "undeclared reference"),
    (validating("vpol-variable", "variables.nope == 1"), "nope"),
    (validating("vpol-json", SYNTAX, evaluation={"mode": "JSON"}), "Syntax error"),
    (
        policy("NamespacedValidatingPolicy", "nvpol", validating("x", SYNTAX).body["spec"], namespace="n"),
        "Syntax error",
    ),
    (policy("MutatingPolicy", "mpol", mutation("Object{")), "Syntax error"),
    (policy("NamespacedMutatingPolicy", "nmpol", mutation("Object{"), namespace="n"), "Syntax error"),
    (policy("GeneratingPolicy", "gpol", generation("nothing(")), "Syntax error"),
    (policy("NamespacedGeneratingPolicy", "ngpol", generation("nothing("), namespace="n"), "Syntax error"),
    (policy("DeletingPolicy", "dpol", deletion(SYNTAX)), "Syntax error"),
    (policy("NamespacedDeletingPolicy", "ndpol", deletion(TYPES), namespace="n"), "no matching overload"),
    (policy("ImageValidatingPolicy", "ivpol", image_check(SYNTAX)), "Syntax error"),
    (
        policy(
            "ImageValidatingPolicy",
            "ivpol-condition",
            image_check(SIGNED)
            | {
                "matchConditions": [{"name": "c", "expression": TYPES}],
            },
        ),
        "no matching overload",
    ),
    (
        policy("NamespacedImageValidatingPolicy", "nivpol", image_check(TYPES), namespace="n"),
        "no matching overload",
    ),
    (built_in("vap", SYNTAX), "Syntax error"),
    (
        built_in("vap-second", "object.metadata.name == 'never'", SYNTAX, failurePolicy="Ignore"),
        "Syntax error",
    ),
    (
        built_in("vap-condition", LABELLED, matchConditions=[{"name": "c", "expression": SYNTAX}]),
        "Syntax error",
    ),
    (built_in("vap-unknown-field", LABELLED, nope=1), "spec.nope: .*unknown field"),
)

#: What the CLI lets pass although it is wrong: other layers have to know.
MISSED: Final = (
    policy("ClusterPolicy", "no-rules", {}),
    legacy("empty-rules"),
    legacy("bad-regex", deny({"key": "{{ regex_match('(', 'a') }}", "operator": "Equals", "value": True})),
    # Kyverno itself only warns.
    legacy("cel-in-a-rule", rule(validate={"cel": {"expressions": [{"expression": SYNTAX}]}})),
    policy("ClusterCleanupPolicy", "bad-cron", CLEANUP | {"schedule": "at noon"}, version=KYVERNO_V2),
    policy("DeletingPolicy", "bad-cron", deletion(LABELLED) | {"schedule": "at noon"}),
    validating("matches-nothing", LABELLED, matchConstraints={}),
)

GLOBAL_CONTEXT: Final = {"kubernetesResource": {"version": "v1", "resource": "pods"}}
EXCEPTION: Final = {"policyRefs": [{"name": "a", "kind": "ValidatingPolicy"}]}
BINDING: Final = {"policyName": "labelled", "validationActions": ["Deny"]}
MATCH_CONDITIONS: Final = {"matchConditions": [{"name": "c", "expression": "true"}]}

#: What the CLI cannot judge, and words of the reason.
UNJUDGED: Final = (
    (policy("GlobalContextEntry", "pods", GLOBAL_CONTEXT, version=KYVERNO_V2), "does not know GlobalContextEntry"),
    (policy("PolicyException", "v1", EXCEPTION, namespace="team-a"), "does not know PolicyException"),
    (
        policy("PolicyException", "v1beta1", EXCEPTION, version="policies.kyverno.io/v1beta1", namespace="team-a"),
        "no more than the schema",
    ),
    (policy("ValidatingAdmissionPolicyBinding", "b", BINDING, version=BUILT_IN), "no more than the schema"),
    (policy("MutatingAdmissionPolicy", "m", {}, version=BUILT_IN), "does not know MutatingAdmissionPolicy"),
    (
        policy("MutatingAdmissionPolicyBinding", "m", {"policyName": "m"}, version=BUILT_IN),
        "does not know MutatingAdmissionPolicyBinding",
    ),
    (policy("ValidatingPolicy", "v9", {}, version="policies.kyverno.io/v9"), "does not know ValidatingPolicy"),
    (validating("over-http", "true", evaluation={"mode": "HTTP"}), "evaluation mode HTTP"),
    (legacy("panics", rule(), webhookConfiguration=MATCH_CONDITIONS), "crashes on it"),
    # Kyverno asks a cluster whether the target has a namespace.
    (
        legacy(
            "cluster-wide-target",
            {
                "name": "r",
                "match": PODS,
                "generate": {"apiVersion": "v1", "kind": "Namespace", "name": "made", "data": {"metadata": {}}},
            },
        ),
        "cannot tell without a cluster",
    ),
)


def script(directory: Path, *lines: str) -> Path:
    """A program in the place of the CLI, for the faults that the real one has no switch for."""
    path = directory / "kyverno"
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path
