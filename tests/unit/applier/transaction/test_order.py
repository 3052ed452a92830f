"""The order of writes."""

from __future__ import annotations

from applier.change import Action, Change
from applier.transaction.order import steps
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    context,
    exception,
    identity_of,
    live_object,
    validating_policy,
)


def change(body: JsonObject, action: Action, before: JsonObject | None = None) -> Change:
    return Change(identity=identity_of(body), action=action, before=before, after=body)


def test_exceptions_come_first_and_go_last_and_a_policy_stands_before_its_binding() -> None:
    enforcing = cluster_policy("tightened")
    enforcing["spec"]["validationFailureAction"] = "Enforce"
    changes = [
        change(exception("old"), Action.DELETE),
        change(context("old"), Action.DELETE),
        change(admission_policy("old"), Action.DELETE),
        change(admission_binding("old"), Action.DELETE),
        change(cluster_policy("loosened"), Action.UPDATE, live_object({**enforcing, "metadata": {"name": "loosened"}})),
        change(enforcing, Action.UPDATE, live_object(cluster_policy("tightened"))),
        change(cluster_policy("reworded", message="Other."), Action.ADOPT, live_object(cluster_policy("reworded"))),
        change(admission_binding("new"), Action.CREATE),
        change(validating_policy("new"), Action.CREATE),
        change(admission_policy("new"), Action.CREATE),
        change(context("new"), Action.CREATE),
        change(validating_policy("same"), Action.UNCHANGED),
        change(exception("new"), Action.CREATE),
    ]
    assert [[f"{entry.action.value} {entry.identity}" for entry in step] for step in steps(changes)] == [
        ["create PolicyException.policies.kyverno.io/default/new"],
        ["create GlobalContextEntry/new"],
        ["create ValidatingAdmissionPolicy/new", "create ValidatingPolicy/new"],
        ["create ValidatingAdmissionPolicyBinding/new"],
        ["update ClusterPolicy/tightened"],
        ["update ClusterPolicy/loosened", "adopt ClusterPolicy/reworded"],
        ["delete ValidatingAdmissionPolicyBinding/old"],
        ["delete ValidatingAdmissionPolicy/old"],
        ["delete GlobalContextEntry/old"],
        ["delete PolicyException.policies.kyverno.io/default/old"],
    ]
    assert steps(reversed(changes)) == steps(changes)
