"""Which policies --only and --exclude mean, and what that does to a plan and its guards."""

from __future__ import annotations

import pytest

from applier import pipeline, plan, selection
from applier.change import Action, Plan
from applier.guards.refusals import Allowed, MaxDelete
from applier.ports import Live
from applier.selection import ALL, Pattern, Selection
from renderer.errors import ConfigurationError, ExitCode, UsageError
from renderer.manifest import kinds
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.policyset import PolicySet
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    desired,
    exception,
    identity_of,
    live,
    live_object,
)
from tests.support.simulator import SimulatedCluster


def identity(group: str, kind: str, name: str, namespace: str = "") -> Identity:
    found = kinds.find(group, kind)
    assert found is not None
    return Identity(kind=found, namespace=namespace, name=name)


CLUSTER_POLICY = identity(kinds.KYVERNO, "ClusterPolicy", "require-team")
POLICY = identity(kinds.KYVERNO, "Policy", "require-team", "team-a")
OLD_EXCEPTION = identity(kinds.KYVERNO, "PolicyException", "legacy", "team-a")
NEW_EXCEPTION = identity(kinds.POLICIES, "PolicyException", "legacy", "team-b")
EVERY = (CLUSTER_POLICY, POLICY, OLD_EXCEPTION, NEW_EXCEPTION)


def chosen(*only: str, exclude: tuple[str, ...] = ()) -> Selection:
    return Selection(only=tuple(map(Pattern.of, only)), exclude=tuple(map(Pattern.of, exclude)))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ClusterPolicy/require-team", {CLUSTER_POLICY}),
        ("clusterpolicy/require-team", {CLUSTER_POLICY}),
        ("clusterpolicies/require-team", {CLUSTER_POLICY}),
        ("clusterpolicies.kyverno.io/require-*", {CLUSTER_POLICY}),
        ("ClusterPolicy/require", set()),
        ("ClusterPolicy/REQUIRE-TEAM", set()),
        ("Policy/require-????", {POLICY}),
        ("Policy/team-a/require-team", {POLICY}),
        ("Policy/team-b/require-team", set()),
        ("PolicyException/legacy", {OLD_EXCEPTION, NEW_EXCEPTION}),
        ("PolicyException.kyverno.io/team-a/legacy", {OLD_EXCEPTION}),
        ("policyexceptions.policies.kyverno.io/*", {NEW_EXCEPTION}),
        ("*/*", set(EVERY)),
        ("*/team-[ab]/*", {POLICY, OLD_EXCEPTION, NEW_EXCEPTION}),
        ("*.policies.kyverno.io/*", {NEW_EXCEPTION}),
    ],
)
def test_a_pattern_means_these_policies(pattern: str, expected: set[Identity]) -> None:
    assert {one for one in EVERY if Pattern.of(pattern).matches(one)} == expected


def test_what_identities_are_called_is_a_pattern_for_them() -> None:
    for one in EVERY:
        assert [other for other in EVERY if Pattern.of(str(one)).matches(other)] == [one]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("require-team", "it takes Kind/name or Kind/namespace/name"),
        ("", "it takes"),
        ("ClusterPolicy/", "it takes"),
        ("/require-team", "it takes"),
        ("Policy/a/b/c", "it takes"),
        ("Pod/web", "no kind of policy is called Pod; these are: CleanupPolicy, ClusterCleanupPolicy"),
        ("clusterpolicies.policies.kyverno.io/x", "no kind of policy is called"),
        ("ClusterPolicy/default/x", "a ClusterPolicy is in no namespace; write ClusterPolicy/x"),
    ],
)
def test_a_pattern_that_can_mean_nothing_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Pattern.of(pattern)


def test_exclude_takes_from_what_only_means() -> None:
    assert all(one in ALL for one in EVERY)
    assert [one for one in EVERY if one in chosen(exclude=("Policy/*",))] == [
        CLUSTER_POLICY,
        OLD_EXCEPTION,
        NEW_EXCEPTION,
    ]
    assert [one for one in EVERY if one in chosen("PolicyException/*", "Policy/*", exclude=("*/team-b/*",))] == [
        POLICY,
        OLD_EXCEPTION,
    ]


def owned(*names: str) -> list[JsonObject]:
    return [live_object(cluster_policy(name)) for name in names]


def drafted(wanted: PolicySet, held: Live, selected: Selection, **allowed: object) -> Plan:
    return plan.draft(wanted, held, allowed=Allowed(**allowed), selection=selected)  # type: ignore[arg-type] # the guards' own names


def actions(of: Plan) -> dict[str, Action]:
    return {change.identity.name: change.action for change in of.changes}


