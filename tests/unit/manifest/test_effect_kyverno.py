"""What changes of ClusterPolicy and Policy do, field by field."""

from __future__ import annotations

from typing import Final

import pytest

from renderer.manifest.effect import What, compare, enforces
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from tests.unit.manifest.effect_cases import ABSENT, OFF, ON, Case, case, check, kind, policy, put, said

CLUSTER_POLICY: Final = kind("clusterpolicies.kyverno.io")
POLICY: Final = kind("policies.kyverno.io")


def block(**resources: object) -> JsonObject:
    return {"any": [{"resources": resources}]}


PODS: Final = block(kinds=["Pod"])
PODS_AND_SERVICES: Final = block(kinds=["Pod", "Service"])
DENY: Final = policy(
    {
        "rules": [
            {
                "name": "first",
                "match": PODS,
                "validate": {"failureAction": "Enforce", "message": "no", "pattern": {"spec": {"a": "b"}}},
            }
        ]
    }
)
V: Final = "rules.0.validate."
OWN: Final = V + "failureAction"

# Each of these changes a rule that denies.
DENYING = [
    case(OWN, "Enforce", "Audit", "loosens NO_LONGER_ENFORCES", weakens=True),
    case(OWN, "Enforce", "audit", "loosens NO_LONGER_ENFORCES", weakens=True),
    case(OWN, "Audit", "Enforce", "tightens ENFORCES"),
    case(OWN, "Enforce", "enforce"),
    case(OWN, "Enforce", ABSENT, "loosens NO_LONGER_ENFORCES", weakens=True),
    case(OWN, "Enforce", "Block", "unknown ENFORCES_OTHERWISE", weakens=True),
    case("admission", ON, OFF, "loosens NO_LONGER_ENFORCES", "loosens MATCHES_LESS", weakens=True),
    case("admission", ABSENT, ON),
    case("background", ON, OFF, "loosens REPORTS_LESS"),
    case("background", OFF, ABSENT, "tightens REPORTS_MORE"),
    case("failurePolicy", "Fail", "Ignore", "loosens FAILS_OPEN", weakens=True),
    case("failurePolicy", ABSENT, "Fail"),
    case("webhookConfiguration.failurePolicy", "Ignore", "Fail", "tightens FAILS_CLOSED"),
    case("webhookTimeoutSeconds", 5, 10, "unknown ENFORCES_OTHERWISE", weakens=True),
    case("webhookTimeoutSeconds", ABSENT, 10),
    case(V + "cel.generate", ABSENT, OFF),
    case(V + "cel.generate", ABSENT, ON, "unknown ENFORCES_OTHERWISE", weakens=True),
    case(
        "webhookConfiguration.matchConditions",
        ABSENT,
        [{"name": "not-root", "expression": "request.userInfo.username != 'root'"}],
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case("applyRules", "All", "One", "loosens ENFORCES_LESS", weakens=True),
    case("applyRules", ABSENT, "All"),
    case("emitWarning", ABSENT, ON, "neutral PRESENTATION"),
    case("emitWarning", ABSENT, OFF),
    case("someNewField", ABSENT, 1, "unknown ENFORCES_OTHERWISE", weakens=True),
    case("rules.0.match", PODS, PODS_AND_SERVICES, "tightens MATCHES_MORE"),
    case("rules.0.match", PODS_AND_SERVICES, PODS, "loosens MATCHES_LESS", weakens=True),
    case("rules.0.match", PODS, block(kinds=["Service"]), "unknown MATCHES_OTHERWISE", weakens=True),
    case("rules.0.match", PODS, {"resources": {"kinds": ["Pod"]}}),
    case("rules.0.match", PODS, block(kinds=["Pod"], namespaces=["a"]), "loosens MATCHES_LESS", weakens=True),
    case("rules.0.match", PODS, block(kind=["Pod"]), "unknown MATCHES_OTHERWISE", weakens=True),
    case("rules.0.exclude", ABSENT, block(namespaces=["kube-*"]), "loosens EXCLUDES_MORE", weakens=True),
    case("rules.0.exclude", block(namespaces=["kube-*"]), ABSENT, "tightens EXCLUDES_LESS"),
    case(
        "rules.0.exclude",
        block(namespaces=["kube-system"]),
        block(namespaces=["kube-*"]),
        "loosens EXCLUDES_MORE",
        weakens=True,
    ),
    case(
        "rules.0.exclude",
        block(namespaces=["a"]),
        block(namespaces=["b"]),
        "unknown EXCLUDES_OTHERWISE",
        weakens=True,
    ),
    case("rules.0.exclude", ABSENT, {"any": [{"resources": {}}]}),
    case(
        "rules.0.preconditions",
        ABSENT,
        {"all": [{"key": "{{ request.operation }}", "operator": "Equals", "value": "CREATE"}]},
        "loosens MATCHES_LESS",
        weakens=True,
    ),
    case(
        "rules.0.celPreconditions",
        [{"name": "a", "expression": "true"}],
        [{"name": "a", "expression": "false"}],
        "unknown MATCHES_OTHERWISE",
        weakens=True,
    ),
    case("rules.0.skipBackgroundRequests", ABSENT, OFF, "tightens MATCHES_MORE"),
    case("rules.0.context", ABSENT, [{"name": "x"}], "unknown ENFORCES_OTHERWISE", weakens=True),
    case("rules.0.reportProperties", ABSENT, {"a": "b"}, "neutral PRESENTATION"),
    case(V + "message", "no", "certainly not", "neutral PRESENTATION"),
    case(V + "allowExistingViolations", ABSENT, OFF, "tightens ENFORCES_MORE"),
    case(V + "pattern", {"a": "b"}, {"a": "c"}, "unknown ENFORCES_OTHERWISE", weakens=True),
    case(V + "pattern", {"a": 1}, {"a": True}, "unknown ENFORCES_OTHERWISE", weakens=True),
    case(V + "anyPattern", [{"a": 1}], [{"a": 1}, {"a": 2}], "loosens ENFORCES_LESS", weakens=True),
    case(V + "anyPattern", ABSENT, [{"a": 1}], "unknown ENFORCES_OTHERWISE", weakens=True),
    case(V + "deny", {"conditions": {"any": [{"key": "a"}]}}, {}, "tightens ENFORCES_MORE"),
    case(
        V + "deny",
        {"conditions": {"any": [{"key": "a"}, {"key": "b"}]}},
        {"conditions": {"any": [{"key": "a"}]}},
        "loosens ENFORCES_LESS",
        weakens=True,
    ),
    case(V + "deny", ABSENT, {}, "unknown ENFORCES_OTHERWISE", weakens=True),
    case(
        V + "podSecurity",
        {"level": "restricted"},
        {"level": "baseline"},
        "loosens ENFORCES_LESS",
        weakens=True,
    ),
    case(
        V + "podSecurity",
        {"level": "baseline"},
        {"level": "baseline", "exclude": [{"controlName": "Seccomp"}]},
        "loosens ENFORCES_LESS",
        weakens=True,
    ),
    case(
        V + "podSecurity",
        {"level": "baseline", "version": "latest"},
        {"level": "baseline", "version": "v1.29"},
        "unknown ENFORCES_OTHERWISE",
        weakens=True,
    ),
    case(
        V + "cel.expressions",
        [{"expression": "a"}],
        [{"expression": "a"}, {"expression": "b", "message": "m"}],
        "tightens ENFORCES_MORE",
    ),
    case(V + "cel.expressions", [{"expression": "a"}], [{"expression": " a ", "message": "m"}]),
    case(
        V + "cel.expressions",
        [{"expression": "a > 1"}],
        [{"expression": "a > 2"}],
        "unknown ENFORCES_OTHERWISE",
        weakens=True,
    ),
]


@pytest.mark.parametrize("one", DENYING, ids=str)
@pytest.mark.parametrize("its_kind", [CLUSTER_POLICY, POLICY], ids=lambda its_kind: its_kind.name)
def test_fields_of_a_rule_that_denies(its_kind: Kind, one: Case) -> None:
    check(DENY, its_kind, one)


def test_the_same_loosening_of_a_rule_that_only_reports_does_not_weaken() -> None:
    audit = put(DENY, OWN, "Audit")
    effect = check(audit, CLUSTER_POLICY, case("rules.0.match", PODS_AND_SERVICES, PODS, "loosens MATCHES_LESS"))
    assert effect.loosens


# --- where it denies: the policy's action, and overrides ------------------------------------------

SPEC_LEVEL: Final = put(DENY, OWN, ABSENT)
TEAM_A: Final = {"action": "Enforce", "namespaces": ["team-a"]}
ALL_TEAMS: Final = {"action": "Enforce", "namespaces": ["team-*"]}
LET_A: Final = {"action": "Audit", "namespaces": ["team-a"]}
LET_TEAMS: Final = {"action": "Audit", "namespaces": ["team-*"]}
OVERRIDES: Final = "validationFailureActionOverrides"

SPEC_ACTIONS = [
    case("validationFailureAction", ABSENT, "Audit"),
    case("validationFailureAction", ABSENT, "Enforce", "tightens ENFORCES"),
    case("validationFailureAction", "enforce", "audit", "loosens NO_LONGER_ENFORCES", weakens=True),
    case(OVERRIDES, ABSENT, [TEAM_A], "tightens ENFORCES"),
    case(OVERRIDES, [TEAM_A], [ALL_TEAMS], "tightens ENFORCES_MORE"),
    case(OVERRIDES, [ALL_TEAMS], [TEAM_A], "loosens ENFORCES_LESS", weakens=True),
    case(OVERRIDES, [TEAM_A], [{"action": "Enforce"}], "tightens ENFORCES_MORE"),
    case(OVERRIDES, [TEAM_A], [TEAM_A, LET_TEAMS]),  # the rest is reported only anyway
    case(OVERRIDES, [ALL_TEAMS], [LET_A, ALL_TEAMS], "unknown ENFORCES_OTHERWISE", weakens=True),
    case(
        OVERRIDES,
        [TEAM_A],
        [{"action": "Enforce", "namespaces": ["b"]}],
        "unknown ENFORCES_OTHERWISE",
        weakens=True,
    ),
    case(V + "failureActionOverrides", ABSENT, [TEAM_A], "tightens ENFORCES"),
]


@pytest.mark.parametrize("one", SPEC_ACTIONS, ids=str)
def test_actions_of_the_policy(one: Case) -> None:
    check(SPEC_LEVEL, CLUSTER_POLICY, one)


DENY_OVERRIDES = [
    case(OVERRIDES, ABSENT, [LET_A], "loosens ENFORCES_LESS", weakens=True),
    case(OVERRIDES, [LET_A], [LET_TEAMS], "loosens ENFORCES_LESS", weakens=True),
    case(OVERRIDES, [LET_TEAMS], [LET_A], "tightens ENFORCES_MORE"),
    case(OVERRIDES, [LET_A], [LET_A, TEAM_A]),
    case(
        OVERRIDES,
        ABSENT,
        [{"action": "Audit", "namespaceSelector": {"matchLabels": {"a": "b"}}}],
        "loosens ENFORCES_LESS",
        weakens=True,
    ),
    case(V + "failureActionOverrides", [LET_A], ABSENT, "tightens ENFORCES_MORE"),
    case(
        V + "failureActionOverrides",
        ABSENT,
        [{"action": "Audit"}],
        "loosens NO_LONGER_ENFORCES",
        weakens=True,
    ),
]


@pytest.mark.parametrize("one", DENY_OVERRIDES, ids=str)
def test_overrides_of_a_rule_that_denies(one: Case) -> None:
    check(DENY, CLUSTER_POLICY, one)


def test_an_override_for_all_namespaces_hides_those_after_it() -> None:
    assert not enforces(put(SPEC_LEVEL, OVERRIDES, [{"action": "Audit"}, TEAM_A]), CLUSTER_POLICY)
    assert enforces(put(SPEC_LEVEL, OVERRIDES, [TEAM_A, {"action": "Audit"}]), CLUSTER_POLICY)


def test_an_action_of_the_rule_counts_before_the_policy_and_its_overrides() -> None:
    audit = put(put(DENY, OWN, "Audit"), "validationFailureAction", "Enforce")
    assert not enforces(audit, CLUSTER_POLICY)
    assert not enforces(put(audit, OVERRIDES, [TEAM_A]), CLUSTER_POLICY)


@pytest.mark.parametrize(
    ("field", "value", "denies"),
    [
        ("rules.0.validate", {"failureAction": "Enforce", "assert": {"all": []}}, False),
        ("rules.0.validate", {"failureAction": "Enforce", "deny": {}}, True),
        ("rules.0.validate", ABSENT, False),
        ("rules", [], False),
        ("admission", False, False),
        ("rules", "none", True),  # what cannot be read counts as enforcing
        (OWN, "Block", True),
    ],
)
def test_enforces(field: str, value: object, denies: bool) -> None:
    assert enforces(put(DENY, field, value), CLUSTER_POLICY) is denies


# --- rules that come, go, move ---------------------------------------------------------------------

RULE: Final = DENY["spec"]["rules"][0]
SECOND: Final = {**RULE, "name": "second"}
MUTATES: Final = {"name": "mutates", "match": PODS, "mutate": {"patchStrategicMerge": {"a": 1}}}
MUTATES_TOO: Final = {**MUTATES, "name": "mutates-too"}
GENERATES: Final[JsonObject] = {
    "name": "generates",
    "match": PODS,
    "generate": {"kind": "ConfigMap", "apiVersion": "v1", "synchronize": True, "data": {"a": "b"}},
}
AUDITS: Final = {**RULE, "name": "audits", "validate": {**RULE["validate"], "failureAction": "Audit"}}
ORPHANS: Final = put(policy({"rules": [GENERATES]}), "rules.0.generate.orphanDownstreamOnPolicyDelete", ON)["spec"][
    "rules"
][0]

RULES = [
    case("rules", [RULE], [RULE, SECOND], "tightens ENFORCES"),
    case("rules", [RULE, SECOND], [RULE], "loosens NO_LONGER_ENFORCES", weakens=True),
    case("rules", [RULE, SECOND], [SECOND, RULE]),
    case("rules", [RULE], [SECOND], "loosens NO_LONGER_ENFORCES", "tightens ENFORCES", weakens=True),
    case("rules", [RULE], [RULE, AUDITS], "tightens REPORTS_MORE"),
    case("rules", [RULE, AUDITS], [RULE], "loosens REPORTS_LESS"),
    case("rules", [RULE], [RULE, MUTATES], "tightens MUTATES"),
    case("rules", [MUTATES], [], "loosens NO_LONGER_MUTATES"),
    case("rules", [MUTATES, MUTATES_TOO], [MUTATES_TOO, MUTATES], "unknown MUTATES_OTHERWISE"),
    case("rules", [], [GENERATES], "tightens GENERATES"),
    case("rules", [ORPHANS], [], "loosens NO_LONGER_GENERATES"),
    case(
        "rules",
        [RULE],
        [{**MUTATES, "name": "first"}],
        "loosens NO_LONGER_ENFORCES",
        "tightens MUTATES",
        weakens=True,
    ),
]


@pytest.mark.parametrize("one", RULES, ids=str)
def test_rules_that_come_and_go(one: Case) -> None:
    check(DENY, CLUSTER_POLICY, one)


def test_the_order_of_rules_matters_where_the_first_one_stops_the_rest() -> None:
    one = put(DENY, "applyRules", "One")
    effect = compare(put(one, "rules", [RULE, SECOND]), put(one, "rules", [SECOND, RULE]), CLUSTER_POLICY)
    assert said(effect) == ("unknown ENFORCES_OTHERWISE",)
    assert effect.weakens


def test_removing_a_synchronized_generate_rule_may_delete_what_it_generated() -> None:
    before = put(DENY, "rules", [GENERATES, RULE])
    effect = compare(before, DENY, CLUSTER_POLICY)
    assert said(effect) == ("neutral DELETES_DOWNSTREAM", "loosens NO_LONGER_GENERATES")
    assert effect.deletes_downstream
    assert effect.changes[0].sentence == "what rule generates generated may be deleted with it"
    gone = compare(before, None, CLUSTER_POLICY)
    assert gone.deletes_downstream
    assert "what rule generates generated is deleted with it" in {change.sentence for change in gone.changes}
    assert not compare(put(DENY, "rules", [ORPHANS]), None, CLUSTER_POLICY).deletes_downstream


MUTATE_POLICY: Final = put(DENY, "rules", [MUTATES])
G: Final = "rules.0.generate."
ACTING = [
    case("rules.0.mutate.patchStrategicMerge", {"a": 1}, {"a": 2}, "unknown MUTATES_OTHERWISE"),
    case("rules.0.mutate.mutateExistingOnPolicyUpdate", ABSENT, ON, "tightens MUTATES"),
    case("mutateExistingOnPolicyUpdate", ABSENT, ON, "tightens MUTATES"),
    case("mutateExistingOnPolicyUpdate", ABSENT, OFF),
    case("rules.0.match", PODS, PODS_AND_SERVICES, "tightens MATCHES_MORE"),
    case("failurePolicy", "Fail", "Ignore", "loosens FAILS_OPEN"),
]
GENERATING = [
    case(G + "generateExisting", ABSENT, ON, "tightens GENERATES"),
    case("generateExisting", ABSENT, ON, "tightens GENERATES"),
    case(G + "synchronize", ABSENT, ON, "tightens GENERATES"),
    case(G + "synchronize", ON, OFF, "loosens NO_LONGER_GENERATES"),
    case(G + "orphanDownstreamOnPolicyDelete", ON, OFF, "neutral GENERATES_OTHERWISE"),
    case(G + "data", {"a": "b"}, {"a": "c"}, "unknown GENERATES_OTHERWISE"),
    case(G + "namespace", "a", "b", "unknown GENERATES_OTHERWISE"),
]


@pytest.mark.parametrize("one", ACTING, ids=str)
def test_fields_of_a_rule_that_mutates(one: Case) -> None:
    check(MUTATE_POLICY, CLUSTER_POLICY, one)


@pytest.mark.parametrize("one", GENERATING, ids=str)
def test_fields_of_a_rule_that_generates(one: Case) -> None:
    effect = check(put(DENY, "rules", [GENERATES]), CLUSTER_POLICY, one)
    assert effect.generates is (What.GENERATES in {change.what for change in effect.changes})


# --- image verification ----------------------------------------------------------------------------

ENTRY: Final = {
    "imageReferences": ["ghcr.io/acme/*"],
    "attestors": [{"entries": [{"keys": {"publicKeys": "k"}}]}],
}
IMAGES: Final = policy(
    {
        "validationFailureAction": "Enforce",
        "rules": [{"name": "signed", "match": PODS, "verifyImages": [ENTRY]}],
    }
)
E: Final = "rules.0.verifyImages.0."
IMAGE_CASES = [
    case(E + "required", ABSENT, OFF, "loosens ENFORCES_LESS", weakens=True),
    case(E + "required", ABSENT, ON),
    case(E + "useCache", ABSENT, ON),
    case(E + "verifyDigest", ON, OFF, "loosens ENFORCES_LESS", weakens=True),
    case(E + "mutateDigest", OFF, ON, "tightens ENFORCES_MORE"),
    case(E + "imageReferences", ["ghcr.io/acme/*"], ["ghcr.io/*"], "tightens ENFORCES_MORE"),
    case(E + "imageReferences", ["ghcr.io/*"], ["ghcr.io/acme/*"], "loosens ENFORCES_LESS", weakens=True),
    case(E + "imageReferences", ["a/*"], ["b/*"], "unknown ENFORCES_OTHERWISE", weakens=True),
    case(E + "imageReferences", ABSENT, ["b/*"], "unknown ENFORCES_OTHERWISE", weakens=True),
    case(E + "skipImageReferences", ABSENT, ["ghcr.io/acme/x*"], "loosens ENFORCES_LESS", weakens=True),
    case(E + "attestors", [{"count": 2}], [{"count": 1}], "unknown ENFORCES_OTHERWISE", weakens=True),
    case(E + "failureAction", ABSENT, "Audit", "loosens NO_LONGER_ENFORCES", weakens=True),
    case(E + "failureAction", "Audit", "Enforce", "tightens ENFORCES"),
    case(
        "rules.0.verifyImages",
        [ENTRY],
        [ENTRY, {**ENTRY, "imageReferences": ["x/*"]}],
        "tightens ENFORCES_MORE",
    ),
    case("rules.0.verifyImages", [ENTRY, ENTRY], [ENTRY], "loosens ENFORCES_LESS", weakens=True),
    case("validationFailureAction", "Enforce", "Audit", "loosens NO_LONGER_ENFORCES", weakens=True),
    case("rules.0.imageExtractors", ABSENT, {"Task": []}, "unknown ENFORCES_OTHERWISE", weakens=True),
]


@pytest.mark.parametrize("one", IMAGE_CASES, ids=str)
def test_fields_of_image_verification(one: Case) -> None:
    check(IMAGES, CLUSTER_POLICY, one)


def test_a_new_image_rule_is_one_change() -> None:
    assert said(compare(None, IMAGES, CLUSTER_POLICY)) == ("tightens ENFORCES",)


# --- autogen ---------------------------------------------------------------------------------------

AUTOGEN: Final = "autogen-controllers"
AUTOGEN_CASES = [
    case(AUTOGEN, ABSENT, "none", "loosens MATCHES_LESS", weakens=True),
    case(AUTOGEN, "none", "Deployment", "tightens MATCHES_MORE"),
    case(AUTOGEN, "Deployment,StatefulSet", "StatefulSet, Deployment"),
    case(AUTOGEN, "Deployment", "Job", "unknown MATCHES_OTHERWISE", weakens=True),
    case(AUTOGEN, ABSENT, "DaemonSet,Deployment,Job,StatefulSet,ReplicaSet,ReplicationController,CronJob"),
]


@pytest.mark.parametrize("one", AUTOGEN_CASES, ids=str)
def test_pod_controllers(one: Case) -> None:
    before, after = _annotated(DENY, one.before), _annotated(DENY, one.after)
    effect = compare(before, after, CLUSTER_POLICY)
    assert said(effect) == one.says
    assert effect.weakens is one.weakens


def _annotated(body: JsonObject, value: object) -> JsonObject:
    annotations = {} if value is ABSENT else {"pod-policies.kyverno.io/autogen-controllers": value}
    return {**body, "metadata": {"name": "a", "annotations": annotations}}


def test_other_annotations_and_labels_change_nothing() -> None:
    other = {**DENY, "metadata": {"name": "a", "labels": {"a": "b"}, "annotations": {"c": "d"}}}
    effect = compare(DENY, other, CLUSTER_POLICY)
    assert effect.changes == ()
    assert effect.worst is None
