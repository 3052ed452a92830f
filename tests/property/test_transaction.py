"""Whatever the two sets and the fault: afterwards the cluster is as before or as wanted, never in between."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from applier import pipeline
from applier.change import Action, Change
from applier.guards.refusals import Allowed, MaxDelete
from applier.stop import Stop
from applier.transaction.execution import Outcome, execute
from applier.transaction.writes import OnFailure, WriteSettings
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from tests.support.journals import MemoryJournal
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    desired,
    exception,
    identity_of,
    live,
    live_object,
    validating_policy,
)
from tests.support.simulator import Fault, SimulatedCluster

FOREIGN = live_object(cluster_policy("foreign"), owned=False)
FOREIGN_IDENTITY = identity_of(FOREIGN)
ALLOWED = Allowed(empty=True, weaken=True, max_delete=MaxDelete.of("100%"))
SETTINGS = WriteSettings(grace=10, delete_timeout=0.2, unsettled=0)
#: Up to two of the first writes fail, undoing ones included.
FAULTS = st.dictionaries(st.integers(1, 12), st.sampled_from(list(Fault)), max_size=2)


def variants(name: str) -> list[JsonObject]:
    return [
        cluster_policy(name),
        cluster_policy(name, message="Other."),
        cluster_policy(name, labels={"tier": "one"}),
        validating_policy(name),
        validating_policy(name, expression="true"),
        admission_policy(name),
        admission_binding(name),
        exception(name),
    ]


@st.composite
def policy_sets(draw: st.DrawFn) -> list[JsonObject]:
    """Policies of several kinds, each identity once."""
    chosen = draw(st.lists(st.sampled_from([body for name in ("a", "b", "c") for body in variants(name)]), max_size=8))
    return list({(body["kind"], body["metadata"]["name"]): body for body in chosen}.values())


def planned(before: list[JsonObject], after: list[JsonObject]) -> tuple[SimulatedCluster, tuple[Change, ...]]:
    """A cluster that holds the first set and somebody else's policy, and the changes that lead to the second."""
    cluster = SimulatedCluster(live(*map(live_object, before), FOREIGN).objects)
    return cluster, pipeline.prepare(cluster, desired(*after), allowed=ALLOWED).plan.changes


def foreign_stands(cluster: SimulatedCluster) -> bool:
    return FOREIGN in cluster.objects.values()


@given(before=policy_sets(), after=policy_sets(), faults=FAULTS, concurrency=st.sampled_from([1, 8]))
def test_all_or_nothing(
    before: list[JsonObject], after: list[JsonObject], faults: dict[int, Fault], concurrency: int
) -> None:
    cluster, changes = planned(before, after)
    was = cluster.contents()
    cluster.faults = faults
    journal = MemoryJournal()
    outcome = execute(cluster, changes, Stop(), journal=journal, settings=replace(SETTINGS, concurrency=concurrency))
    if outcome.success:
        assert not pipeline.prepare(cluster, desired(*after), allowed=ALLOWED).plan.effective
        assert journal.calls[-1] == "commit"
    else:
        assert outcome.code is ExitCode.ROLLED_BACK
        assert cluster.contents() == was
        assert outcome.standing == frozenset()
        assert journal.calls[-1] == "discard"
    assert foreign_stands(cluster)


@given(
    before=policy_sets(),
    after=policy_sets(),
    faults=FAULTS,
    moment=st.integers(1, 12),
    chosen=st.integers(0, 7),
    code=st.sampled_from([ExitCode.TERMINATED, None]),
)
def test_an_edit_by_others_is_never_lost_and_keeps_nothing_else_from_being_as_it_was(
    before: list[JsonObject],
    after: list[JsonObject],
    faults: dict[int, Fault],
    moment: int,
    chosen: int,
    code: ExitCode | None,
) -> None:
    cluster, changes = planned(before, after)
    was = cluster.contents()
    cluster.faults = faults
    stop = Stop()
    edited: list[Identity] = []

    def edit(write: int) -> None:
        if write == moment:
            identity = sorted(cluster.objects)[chosen % len(cluster.objects)]
            cluster.edit(identity, byHand=True)
            edited.append(identity)
            if code is not None:
                stop.set("SIGTERM arrived", code)

    cluster.before_write = edit
    outcome = execute(cluster, changes, stop, settings=SETTINGS)
    for identity in edited:
        assert cluster.objects[identity]["spec"]["byHand"]
    untouched = {identity: body for identity, body in cluster.contents().items() if identity not in edited}
    if outcome.success:
        wanted = {policy.identity for policy in desired(*after)}
        assert untouched.keys() - {FOREIGN_IDENTITY} == wanted - set(edited)
    else:
        assert untouched == {identity: body for identity, body in was.items() if identity not in edited}
        assert not outcome.not_undone


@given(before=policy_sets(), after=policy_sets(), faults=FAULTS, concurrency=st.sampled_from([1, 8]))
def test_with_continue_each_policy_is_as_wanted_or_named_and_as_before(
    before: list[JsonObject], after: list[JsonObject], faults: dict[int, Fault], concurrency: int
) -> None:
    cluster, changes = planned(before, after)
    was = cluster.contents()
    cluster.faults = faults
    chosen = replace(SETTINGS, on_failure=OnFailure.CONTINUE, concurrency=concurrency)
    journal = MemoryJournal()
    outcome = execute(cluster, changes, Stop(), journal=journal, settings=chosen)
    failed = {identity for identity, _ in outcome.failed}
    assert journal.calls[-1:] == ["commit"]
    assert outcome.code is (ExitCode.PARTLY_APPLIED if failed else ExitCode.OK)
    assert_each(cluster, changes, was, outcome)
    for binding in (change for change in changes if change.identity.kind.name == "ValidatingAdmissionPolicyBinding"):
        if binding.action is Action.CREATE and binding.identity in outcome.standing:
            assert not any(identity.name == "no-bare-pods" for identity in failed - {binding.identity})


@given(before=policy_sets(), after=policy_sets(), faults=FAULTS)
def test_with_stop_what_was_written_stands_and_the_journal_with_it(
    before: list[JsonObject], after: list[JsonObject], faults: dict[int, Fault]
) -> None:
    cluster, changes = planned(before, after)
    was = cluster.contents()
    cluster.faults = faults
    journal = MemoryJournal()
    outcome = execute(cluster, changes, Stop(), journal=journal, settings=replace(SETTINGS, on_failure=OnFailure.STOP))
    if outcome.code is ExitCode.ROLLBACK_INCOMPLETE:
        assert journal.calls == ["begin"]
        assert "recover" in outcome.hint
        assert len(outcome.failed) >= 1
    else:
        assert outcome.success or cluster.contents() == was
        assert journal.changes is None
    for change in changes:
        if change.identity not in outcome.standing and change.action is not Action.UNCHANGED:
            assert cluster.contents().get(change.identity) == was.get(change.identity)
    assert foreign_stands(cluster)


def assert_each(
    cluster: SimulatedCluster, changes: tuple[Change, ...], was: dict[Identity, JsonObject], outcome: Outcome
) -> None:
    """Each change is in place or named as failed, never both, and one that failed left everything as it was."""
    failed = {identity for identity, _ in outcome.failed}
    writing = {change.identity: change for change in changes if change.action is not Action.UNCHANGED}
    assert failed | outcome.standing == writing.keys()
    assert not failed & outcome.standing
    now = cluster.contents()
    for identity, change in writing.items():
        assert now.get(identity) == (was.get(identity) if identity in failed else change.after)
    assert foreign_stands(cluster)