def test_outside_the_selection_nothing_is_changed_deleted_or_refused() -> None:
    foreign = live_object(cluster_policy("foreign"), owned=False)
    held = live(*owned("a", "b", "gone", "gone-too"), foreign)
    changed = [cluster_policy(name, message="Other.") for name in ("a", "b", "foreign")]
    found = drafted(desired(*changed), held, chosen("ClusterPolicy/a", "ClusterPolicy/gone"))
    assert actions(found) == {"a": Action.UPDATE, "gone": Action.DELETE}
    assert not found.refusals


def test_a_withdrawn_policy_that_is_selected_is_deleted_alone_and_is_no_empty_set() -> None:
    held = live(*owned("a", "b", "gone"))
    found = drafted(desired(cluster_policy("a"), cluster_policy("b")), held, chosen("ClusterPolicy/gone"))
    assert actions(found) == {"gone": Action.DELETE}
    assert not found.refusals


def test_when_nothing_at_all_is_wanted_a_selection_hides_no_accident() -> None:
    held = live(*owned("a", "b"))
    (refusal,) = drafted(desired(), held, chosen("ClusterPolicy/a")).refusals
    assert (refusal.code, refusal.subjects) == (ExitCode.EMPTY_SET, ("ClusterPolicy/a",))
    assert "would delete 1 of the 2 that it owns here" in refusal.message
    assert not drafted(desired(), held, chosen("ClusterPolicy/a"), empty=True).refusals
    assert not drafted(desired(), held, chosen(exclude=("*/*",))).refusals


def test_deletions_are_a_share_of_all_that_is_owned() -> None:
    held = live(*owned(*(f"p{number:02}" for number in range(10))))
    share = MaxDelete.of("10%")
    wanted = desired(*(cluster_policy(f"p{number:02}") for number in range(2, 10)))
    assert not drafted(wanted, held, chosen("ClusterPolicy/p00"), max_delete=share).refusals
    (refusal,) = drafted(wanted, held, chosen("ClusterPolicy/p0[01]"), max_delete=share).refusals
    assert refusal.code is ExitCode.TOO_MANY_DELETIONS
    assert refusal.message.startswith("2 of 10 owned policies")


def notes(selected: Selection, wanted: PolicySet, held: Live) -> list[str]:
    return list(selection.notes(selected, drafted(wanted, held, selected), wanted, held))


def test_a_pattern_of_only_that_means_nothing_is_an_error_and_one_of_exclude_a_note() -> None:
    wanted, held = desired(cluster_policy("wanted")), live(*owned("live"))
    assert notes(chosen("ClusterPolicy/wanted", "ClusterPolicy/live"), wanted, held) == []
    with pytest.raises(UsageError, match="--only ClusterPolicy/slip: no such policy is wanted, and none is there"):
        notes(chosen("ClusterPolicy/wanted", "ClusterPolicy/slip"), wanted, held)
    assert UsageError.code is ExitCode.USAGE
    assert notes(chosen(exclude=("ClusterPolicy/slip",)), wanted, held) == [
        "--exclude ClusterPolicy/slip means no policy that is wanted or there"
    ]


def test_a_selection_of_nothing_is_told() -> None:
    wanted, held = desired(cluster_policy("a")), live(*owned("a", "b"))
    for selected in (chosen("ClusterPolicy/a", exclude=("*/a",)), chosen(exclude=("*/*",))):
        (note,) = notes(selected, wanted, held)
        assert note.startswith("nothing is selected")
    assert notes(chosen("ClusterPolicy/a"), wanted, held) == []


def test_a_binding_whose_policy_stays_out_is_told() -> None:
    wanted = desired(admission_policy("bare"), admission_binding("bare", policy="bare"), exception())
    without_policy = chosen(exclude=("ValidatingAdmissionPolicy/*",))
    (note,) = notes(without_policy, wanted, live())
    assert note.startswith("ValidatingAdmissionPolicyBinding/bare binds ValidatingAdmissionPolicy/bare, which is not")
    assert notes(without_policy, wanted, live(live_object(admission_policy("bare")))) == []
    assert notes(ALL, wanted, live()) == []


def test_what_is_not_selected_is_neither_dry_run_nor_judged_by_the_schemas() -> None:
    good, bad = cluster_policy("good"), {**cluster_policy("bad"), "apiVersion": "kyverno.io/v9"}
    cluster = SimulatedCluster()
    everything = pipeline.prepare(cluster, desired(good, bad), allowed=Allowed())
    assert {finding.policy for finding in everything.verdict.errors} == {identity_of(bad)}
    only_good = pipeline.prepare(cluster, desired(good, bad), allowed=Allowed(), selected=chosen("ClusterPolicy/good"))
    assert actions(only_good.plan) == {"good": Action.CREATE}
    assert not only_good.verdict.errors
