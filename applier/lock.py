"""One applier at a time: a file lock on this machine, and the Lease that client-go's electors use on the cluster.

The Lease decides. The file lock spares the cluster the contention of one machine.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from applier.ports import ServerRefused
from applier.stop import Stop
from renderer import logs
from renderer.errors import ConfigurationError, Failure, Locked, NotPermitted

if TYPE_CHECKING:
    from applier.ports import Leases
    from renderer.manifest.jsontypes import JsonObject

FILE: Final = Path("/tmp/kyverno-policy-sync.lock")  # noqa: S108 - the name that the incumbent uses
LEASE: Final = "kyverno-policy-sync-lock"
DEFAULT_NAMESPACE: Final = "insights-agent"

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long, in seconds: a lease is good for, until it is renewed, until work stops without, between two looks."""

    lease: float = 15.0
    renew: float = 2.0
    deadline: float = 10.0
    poll: float = 1.0


def holder_identity() -> str:
    """Who we are in the Lease: the host, and something that no other process has."""
    return f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"


@contextmanager
def file_lock(path: Path = FILE) -> Iterator[None]:
    """Hold the file; the kernel frees it when the process ends, however it ends.

    Raises Locked when another process holds it. Where the file can't be made, the Lease has to suffice.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        log.info("No file lock; the Lease decides alone", file=str(path), reason=error.strerror)
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 500, 0).decode(errors="replace").strip()
        os.close(handle)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise Locked(
            f"Another run on this machine holds {path}{f': {holder}' if holder else ''}.",
            hint="Wait until it has ended, then run again. The file itself need not be removed.",
        ) from error
    try:
        _note_holder(handle)
        yield
    finally:
        # Emptied, not removed: a file that is removed while another opens it locks nobody out.
        _note_holder(handle, nobody=True)
        os.close(handle)


def _note_holder(handle: int, *, nobody: bool = False) -> None:
    text = "" if nobody else f"pid {os.getpid()} on {socket.gethostname()} since {_now()}\n"
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    except OSError as error:  # a full disk: the lock holds all the same
        log.debug("The holder could not be written into the lock file", reason=error.strerror)


@contextmanager
def lease(  # noqa: PLR0913 - each is a setting of its own
    leases: Leases,
    *,
    namespace: str,
    identity: str,
    wait: float,
    hold: float,
    stop: Stop,
    durations: Durations | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold the Lease, renewed in the background; `stop` is set after `hold` seconds, or when it is lost.

    It is taken over when nobody holds it, or when its record has not changed for the time that it is good for,
    on our own clock: other machines' clocks are not compared. Raises Locked when `wait` seconds did not suffice,
    ConfigurationError when the namespace is missing, NotPermitted when the account may not have Leases.
    """
    durations = durations or Durations()
    record = _acquire(leases, namespace, identity, wait=wait, durations=durations, clock=clock)
    ended = threading.Event()
    stop.work_until(time.monotonic() + durations.deadline)
    renewer = threading.Thread(
        target=_keep, args=(leases, record, stop, ended, hold, durations, clock), name="lease", daemon=True
    )
    renewer.start()
    try:
        yield
    finally:
        ended.set()
        renewer.join()
        _release(leases, namespace, identity, durations)


def _acquire(
    leases: Leases,
    namespace: str,
    identity: str,
    *,
    wait: float,
    durations: Durations,
    clock: Callable[[], float],
) -> JsonObject:
    end = clock() + wait
    seen: tuple[object, float] | None = None
    told = False
    while True:
        found = _read(leases, namespace)
        now = clock()
        record = (found or {}).get("spec") or {}
        if seen is None or seen[0] != record:
            seen = (record, now)
        good_for = float(record.get("leaseDurationSeconds") or durations.lease)
        if not record.get("holderIdentity") or now - seen[1] >= good_for:
            taken = _write(leases, _taken(found, namespace, identity, durations), durations)
            if taken is not None:
                return taken
            continue
        holder = f"{record['holderIdentity']} since {record.get('acquireTime', 'an unknown time')}"
        if now >= end:
            raise Locked(
                f"Another run holds the Lease {namespace}/{LEASE}: {holder}.",
                hint="Wait until it has ended, or wait longer with --lock-wait. A dead run's Lease is free after "
                f"{good_for:.0f} s.",
            )
        if not told:
            log.info("Waiting for the lock", lease=f"{namespace}/{LEASE}", holder=holder)
            told = True
        time.sleep(min(durations.poll, max(0.0, end - now)))


