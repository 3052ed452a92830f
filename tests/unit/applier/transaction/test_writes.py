"""One write: what is sent, and what is certain when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from applier import diff
from applier.change import Action, Change
from applier.ports import ServerRefused, Status
from applier.transaction.writes import CONFLICTS, ChangedMeanwhile, NotMade, delete, holds, write
from renderer.errors import ExitCode, Failure, NotPermitted, RemoteError
from renderer.http import PassingError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.normalize import content
from tests.support.policies import cluster_policy, desired, live, live_object
from tests.support.simulator import SimulatedCluster

BEFORE = live_object(cluster_policy("p"))
(POLICY,) = desired(cluster_policy("p", message="Other."))
IDENTITY, KIND = POLICY.identity, POLICY.identity.kind
AFTER = diff.wanted(POLICY.body, BEFORE, kind=KIND, api_version="kyverno.io/v1")
PATCH = diff.patch(content(BEFORE, KIND), AFTER)
UPDATED = Change(identity=IDENTITY, action=Action.UPDATE, before=BEFORE, after=AFTER, patch=PATCH)
CREATED = replace(UPDATED, action=Action.CREATE, before=None, after=content(POLICY.body, KIND), patch=())
DELETED = replace(UPDATED, action=Action.DELETE, after=None, patch=())
REPLACED = replace(UPDATED, action=Action.REPLACE, after=CREATED.after, patch=())
SEE = "Run again to see the difference."


def refused(code: int, reason: str = "") -> ServerRefused:
    return ServerRefused(Status(code=code, reason=reason, message="no"))


class Failing(SimulatedCluster):
    """A cluster whose writes fail with these errors in turn, each before or after it was made, and then work."""

    def __init__(self, held: JsonObject | None, *errors: Exception, made: bool = False) -> None:
        super().__init__(live(*([held] if held else [])).objects)
        self._errors = iter(errors)
        self._made = made
        self.sent: list[str] = []
        self.on_failure: Callable[[], None] = lambda: None

    def create(self, body: JsonObject, identity: Identity, *, dry_run: bool = False) -> JsonObject:
        """See `ports.Cluster`."""
        made = SimulatedCluster.create
        created: JsonObject = self._send("create", lambda: made(self, body, identity, dry_run=dry_run))
        return created

    def patch(self, identity: Identity, operations: Sequence[Json], *, dry_run: bool = False) -> JsonObject:
        """See `ports.Cluster`."""
        made = SimulatedCluster.patch
        patched: JsonObject = self._send("patch", lambda: made(self, identity, operations, dry_run=dry_run))
        return patched

    def delete(self, identity: Identity, *, uid: str, resource_version: str = "", dry_run: bool = False) -> None:
        """See `ports.Cluster`."""
        made = SimulatedCluster.delete
        self._send("delete", lambda: made(self, identity, uid=uid, resource_version=resource_version, dry_run=dry_run))

    def _send(self, verb: str, act: Callable[[], Any]) -> Any:
        self.sent.append(verb)
        error = next(self._errors, None)
        if error is None:
            return act()
        if self._made:
            act()
        self.on_failure()
        raise error

    def set(self, **metadata: Any) -> None:
        """Somebody changes the object's metadata."""
        self.objects[IDENTITY]["metadata"] |= metadata
        self.touch(IDENTITY)


def made(cluster: SimulatedCluster, change: Change, stopped: Callable[[], bool] = lambda: False) -> JsonObject | None:
    return write(cluster, change, delete_timeout=0, stopped=stopped)


def not_made(cluster: SimulatedCluster, change: Change, stopped: Callable[[], bool] = lambda: False) -> Failure:
    with pytest.raises(NotMade) as caught:
        made(cluster, change, stopped)
    assert str(caught.value) == caught.value.failure.message
    return caught.value.failure


def held(change: Change) -> JsonObject | None:
    return None if change.action is Action.CREATE else BEFORE


CHANGES = (CREATED, UPDATED, DELETED)


