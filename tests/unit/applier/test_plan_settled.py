"""What a plan holds once the server has been asked, and each change with all that is shown of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from applier import plan
from applier.change import Action, Change, Plan, Rehearsed
from applier.guards.refusals import Allowed, MaxDelete
from applier.ports import Live
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from tests.support.policies import (
    cluster_policy,
    desired,
    generating_rule,
    identity_of,
    live,
    live_object,
    validating_policy,
)

SAME, CHANGED, NEW = cluster_policy("same"), cluster_policy("changed", message="Other."), cluster_policy("new")
HELD = {name: live_object(cluster_policy(name)) for name in ("same", "changed", "withdrawn")}
CHANGED_ID, NEW_ID, WITHDRAWN_ID = (identity_of(cluster_policy(name)) for name in ("changed", "new", "withdrawn"))


def drafted(*wanted: JsonObject, held: Live | None = None, allowed: Allowed | None = None) -> Plan:
    return plan.draft(desired(*wanted), held or live(*HELD.values()), allowed=allowed or Allowed())


DRAFT = drafted(SAME, CHANGED, NEW)


def change_of(made: Plan, name: str) -> Change:
    (found,) = (change for change in made.changes if change.identity.name == name)
    return found


def stored(name: str) -> JsonObject:
    """What the server would store of that change, with a default of its own."""
    after = change_of(DRAFT, name).after or {}
    return {**after, "spec": {**after["spec"], "admission": True}}


def test_a_change_has_its_policy_both_ends_and_who_drifted() -> None:
    managed = live_object(
        cluster_policy("changed"), managedFields=[{"manager": "kubectl-edit", "fieldsV1": {"f:spec": {}}}]
    )
    made = drafted(CHANGED, NEW, held=live(managed, HELD["withdrawn"]))
    changed, new, withdrawn = (change_of(made, name) for name in ("changed", "new", "withdrawn"))
    assert changed.policy is not None
    assert (changed.policy.identity, changed.before, changed.drifted_by) == (CHANGED_ID, managed, ("kubectl-edit",))
    assert (new.before, new.drifted_by, new.patch) == (None, (), ())
    assert new.policy is not None
    assert (withdrawn.before, withdrawn.after, withdrawn.policy) == (HELD["withdrawn"], None, None)


def test_labels_of_others_are_no_change() -> None:
    held = live_object(cluster_policy("same"))
    held["metadata"]["labels"] = {"team": "platform"}
    assert change_of(drafted(SAME, held=live(held)), "same").action is Action.UNCHANGED


def test_only_what_is_created_or_changed_is_asked_about() -> None:
    foreign = live_object(cluster_policy("foreign", message="Theirs."), owned=False)
    made = drafted(SAME, CHANGED, NEW, cluster_policy("foreign"), held=live(*HELD.values(), foreign),
                   allowed=Allowed(adopt=True))  # fmt: skip
    assert [change.identity.name for change in plan.to_rehearse(made)] == ["changed", "foreign", "new"]


def test_what_the_server_answers_is_what_a_change_leads_to() -> None:
    answers = {CHANGED_ID: stored("changed"), NEW_ID: stored("new")}
    settled = plan.settle(DRAFT, answers, (), deletable=[WITHDRAWN_ID])
    for name in ("changed", "new"):
        found = change_of(settled, name)
        assert found.after == stored(name)
        assert found.rehearsed is Rehearsed.ACCEPTED
    assert {operation["path"] for operation in change_of(settled, "changed").patch} == {
        "/spec/admission",
        "/spec/rules/0/validate/message",
    }
    assert change_of(settled, "changed").action is Action.UPDATE
    assert change_of(settled, "withdrawn").rehearsed is Rehearsed.ACCEPTED
    assert change_of(settled, "same") == change_of(DRAFT, "same")


def test_what_the_server_would_store_as_it_is_has_no_patch() -> None:
    found = change_of(plan.settle(DRAFT, {CHANGED_ID: HELD["changed"]}, ()), "changed")
    assert (found.action, found.patch, found.after) == (
        Action.UNCHANGED,
        (),
        content(HELD["changed"], CHANGED_ID.kind),
    )


@pytest.mark.parametrize(
    ("refused", "rehearsed"), [((), Rehearsed.NOT_ASKED), ((CHANGED_ID, NEW_ID, WITHDRAWN_ID), Rehearsed.REFUSED)]
)
def test_what_was_not_asked_or_was_refused_says_so_and_stays(refused: tuple[object, ...], rehearsed: Rehearsed) -> None:
    settled = plan.settle(DRAFT, {}, refused)  # type: ignore[arg-type] # identities, as the table has them
    for name in ("changed", "new", "withdrawn"):
        assert change_of(settled, name) == replace(change_of(DRAFT, name), rehearsed=rehearsed)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (generating_rule("changed"), "what it generated would be deleted with it. It is immutable."),
        (cluster_policy("changed"), "It is immutable."),
    ],
)
def test_what_is_taken_anew_only_has_no_patch_and_a_reason(body: JsonObject, reason: str) -> None:
    made = drafted(CHANGED, SAME, held=live(live_object(body), live_object(SAME)))
    answer = change_of(made, "changed").after or {}
    settled = plan.settle(made, {CHANGED_ID: answer}, (), replacing={CHANGED_ID: "It is immutable."})
    found = change_of(settled, "changed")
    assert (found.action, found.patch, found.reason, found.after) == (Action.REPLACE, (), reason, answer)
    refused = plan.refuse_replacing(settled)
    assert change_of(refused, "changed") == replace(found, action=Action.REFUSED)
    assert change_of(refused, "same") == change_of(settled, "same")
    (refusal,) = refused.refusals
    assert (refusal.code, refusal.subjects) == (ExitCode.NEEDS_REPLACING, (f"{CHANGED_ID}: {reason}",))
    assert plan.refuse_replacing(DRAFT) is DRAFT


def test_what_would_block_this_program_is_refused_and_nothing_else() -> None:
    refused = plan.refuse_self_blocking(DRAFT, [(NEW_ID, "it denies Leases"), (CHANGED_ID, "it denies ConfigMaps")])
    for name, why in (("changed", "it denies ConfigMaps"), ("new", "it denies Leases")):
        assert change_of(refused, name) == replace(change_of(DRAFT, name), action=Action.REFUSED, reason=why)
    for name in ("same", "withdrawn"):
        assert change_of(refused, name) == change_of(DRAFT, name)
    (refusal,) = refused.refusals
    assert refusal.code is ExitCode.BLOCKS_ITSELF
    assert refusal.subjects == (f"{CHANGED_ID}: it denies ConfigMaps", f"{NEW_ID}: it denies Leases")
    assert plan.refuse_self_blocking(DRAFT, []) is DRAFT


def test_too_many_deletions_name_them_and_how_many_there_are() -> None:
    (refusal,) = drafted(SAME, allowed=Allowed(max_delete=MaxDelete(count=1))).refusals
    assert refusal.subjects == ("ClusterPolicy/changed", "ClusterPolicy/withdrawn")
    assert "2 of 3 owned policies would be deleted, more than the limit of 1." in refusal.message


def test_an_empty_set_names_all_that_would_go() -> None:
    (refusal,) = drafted().refusals
    assert refusal.code is ExitCode.EMPTY_SET
    assert refusal.subjects == ("ClusterPolicy/changed", "ClusterPolicy/same", "ClusterPolicy/withdrawn")
    assert "all 3 that it owns here" in refusal.message
    assert drafted(allowed=Allowed(empty=True, max_delete=MaxDelete(count=0))).refusals == ()


def test_without_pruning_an_empty_set_puts_nothing_at_stake() -> None:
    assert plan.draft(desired(), live(*HELD.values()), allowed=Allowed(), prune=False).refusals == ()


def test_a_refusal_names_its_policies_and_adds_what_is_special_of_each() -> None:
    kind = identity_of(validating_policy()).kind
    unread = plan.draft(desired(validating_policy()), live(unreadable={kind: "no rights"}), allowed=Allowed())
    (refusal,) = unread.refusals
    assert refusal.subjects == ("ValidatingPolicy/require-owner: no rights",)
    assert unread.changes[0].reason == f"{kind.resource}: no rights"
    assert unread.changes[0].rehearsed is Rehearsed.NOT_ASKED
    foreign = drafted(SAME, held=live(live_object(cluster_policy("same", message="Theirs."), owned=False)))
    assert foreign.refusals[0].subjects == ("ClusterPolicy/same",)


def test_bodies_take_the_place_of_what_was_written() -> None:
    body = {**CHANGED, "spec": {**CHANGED["spec"], "background": False}}
    made = plan.draft(desired(CHANGED, SAME), live(), allowed=Allowed(), bodies={CHANGED_ID: body})
    assert (change_of(made, "changed").after or {})["spec"]["background"] is False
    assert (change_of(made, "same").after or {})["spec"]["background"] is True
