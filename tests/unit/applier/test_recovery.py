"""A run may die at any of its writes, and so may its recovery; what others did since stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from applier.change import Action, Change
from applier.journal.format import JournalError
from applier.journal.key import Key
from applier.lock.elector import Held
from applier.ports import ServerRefused, Status
from applier.recovery import Recovered
from applier.transaction.standing import Standing, standing
from applier.transaction.writes import OnFailure
from renderer.errors import ApplyFailed, ExitCode, Interrupted, RemoteError
from renderer.manifest.identity import Identity
from renderer.manifest.ownership import OWNED_BY
from tests.support.mortal import World
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    exception,
    identity_of,
    live,
    live_object,
    validating_policy,
)
from tests.support.simulator import SimulatedCluster

BEFORE = (
    cluster_policy("changed"),
    cluster_policy("labelled", labels={"tier": "one"}),
    cluster_policy("replaced"),
    cluster_policy("same"),
    admission_policy("withdrawn"),
    admission_binding("withdrawn", policy="withdrawn"),
)
AFTER = (
    cluster_policy("changed", message="Other."),
    cluster_policy("labelled", labels={"tier": "two"}),
    cluster_policy("replaced", message="Other."),
    cluster_policy("same"),
    validating_policy("new"),
    exception("new"),
    admission_policy("new"),
)
#: Two for the journal, nine for the policies (a replacement takes two), three to be done with the journal.
WRITES = 14
COMMITTED = 12
CHANGED, NEW, WITHDRAWN = identity_of(AFTER[0]), identity_of(AFTER[4]), identity_of(BEFORE[4])


def world() -> World:
    foreign = live_object(cluster_policy("foreign"), owned=False)
    return World(SimulatedCluster(live(*map(live_object, BEFORE), foreign).objects))


def planned(place: World) -> list[Change]:
    return [
        replace(change, action=Action.REPLACE, patch=()) if change.identity.name == "replaced" else change
        for change in place.planned(*AFTER)
    ]


def dead_at(number: int) -> World:
    """A run that died before that write."""
    place = world()
    assert place.run(planned(place), place.recovery(die_at=number)) is None
    return place


def test_a_run_that_lives_leaves_no_journal() -> None:
    place = world()
    outcome = place.run(planned(place), place.recovery())
    assert outcome is not None
    assert outcome.success
    assert place.writes == WRITES
    assert place.config_maps.objects == {}
    assert place.planned(*AFTER) == ()


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_dead_at_any_write_it_is_before_or_after(number: int) -> None:
    before = world().cluster.contents()
    place = dead_at(number)
    assert place.recovered()
    assert place.config_maps.objects == {}
    if number > COMMITTED:
        assert place.planned(*AFTER) == ()
    else:
        assert place.cluster.contents() == before


@pytest.mark.parametrize("again", range(1, 13))
def test_a_recovery_that_dies_is_recovered_too(again: int) -> None:
    before = world().cluster.contents()
    place = dead_at(COMMITTED)
    assert place.recovered(die_at=again) is (again > 11)
    assert place.recovered()
    assert place.cluster.contents() == before
    assert place.config_maps.objects == {}


@pytest.mark.parametrize("number", range(3, COMMITTED + 1))
def test_the_rest_can_be_made_instead(number: int) -> None:
    place = dead_at(number)
    place.cluster.objects[CHANGED]["metadata"]["labels"] = {"team": "platform"}  # which is no reason to stop
    place.cluster.touch(CHANGED)
    process = place.recovery()
    (found,) = process.pending()
    done = process.roll_forward(found)
    assert (done.over, done.code, len(done.made)) == (True, ExitCode.OK, 8)
    assert place.config_maps.objects == {}
    assert place.planned(*AFTER) == ()
    assert place.cluster.objects[CHANGED]["metadata"]["labels"] == {"team": "platform"}


def test_the_rest_is_not_made_over_what_somebody_else_did() -> None:
    place = dead_at(5)
    place.cluster.edit(CHANGED, failurePolicy="Ignore")
    held = place.cluster.contents()
    process = place.recovery()
    (found,) = process.pending()
    done = process.roll_forward(found)
    assert (done.over, done.code, [identity for identity, _ in done.left_alone]) == (False, 31, [CHANGED])
    assert place.cluster.contents() == held
    assert len(process.pending()) == 1


@pytest.mark.parametrize("identity", [CHANGED, WITHDRAWN, identity_of(BEFORE[2])])
def test_the_rest_is_not_made_of_what_somebody_took_from_insights(identity: Identity) -> None:
    place = dead_at(3)
    del place.cluster.objects[identity]["metadata"]["annotations"][OWNED_BY]
    place.cluster.touch(identity)
    held = place.cluster.contents()
    process = place.recovery()
    (found,) = process.pending()
    done = process.roll_forward(found)
    assert (done.over, done.code, [left for left, _ in done.left_alone]) == (False, 31, [identity])
    assert "no longer owned" in done.left_alone[0][1]
    assert place.cluster.contents() == held


def recovered(place: World) -> Recovered:
    process = place.recovery()
    (found,) = process.pending()
    return process.roll_back(found)


def edit(place: World) -> Identity:
    place.cluster.edit(CHANGED, failurePolicy="Ignore")
    return CHANGED


def edit_what_was_created(place: World) -> Identity:
    place.cluster.edit(NEW, failurePolicy="Ignore")
    return NEW


def create_otherwise(place: World) -> Identity:
    theirs = live_object({**admission_policy("withdrawn"), "spec": {"failurePolicy": "Ignore"}}, owned=False)
    place.cluster.objects[WITHDRAWN] = theirs
    return WITHDRAWN


def take_from_insights(place: World) -> Identity:
    del place.cluster.objects[NEW]["metadata"]["annotations"][OWNED_BY]
    place.cluster.touch(NEW)
    return NEW


@pytest.mark.parametrize("meddle", [edit, edit_what_was_created, create_otherwise, take_from_insights])
def test_what_somebody_else_did_since_stands_and_is_told(meddle: Callable[[World], Identity]) -> None:
    before = world().cluster.contents()
    place = dead_at(COMMITTED)
    identity = meddle(place)
    theirs = place.cluster.contents()[identity]
    done = recovered(place)
    assert [left for left, _ in done.left_alone] == [identity]
    assert (done.code, done.over) == (ExitCode.ROLLBACK_INCOMPLETE, True)
    assert place.cluster.contents() == {**before, identity: theirs}
    assert place.config_maps.objects == {}  # there is nothing that it could still be used for


def test_labels_of_others_and_what_was_put_back_by_hand_do_not_matter() -> None:
    place = dead_at(COMMITTED)
    for identity in (CHANGED, NEW):
        place.cluster.objects[identity]["metadata"]["labels"] = {"team": "platform"}
        place.cluster.touch(identity)
    place.cluster.objects[WITHDRAWN] = live_object(admission_policy("withdrawn"))
    done = recovered(place)
    assert (done.code, len(done.restored)) == (ExitCode.OK, 8)
    assert place.cluster.objects[CHANGED]["metadata"]["labels"] == {"team": "platform"}
    assert place.cluster.objects[CHANGED]["spec"] == BEFORE[0]["spec"]
    assert NEW not in place.cluster.objects


def test_a_write_that_was_not_made_needs_no_undo_though_others_labelled_it() -> None:
    place = dead_at(3)
    place.cluster.objects[CHANGED]["metadata"]["labels"] = {"team": "platform"}
    place.cluster.touch(CHANGED)
    held = place.cluster.contents()
    assert recovered(place).code is ExitCode.OK
    assert place.cluster.contents() == held
    assert place.writes == 2  # the head and the chunk


@pytest.mark.parametrize("key", [Key(b"another token"), None])
def test_a_journal_that_cant_be_verified_is_not_acted_on(key: Key | None) -> None:
    place = dead_at(COMMITTED)
    held = place.cluster.contents()
    with pytest.raises(JournalError, match="can't be verified"):
        place.recovery(key=key).before_a_run()
    assert place.cluster.contents() == held
    assert place.config_maps.objects


def test_a_run_that_plans_afresh_supersedes_it_once_it_has_committed() -> None:
    place = dead_at(6)
    process = place.recovery(key=Key(b"another token"), supersede=True)
    superseded = process.before_a_run()
    assert len(superseded) == 1
    outcome = place.run(place.planned(*AFTER), process, supersedes=superseded)
    assert outcome is not None
    assert outcome.success
    assert place.config_maps.objects == {}
    assert place.planned(*AFTER) == ()


@pytest.mark.parametrize("number", range(1, 13))
def test_what_a_later_run_made_good_is_never_taken_back_by_an_older_journal(number: int) -> None:
    place = dead_at(6)
    between = place.cluster.contents()
    process = place.recovery(key=Key(b"another token"), supersede=True, die_at=number)
    superseded = process.before_a_run()
    finished = place.run(place.planned(*AFTER), process, supersedes=superseded)
    assert finished is None
    # The next one has the later run's key, and plans afresh after it.
    process = place.recovery(key=Key(b"another token"), supersede=True)
    left = process.before_a_run()
    done = place.planned(*AFTER) == ()
    assert done or place.cluster.contents() == between
    assert left == (() if done else superseded)
    assert place.run(place.planned(*AFTER), process, supersedes=left) is not None
    assert place.config_maps.objects == {}


def refusing(place: World, error: Exception) -> None:
    """Whatever would be created is refused: deletions can't be taken back."""

    def create(*_: object, **__: object) -> None:
        raise error

    place.cluster.create = create  # type: ignore[method-assign,assignment] # an upgrade of Kyverno, in one line


