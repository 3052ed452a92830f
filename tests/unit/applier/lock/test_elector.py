"""Two runs never hold the Lease at once, and whoever holds it knows when it no longer does."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from uuid import uuid4

import pytest

from applier.lock.elector import Durations, Held, LeaseName, lease
from applier.ports import Forbidden, ServerRefused, Status
from applier.stop import Stop
from renderer.errors import ConfigurationError, ExitCode, Locked, NotPermitted, RemoteError
from renderer.manifest.jsontypes import JsonObject

WHERE = LeaseName(namespace="ns", name="lock")
#: Renewed often and lost late, so that a machine that stalls loses nothing.
STEADY = Durations(lease=60.0, renew=0.05, deadline=50.0, write=5.0, poll=0.02)
#: For the tests that wait until one of these is over.
FAST = Durations(lease=1.0, renew=0.05, deadline=0.4, write=0.2, poll=0.02)


class Leases:
    """One Lease in memory, with the API server's optimistic concurrency; `answer_lost` writes are made all the same."""

    def __init__(self) -> None:
        self.lease: JsonObject | None = None
        self.specs: list[JsonObject] = []  # each that was written, in order
        self.failure: Exception | None = None
        self.answers_lost = 0
        self.written = threading.Event()
        self._version = 0

    def read_lease(self, namespace: str, name: str) -> JsonObject | None:
        assert LeaseName(namespace=namespace, name=name) == WHERE
        return deepcopy(self.lease)

    def write_lease(self, body: JsonObject, *, seconds: float) -> JsonObject:
        assert seconds > 0
        if self.failure:
            raise self.failure
        held = self.lease["metadata"] if self.lease else {}
        if body["metadata"].get("resourceVersion") != held.get("resourceVersion"):
            raise ServerRefused(Status(code=409, reason="Conflict", message="conflict"))
        self._store(body, uid=held.get("uid") or str(uuid4()))
        if self.answers_lost:
            self.answers_lost -= 1
            raise RemoteError("the connection broke")
        self.written.set()
        assert self.lease is not None
        return deepcopy(self.lease)

    def _store(self, body: JsonObject, *, uid: str) -> None:
        self._version += 1
        self.lease = {**deepcopy(body), "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        self.lease["metadata"]["uid"] = uid
        self.specs.append(deepcopy(body["spec"]))

    def edit(self, **spec: object) -> None:
        """Somebody else writes these fields."""
        assert self.lease is not None
        body = deepcopy(self.lease)
        body["spec"] |= spec
        self._store(body, uid=body["metadata"]["uid"])

    def held_by(self, holder: str, **spec: object) -> None:
        """Somebody else holds it."""
        body = {"metadata": {"name": WHERE.name}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1, **spec}}
        self._store(body, uid="theirs")

    @property
    def spec(self) -> JsonObject:
        assert self.lease is not None
        return self.lease["spec"]  # type: ignore[no-any-return]

    def renewed(self) -> None:
        """Wait for a write that is made, and answered, from now on."""
        self.written.clear()
        assert self.written.wait(60)


@contextmanager
def held(
    leases: Leases,
    identity: str = "me",
    *,
    wait: float = 0,
    hold: float = 600,
    stop: Stop | None = None,
    durations: Durations = STEADY,
) -> Iterator[Held]:
    stop = stop or Stop()
    until = stop.clock() + wait
    with lease(leases, WHERE, identity=identity, until=until, hold=hold, stop=stop, durations=durations) as one:
        yield one


def test_it_is_taken_renewed_and_released_with_an_empty_holder() -> None:
    leases = Leases()
    with held(leases) as first:
        taken = leases.specs[0]  # it may have been renewed by now
        assert taken["holderIdentity"] == "me"
        assert taken["acquireTime"] == taken["renewTime"]
        leases.renewed()
        assert leases.spec | {"renewTime": taken["renewTime"]} == taken
        assert datetime.fromisoformat(leases.spec["renewTime"]) > datetime.fromisoformat(taken["renewTime"])
    assert (leases.spec["holderIdentity"], leases.spec["leaseDurationSeconds"]) == ("", 1)
    with held(leases, "other") as second:
        assert leases.spec["leaseTransitions"] == second.transitions == first.transitions + 1
        assert second.uid == first.uid
        assert not second.taken_over