def _read(leases: Leases, namespace: str) -> JsonObject | None:
    try:
        return leases.read_lease(namespace, LEASE)
    except NotPermitted as error:
        raise NotPermitted(
            f"This account may not use the Lease that keeps two runs apart. {error.message}",
            hint=f"Grant it get, create and update on leases in namespace {namespace}, or name another namespace with "
            "--lock-namespace.",
        ) from error


def _taken(found: JsonObject | None, namespace: str, identity: str, durations: Durations) -> JsonObject:
    now = _now()
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(durations.lease)),
        "acquireTime": now,
        "renewTime": now,
    }
    if found is None:
        metadata = {"name": LEASE, "namespace": namespace}
        return _lease(metadata, {**spec, "leaseTransitions": 0})
    before = found.get("spec") or {}
    return _lease(
        found["metadata"],
        {**before, **spec, "leaseTransitions": int(before.get("leaseTransitions") or 0) + 1},
    )


def _lease(metadata: JsonObject, spec: JsonObject) -> JsonObject:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _write(leases: Leases, lease_object: JsonObject, durations: Durations) -> JsonObject | None:
    """The Lease as stored, or None when another was faster."""
    try:
        return leases.write_lease(lease_object, seconds=durations.deadline / 2)
    except ServerRefused as error:
        if error.status.code == 409:
            return None
        namespace = lease_object["metadata"]["namespace"]
        if error.status.code == 404:
            raise ConfigurationError(
                f"The namespace {namespace}, where the lock is kept, does not exist on this cluster.",
                hint="Create it, or name another with --lock-namespace (INSIGHTS_LOCK_NAMESPACE).",
            ) from error
        raise


def _keep(
    leases: Leases,
    record: JsonObject,
    stop: Stop,
    ended: threading.Event,
    hold: float,
    durations: Durations,
    clock: Callable[[], float],
) -> None:
    """Renew until the work has ended; say so when that can't be done, or when it took too long."""
    started = renewed = clock()
    while not ended.wait(durations.renew):
        if clock() - started >= hold:
            # The lock stays ours while what was written is undone.
            stop.set("it held the lock for as long as LOCK_TIMEOUT (--lock-timeout) allows")
        # The lease counts from when the renewal was sent, not from when its answer came.
        started_at = time.monotonic()
        try:
            stored = _write(leases, _lease(record["metadata"], {**record["spec"], "renewTime": _now()}), durations)
        except Failure as error:
            if clock() - renewed >= durations.deadline:
                stop.set(f"the Lease could not be renewed for {durations.deadline:.0f} s ({error.message})")
                return
            continue
        if stored is None:
            stop.set("another run took the Lease")
            return
        record, renewed = stored, clock()
        stop.work_until(started_at + durations.deadline)


def _release(leases: Leases, namespace: str, identity: str, durations: Durations) -> None:
    """Empty the holder, as client-go does; the Lease itself stays, since the chart grants no delete."""
    try:
        found = leases.read_lease(namespace, LEASE)
        if found and (found.get("spec") or {}).get("holderIdentity") == identity:
            spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
            _write(leases, _lease(found["metadata"], spec), durations)
    except Failure as error:
        log.warning("The Lease could not be released; it is free when its time is over", reason=error.message)


def _now() -> str:
    """Kubernetes' MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
