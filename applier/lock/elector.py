"""The Lease that keeps runs apart on a cluster, kept as client-go's electors keep theirs: each waits for the other.

What an elector must do is in client-go's tools/leaderelection: a holder renews; who waits takes over when the holder
is empty, or when the record stood still for its leaseDurationSeconds on the waiter's own clock. Clocks of different
machines are never compared, and every write carries the resourceVersion that it saw, so that one of two wins.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from applier.ports import ServerRefused
from applier.stop import Stop
from renderer import logs
from renderer.errors import ConfigurationError, Failure, Locked, NotPermitted, RemoteError

if TYPE_CHECKING:
    from applier.ports import Leases
    from renderer.manifest.jsontypes import JsonObject

log = logs.get_logger()

#: On the Lease: the last holder that finished its run. Electors keep what is not theirs.
_FINISHED: Final = "insights.fairwinds.com/finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long things take that keep runs apart, in seconds.

    A Lease is good for `lease` after its last renewal, and renewed every `renew`. Work stops `deadline` after the
    last renewal, so that a write that starts just then ends (after `write` at most) while the Lease is good.
    Who waits looks every `poll`.
    """

    lease: float = 15.0
    renew: float = 2.0
    deadline: float = 10.0
    write: float = 5.0
    poll: float = 1.0

    @classmethod
    def of(cls, lease: float) -> Durations:
        """The usual proportions for a Lease that is good for so long. Raises ConfigurationError below a second."""
        if lease < 1:
            raise ConfigurationError("--lease-duration: a Lease can't be good for less than a second.")
        usual = cls()
        part = lease / usual.lease
        return cls(
            lease=lease,
            renew=usual.renew * part,
            deadline=usual.deadline * part,
            write=usual.write * part,
            poll=usual.poll * part,
        )

    @property
    def attempt(self) -> float:
        """How long one renewal may take, so that several fit before the deadline."""
        return self.deadline / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The Lease as this run, `holder`, holds it.

    `uid` and `transitions` are the fencing number: of two runs of one Lease the later has the greater one; a Lease
    with another uid is one that was made since. `taken_over` is true unless the holder before released it (it died,
    or somebody deleted the Lease): what that one sent last may still arrive, until `quiet_at` on `Stop.clock`.
    `finished_before` is the last holder before this one that finished its run, by its transitions (-1: none is known).
    `finished` is set by who has finished this one; the Lease says so when it is released.
    """

    holder: str
    uid: str
    transitions: int
    taken_over: bool
    quiet_at: float
    finished_before: int = -1
    finished: threading.Event = field(default_factory=threading.Event, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseName:
    """Where the Lease is."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@contextmanager
def lease(
    leases: Leases, where: LeaseName, *, identity: str, until: float, hold: float, stop: Stop, durations: Durations
) -> Iterator[Held]:
    """Hold the Lease, renewed in the background; `stop` learns of renewals, of its loss, and of `hold` seconds gone.

    It is waited for up to the moment `until` of `stop.clock`. Raises Locked when that did not suffice,
    ConfigurationError when the namespace is missing, NotPermitted when the account may not have Leases.
    """
    elector = _Elector(leases, where, identity, stop, durations)
    held = elector.acquire(until)
    ended = threading.Event()
    renewer = threading.Thread(target=elector.keep, args=(ended, hold), name="lease", daemon=True)
    renewer.start()
    try:
        yield held
    finally:
        ended.set()
        renewer.join()
        elector.release(finished=held.finished.is_set())