def test_the_lease_says_which_holder_finished_its_run_last() -> None:
    leases = Leases()
    with held(leases) as first:
        assert first.finished_before == -1
    assert leases.lease is not None
    assert "annotations" not in leases.lease["metadata"]
    with held(leases) as second:
        assert second.finished_before == -1
        second.finished.set()
        leases.renewed()
    leases.lease["metadata"]["annotations"]["theirs"] = "stays"
    for _ in range(2):
        with held(leases) as later:
            assert later.finished_before == second.transitions
    assert leases.lease["metadata"]["annotations"]["theirs"] == "stays"
    leases.lease["metadata"]["annotations"] = dict.fromkeys(leases.lease["metadata"]["annotations"], "nonsense")
    with held(leases) as after:
        assert after.finished_before == -1


def test_a_held_lease_is_waited_for_and_its_holder_named() -> None:
    leases = Leases()
    leases.held_by("one", acquireTime="2001-02-03T04:05:06.000007Z")
    with pytest.raises(Locked, match=r"Lease ns/lock: one since 2001-02-03T04:05:06Z\."), held(leases, wait=0.1):
        pass
    leases.held_by("one")
    with pytest.raises(Locked, match="one since an unknown time"), held(leases):
        pass


@pytest.mark.parametrize("time_of_theirs", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_a_dead_holders_lease_is_taken_over_when_its_record_stands_still(time_of_theirs: str) -> None:
    leases, stop = Leases(), Stop()
    leases.held_by("dead", renewTime=time_of_theirs, acquireTime=time_of_theirs, leaseTransitions=6)
    with pytest.raises(Locked), held(leases, wait=0.2):
        pass
    begun, durations = stop.clock(), dataclasses.replace(STEADY, write=0.2)
    with held(leases, wait=60, stop=stop, durations=durations) as one:
        assert (leases.spec["holderIdentity"], leases.spec["leaseTransitions"]) == ("me", 7)
        assert (one.uid, one.transitions, one.taken_over) == ("theirs", 7, True)
        # What the dead one sent last may still arrive.
        assert begun + 1 < one.quiet_at <= stop.clock() + durations.write
        assert stop.sleep_until(one.quiet_at)


def test_a_new_lease_may_be_one_that_somebody_deleted_from_under_its_holder() -> None:
    with held(Leases()) as one:
        assert one.taken_over


def test_a_holder_that_renews_is_never_taken_over() -> None:
    leases = Leases()
    ticks = iter(range(10_000))
    clock = lambda: float(next(ticks))  # noqa: E731 - every look is a second later, far more than a Lease is good for
    leases.held_by("alive", renewTime="0")
    read = leases.read_lease

    def renewing(namespace: str, name: str) -> JsonObject | None:
        leases.edit(renewTime=str(next(ticks)))
        return read(namespace, name)

    leases.read_lease = renewing  # type: ignore[method-assign]
    with pytest.raises(Locked, match="alive"), held(leases, wait=50, stop=Stop(clock=clock)):
        pass


def test_an_answer_that_was_long_in_coming_is_no_record_that_stood_still() -> None:
    leases = Leases()
    moment = [0.0]
    leases.held_by("alive")
    read = leases.read_lease

    def slow(namespace: str, name: str) -> JsonObject | None:
        found = read(namespace, name)
        moment[0] += 100  # frozen while the answer was on its way
        return found

    leases.read_lease = slow  # type: ignore[method-assign]
    with pytest.raises(Locked), held(leases, wait=1, stop=Stop(clock=lambda: moment[0])):
        pass
    assert leases.spec["holderIdentity"] == "alive"


def test_one_that_lost_the_race_for_a_free_lease_looks_again() -> None:
    leases = Leases()
    leases.held_by("")
    write = leases.write_lease

    def second(body: JsonObject, *, seconds: float) -> JsonObject:
        leases.write_lease = write  # type: ignore[method-assign]
        leases.held_by("faster")
        return write(body, seconds=seconds)

    leases.write_lease = second  # type: ignore[method-assign]
    with pytest.raises(Locked, match="faster"), held(leases):
        pass


def test_it_is_ours_also_when_the_answer_to_taking_it_was_lost() -> None:
    leases = Leases()
    leases.answers_lost = 1
    with held(leases):
        assert leases.spec["holderIdentity"] == "me"


def test_who_can_read_the_lease_and_not_write_it_is_told_what_failed() -> None:
    leases = Leases()
    leases.failure = RemoteError("the server answered 500")
    with pytest.raises(RemoteError, match="500"), held(leases, wait=0.1):
        pass


def test_a_lost_answer_to_a_renewal_is_no_loss_of_the_lease() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, stop=stop):
        leases.answers_lost = 1
        leases.renewed()
        leases.renewed()
        assert not stop.is_set()
    assert leases.spec["holderIdentity"] == ""


