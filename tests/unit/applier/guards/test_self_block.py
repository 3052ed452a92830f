"""What is asked of whoever evaluates policies, and what is made of the answer; the real CLI answers in tests/e2e."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from applier import plan
from applier.change import Plan, Rehearsed
from applier.guards import self_block
from applier.guards.refusals import Allowed
from applier.lock import LEASE as LEASE_NAME
from applier.ports import Account, Evaluated, Evaluation
from renderer.errors import RemoteError
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
from tests.support.simulator import SimulatedCluster

STATE = self_block.state("agent")
LEASE, HEAD = map(str, STATE)
BOTH = f"{LEASE}, {HEAD}"
NOTHING_SAID = Evaluation()


class Answering:
    """Says the same of every policy, and keeps what it was asked."""

    def __init__(self, answer: Evaluation | None) -> None:
        self._answer = answer
        self.asked: list[tuple[Sequence[JsonObject], Sequence[JsonObject], Account]] = []

    def evaluate(self, policy: Sequence[JsonObject], objects: Sequence[JsonObject], account: Account) -> Evaluation:
        """See `ports.Evaluator`."""
        self.asked.append((policy, objects, account))
        if self._answer is None:
            raise RemoteError("the CLI is gone.")
        return self._answer


class Nobody(SimulatedCluster):
    """A cluster that does not say whom it takes us for."""

    def account(self) -> Account | None:
        """See `ports.Cluster`."""
        return None


def said(*outcomes: str, message: str = "Set it.", resource: str = "Lease/agent/it") -> Evaluation:
    return Evaluation(results=tuple(Evaluated(outcome=one, message=message, resource=resource) for one in outcomes))


def ruled(*kinds: str, **different: Any) -> JsonObject:
    """A ClusterPolicy that denies Leases and ConfigMaps, or other kinds."""
    body = cluster_policy("guard")
    match = {"any": [{"resources": {"kinds": list(kinds or ("Lease", "ConfigMap")), "operations": ["CREATE"]}}]}
    rule = {**body["spec"]["rules"][0], "match": match, **different}
    rule["validate"] = {**rule["validate"], "failureAction": "Enforce"}
    return {**body, "spec": {"rules": [rule]}}


def cel(*resources: str, **spec: Any) -> JsonObject:
    """A ValidatingPolicy that denies what is in the group of Leases, or of ConfigMaps."""
    body = validating_policy("guard", expression="true")
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": list(resources or ["*"])}
    body["spec"] |= {"validationActions": ["Deny"], "matchConstraints": {"resourceRules": [rule]}, **spec}
    return body


def draft(*bodies: JsonObject, held: Sequence[JsonObject] = ()) -> tuple[Plan, SimulatedCluster]:
    cluster = SimulatedCluster(live(*map(live_object, held)).objects)
    return plan.draft(desired(*bodies), cluster.observe(), allowed=Allowed(empty=True)), cluster


def found(
    *bodies: JsonObject, held: Sequence[JsonObject] = (), answer: Evaluation | None = NOTHING_SAID
) -> tuple[list[str], Answering]:
    """What the guard says of a plan for these policies, and who was asked."""
    drafted, cluster = draft(*bodies, held=held)
    evaluator = Answering(answer)
    guard = self_block.SelfBlock(state=STATE, evaluator=evaluator)
    return [f"{identity}: {why}" for identity, why in guard.find(drafted, cluster.observe(), cluster)], evaluator


def test_a_lease_is_made_and_renewed_and_the_journal_goes_too() -> None:
    assert [str(write) for write in STATE] == [
        f"Lease/agent/{LEASE_NAME}",
        "ConfigMap/agent/insights-journal-000000000000",
    ]
    assert [write.operations for write in STATE] == [{"CREATE", "UPDATE"}, {"CREATE", "UPDATE", "DELETE"}]
    assert [(write.group, write.plural) for write in STATE] == [("coordination.k8s.io", "leases"), ("", "configmaps")]
    assert STATE[0].body["apiVersion"] == "coordination.k8s.io/v1"
    assert STATE[0].body["spec"].keys() == {"holderIdentity", "leaseDurationSeconds", "leaseTransitions"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said("pass", "fail"), "it would deny Lease/agent/it: Set it."),
        (said("fail", message="", resource=""), f"it would deny {BOTH}: it says no more"),
        (
            Evaluation(judged=False, reason="no such kind"),
            f"it may deny {BOTH}, and could not be evaluated: no such kind",
        ),
        (said("pass", "error"), f"it may deny {BOTH}, and could not be evaluated: Set it."),
        (None, f"it may deny {BOTH}, and could not be evaluated: the CLI is gone."),
        (said("pass", "skip"), ""),
        (NOTHING_SAID, ""),
    ],
)
def test_the_answer_decides(answer: Evaluation | None, why: str) -> None:
    for policy in (ruled(), cel("leases", "configmaps")):
        reasons, evaluator = found(policy, answer=answer)
        assert reasons == ([f"{policy['kind']}/guard: {why}"] if why else [])
        assert len(evaluator.asked) == 1


@pytest.mark.parametrize(
    ("spec", "outcomes", "what"),
    [
        ({"validations": [{"expression": "object == oldObject"}]}, ["pass"], "oldObject"),
        ({"validations": [{"expression": "request.operation == 'CREATE'"}]}, ["pass"], "request.operation"),
        ({"validations": [{"expression": "request.namespace == 'a'"}]}, ["pass"], "request.namespace"),
        ({"validations": [{"expression": "request.namespaces == 'a'"}]}, ["pass"], ""),
        ({"validations": [{"expression": "image.GetMetadata('a') == 1"}]}, ["pass"], "image.GetMetadata"),
        ({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}, ["pass"], "paramKind"),
        # What it matches was looked at already, and what its conditions keep away from all of them does not matter.
        (
            {"matchConditions": [{"name": "a", "expression": "object.kind == 'b'"}], "variables": ["params"]},
            ["skip"],
            "",
        ),
        ({"matchConditions": [{"name": "a", "expression": "params == 1"}], "variables": []}, ["skip"], "params"),
        (
            {"matchConditions": [{"name": "a", "expression": "true"}], "variables": ["params"]},
            ["pass", "skip"],
            "params",
        ),
        ({"matchConditions": [{"name": "a", "expression": "true"}], "variables": ["params"]}, [], "params"),
        ({"variables": ["params"]}, ["skip"], "params"),
    ],
)
def test_what_cannot_be_known_beforehand_counts(spec: JsonObject, outcomes: list[str], what: str) -> None:
    reasons, _ = found(cel("leases", "configmaps", **spec), answer=said(*outcomes))
    why = f"it may deny {BOTH}: what it says of `{what}` can't be evaluated beforehand"
    assert reasons == ([f"ValidatingPolicy/guard: {why}"] if what else [])


def test_a_deletion_has_no_object_to_look_at() -> None:
    deleting = {"resourceRules": [{**cel("*")["spec"]["matchConstraints"]["resourceRules"][0], "operations": ["*"]}]}
    looking = {"validations": [{"expression": "object.metadata.name == 'a'"}]}
    (reason,) = found(cel(**looking, matchConstraints=deleting), answer=said("pass"))[0]
    # Itself is the third: policies are written too.
    assert reason == (
        f"ValidatingPolicy/guard: it may deny {BOTH} and 1 more: what it says of `object` can't be evaluated beforehand"
    )
    assert found(cel(**looking), answer=said("pass"))[0] == []


def test_the_policy_is_evaluated_wherever_and_whatever_is_done() -> None:
    policy = ruled()
    policy["metadata"] |= {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    policy["spec"] |= {"background": True, "webhookConfiguration": {"timeoutSeconds": 3}, "failurePolicy": "Fail"}
    resources = policy["spec"]["rules"][0]["match"]["any"][0]["resources"]
    resources["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": "agent"}}
    policy["spec"]["rules"].append(
        {**policy["spec"]["rules"][0], "name": "pods", "match": {"resources": {"kinds": ["Pod"]}}}
    )
    _, evaluator = found(policy)
    ((bodies, objects, account),) = evaluator.asked
    (body,) = bodies
    assert [one["kind"] for one in objects] == ["Lease", "ConfigMap"]
    assert account == SimulatedCluster().account()
    assert (body["apiVersion"], body["kind"]) == ("kyverno.io/v1", "ClusterPolicy")
    assert body["metadata"].keys() == {"name", "annotations"}
    assert body["metadata"]["annotations"]["c"] == "d"
    (rule,) = body["spec"].pop("rules")
    assert body["spec"] == {"background": False, "failurePolicy": "Fail"}
    assert rule["match"] == {"any": [{"resources": {"kinds": ["Lease", "ConfigMap"]}}]}


def test_a_policy_in_cel_is_evaluated_for_every_operation() -> None:
    constraints = cel("leases")["spec"]["matchConstraints"] | {
        "matchPolicy": "Exact",
        "namespaceSelector": {},
        "excludeResourceRules": [],
    }
    _, evaluator = found(cel(matchConstraints=constraints, evaluation={"mode": "Kubernetes"}))
    (((body,), _, _),) = evaluator.asked
    assert body["spec"]["matchConstraints"] == {
        "matchPolicy": "Exact",
        "resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["leases"]}],
    }
    assert body["spec"]["evaluation"] == {"mode": "Kubernetes"}


@pytest.mark.parametrize(
    "policy",
    [
        ruled("Pod"),
        ruled() | {"spec": cluster_policy()["spec"]},
        cel("pods"),
        cel(validationActions=["Audit"]),
        cel(evaluation={"mode": "JSON"}),
        cel(evaluation={"admission": {"enabled": False}}),
        cel("leases") | {"kind": "NamespacedValidatingPolicy", "metadata": {"name": "guard", "namespace": "elsewhere"}},
        admission_policy("guard"),
        exception("guard"),
    ],
)
def test_what_does_not_act_on_our_writes_is_not_evaluated(policy: JsonObject) -> None:
    reasons, evaluator = found(policy, answer=said("fail"))
    assert (reasons, evaluator.asked) == ([], [])


@pytest.mark.parametrize(
    "policy",
    [
        cel(evaluation={}),
        cel(evaluation={"mode": ""}),
        cel(evaluation={"admission": {"enabled": True}}),
        cel("leases") | {"kind": "NamespacedValidatingPolicy", "metadata": {"name": "guard", "namespace": "agent"}},
        cel() | {"kind": "ImageValidatingPolicy"},
    ],
)
def test_what_acts_on_them_is(policy: JsonObject) -> None:
    assert len(found(policy, answer=said("fail"))[0]) == 1


def test_policies_that_this_run_writes_are_at_stake_too() -> None:
    guard = ruled("ClusterPolicy")
    reasons, evaluator = found(guard, cluster_policy("other", message="New."), held=[cluster_policy("other")])
    ((_, objects, _),) = evaluator.asked
    assert reasons == []
    # As it will be and, for taking it back, as it is; the guard's own new body too.
    assert sorted(one["metadata"]["name"] for one in objects) == ["guard", "other", "other"]
    assert all(one["kind"] == "ClusterPolicy" and "uid" not in one["metadata"] for one in objects)


def bound(action: str = "Deny", **spec: Any) -> tuple[JsonObject, JsonObject]:
    policy = admission_policy("guard")
    policy["spec"]["matchConstraints"] = cel("leases")["spec"]["matchConstraints"]
    binding = admission_binding("guard", policy="guard")
    binding["spec"] |= {"validationActions": [action], **spec}
    return policy, binding


def test_a_policy_of_the_server_is_due_to_itself_and_to_its_binding() -> None:
    policy, binding = bound()
    named = ["ValidatingAdmissionPolicy/guard", "ValidatingAdmissionPolicyBinding/guard"]
    changed = {**policy, "spec": {**policy["spec"], "failurePolicy": "Ignore"}}
    for wanted, held, due in (
        ([policy, binding], [], named),
        ([policy, binding], [policy], named[1:]),
        ([changed, binding], [policy, binding], named[:1]),
        ([policy, binding], [policy, binding], []),
        ([policy, admission_binding("guard", policy="another")], [], []),
        ([policy, bound("Audit")[1]], [], []),
    ):
        reasons, _ = found(*wanted, held=held, answer=said("fail"))
        assert [reason.partition(":")[0] for reason in reasons] == due


def test_a_binding_narrows_what_its_policy_sees() -> None:
    elsewhere = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prod"}}}
    assert found(*bound(matchResources=elsewhere), answer=said("fail"))[0] == []
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agent"}}}
    _, evaluator = found(*bound(matchResources=here))
    (((_, binding), _, _),) = evaluator.asked
    assert binding["spec"] == {"policyName": "guard", "validationActions": ["Deny"], "matchResources": {}}


def mutating(*rules: JsonObject) -> JsonObject:
    match = {"any": [{"resources": {"kinds": ["ConfigMap"]}}]}
    return cluster_policy("guard") | {"spec": {"rules": [{"name": "m", "match": match, **rule} for rule in rules]}}


def test_what_alters_our_writes_is_refused_and_not_evaluated() -> None:
    beyond: JsonObject = {"mutate": {"patchStrategicMerge": {"data": {}}}}
    label: JsonObject = {"mutate": {"patchStrategicMerge": {"metadata": {}}}}
    reasons, evaluator = found(mutating(label, beyond))
    assert reasons == [f"ClusterPolicy/guard: it may change {HEAD} as this program writes it"]
    assert evaluator.asked == []
    assert found(mutating(label))[0] == []
    # Policies may be changed on their way: what differs is found when they are read back.
    pods = {**beyond, "match": {"any": [{"resources": {"kinds": ["ClusterPolicy"]}}]}}
    assert found(mutating(pods))[0] == []


def test_what_the_server_refuses_or_is_deleted_acts_on_nothing() -> None:
    drafted, cluster = draft(ruled())
    refused = replace(drafted, changes=tuple(replace(one, rehearsed=Rehearsed.REFUSED) for one in drafted.changes))
    guard = self_block.SelfBlock(state=STATE, evaluator=Answering(said("fail")))
    assert guard.find(drafted, cluster.observe(), cluster)
    assert guard.find(refused, cluster.observe(), cluster) == []
    policy, binding = bound()
    assert found(policy, held=[policy, binding], answer=said("fail"))[0] == []


def test_without_whom_to_ask_or_who_we_are_what_may_deny_is_refused() -> None:
    drafted, cluster = draft(ruled())
    nobody = self_block.SelfBlock(state=STATE, evaluator=None)
    assert [why for _, why in nobody.find(drafted, cluster.observe(), cluster)] == [
        f"it may deny {BOTH}, and nothing here can evaluate it"
    ]
    guard = self_block.SelfBlock(state=STATE, evaluator=Answering(NOTHING_SAID))
    assert [why for _, why in guard.find(drafted, cluster.observe(), Nobody())] == [
        f"it may deny {BOTH}, and whom the cluster takes this account for is not known"
    ]
