"""Two runs never hold the lock at once; the Lease is what client-go's electors expect."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest

from applier import lock
from applier.lock import Durations
from applier.ports import ServerRefused, Status
from applier.stop import Stop
from renderer.errors import Locked, RemoteError
from renderer.manifest.jsontypes import JsonObject

FAST = Durations(lease=1.0, renew=0.05, deadline=0.4, poll=0.02)


class Leases:
    """One Lease in memory, with the API server's optimistic concurrency."""

    def __init__(self) -> None:
        self.lease: JsonObject | None = None
        self.down = False
        self._version = 0

    def read_lease(self, namespace: str, name: str) -> JsonObject | None:
        assert (namespace, name) == ("ns", lock.LEASE)
        return deepcopy(self.lease)

    def write_lease(self, lease: JsonObject, *, seconds: float) -> JsonObject:
        assert seconds > 0
        if self.down:
            raise RemoteError("away")
        held = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if lease["metadata"].get("resourceVersion") != held:
            raise ServerRefused(Status(code=409, reason="Conflict", message="conflict"))
        self._version += 1
        self.lease = {**deepcopy(lease), "metadata": {**lease["metadata"], "resourceVersion": str(self._version)}}
        return deepcopy(self.lease)

    @property
    def spec(self) -> JsonObject:
        assert self.lease is not None
        return self.lease["spec"]  # type: ignore[no-any-return]


@contextmanager
def held(
    leases: Leases, identity: str = "me", *, wait: float = 0, hold: float = 60, stop: Stop | None = None
) -> Iterator[None]:
    with lock.lease(
        leases, namespace="ns", identity=identity, wait=wait, hold=hold, stop=stop or Stop(), durations=FAST
    ):
        yield


def test_it_is_taken_renewed_and_released_with_an_empty_holder() -> None:
    leases = Leases()
    with held(leases):
        assert leases.spec["holderIdentity"] == "me"
        first = leases.spec["renewTime"]
        renewed = threading.Event()
        for _ in range(100):
            if leases.spec["renewTime"] != first:
                renewed.set()
                break
            renewed.wait(0.02)
        assert renewed.is_set()
    assert leases.spec["holderIdentity"] == ""
    assert leases.spec["leaseTransitions"] == 0
    with held(leases, "other"):
        assert leases.spec["leaseTransitions"] == 1


def test_a_held_lease_is_waited_for_and_its_holder_named() -> None:
    leases = Leases()
    with held(leases, "one"), pytest.raises(Locked, match="one since"), held(leases, "two", wait=0.1):
        pass


def test_a_dead_holders_lease_is_taken_over_when_its_record_stands_still() -> None:
    leases = Leases()
    leases.write_lease(
        {
            "metadata": {"name": lock.LEASE, "namespace": "ns"},
            # Its clock is wrong by years, which must not matter.
            "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2099-01-01T00:00:00.000000Z"},
        },
        seconds=1,
    )
    with pytest.raises(Locked), held(leases, wait=0.2):
        pass
    with held(leases, wait=5):
        assert leases.spec["holderIdentity"] == "me"


def test_the_work_stops_when_another_takes_the_lease() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, stop=stop):
        assert leases.lease is not None
        leases.lease["metadata"]["resourceVersion"] = "stolen"
        leases.lease["spec"]["holderIdentity"] = "thief"
        assert _set_within(stop, 5)
    assert "took the Lease" in stop.reason
    assert leases.spec["holderIdentity"] == "thief"


def test_the_work_stops_when_the_lease_cannot_be_renewed() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, stop=stop):
        leases.down = True
        assert _set_within(stop, 5)
    assert "could not be renewed" in stop.reason


def test_the_work_stops_after_the_time_limit_and_the_lease_is_still_ours() -> None:
    leases, stop = Leases(), Stop()
    with held(leases, hold=0.1, stop=stop):
        assert _set_within(stop, 5)
        assert leases.spec["holderIdentity"] == "me"
    assert "LOCK_TIMEOUT" in stop.reason
    assert leases.spec["holderIdentity"] == ""


def _set_within(stop: Stop, seconds: float) -> bool:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if stop.is_set():
            return True
        waiting.wait(0.02)
    return False


HOLDER = """
import sys
from pathlib import Path
from applier.lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_file_lock_names_its_holder_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"pid {holder.pid}"), lock.file_lock(path):
            pass
        holder.kill()
        holder.wait()
        with lock.file_lock(path):
            assert f"pid {os.getpid()}" in path.read_text()
    assert path.read_text() == ""


def test_a_leftover_file_that_nobody_holds_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("pid 1 on nowhere")
    with lock.file_lock(path):
        pass


def test_where_no_file_can_be_made_the_lease_has_to_suffice(tmp_path: Path) -> None:
    with lock.file_lock(tmp_path / "missing" / "lock"):
        pass
