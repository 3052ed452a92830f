"""Every change or none, and never over somebody else's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytest_mock import MockerFixture

from applier import pipeline
from applier.change import Action, Change
from applier.guards.refusals import Allowed
from applier.stop import Stop
from applier.transaction.execution import Outcome, execute
from applier.transaction.rollback import roll_back
from applier.transaction.undo import Written, restored, undo
from applier.transaction.writes import WriteSettings
from renderer.errors import ExitCode, Failure, NotPermitted, RemoteError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
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

BEFORE = (
    cluster_policy("changed"),
    cluster_policy("same"),
    admission_policy("withdrawn"),
    admission_binding("withdrawn", policy="withdrawn"),
)
AFTER = (
    cluster_policy("changed", message="Other."),
    cluster_policy("same"),
    validating_policy("new"),
    exception("new"),
    admission_policy("new"),
)
CHANGES = 6
#: One at a time, so that a write's number says which it is; and no waiting for a server that does not exist.
SETTINGS = WriteSettings(concurrency=1, grace=0, delete_timeout=0.2, unsettled=0)


def cluster_before() -> SimulatedCluster:
    foreign = live_object(cluster_policy("foreign"), owned=False)
    return SimulatedCluster(live(*map(live_object, BEFORE), foreign).objects)


def planned(cluster: SimulatedCluster, *bodies: JsonObject) -> tuple[Change, ...]:
    prepared = pipeline.prepare(cluster, desired(*bodies), allowed=Allowed())
    assert not prepared.plan.refusals
    return prepared.plan.changes


def run(cluster: SimulatedCluster, changes: tuple[Change, ...], stop: Stop | None = None) -> Outcome:
    return execute(cluster, changes, stop or Stop(), settings=SETTINGS)


def test_all_changes_are_made() -> None:
    cluster = cluster_before()
    outcome = run(cluster, planned(cluster, *AFTER))
    assert outcome.success
    assert [str(identity) for identity in outcome.updated] == ["ClusterPolicy/changed"]
    assert {str(identity) for identity in outcome.removed} == {
        "ValidatingAdmissionPolicy/withdrawn",
        "ValidatingAdmissionPolicyBinding/withdrawn",
    }
    assert len(outcome.applied) == 3
    assert not planned(cluster, *AFTER)[0].patch
    assert all(change.action.value == "unchanged" for change in planned(cluster, *AFTER))


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LOST_BEFORE])
@pytest.mark.parametrize("number", range(1, CHANGES + 1))
def test_a_failing_write_leaves_everything_as_it_was(number: int, fault: Fault) -> None:
    cluster = cluster_before()
    before = cluster.contents()
    changes = planned(cluster, *AFTER)
    cluster.faults[number] = fault
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert len(outcome.failed) == 1
    assert (outcome.applied, outcome.updated, outcome.removed) == ((), (), ())
    assert cluster.contents() == before


@pytest.mark.parametrize("number", range(1, CHANGES + 1))
def test_a_lost_answer_is_resolved_by_looking(number: int) -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    cluster.faults[number] = Fault.LOST_AFTER
    assert run(cluster, changes).success
    assert cluster.writes == CHANGES


@pytest.mark.parametrize("number", range(CHANGES))
def test_stopping_in_the_middle_undoes_what_was_written(number: int) -> None:
    cluster = cluster_before()
    before = cluster.contents()
    stop = Stop()

    def stop_at(write: int) -> None:
        if write == number:
            stop.set("SIGTERM arrived", ExitCode.TERMINATED)

    changes = planned(cluster, *AFTER)
    cluster.before_write = stop_at
    if number == 0:
        stop_at(0)
    outcome = run(cluster, changes, stop)
    assert outcome.code is ExitCode.TERMINATED
    assert cluster.contents() == before


def replacing(cluster: SimulatedCluster) -> tuple[Change, ...]:
    """The same plan, but the changed policy can't be changed in place; its writes are number 4 and 5."""
    return tuple(
        replace(change, action=Action.REPLACE, patch=()) if change.action is Action.UPDATE else change
        for change in planned(cluster, *AFTER)
    )


def test_what_is_replaced_is_another_object_with_the_wanted_content() -> None:
    cluster = cluster_before()
    changed = identity_of(BEFORE[0])
    uid = cluster.objects[changed]["metadata"]["uid"]
    outcome = run(cluster, replacing(cluster))
    assert outcome.success
    assert outcome.updated == (changed,)
    assert cluster.objects[changed]["metadata"]["uid"] != uid
    assert cluster.objects[changed]["spec"]["rules"][0]["validate"]["message"] == "Other."
    assert cluster.writes == CHANGES + 1


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LOST_BEFORE])
@pytest.mark.parametrize("number", range(1, CHANGES + 2))
def test_each_half_of_a_replacement_is_undone(number: int, fault: Fault) -> None:
    cluster = cluster_before()
    before = cluster.contents()
    changes = replacing(cluster)
    cluster.faults[number] = fault
    assert run(cluster, changes).code is ExitCode.ROLLED_BACK
    assert cluster.contents() == before