def test_an_undo_that_is_refused_for_its_content_stops_an_apply_but_not_one_that_plans_afresh() -> None:
    for supersede in (False, True):
        place = dead_at(COMMITTED)
        refusing(place, ServerRefused(Status(code=422, reason="Invalid", message="unknown field")))
        process = place.recovery(supersede=supersede)
        if supersede:
            assert len(process.before_a_run()) == 1
            continue
        with pytest.raises(ApplyFailed, match="could not be taken back") as raised:
            process.before_a_run()
        assert raised.value.code is ExitCode.ROLLBACK_INCOMPLETE
        assert any("ValidatingAdmissionPolicy/withdrawn: It is deleted." in line for line in raised.value.details)
        assert len(process.pending()) == 1


def test_a_server_that_is_away_is_an_obstacle_for_everybody() -> None:
    place = dead_at(COMMITTED)
    refusing(place, RemoteError("away"))
    with pytest.raises(ApplyFailed):
        place.recovery(supersede=True).before_a_run()


def test_a_run_that_stops_at_a_failure_leaves_it_to_recover() -> None:
    before = world().cluster.contents()
    place = world()
    process = place.recovery(on_failure=OnFailure.STOP)
    real_patch = place.cluster.patch

    def patch(identity: Identity, operations: object, *, dry_run: bool = False) -> object:
        if identity == CHANGED:
            raise ServerRefused(Status(code=400, reason="BadRequest", message="no"))
        return real_patch(identity, operations, dry_run=dry_run)  # type: ignore[arg-type]

    place.cluster.patch = patch  # type: ignore[method-assign,assignment] # the server refuses one
    outcome = place.run(planned(place), process)
    assert outcome is not None
    assert outcome.applied
    assert place.config_maps.objects
    place.cluster.patch = real_patch  # type: ignore[method-assign]
    assert place.recovered()
    assert place.cluster.contents() == before