@pytest.mark.parametrize("change", [*CHANGES, REPLACED])
def test_a_write_leaves_what_was_planned_and_gives_what_is_stored(change: Change) -> None:
    cluster = Failing(held(change))
    stored = made(cluster, change)
    assert cluster.objects.get(IDENTITY) == stored
    assert (stored is None) is (change.action is Action.DELETE)
    assert stored is None or content(stored, KIND) == change.after


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "error", [NotPermitted("403"), PassingError("429", refused=True), refused(400), refused(403), refused(500)]
)
def test_what_the_server_refuses_is_certainly_not_made(change: Change, error: Failure) -> None:
    cluster = Failing(held(change), error)
    assert not_made(cluster, change) is error
    assert cluster.sent == [cluster.sent[0]]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("error", [RemoteError("the connection broke"), PassingError("503")])
def test_a_lost_answer_is_resolved_by_looking(change: Change, error: Failure) -> None:
    cluster = Failing(held(change), error, made=True)
    assert made(cluster, change) == cluster.objects.get(IDENTITY)
    assert len(cluster.sent) == 1
    # Where it does not show, it may still be made later.
    with pytest.raises(type(error)) as caught:
        made(Failing(held(change), error), change)
    assert caught.value is error


def test_a_create_that_was_sent_twice_is_made_and_another_one_is_not_ours() -> None:
    twice = refused(409, "AlreadyExists")
    assert made(Failing(None, twice, made=True), CREATED) is not None
    for theirs in (live_object(cluster_policy("p", message="Theirs.")), None):
        failure = not_made(Failing(theirs, twice), CREATED)
        assert isinstance(failure, ChangedMeanwhile)
        assert failure.message == "somebody else created it while this run was at work."
        assert (failure.hint, failure.code) == (SEE, ExitCode.ROLLED_BACK)
    again = refused(409, "Conflict")
    assert not_made(Failing(None, again), CREATED) is again


@pytest.mark.parametrize("change", [UPDATED, DELETED])
def test_a_write_is_tried_again_where_only_the_version_moved(change: Change) -> None:
    cluster = Failing(BEFORE)
    cluster.touch(IDENTITY)
    made(cluster, change)
    assert len(cluster.sent) == 2
    restless = Failing(BEFORE, *[refused(409, "Conflict")] * CONFLICTS)
    failure = not_made(restless, change)
    verb = "write" if change is UPDATED else "delete"
    assert isinstance(failure, ChangedMeanwhile)
    assert failure.message == f"it changed {CONFLICTS} times while this run tried to {verb} it."
    assert len(restless.sent) == CONFLICTS


@pytest.mark.parametrize("change", [UPDATED, DELETED])
def test_once_the_run_has_to_stop_it_is_not_tried_again(change: Change) -> None:
    cluster = Failing(BEFORE, refused(409, "Conflict"))
    failure = not_made(cluster, change, lambda: True)
    assert failure.message == "it changed while this run tried to write it, and the run has to stop."
    assert len(cluster.sent) == 1


def test_an_update_whose_answer_a_proxy_lost_and_sent_again_is_made() -> None:
    cluster = Failing(BEFORE, refused(409, "Conflict"), made=True)
    stored = made(cluster, UPDATED)
    assert stored == cluster.objects[IDENTITY]
    assert cluster.sent == ["patch"]


@pytest.mark.parametrize("code", [404, 409, 422])
def test_an_update_of_what_somebody_changed_or_replaced_is_not_made(code: int) -> None:
    edited = Failing(BEFORE, refused(code))
    edited.edit(IDENTITY, failurePolicy="Ignore")
    failure = not_made(edited, UPDATED)
    if code == 422:
        assert isinstance(failure, ServerRefused)  # its own words say more
    else:
        assert isinstance(failure, ChangedMeanwhile)
        assert failure.message == "somebody else changed it while this run was at work."
        assert failure.hint == SEE
    for other in (live_object(cluster_policy("p")), None):
        failure = not_made(Failing(other, refused(code)), UPDATED)
        assert isinstance(failure, ChangedMeanwhile)
        assert failure.message == "somebody else deleted or replaced it while this run was at work."
        assert failure.hint == SEE


