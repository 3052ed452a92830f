"""What a plan holds, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from applier import plan
from applier.change import Action, Plan, Rehearsed
from applier.guards.refusals import Allowed, MaxDelete
from applier.ports import Live
from renderer.errors import ExitCode
from renderer.manifest import kinds
from renderer.manifest.policyset import PolicySet
from tests.support.policies import (
    cluster_policy,
    desired,
    generating_rule,
    identity_of,
    live,
    live_object,
    validating_policy,
)

CLUSTER_POLICY = identity_of(cluster_policy()).kind


def drafted(wanted: PolicySet, held: Live, **allowed: object) -> Plan:
    return plan.draft(wanted, held, allowed=Allowed(**allowed))  # type: ignore[arg-type] # the guards' own names


def actions(of: Plan) -> dict[str, Action]:
    return {str(change.identity): change.action for change in of.changes}


def codes(of: Plan) -> list[ExitCode]:
    return [refusal.code for refusal in of.refusals]


def test_new_changed_same_and_withdrawn_policies() -> None:
    same, changed, withdrawn = cluster_policy("same"), cluster_policy("changed"), cluster_policy("withdrawn")
    held = live(*map(live_object, (same, changed, withdrawn)))
    found = drafted(desired(same, cluster_policy("changed", message="Other."), cluster_policy("new")), held)
    assert actions(found) == {
        "ClusterPolicy/same": Action.UNCHANGED,
        "ClusterPolicy/changed": Action.UPDATE,
        "ClusterPolicy/withdrawn": Action.DELETE,
        "ClusterPolicy/new": Action.CREATE,
    }
    assert not found.refusals


def test_one_changed_message_is_one_replace() -> None:
    held = live(live_object(cluster_policy()))
    (change,) = drafted(desired(cluster_policy(message="Other.")), held).changes
    assert change.patch == ({"op": "replace", "path": "/spec/rules/0/validate/message", "value": "Other."},)


def test_what_the_server_would_default_is_no_change() -> None:
    body = live_object(cluster_policy())
    body["spec"]["admission"] = True  # a default of the CRD
    found = drafted(desired(cluster_policy()), live(body))
    (change,) = plan.to_rehearse(found)
    settled = plan.settle(found, {change.identity: copy.deepcopy(body)}, refused=())
    assert actions(settled) == {"ClusterPolicy/require-team": Action.UNCHANGED}


def test_a_replacement_says_what_it_deletes_whether_it_is_allowed_or_not() -> None:
    held = live(live_object(generating_rule()))
    found = drafted(desired(generating_rule(selects="squad-*")), held)
    (change,) = plan.to_rehearse(found)
    answer = change.after or {}
    settled = plan.settle(found, {change.identity: answer}, (), replacing={change.identity: "It is immutable."})
    told = "what it generated would be deleted with it. It is immutable."
    assert [(one.action, one.reason) for one in settled.changes] == [(Action.REPLACE, told)]
    (refusal,) = plan.refuse_replacing(settled).refusals
    assert refusal.subjects == (f"ClusterPolicy/defaults: {told}",)


def test_a_policy_that_is_not_owned_is_neither_changed_nor_deleted() -> None:
    held = live(live_object(cluster_policy("wanted"), owned=False), live_object(cluster_policy("other"), owned=False))
    found = drafted(desired(cluster_policy("wanted")), held)
    assert actions(found) == {"ClusterPolicy/wanted": Action.REFUSED}
    assert codes(found) == [ExitCode.NOT_OWNED]
    assert not found.effective
    assert actions(drafted(desired(cluster_policy("wanted")), held, adopt=True)) == {
        "ClusterPolicy/wanted": Action.ADOPT
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [{"kind": "ClusterPolicy", "name": "x", "uid": "u", "apiVersion": "kyverno.io/v1"}]},
        {"labels": {"app.kubernetes.io/managed-by": "kyverno"}},
    ],
)
def test_what_a_controller_keeps_is_never_touched(metadata: dict[str, Any]) -> None:
    held = live(live_object(cluster_policy("kept"), **metadata))
    assert actions(drafted(desired(cluster_policy("other")), held)) == {"ClusterPolicy/other": Action.CREATE}
    assert codes(drafted(desired(cluster_policy("kept")), held, adopt=True)) == [ExitCode.NOT_OWNED]


def test_an_empty_answer_deletes_nothing_unless_allowed() -> None:
    held = live(live_object(cluster_policy()))
    assert codes(drafted(desired(), held)) == [ExitCode.EMPTY_SET]
    assert actions(drafted(desired(), held, empty=True)) == {"ClusterPolicy/require-team": Action.DELETE}
    assert not drafted(desired(), held, empty=True).refusals


def test_an_empty_answer_on_a_cluster_that_owns_nothing_is_no_change() -> None:
    found = drafted(desired(), live(live_object(cluster_policy(), owned=False)))
    assert (found.changes, found.refusals) == ((), ())


@pytest.mark.parametrize(
    ("owned", "withdrawn", "limit", "refused"),
    [
        (8, 5, None, False),  # many by share, few by count
        (24, 6, None, False),  # exactly a quarter
        (23, 6, None, True),
        (100, 26, None, True),
        (8, 2, "1", True),
        (8, 2, "2", False),
        (8, 2, "24%", True),
        (8, 2, "25%", False),
        (8, 1, "0", True),
    ],
)
def test_more_deletions_than_ordinary_are_refused(owned: int, withdrawn: int, limit: str | None, refused: bool) -> None:
    bodies = [cluster_policy(f"p{number}") for number in range(owned)]
    found = drafted(desired(*bodies[withdrawn:]), live(*map(live_object, bodies)), max_delete=MaxDelete.of(limit))
    assert codes(found) == ([ExitCode.TOO_MANY_DELETIONS] if refused else [])


def test_allowing_the_empty_set_does_not_allow_other_deletions() -> None:
    bodies = [cluster_policy(f"p{number}") for number in range(20)]
    found = drafted(desired(bodies[0]), live(*map(live_object, bodies)), empty=True)
    assert codes(found) == [ExitCode.TOO_MANY_DELETIONS]


def test_a_wanted_kind_that_is_missing_or_unreadable_is_refused() -> None:
    wanted = desired(cluster_policy())
    assert codes(drafted(wanted, live(missing=(CLUSTER_POLICY,)))) == [ExitCode.KIND_UNAVAILABLE]
    held = live(unreadable={CLUSTER_POLICY: "this account may not list it"})
    found = drafted(wanted, held)
    assert codes(found) == [ExitCode.KIND_UNAVAILABLE]
    assert "clusterpolicies.kyverno.io" in found.notes[0]


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (live(live_object(cluster_policy(message="Theirs."), owned=False)), "it exists and Insights does not own it"),
        (live(live_object(cluster_policy(message="Old."), ownerReferences=[{"kind": "X"}])), "a controller keeps it"),
        (
            live(live_object(cluster_policy(message="Old."), deletionTimestamp="2026-01-01T00:00:00Z")),
            "it is being deleted and waits for its finalizers",
        ),
        (live(missing=(CLUSTER_POLICY,)), "clusterpolicies.kyverno.io: the cluster does not serve it"),
        (
            live(unreadable={CLUSTER_POLICY: "this account may not list it"}),
            "clusterpolicies.kyverno.io: this account may not list it",
        ),
    ],
)
def test_what_a_guard_refuses_stays_in_the_plan_with_its_reason_and_what_would_have_happened(
    held: Live, reason: str
) -> None:
    (change,) = drafted(desired(cluster_policy()), held).changes
    assert (change.action, change.rehearsed) == (Action.REFUSED, Rehearsed.NOT_ASKED)
    assert change.reason == reason
    assert change.before == held.objects.get(change.identity)
    assert change.after is not None
    assert bool(change.patch) is bool(change.before)
    assert change.after["spec"]["rules"][0]["validate"]["message"] == "Set the label team."


def test_an_unreadable_kind_that_is_not_wanted_is_only_noted() -> None:
    held = live(live_object(cluster_policy()), unreadable={kinds.KINDS[0]: "this account may not list it"})
    found = drafted(desired(cluster_policy()), held)
    assert not found.refusals
    assert len(found.notes) == 1


def test_a_terminating_policy_is_not_written_and_not_deleted_twice() -> None:
    going = live_object(cluster_policy(), deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["example.com/f"])
    assert codes(drafted(desired(cluster_policy()), live(going))) == [ExitCode.TERMINATING]
    assert actions(drafted(desired(validating_policy()), live(going))) == {
        "ValidatingPolicy/require-owner": Action.CREATE
    }


def test_without_pruning_nothing_is_deleted() -> None:
    held = live(live_object(cluster_policy("withdrawn")))
    found = plan.draft(desired(cluster_policy("new")), held, allowed=Allowed(), prune=False)
    assert actions(found) == {"ClusterPolicy/new": Action.CREATE}


def test_a_document_in_another_version_is_written_in_the_stored_one() -> None:
    body = {**validating_policy(), "apiVersion": "policies.kyverno.io/v1alpha1"}
    (change,) = drafted(desired(body), live()).changes
    assert change.after is not None
    assert change.after["apiVersion"] == "policies.kyverno.io/v1beta1"