def test_after_a_takeover_nothing_is_done_before_the_dead_runs_last_write_has_arrived() -> None:
    place = dead_at(COMMITTED)
    held = place.held(taken_over=True, quiet_at=float("inf"))
    process = place.recovery(held=held)
    process.stop.set("SIGTERM arrived", ExitCode.TERMINATED)
    with pytest.raises(Interrupted, match="SIGTERM arrived") as raised:
        process.before_a_run()
    assert raised.value.code is ExitCode.TERMINATED
    assert place.writes == 0
    assert place.recovery(held=place.held(taken_over=True)).before_a_run() == ()


def test_a_first_run_on_a_cluster_waits_for_nobody() -> None:
    place = world()
    held = replace(place.held(taken_over=True, quiet_at=float("inf")), transitions=0)
    assert place.recovery(held=held).before_a_run() == ()


def test_a_kind_that_cant_be_read_is_no_guess() -> None:
    change = planned(world())[0]
    observed = live(unreadable={change.identity.kind: "this account may not list it"})
    assert standing(change, observed) is Standing.UNKNOWN
    assert standing(change, live(missing=(change.identity.kind,))) is Standing.UNKNOWN


def test_of_two_journals_the_later_one_is_taken_back_first() -> None:
    place = world()
    place.run(place.planned(*AFTER), place.recovery(die_at=COMMITTED - 2))
    for _ in range(8):  # so that the names of the two sort otherwise than their numbers
        place.held()
    later = cluster_policy("changed", message="Still other.")
    place.run(place.planned(later, *AFTER[1:]), place.recovery(die_at=4))
    first, second = place.recovery().pending()
    assert first.head is not None
    assert second.head is not None
    assert first.head.fencing.transitions > second.head.fencing.transitions
    assert place.recovered()
    assert place.cluster.contents() == world().cluster.contents()