def test_a_deletion_of_what_somebody_changed_is_not_made() -> None:
    edited = Failing(BEFORE)
    edited.edit(IDENTITY, failurePolicy="Ignore")
    for cluster in (edited, Failing(live_object(cluster_policy("p")))):
        failure = not_made(cluster, DELETED)
        assert isinstance(failure, ChangedMeanwhile)
        assert failure.message == "somebody else changed it while this run was at work."
        assert failure.hint == SEE
        assert IDENTITY in cluster.objects


@pytest.mark.parametrize("error", [refused(404), refused(409)])
def test_what_is_gone_already_needs_no_deletion(error: Failure) -> None:
    assert made(Failing(None, error), DELETED) is None


def test_a_deletion_of_what_the_server_does_not_find_is_sent_once() -> None:
    cluster = Failing(BEFORE, refused(404))
    with pytest.raises(Failure, match="still exists after 0 s"):
        made(cluster, DELETED)
    assert cluster.sent == ["delete"]


def test_what_is_going_already_is_waited_for() -> None:
    cluster = Failing(BEFORE, refused(409))
    cluster.set(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["example.com/a", "example.com/b"])
    with pytest.raises(Failure) as caught:
        made(cluster, DELETED)
    assert caught.value.message == (
        "it was deleted and still exists after 0 s; finalizers: example.com/a, example.com/b."
    )
    assert caught.value.hint == "Find out why the controller that owns the finalizer does not finish."
    assert cluster.sent == ["delete"]


def test_a_lost_deletion_that_shows_is_made() -> None:
    cluster = Failing(BEFORE, RemoteError("the connection broke"))
    cluster.set(deletionTimestamp="2026-01-01T00:00:00Z")
    with pytest.raises(Failure, match="still exists after 0 s; finalizers: none that are known"):
        made(cluster, DELETED)
    # Another one by that name is not the one that was to go.
    another = Failing(live_object(cluster_policy("p")), RemoteError("the connection broke"))
    assert made(another, DELETED) is None


def test_waiting_ends_when_it_is_gone_or_the_run_has_to_stop() -> None:
    looks: Iterator[int] = iter(range(9))
    cluster = Failing(BEFORE, refused(409))
    cluster.set(deletionTimestamp="2026-01-01T00:00:00Z")
    real_read = cluster.read

    def read(identity: Identity) -> JsonObject | None:
        if next(looks) == 2:
            del cluster.objects[IDENTITY]
        return real_read(identity)

    cluster.read = read  # type: ignore[method-assign] # a finalizer that is done in a while
    delete(cluster, IDENTITY, BEFORE, timeout=3600)
    assert next(looks) == 3
    cluster = Failing(BEFORE, refused(409))
    cluster.set(deletionTimestamp="2026-01-01T00:00:00Z")
    for change in (DELETED, REPLACED):
        with pytest.raises(Failure, match="still exists while this run has to stop; finalizers"):
            write(cluster, change, delete_timeout=3600, stopped=lambda: True)


def test_of_a_replacement_the_second_half_may_be_what_fails() -> None:
    cluster = Failing(BEFORE)
    with pytest.raises(Failure) as caught:
        made(cluster, REPLACED, lambda: True)
    assert caught.value.message == "it was deleted, and the run had to stop before it was created anew."
    assert cluster.sent == ["delete"]
    theirs = live_object(cluster_policy("p", message="Theirs."))
    cluster = Failing(BEFORE)

    def create_first(number: int) -> None:
        if number == 2:
            cluster.objects[IDENTITY] = theirs

    cluster.before_write = create_first
    # It is certain that it was not created; that nothing was done is not.
    with pytest.raises(ChangedMeanwhile, match="somebody else created it"):
        made(cluster, REPLACED)
    assert isinstance(not_made(Failing(BEFORE, NotPermitted("403")), REPLACED), NotPermitted)


def test_an_object_holds_what_is_wanted_exactly() -> None:
    assert holds(live_object(POLICY.body), CREATED.after or {}, IDENTITY)
    assert not holds(live_object(POLICY.body, labels={"a": "b"}), CREATED.after or {}, IDENTITY)
