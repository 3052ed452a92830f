"""Which changes need `--allow-weaken`: those of what denies requests, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from applier import plan
from applier.change import Plan
from applier.guards.refusals import Allowed, MaxDelete
from applier.guards.weakening import weakened
from applier.ports import Live
from renderer.manifest import kinds
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    desired,
    exception,
    live,
    live_object,
    validating_policy,
)

CONTEXT: JsonObject = {
    "apiVersion": "kyverno.io/v2beta1",
    "kind": "GlobalContextEntry",
    "metadata": {"name": "ingresses"},
    "spec": {"apiCall": {"urlPath": "/apis/networking.k8s.io/v1/ingresses", "refreshInterval": "10m"}},
}
LEGACY_EXCEPTION: JsonObject = {
    "apiVersion": "kyverno.io/v2",
    "kind": "PolicyException",
    "metadata": {"name": "legacy", "namespace": "default"},
    "spec": {
        "match": {"any": [{"resources": {"kinds": ["Namespace"]}}]},
        "exceptions": [{"policyName": "require-*", "ruleNames": ["team"]}],
    },
}


def enforcing(body: JsonObject) -> JsonObject:
    field, value = {
        "ClusterPolicy": ("validationFailureAction", "Enforce"),
        "ValidatingPolicy": ("validationActions", ["Deny"]),
        "ValidatingAdmissionPolicyBinding": ("validationActions", ["Deny"]),
    }[body["kind"]]
    return {**body, "spec": {**body["spec"], field: value}}


def with_spec(body: JsonObject, **spec: Any) -> JsonObject:
    return {**body, "spec": {**body["spec"], **spec}}


def names(wanted: Iterable[JsonObject], held: Live) -> list[str]:
    return [str(identity) for identity, _ in weakened(drafted(wanted, held), held)]


def drafted(wanted: Iterable[JsonObject], held: Live) -> Plan:
    return plan.draft(desired(*wanted), held, allowed=Allowed(empty=True, max_delete=MaxDelete(count=99)))


CP, VP, VAP, BINDING = cluster_policy(), validating_policy(), admission_policy(), admission_binding()
READER = with_spec(VP, variables=[{"name": "x", "expression": "globalContext.Get('ingresses', '')"}])


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([enforcing(CP)], [], ["ClusterPolicy/require-team"]),
        ([CP], [], []),
        ([enforcing(CP)], [CP], ["ClusterPolicy/require-team"]),
        ([CP], [enforcing(CP)], []),
        ([enforcing(CP)], [enforcing(cluster_policy(message="Other."))], []),
        ([enforcing(VP)], [enforcing(validating_policy(expression="true"))], ["ValidatingPolicy/require-owner"]),
        ([VP], [validating_policy(expression="true")], []),
        ([VAP], [], []),
        ([VAP, BINDING], [BINDING], []),
        ([VAP, enforcing(BINDING)], [enforcing(BINDING)], ["ValidatingAdmissionPolicy/no-bare-pods"]),
        ([VAP, enforcing(BINDING)], [VAP, BINDING], ["ValidatingAdmissionPolicyBinding/no-bare-pods"]),
        ([VAP, BINDING], [VAP], []),
        ([enforcing(VP)], [enforcing(VP), exception()], ["PolicyException.policies.kyverno.io/default/legacy"]),
        ([VP], [VP, exception()], []),
        ([], [enforcing(VP), exception()], []),
        ([enforcing(VP), exception()], [enforcing(VP)], []),
        ([enforcing(CP)], [enforcing(CP), LEGACY_EXCEPTION], ["PolicyException.kyverno.io/default/legacy"]),
        ([enforcing(CP)], [enforcing(CP), exception()], []),
        ([enforcing(READER), CONTEXT], [enforcing(READER)], ["GlobalContextEntry/ingresses"]),
        ([enforcing(VP), CONTEXT], [enforcing(VP)], []),
    ],
)
def test_only_what_denies_requests_can_be_weakened(
    before: list[JsonObject], after: list[JsonObject], found: list[str]
) -> None:
    assert names(after, live(*map(live_object, before))) == found


@pytest.mark.parametrize("wanted", [[CP, exception()], [CP, LEGACY_EXCEPTION]])
def test_an_exception_counts_where_the_policies_cannot_be_read(wanted: list[JsonObject]) -> None:
    hidden = {kind: "no" for kind in kinds.KINDS if kind.name in ("Policy", "ValidatingPolicy")}
    assert len(names(wanted, live(live_object(CP), unreadable=hidden))) == 1


def test_a_policy_of_the_server_counts_where_bindings_cannot_be_read() -> None:
    hidden = {kind: "no" for kind in kinds.KINDS if kind.name == "ValidatingAdmissionPolicyBinding"}
    assert names([], live(live_object(VAP), unreadable=hidden)) == ["ValidatingAdmissionPolicy/no-bare-pods"]


def test_each_says_what_is_taken_away() -> None:
    held = live(live_object(enforcing(CP)))
    ((_, what),) = weakened(drafted([CP], held), held)
    assert what == "rule team no longer denies requests (Deny → Audit)"


def excepting(**spec: Any) -> JsonObject:
    return {**LEGACY_EXCEPTION, "spec": spec}


@pytest.mark.parametrize(
    ("made", "counts"),
    [
        (excepting(exceptions=[{"policyName": "require-team"}]), True),
        (excepting(exceptions=[{"policyName": "another"}]), False),
        (excepting(exceptions=[{"policyName": "another"}], policyRefs=None), False),
        (excepting(exceptions=[]), False),
        (excepting(exceptions=5), True),
        (excepting(exceptions=["require-team"]), True),
        (excepting(exceptions=[{"policyName": "another"}, 1]), True),
    ],
)
def test_an_exception_counts_where_it_names_what_denies_or_cannot_be_read(made: JsonObject, counts: bool) -> None:
    held = live(live_object(enforcing(CP)))
    assert names([enforcing(CP), made], held) == (["PolicyException.kyverno.io/default/legacy"] if counts else [])


def test_policies_of_another_group_that_cannot_be_read_do_not_matter_to_an_exception() -> None:
    hidden = {kind: "no" for kind in kinds.KINDS if kind.name == "Policy"}
    assert names([CP, exception()], live(live_object(CP), unreadable=hidden)) == []


def test_a_context_counts_where_anything_cannot_be_read() -> None:
    hidden = {kind: "no" for kind in kinds.KINDS if kind.name == "Policy"}
    assert names([], live(live_object(CONTEXT), unreadable=hidden)) == ["GlobalContextEntry/ingresses"]