def test_neither_is_a_write_of_somebody_who_did_not_take_it() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, stop=stop):
        leases.edit()
        leases.renewed()
        leases.renewed()
        assert not stop.is_set()
    assert leases.spec["holderIdentity"] == ""


def take(leases: Leases) -> None:
    leases.edit(holderIdentity="thief", leaseTransitions=8)


def take_and_release(leases: Leases) -> None:
    leases.edit(holderIdentity="", leaseTransitions=8)


def take_and_give_back(leases: Leases) -> None:
    leases.edit(leaseTransitions=8)


def delete(leases: Leases) -> None:
    leases.lease = None


def replace(leases: Leases) -> None:
    leases.held_by("me", leaseTransitions=0)


@pytest.mark.parametrize("lose", [take, take_and_release, take_and_give_back, delete, replace])
def test_who_loses_the_lease_may_write_nothing_more_and_leaves_it_alone(lose: Callable[[Leases], None]) -> None:
    leases, stop = Leases(), Stop()
    with held(leases, stop=stop):
        lose(leases)
        assert becomes(lambda: stop.lost)
        assert stop.is_set()
        assert not stop.may_write()
        before = deepcopy(leases.lease)
    assert leases.lease == before
    assert "Lease" in stop.reason


def test_the_work_stops_when_the_lease_cannot_be_renewed_and_may_be_undone_when_it_can() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, stop=stop, durations=FAST):
        leases.failure = RemoteError("away")
        assert becomes(stop.is_set)
        assert stop.reason == "the Lease could not be renewed in time"
        assert not stop.may_write()
        leases.failure = None
        assert becomes(stop.may_write)
        assert stop.is_set()
        assert not stop.lost
    assert leases.spec["holderIdentity"] == ""


def test_the_work_stops_after_the_time_limit_and_the_lease_is_still_ours() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, hold=0.1, stop=stop):
        assert becomes(stop.is_set)
        assert stop.may_write()
        assert leases.spec["holderIdentity"] == "me"
    assert "LOCK_TIMEOUT" in stop.reason
    assert stop.code is ExitCode.ROLLED_BACK
    assert leases.spec["holderIdentity"] == ""


def test_a_missing_namespace_is_an_error_that_says_so() -> None:
    leases = Leases()
    leases.failure = ServerRefused(Status(code=404, reason="NotFound", message="not found"))
    with pytest.raises(ConfigurationError, match="The namespace ns, where the lock is kept, does not exist"):
        held(leases).__enter__()


def test_missing_rights_are_named() -> None:
    leases = Leases()
    status = Status(code=403, reason="Forbidden", message="no")
    leases.failure = Forbidden("it does not allow POST", hint="", status=status)
    with pytest.raises(NotPermitted, match="may not use the Lease") as refused:
        held(leases).__enter__()
    assert "leases in namespace ns" in refused.value.hint


@pytest.mark.parametrize("seconds", [1.0, 3.0, 15.0, 60.0])
def test_a_write_that_starts_at_the_last_moment_ends_while_the_lease_is_good(seconds: float) -> None:
    durations = Durations.of(seconds)
    assert durations.deadline + durations.write <= durations.lease
    assert durations.renew + 2 * durations.attempt + durations.poll < durations.deadline
    assert Durations.of(15.0) == Durations()


def test_a_lease_is_good_for_a_second_at_least() -> None:
    with pytest.raises(ConfigurationError, match="--lease-duration"):
        Durations.of(0.5)


def becomes(true: Callable[[], bool]) -> bool:
    waiting, end = threading.Event(), time.monotonic() + 60
    while not true() and time.monotonic() < end:
        waiting.wait(0.02)
    return true()
