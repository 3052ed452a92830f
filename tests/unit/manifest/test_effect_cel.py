"""What changes of the policies in CEL do: Kyverno's own and Kubernetes', with bindings, field by field."""

from __future__ import annotations

from typing import Final

import pytest

from renderer.manifest.effect import compare, enforces
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from tests.unit.manifest.effect_cases import ABSENT, OFF, ON, Case, case, check, kind, policy, put, said

G: Final = "policies.kyverno.io"
A: Final = "admissionregistration.k8s.io"
PODS: Final = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
SERVICES: Final = {**PODS, "resources": ["services"]}
UPDATED: Final = {**PODS, "operations": ["CREATE", "UPDATE"]}


def rules(*listed: JsonObject, **others: object) -> JsonObject:
    return {"resourceRules": list(listed), **others}


CONDITION: Final = {"name": "a", "expression": "object.metadata.name != 'a'"}
OTHER_CONDITION: Final = {"name": "b", "expression": "object.metadata.name != 'b'"}

# What every kind has that matches by constraints; the Whats for kinds that delete are others.
MATCHING = [
    case("matchConstraints", rules(PODS), rules(PODS, SERVICES), "tightens MATCHES_MORE"),
    case("matchConstraints", rules(PODS), rules(UPDATED), "tightens MATCHES_MORE"),
    case("matchConstraints", rules(UPDATED), rules({**PODS, "operations": ["*"]}), "tightens MATCHES_MORE"),
    case("matchConstraints", rules(PODS), rules(SERVICES), "unknown MATCHES_OTHERWISE", weakens=True),
    case("matchConstraints", rules(PODS, SERVICES), rules(SERVICES, PODS)),
    case("matchConstraints", rules(PODS), rules(PODS, matchPolicy="Equivalent", namespaceSelector={})),
    case("matchConstraints", rules(PODS), rules({**PODS, "scope": "*"})),
    case(
        "matchConstraints",
        rules(PODS),
        rules(PODS, matchPolicy="Exact"),
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case(
        "matchConstraints",
        rules(PODS),
        rules({**PODS, "scope": "Namespaced"}),
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case(
        "matchConstraints",
        rules(PODS),
        rules({**PODS, "resourceNames": ["a"]}),
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case(
        "matchConstraints",
        rules(PODS),
        rules(PODS, namespaceSelector={"matchLabels": {"a": "b"}}),
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case(
        "matchConstraints",
        rules(PODS),
        rules(PODS, excludeResourceRules=[{**PODS, "resourceNames": ["a"]}]),
        "loosens EXCLUDES_MORE",
        weakens=True,
    ),
    case("matchConstraints", rules(PODS), {"resourceRules": "pods"}, "unknown MATCHES_OTHERWISE", weakens=True),
    case("matchConditions", ABSENT, [CONDITION], "loosens MATCHES_LESS", weakens=True),
    case("matchConditions", [CONDITION], [CONDITION, OTHER_CONDITION], "loosens MATCHES_LESS", weakens=True),
    case("matchConditions", [CONDITION, OTHER_CONDITION], [OTHER_CONDITION], "tightens MATCHES_MORE"),
    case("matchConditions", [CONDITION], [OTHER_CONDITION], "unknown MATCHES_OTHERWISE", weakens=True),
    case("matchConditions", [CONDITION], [{**CONDITION, "name": "renamed"}]),
]
VALIDATING = [
    case(
        "validations",
        [{"expression": "a"}],
        [{"expression": "a"}, {"expression": "b"}],
        "tightens ENFORCES_MORE",
    ),
    case(
        "validations",
        [{"expression": "a"}, {"expression": "b"}],
        [{"expression": "b"}],
        "loosens ENFORCES_LESS",
        weakens=True,
    ),
    case(
        "validations",
        [{"expression": "a"}],
        [{"expression": "b"}],
        "unknown ENFORCES_OTHERWISE",
        weakens=True,
    ),
    case("validations", [{"expression": "a"}], [{"expression": "a", "message": "why"}]),
    case("failurePolicy", "Fail", "Ignore", "loosens FAILS_OPEN", weakens=True),
    case("failurePolicy", ABSENT, "Fail"),
    case("failurePolicy", "Ignore", ABSENT, "tightens FAILS_CLOSED"),
    case("variables", ABSENT, [{"name": "a", "expression": "1"}], "unknown ENFORCES_OTHERWISE", weakens=True),
    case("auditAnnotations", ABSENT, [{"key": "a", "valueExpression": "b"}], "neutral PRESENTATION"),
]
OWN_ACTIONS = [
    case("validationActions", ["Deny"], ["Audit"], "loosens NO_LONGER_ENFORCES", weakens=True),
    case("validationActions", ["Deny", "Audit"], ["Audit"], "loosens NO_LONGER_ENFORCES", weakens=True),
    case("validationActions", ABSENT, ["Deny"]),
    case("validationActions", ABSENT, ["Warn"], "loosens NO_LONGER_ENFORCES", weakens=True),
    case("validationActions", ["Audit"], ABSENT, "tightens ENFORCES"),
    case("validationActions", ["Audit"], ["Warn"], "tightens REPORTS_MORE"),
    case("validationActions", ["Deny"], ["Block"], "unknown ENFORCES_OTHERWISE", weakens=True),
    case(
        "evaluation.admission.enabled",
        ABSENT,
        OFF,
        "loosens NO_LONGER_ENFORCES",
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case("evaluation.admission.enabled", ON, ABSENT),
    case("evaluation.background.enabled", ABSENT, OFF, "loosens REPORTS_LESS"),
    case(
        "evaluation.mode",
        ABSENT,
        "JSON",
        "loosens NO_LONGER_ENFORCES",
        "unknown MATCHES_OTHERWISE",
        weakens=True,
    ),
    case("evaluation.mode", ABSENT, "Kubernetes"),
    case("autogen.podControllers.controllers", ["jobs"], ["jobs", "deployments"], "tightens MATCHES_MORE"),
    case("autogen.podControllers.controllers", ABSENT, ["jobs"], "unknown MATCHES_OTHERWISE", weakens=True),
    case("autogen.validatingAdmissionPolicy.enabled", ABSENT, ON, "unknown ENFORCES_OTHERWISE", weakens=True),
    case("webhookConfiguration.timeoutSeconds", 5, 10, "unknown ENFORCES_OTHERWISE", weakens=True),
]
VALIDATES: Final = policy({"matchConstraints": rules(PODS), "validations": [{"expression": "true"}]})
NAMESPACED: Final = ("validatingpolicies", "namespacedvalidatingpolicies")


@pytest.mark.parametrize("one", MATCHING + VALIDATING + OWN_ACTIONS, ids=str)
@pytest.mark.parametrize("plural", NAMESPACED)
def test_validating_policies(plural: str, one: Case) -> None:
    check(VALIDATES, kind(f"{plural}.{G}"), one)


IMAGES: Final = put(VALIDATES, "matchImageReferences", [{"glob": "ghcr.io/*"}])
C: Final = "validationConfigurations."
IMAGE_CASES = [
    case(C + "required", ABSENT, OFF, "loosens ENFORCES_LESS", weakens=True),
    case(C + "verifyDigest", OFF, ON, "tightens ENFORCES_MORE"),
    case(C + "mutateDigest", ABSENT, ON),
    case("validationConfigurations", ABSENT, {}),
    case("matchImageReferences", [{"glob": "a"}], [{"glob": "a"}, {"glob": "b"}], "tightens ENFORCES_MORE"),
    case("matchImageReferences", [{"glob": "a"}], [{"glob": "b"}], "unknown ENFORCES_OTHERWISE", weakens=True),
    case("attestors", [{"name": "a"}], [{"name": "b"}], "unknown ENFORCES_OTHERWISE", weakens=True),
]


@pytest.mark.parametrize("one", MATCHING + VALIDATING + OWN_ACTIONS + IMAGE_CASES, ids=str)
@pytest.mark.parametrize("plural", ["imagevalidatingpolicies", "namespacedimagevalidatingpolicies"])
def test_image_validating_policies(plural: str, one: Case) -> None:
    check(IMAGES, kind(f"{plural}.{G}"), one)


@pytest.mark.parametrize(
    ("field", "value", "denies"),
    [
        ("validationActions", ABSENT, ON),
        ("validationActions", ["Audit", "Warn"], OFF),
        ("validations", [], OFF),
        ("evaluation.mode", "JSON", OFF),
        ("evaluation.admission.enabled", OFF, OFF),
        ("validations", "x", ON),  # what cannot be read counts as enforcing
    ],
)
def test_enforces(field: str, value: object, denies: bool) -> None:
    assert enforces(put(VALIDATES, field, value), kind(f"validatingpolicies.{G}")) is denies


# --- mutating, generating, deleting ----------------------------------------------------------------


def acting(cases: list[Case]) -> list[Case]:
    """The same cases for a policy that denies nothing: they weaken nothing."""
    return [Case(field=one.field, before=one.before, after=one.after, says=one.says, weakens=False) for one in cases]


PATCH: Final = {"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}
OTHER_PATCH: Final = {"patchType": "JSONPatch", "jsonPatch": {"expression": "[1]"}}
MUTATES: Final = policy({"matchConstraints": rules(PODS), "mutations": [PATCH]})
MUTATING = [
    case("mutations", [PATCH], [PATCH, OTHER_PATCH], "tightens MUTATES"),
    case("mutations", [PATCH, OTHER_PATCH], [OTHER_PATCH], "loosens NO_LONGER_MUTATES"),
    case("mutations", [PATCH, OTHER_PATCH], [OTHER_PATCH, PATCH], "unknown MUTATES_OTHERWISE"),
    case("failurePolicy", "Fail", "Ignore", "loosens FAILS_OPEN"),
    case("reinvocationPolicy", "Never", "IfNeeded", "unknown MUTATES_OTHERWISE"),
]
KYVERNO_MUTATING = [
    case("evaluation.mutateExisting.enabled", ABSENT, ON, "tightens MUTATES"),
    case("evaluation.admission.enabled", ON, OFF, "loosens MATCHES_LESS"),
    case("targetMatchConstraints", rules(PODS), rules(PODS, SERVICES), "tightens MATCHES_MORE"),
]


@pytest.mark.parametrize("one", acting(MATCHING) + MUTATING + KYVERNO_MUTATING, ids=str)
@pytest.mark.parametrize("plural", ["mutatingpolicies", "namespacedmutatingpolicies"])
def test_mutating_policies(plural: str, one: Case) -> None:
    check(MUTATES, kind(f"{plural}.{G}"), one)


GENERATES: Final = policy({"matchConstraints": rules(PODS), "generate": [{"expression": "a"}]})
GENERATING = [
    case("generate", [{"expression": "a"}], [{"expression": "a"}, {"expression": "b"}], "tightens GENERATES"),
    case("generate", [{"expression": "a"}], [{"expression": "b"}], "unknown GENERATES_OTHERWISE"),
    case("evaluation.synchronize.enabled", ABSENT, ON, "tightens GENERATES"),
    case("evaluation.generateExisting.enabled", ON, OFF, "loosens NO_LONGER_GENERATES"),
    case("evaluation.orphanDownstreamOnPolicyDelete.enabled", ABSENT, ON, "neutral GENERATES_OTHERWISE"),
    case("variables", ABSENT, [{"name": "a"}], "unknown GENERATES_OTHERWISE"),
]


@pytest.mark.parametrize("one", acting(MATCHING) + GENERATING, ids=str)
@pytest.mark.parametrize("plural", ["generatingpolicies", "namespacedgeneratingpolicies"])
def test_generating_policies(plural: str, one: Case) -> None:
    check(GENERATES, kind(f"{plural}.{G}"), one)


@pytest.mark.parametrize("plural", ["generatingpolicies", "namespacedgeneratingpolicies"])
def test_a_generating_policy_takes_with_it_what_it_keeps_in_step(plural: str) -> None:
    its_kind = kind(f"{plural}.{G}")
    synchronized = put(GENERATES, "evaluation.synchronize.enabled", ON)
    orphaned = put(synchronized, "evaluation.orphanDownstreamOnPolicyDelete.enabled", ON)
    assert said(compare(None, GENERATES, its_kind)) == ("tightens GENERATES",)
    assert compare(None, GENERATES, its_kind).generates
    assert not compare(GENERATES, None, its_kind).deletes_downstream
    assert compare(synchronized, None, its_kind).deletes_downstream
    assert not compare(orphaned, None, its_kind).deletes_downstream


DELETES: Final = policy({"matchConstraints": rules(PODS), "schedule": "0 0 * * *"})
DELETING = [
    case("matchConstraints", rules(PODS), rules(PODS, SERVICES), "tightens DELETES_MORE"),
    case("matchConstraints", rules(PODS, SERVICES), rules(PODS), "loosens DELETES_LESS"),
    case(
        "matchConstraints",
        rules(PODS),
        rules(PODS, excludeResourceRules=[{**PODS, "resourceNames": ["a"]}]),
        "loosens DELETES_LESS",
    ),
    case("conditions", ABSENT, [CONDITION], "loosens DELETES_LESS"),
    case("conditions", [CONDITION], [OTHER_CONDITION], "unknown DELETES_OTHERWISE"),
    case("schedule", "0 0 * * *", "* * * * *", "unknown DELETES_OTHERWISE"),
    case("deletionPropagationPolicy", ABSENT, "Orphan", "unknown DELETES_OTHERWISE"),
]


@pytest.mark.parametrize("one", DELETING, ids=str)
@pytest.mark.parametrize("plural", ["deletingpolicies", "namespaceddeletingpolicies"])
def test_deleting_policies(plural: str, one: Case) -> None:
    its_kind = kind(f"{plural}.{G}")
    effect = check(DELETES, its_kind, one)
    assert effect.deletes is any("LESS" not in what for what in one.says)
    assert compare(None, DELETES, its_kind).deletes
    assert said(compare(DELETES, None, its_kind)) == ("loosens NO_LONGER_DELETES",)


# --- Kubernetes' own, and their bindings -----------------------------------------------------------

VAP: Final = kind(f"validatingadmissionpolicies.{A}")
VAP_BINDING: Final = kind(f"validatingadmissionpolicybindings.{A}")
MAP: Final = kind(f"mutatingadmissionpolicies.{A}")
MAP_BINDING: Final = kind(f"mutatingadmissionpolicybindings.{A}")
BOUND: Final = policy({"policyName": "policy", "validationActions": ["Deny"]}, "binding")


@pytest.mark.parametrize("one", MATCHING + VALIDATING, ids=str)
def test_validating_admission_policy(one: Case) -> None:
    check(VALIDATES, VAP, one)


@pytest.mark.parametrize("one", acting(MATCHING) + MUTATING, ids=str)
def test_mutating_admission_policy(one: Case) -> None:
    check(MUTATES, MAP, one)


BINDINGS = [
    case("validationActions", ["Deny"], ["Audit"], "loosens NO_LONGER_ENFORCES", weakens=True),
    case("validationActions", ["Audit"], ["Deny"], "tightens ENFORCES"),
    case("validationActions", ["Deny", "Audit"], ["Deny"]),
    case("validationActions", ["Deny"], [], "loosens NO_LONGER_ENFORCES", weakens=True),
    case("policyName", "a", "b", "unknown ENFORCES_OTHERWISE", weakens=True),
    case("paramRef", ABSENT, {"name": "a"}, "unknown ENFORCES_OTHERWISE", weakens=True),
    case("matchResources", ABSENT, rules(PODS), "loosens MATCHES_LESS", weakens=True),
    case("matchResources", ABSENT, {"namespaceSelector": {}}),
    case(
        "matchResources",
        ABSENT,
        {"namespaceSelector": {"matchLabels": {"a": "b"}}},
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case(
        "matchResources",
        rules(PODS),
        rules(PODS, excludeResourceRules=[SERVICES]),
        "loosens EXCLUDES_MORE",
        weakens=True,
    ),
]


@pytest.mark.parametrize("one", BINDINGS, ids=str)
def test_validating_admission_policy_binding(one: Case) -> None:
    check(BOUND, VAP_BINDING, one)


@pytest.mark.parametrize(
    "one",
    [
        case("policyName", "a", "b", "unknown MUTATES_OTHERWISE"),
        case("matchResources", ABSENT, rules(PODS), "loosens MATCHES_LESS"),
    ],
    ids=str,
)
def test_mutating_admission_policy_binding(one: Case) -> None:
    check(policy({"policyName": "policy"}), MAP_BINDING, one)


@pytest.mark.parametrize(
    ("body", "its_kind", "starts", "stops", "weakens"),
    [
        (VALIDATES, VAP, "tightens ENFORCES", "loosens NO_LONGER_ENFORCES", ON),
        (BOUND, VAP_BINDING, "tightens ENFORCES", "loosens NO_LONGER_ENFORCES", ON),
        (MUTATES, MAP, "tightens MUTATES", "loosens NO_LONGER_MUTATES", OFF),
        (policy({"policyName": "a"}), MAP_BINDING, "tightens MUTATES", "loosens NO_LONGER_MUTATES", OFF),
    ],
)
def test_admission_policies_and_bindings_that_come_and_go(
    body: JsonObject,
    its_kind: Kind,
    starts: str,
    stops: str,
    weakens: bool,
) -> None:
    assert said(compare(None, body, its_kind)) == (starts,)
    assert said(compare(body, None, its_kind)) == (stops,)
    assert compare(body, None, its_kind).weakens is weakens
    assert not compare(None, body, its_kind).weakens


def test_an_admission_policy_enforces_through_its_bindings() -> None:
    elsewhere = put(BOUND, "policyName", "another")
    reporting = put(BOUND, "validationActions", ["Audit"])
    assert enforces(VALIDATES, VAP)  # as far as is known
    assert enforces(VALIDATES, VAP, bindings=[elsewhere, BOUND])
    assert not enforces(VALIDATES, VAP, bindings=[])
    assert not enforces(VALIDATES, VAP, bindings=[elsewhere, reporting])
    assert not enforces(put(VALIDATES, "validations", []), VAP, bindings=[BOUND])
    assert not enforces(MUTATES, MAP)
    assert not enforces(None, VAP)