@pytest.mark.parametrize("number", range(1, CHANGES + 2))
def test_a_lost_answer_of_either_half_is_resolved_by_looking(number: int) -> None:
    cluster = cluster_before()
    changes = replacing(cluster)
    cluster.faults[number] = Fault.LOST_AFTER
    assert run(cluster, changes).success
    assert cluster.writes == CHANGES + 1


def test_what_somebody_else_creates_between_the_halves_stands() -> None:
    cluster = cluster_before()
    changes = replacing(cluster)
    changed = identity_of(BEFORE[0])

    def create_first(write: int) -> None:
        if write == 5:
            cluster.objects[changed] = live_object(cluster_policy("changed", message="Theirs."))

    cluster.before_write = create_first
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLBACK_INCOMPLETE
    assert [identity for identity, _ in outcome.left_alone] == [changed]
    assert cluster.objects[changed]["spec"]["rules"][0]["validate"]["message"] == "Theirs."


def test_a_status_write_in_between_does_not_disturb() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    for body in (cluster_policy("changed"), admission_policy("withdrawn")):
        cluster.touch(identity_of(body))
    assert run(cluster, changes).success


@pytest.mark.parametrize("name", ["changed", "withdrawn"])
def test_somebody_elses_edit_before_our_write_stops_the_run_and_stays(name: str) -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    identity = identity_of(cluster_policy("changed") if name == "changed" else admission_policy("withdrawn"))
    cluster.edit(identity, failurePolicy="Ignore")
    before = cluster.contents()
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert "somebody else changed it" in outcome.failed[0][1]
    assert cluster.contents() == before


def test_somebody_elses_edit_after_our_write_is_left_alone_by_the_undo() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    changed = identity_of(cluster_policy("changed"))

    def edit_at_the_last(write: int) -> None:
        if write == CHANGES:
            cluster.edit(changed, failurePolicy="Ignore")

    cluster.before_write = edit_at_the_last
    cluster.faults[CHANGES] = Fault.REFUSED
    outcome = run(cluster, changes)
    assert [identity for identity, _ in outcome.left_alone] == [changed]
    assert outcome.code is ExitCode.ROLLBACK_INCOMPLETE
    assert cluster.objects[changed]["spec"]["failurePolicy"] == "Ignore"


def test_a_foreign_label_does_not_stop_an_undo() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    changed = identity_of(cluster_policy("changed"))

    def label(write: int) -> None:
        if write == CHANGES:
            cluster.objects[changed]["metadata"]["labels"] = {"team": "platform"}
            cluster.touch(changed)

    cluster.before_write = label
    cluster.faults[CHANGES] = Fault.REFUSED
    outcome = run(cluster, changes)
    assert changed in outcome.restored
    assert cluster.objects[changed]["spec"] == cluster_policy("changed")["spec"]
    assert cluster.objects[changed]["metadata"]["labels"] == {"team": "platform"}


def test_a_policy_that_somebody_created_meanwhile_stops_the_run_and_stays() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    theirs = live_object(validating_policy("new", expression="true"), owned=False)
    cluster.objects[identity_of(theirs)] = theirs
    before = cluster.contents()
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert cluster.contents() == before


def test_an_undo_that_is_refused_is_told_as_incomplete() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    cluster.faults[CHANGES] = Fault.REFUSED
    cluster.faults[CHANGES + 1] = Fault.REFUSED  # the first undo
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLBACK_INCOMPLETE
    assert len(outcome.not_undone) == 1


def test_a_deletion_that_a_finalizer_holds_fails_by_name() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    held = identity_of(admission_policy("withdrawn"))
    cluster.objects[held]["metadata"]["finalizers"] = ["example.com/never"]
    real_delete = cluster.delete

    def delete(identity: Identity, **options: Any) -> None:
        if identity != held:
            real_delete(identity, **options)

    cluster.delete = delete  # type: ignore[method-assign] # a finalizer, in one line
    outcome = run(cluster, changes)
    assert "example.com/never" in outcome.failed[0][1]


def test_a_lost_answer_whose_second_look_fails_too_is_still_taken_back(mocker: MockerFixture) -> None:
    cluster = cluster_before()
    before = cluster.contents()
    changes = planned(cluster, *AFTER)
    cluster.faults[2] = Fault.LOST_AFTER
    answers = iter([NotPermitted("401")])
    real_read = cluster.read

    def read(identity: Identity) -> JsonObject | None:
        for error in answers:
            raise error
        return real_read(identity)

    mocker.patch.object(cluster, "read", read)
    assert run(cluster, changes).code is ExitCode.ROLLED_BACK
    assert cluster.contents() == before