def test_another_clusters_journal_is_no_obstacle_for_a_run_that_plans_afresh_and_stays() -> None:
    place = dead_at(6)
    there = dict(place.config_maps.objects)
    place.cluster.identity = lambda: {"namespace/kube-system": "another"}  # type: ignore[method-assign]
    lease = replace(place.held(), uid="of-another-cluster")
    with pytest.raises(JournalError, match="of another cluster") as raised:
        place.recovery(held=lease).before_a_run()
    assert "--journal" in raised.value.hint
    process = place.recovery(held=lease, supersede=True)
    assert process.before_a_run() == ()
    assert place.run(place.planned(*AFTER), process) is not None
    assert place.config_maps.objects == there


def finished_before(place: World, transitions: int) -> Held:
    return replace(place.held(), finished_before=transitions)


def test_a_journal_that_a_later_run_outlived_never_takes_that_runs_work_back() -> None:
    place = dead_at(6)
    (left,) = place.recovery().pending()
    place.cluster.objects = {identity_of(body): live_object(body) for body in AFTER}
    held = place.cluster.contents()
    assert left.head is not None
    number = left.head.fencing.transitions
    (still,) = place.recovery(held=finished_before(place, number - 1)).pending()
    assert not still.outlived
    assert place.recovery(held=finished_before(place, number)).before_a_run() == ()
    assert place.cluster.contents() == held
    assert place.config_maps.objects == {}


def test_a_run_has_finished_when_it_is_done_and_not_when_it_was_taken_back() -> None:
    place = world()
    process = place.recovery()
    assert place.run(planned(place), process) is not None
    assert process.held.finished.is_set()
    again = place.recovery()
    assert place.run(place.planned(*AFTER), again) is not None  # with nothing to do
    assert again.held.finished.is_set()
    refused = place.recovery()
    refusing(place, ServerRefused(Status(code=422, reason="Invalid", message="no")))
    outcome = place.run(place.planned(*AFTER, cluster_policy("more")), refused)
    assert outcome is not None
    assert outcome.code is ExitCode.ROLLED_BACK
    assert not refused.held.finished.is_set()


def test_rubbish_is_swept() -> None:
    place = dead_at(2)
    assert len(place.config_maps.objects) == 1
    assert place.recovered()
    assert place.config_maps.objects == {}
