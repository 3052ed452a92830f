"""Policies that would deny the program's own writes, told from others: by what they match, then by the CLI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from applier import plan
from applier.change import Action
from applier.guards import self_block
from applier.guards.refusals import Allowed
from applier.kyverno_cli import KyvernoCli
from applier.ports import Account, Evaluation
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    desired,
    live,
    live_object,
    validating_policy,
)
from tests.support.simulator import SimulatedCluster
from tests.support.tools import tool

pytestmark = pytest.mark.tool

DENY, MAY, CLEAR = "it would deny ", "it may ", ""
NAMESPACE = "insights-agent"


class Counting:
    """The real CLI, and how often it was asked."""

    def __init__(self) -> None:
        self.cli = KyvernoCli(tool("kyverno"))
        self.asked = 0

    def evaluate(self, policy: Sequence[JsonObject], objects: Sequence[JsonObject], account: Account) -> Evaluation:
        """See `ports.Evaluator`."""
        self.asked += 1
        return self.cli.evaluate(policy, objects, account)


def rule(kinds: list[str], *, action: str = "Enforce", exclude: JsonObject | None = None, **match: Any) -> JsonObject:
    body = cluster_policy("guard")
    body["spec"] = {
        "background": False,
        "rules": [
            {
                "name": "labels",
                "match": {"any": [{"resources": {"kinds": kinds, **match}}]},
                **({"exclude": {"any": [exclude]}} if exclude else {}),
                "validate": {
                    "failureAction": action,
                    "message": "Set the label team.",
                    "pattern": {"metadata": {"labels": {"team": "?*"}}},
                },
            }
        ],
    }
    return body


def cel(
    groups: list[str], resources: list[str], *, expression: str = "has(object.metadata.labels)", **spec: Any
) -> JsonObject:
    operations = spec.pop("operations", ["CREATE", "UPDATE"])
    body = validating_policy("guard")
    body["spec"] = {
        "validationActions": ["Deny"],
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": groups, "apiVersions": ["*"], "operations": operations, "resources": resources}
            ],
            **spec.pop("constraints", {}),
        },
        "validations": [{"expression": expression, "message": "It needs labels."}],
        **spec,
    }
    return body


def native(
    *args: Any, action: str = "Deny", binding: JsonObject | None = None, **kwargs: Any
) -> tuple[JsonObject, JsonObject]:
    body = admission_policy("guard")
    body["spec"] = {key: value for key, value in cel(*args, **kwargs)["spec"].items() if key != "validationActions"}
    bound = admission_binding("guard", policy="guard")
    bound["spec"] |= {"validationActions": [action], **(binding or {})}
    return body, bound


def mutating(body: JsonObject, *kinds: str) -> JsonObject:
    policy = cluster_policy("guard")
    policy["spec"] = {
        "rules": [
            {
                "name": "m",
                "match": {"any": [{"resources": {"kinds": list(kinds)}}]},
                "mutate": {"patchStrategicMerge": body},
            }
        ]
    }
    return policy


LEASES = (["coordination.k8s.io"], ["leases"])
OURS_IN = {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
ELSEWHERE = {"matchLabels": {"kubernetes.io/metadata.name": "prod"}}
NOT_US = [{"name": "u", "expression": "request.userInfo.username != 'applier'"}]


def found(*bodies: JsonObject, held: Sequence[JsonObject] = ()) -> tuple[str, int]:
    """What the guard says of these policies (all with the same words), and how often the CLI was run for it."""
    cluster = SimulatedCluster(live(*map(live_object, held)).objects)
    observed = cluster.observe()
    drafted = plan.draft(desired(*bodies), observed, allowed=Allowed())
    evaluator = Counting()
    guard = self_block.SelfBlock(state=self_block.state(NAMESPACE), evaluator=evaluator)
    reasons = {why for _, why in guard.find(drafted, observed, cluster)}
    assert len(reasons) < 2
    return (reasons.pop() if reasons else ""), evaluator.asked


@pytest.mark.parametrize(
    ("bodies", "says"),
    [
        ([rule(["Lease"])], DENY),
        ([rule(["*"])], DENY),
        ([rule(["coordination.k8s.io/v1/Lease"], operations=["UPDATE"])], DENY),
        ([rule(["ConfigMap"], namespaces=["insights-*"])], DENY),
        ([rule(["ClusterPolicy"])], DENY),
        ([rule(["*"], exclude={"subjects": [{"kind": "User", "name": "applier"}]})], CLEAR),
        ([rule(["*"], exclude={"resources": {"kinds": ["Lease", "ConfigMap", "*Policy"]}})], CLEAR),
        ([rule(["Lease"], exclude={"clusterRoles": ["applier"]})], DENY),
        ([rule(["Lease", "ConfigMap"], exclude={"resources": {"operations": ["CREATE"]}})], MAY),
        ([rule(["*"], namespaceSelector={"matchLabels": {"freeze": "true"}})], DENY),  # its labels can't be read
        ([cel(*LEASES)], DENY),
        ([cel(["*"], ["*"], constraints={"namespaceSelector": OURS_IN})], DENY),
        ([cel(["policies.kyverno.io"], ["validatingpolicies"], expression="false")], DENY),
        ([cel(["*"], ["*"], expression="true")], CLEAR),
        ([cel(["*"], ["*"], matchConditions=NOT_US)], CLEAR),
        ([cel(*LEASES, expression="object.metadata.name == oldObject.metadata.name")], MAY),
        ([cel(*LEASES, expression="true || resource.Get('v1', 'pods', 'a', 'b').kind == 'c'")], MAY),
        ([cel(*LEASES, expression="true || resource.get('v1', 'pods', 'a', 'b').kind == 'c'")], MAY),
        ([cel(*LEASES, expression="true || resource.list('v1', 'pods', 'a').items.size() == 0")], MAY),
        ([cel(*LEASES, expression="true || http.get('http://192.0.2.1/a') == 1")], MAY),
        ([cel(*LEASES, expression="true || http.post('http://192.0.2.1/a', {}) == 1")], MAY),
        ([cel([""], ["configmaps"], operations=["DELETE"], expression="object == null")], DENY),
        ([cel([""], ["configmaps"], operations=["DELETE"])], MAY),
        ([*native(*LEASES)], DENY),
        ([*native(*LEASES, operations=["UPDATE"])], DENY),
        ([*native(["*"], ["*"], expression="true")], CLEAR),
        ([*native(["*"], ["*"], matchConditions=NOT_US)], CLEAR),
        ([*native(*LEASES, paramKind={"apiVersion": "v1", "kind": "ConfigMap"}, expression="true")], MAY),
        ([*native(*LEASES, expression="authorizer.group('').resource('pods').check('get').allowed()")], MAY),
    ],
)
def test_what_may_see_our_writes_is_evaluated_on_them(bodies: list[JsonObject], says: str) -> None:
    why, asked = found(*bodies)
    assert asked == 1
    assert why.startswith(says) if says else why == ""


@pytest.mark.parametrize(
    ("bodies", "says"),
    [
        ([rule(["Pod"])], CLEAR),
        ([rule(["apps/v1/Deployment", "StatefulSet"])], CLEAR),
        ([rule(["*"], action="Audit")], CLEAR),
        ([rule(["Lease", "ConfigMap"], namespaces=["prod", "stage-*"])], CLEAR),
        ([rule(["Lease"], operations=["DELETE"])], CLEAR),
        ([rule(["Lease", "ConfigMap"], namespaceSelector=ELSEWHERE)], CLEAR),
        ([cel([""], ["pods"])], CLEAR),
        ([cel(["apps"], ["*"])], CLEAR),
        ([cel(["*"], ["*/scale"])], CLEAR),
        ([cel(*LEASES, validationActions=["Audit"])], CLEAR),
        ([cel(*LEASES, operations=["DELETE"])], CLEAR),
        ([cel(*LEASES, constraints={"namespaceSelector": ELSEWHERE})], CLEAR),
        ([cel(*LEASES, constraints={"objectSelector": {"matchLabels": {"app": "x"}}})], CLEAR),
        ([native(*LEASES)[0]], CLEAR),
        ([*native(*LEASES, action="Warn")], CLEAR),
        ([*native(*LEASES, binding={"matchResources": {"namespaceSelector": ELSEWHERE}})], CLEAR),
        ([*native(["admissionregistration.k8s.io"], ["*"], expression="false")], CLEAR),
        ([mutating({"metadata": {"labels": {"+(team)": "none"}}}, "ConfigMap", "Lease")], CLEAR),
        ([mutating({"data": {"team": "none"}}, "Secret")], CLEAR),
        ([mutating({"data": {"team": "none"}}, "ConfigMap")], MAY),
        ([mutating({"spec": {"x": "none"}}, "*")], MAY),
    ],
)
def test_what_cannot_see_our_writes_costs_no_run_of_the_cli(bodies: list[JsonObject], says: str) -> None:
    why, asked = found(*bodies)
    assert asked == 0
    assert why.startswith(says) if says else why == ""


def test_a_binding_is_judged_with_the_policy_that_is_there_already() -> None:
    policy, binding = native(*LEASES)
    assert found(policy, binding, held=[policy])[0].startswith(DENY)
    assert found(policy, binding, held=[policy, binding]) == ("", 0)


def test_without_the_cli_what_may_see_our_writes_is_refused() -> None:
    cluster = SimulatedCluster()
    drafted = plan.draft(
        desired(rule(["*"]), rule(["Pod"]) | {"metadata": {"name": "pods"}}), live(), allowed=Allowed()
    )
    guard = self_block.SelfBlock(state=self_block.state(NAMESPACE), evaluator=None)
    blocked = guard.find(drafted, live(), cluster)
    assert [str(identity) for identity, _ in blocked] == ["ClusterPolicy/guard"]
    settled = plan.refuse_self_blocking(drafted, blocked)
    assert [change.action for change in settled.changes] == [Action.REFUSED, Action.CREATE]