def test_a_defect_of_ours_leaves_nothing_half_written(mocker: MockerFixture) -> None:
    cluster = cluster_before()
    before = cluster.contents()
    changes = planned(cluster, *AFTER)
    mocker.patch.object(cluster, "patch", side_effect=KeyError("metadata"))
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert "a defect of the program: KeyError" in outcome.reason
    assert cluster.contents() == before


def test_what_the_server_stored_otherwise_than_it_said_is_still_ours_to_take_back() -> None:
    cluster = cluster_before()
    before = cluster.contents()
    changes = planned(cluster, *AFTER)
    real_store = cluster._store

    def store(identity: Identity, body: JsonObject, *, dry_run: bool) -> JsonObject:
        if cluster.writes <= CHANGES:
            body["spec"]["mutatedBySomeWebhook"] = True
        return real_store(identity, body, dry_run=dry_run)

    cluster._store = store  # type: ignore[method-assign] # a webhook that appears after the dry runs
    cluster.faults[CHANGES] = Fault.REFUSED
    outcome = run(cluster, changes)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert cluster.contents() == before


def test_a_deletion_that_hangs_is_never_told_as_taken_back() -> None:
    cluster = cluster_before()
    changes = planned(cluster, *AFTER)
    held = identity_of(admission_policy("withdrawn"))
    stop = Stop()
    real_delete = cluster.delete

    def delete(identity: Identity, **options: Any) -> None:
        if identity == held:
            cluster.objects[held]["metadata"] |= {"deletionTimestamp": "now", "finalizers": ["example.com/never"]}
            stop.set("SIGTERM arrived", ExitCode.TERMINATED)
        else:
            real_delete(identity, **options)

    cluster.delete = delete  # type: ignore[method-assign] # a finalizer, and a signal while it is waited for
    outcome = execute(cluster, changes, stop, settings=replace(SETTINGS, delete_timeout=3600))
    assert outcome.code is ExitCode.ROLLBACK_INCOMPLETE
    assert [identity for identity, _ in outcome.not_undone] == [held]


@pytest.mark.parametrize("action", [Action.CREATE, Action.UPDATE, Action.DELETE])
def test_no_undo_is_sent_when_the_time_ran_out_while_it_looked(action: Action) -> None:
    body = cluster_policy("one")
    cluster = SimulatedCluster(live(*([] if action is Action.DELETE else [live_object(body)])).objects)
    before = None if action is Action.CREATE else live_object(cluster_policy("one", message="Before."))
    if before is not None and action is Action.UPDATE:
        before["metadata"] = cluster.objects[identity_of(body)]["metadata"]
    after = None if action is Action.DELETE else content(live_object(body), identity_of(body).kind)
    entry = Written(change=Change(identity=identity_of(body), action=action, before=before, after=after))
    held = cluster.contents()
    looked: list[object] = []
    real_read = cluster.read

    def slow(identity: Identity) -> JsonObject | None:
        looked.append(identity)
        return real_read(identity)

    cluster.read = slow  # type: ignore[method-assign]
    with pytest.raises(Failure, match="had to stop"):
        undo(cluster, entry, delete_timeout=0.2, stopped=lambda: bool(looked))
    assert cluster.contents() == held


def test_a_server_that_is_away_is_not_asked_again_for_each_write_that_stands() -> None:
    cluster = SimulatedCluster()
    bodies = [cluster_policy(f"p{number}") for number in range(5)]
    changes = pipeline.prepare(cluster, desired(*bodies), allowed=Allowed()).plan.effective
    outcome = execute(cluster, changes, Stop(), settings=SETTINGS)
    assert outcome.success
    asked: list[Identity] = []

    def away(identity: Identity) -> JsonObject | None:
        asked.append(identity)
        raise RemoteError("away")

    cluster.read = away  # type: ignore[method-assign]
    stop = Stop()
    stop.work_until(0.0)  # the Lease is over, so that nothing is tried
    back = roll_back(cluster, [[Written(change=change) for change in changes]], stop, SETTINGS)
    assert len(back.not_undone) == len(bodies)
    assert all(why.startswith("What is there now is not known. The Lease") for _, why in back.not_undone)
    assert len(asked) == 1


def test_taking_back_a_step_touches_nothing_else() -> None:
    def body(spec: int, **labels: str) -> JsonObject:
        return {"spec": {"n": spec}, "metadata": {"name": "x", "labels": labels}}

    now = body(2, ours="new", theirs="since", moved="by-them")
    before = body(1, ours="old", gone="back", moved="a")
    after = body(2, ours="new", moved="b")
    assert restored(before=before, after=after, now=now) == body(
        1, ours="old", gone="back", theirs="since", moved="by-them"
    )