class _Elector:
    """One run's view of the Lease: the object as last stored by this run, and when that was sent."""

    def __init__(self, leases: Leases, where: LeaseName, identity: str, stop: Stop, durations: Durations) -> None:
        self._leases = leases
        self._where = where
        self._identity = identity
        self._stop = stop
        self._clock = stop.clock
        self._durations = durations
        self._ours: JsonObject = {}
        self._sent = 0.0

    def acquire(self, until: float) -> Held:
        """Take the Lease; see `lease`."""
        seen: tuple[JsonObject, float] | None = None
        failure: RemoteError | None = None
        taken_over = told = False
        while True:
            # Before it is asked for: an answer that was long in coming must not look like a record that stood still.
            now = self._clock()
            found = self._read()
            record = (found or {}).get("spec") or {}
            if found and record.get("holderIdentity") == self._identity:
                return self._held(found, taken_over=taken_over)  # it was written, though the answer got lost
            if seen is None or seen[0] != record:
                seen = (record, self._clock())
            if failure and now >= until:
                raise failure
            good_for = float(record.get("leaseDurationSeconds") or self._durations.lease)
            if not record.get("holderIdentity") or now - seen[1] >= good_for:
                taken_over = not found or bool(record.get("holderIdentity"))
                try:
                    if stored := self._write(self._taken(found)):
                        return self._held(stored, taken_over=taken_over)
                except RemoteError as error:
                    log.warning("The Lease could not be taken yet", reason=error.message)
                    failure = error
                    time.sleep(self._durations.poll)
                continue
            holder = f"{record['holderIdentity']} since {_seconds(record.get('acquireTime'))}"
            if now >= until:
                raise Locked(
                    f"Another run holds the Lease {self._where}: {holder}.",
                    hint="Wait until it has ended, or wait longer with --lock-wait. A dead run's Lease is free after "
                    f"{good_for:.0f} s.",
                )
            if not told:
                log.info("Waiting for the lock", lease=str(self._where), holder=holder, seconds=round(until - now, 1))
                told = True
            time.sleep(min(self._durations.poll, max(0.0, until - now)))

    def _held(self, stored: JsonObject, *, taken_over: bool) -> Held:
        self._keep_until(stored)
        return Held(
            holder=self._identity,
            uid=stored["metadata"]["uid"],
            transitions=int(stored["spec"].get("leaseTransitions") or 0),
            taken_over=taken_over,
            quiet_at=self._clock() + self._durations.write if taken_over else 0.0,
            finished_before=finished(stored),
        )

    def _keep_until(self, stored: JsonObject) -> None:
        """It is ours as stored; the time counts from when that was sent, not from when the answer came."""
        self._ours = stored
        self._stop.work_until(self._sent + self._durations.deadline)

    def keep(self, ended: threading.Event, hold: float) -> None:
        """Renew until the work has ended or the Lease is lost."""
        since = self._clock()
        pause = self._durations.renew
        while not ended.wait(pause):
            if self._clock() - since >= hold:
                # The lock stays ours while what was written is undone.
                self._stop.set("it held the lock for as long as LOCK_TIMEOUT (--lock-timeout) allows")
            try:
                pause = self._durations.renew if self._renew() else self._durations.poll
            except Failure as error:
                # The work stops by itself when its time is over; the Lease is ours as long as nobody takes it.
                log.warning("The Lease could not be renewed yet", reason=error.message)
                pause = self._durations.poll
            if self._stop.lost:
                return

    def _renew(self) -> bool:
        """Renew once; False when that has to be tried again."""
        if stored := self._write({**self._ours, "spec": {**self._ours["spec"], "renewTime": _now()}}):
            self._keep_until(stored)
            return True
        found = self._read()
        if found is None:
            self._stop.lose("somebody deleted the Lease that it held")
        elif not self._is_ours(found):
            holder = (found.get("spec") or {}).get("holderIdentity")
            self._stop.lose(f"another run took the Lease: {holder}" if holder else "another run took the Lease")
        else:
            # The answer to a renewal got lost, or somebody put a label on it.
            self._ours = found
        return False

    def _is_ours(self, found: JsonObject) -> bool:
        """Whether it is still held by us, without interruption."""
        spec = found.get("spec") or {}
        return (
            spec.get("holderIdentity") == self._identity
            and found["metadata"]["uid"] == self._ours["metadata"]["uid"]
            and spec.get("leaseTransitions") == self._ours["spec"].get("leaseTransitions")
        )

    def release(self, *, finished: bool) -> None:
        """Empty the holder, as client-go does; the Lease itself stays, since the chart grants no delete."""
        if self._stop.lost:
            return
        try:
            if self._write(_emptied(self._ours, finished=finished)) is None:
                found = self._read()
                if found and self._is_ours(found):
                    self._write(_emptied(found, finished=finished))
        except Failure as error:
            log.warning("The Lease could not be released; it is free when its time is over", reason=error.message)

    def _taken(self, found: JsonObject | None) -> JsonObject:
        now = _now()
        before = (found or {}).get("spec") or {}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": found["metadata"] if found else {"name": self._where.name, "namespace": self._where.namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": math.ceil(self._durations.lease),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": int(before.get("leaseTransitions") or 0) + 1 if found else 0,
            },
        }

    def _read(self) -> JsonObject | None:
        try:
            return self._leases.read_lease(self._where.namespace, self._where.name)
        except NotPermitted as error:
            raise self._no_right(error) from error

    def _write(self, body: JsonObject) -> JsonObject | None:
        """The Lease as stored, or None when another was faster."""
        self._sent = self._clock()
        try:
            return self._leases.write_lease(body, seconds=self._durations.attempt)
        except NotPermitted as error:
            raise self._no_right(error) from error
        except ServerRefused as error:
            if error.status.code == 409:
                return None
            if error.status.code == 404:
                raise ConfigurationError(
                    f"The namespace {self._where.namespace}, where the lock is kept, does not exist on this cluster.",
                    hint="Create it, or name another with --lock-namespace (INSIGHTS_LOCK_NAMESPACE).",
                ) from error
            raise

    def _no_right(self, error: NotPermitted) -> NotPermitted:
        return NotPermitted(
            f"This account may not use the Lease that keeps two runs apart. {error.message}",
            hint=f"Grant it get, create and update on leases in namespace {self._where.namespace}, or name another "
            "with --lock-namespace.",
        )


def finished(lease: JsonObject) -> int:
    """The last holder that is known to have finished its run, by its transitions; -1 when none is."""
    value = (lease["metadata"].get("annotations") or {}).get(_FINISHED, "")
    return int(value) if value.isascii() and value.isdigit() else -1


def _emptied(held: JsonObject, *, finished: bool) -> JsonObject:
    now = _now()
    spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
    metadata = held["metadata"]
    if finished:
        note = {_FINISHED: str(held["spec"].get("leaseTransitions") or 0)}
        metadata = {**metadata, "annotations": {**(metadata.get("annotations") or {}), **note}}
    return {**held, "metadata": metadata, "spec": {**held["spec"], **spec}}


def _now() -> str:
    """Kubernetes' MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(micro_time: object) -> str:
    """A MicroTime without its fraction, for people."""
    return f"{str(micro_time).partition('.')[0].removesuffix('Z')}Z" if micro_time else "an unknown time"
