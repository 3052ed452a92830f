"""Executes a plan: every change or none. What was written is undone when one write fails or the run must stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from applier import diff
from applier.change import Action, Change
from applier.order import ordered
from applier.ports import Cluster, ServerRefused
from applier.stop import Stop
from renderer import logs
from renderer.errors import ExitCode, Failure, RemoteError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content, digest

_CONFLICTS: Final = 5
_POLL_SECONDS: Final = 0.05

log = logs.get_logger()


class ChangedMeanwhile(Failure):
    """Somebody else changed the policy between our reading it and our writing it; theirs stands."""

    code = ExitCode.ROLLED_BACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write that was made, or may have been: the object as stored is None when no answer came."""

    change: Change
    stored: JsonObject | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did: identities by what became of them, and why it failed if it did."""

    applied: tuple[Identity, ...] = ()
    updated: tuple[Identity, ...] = ()
    removed: tuple[Identity, ...] = ()
    failed: tuple[tuple[Identity, str], ...] = ()
    restored: tuple[Identity, ...] = ()
    left_alone: tuple[tuple[Identity, str], ...] = ()
    not_undone: tuple[tuple[Identity, str], ...] = ()
    reason: str = ""
    code: ExitCode = ExitCode.OK

    @property
    def success(self) -> bool:
        """Whether everything that was planned is in place."""
        return self.code is ExitCode.OK


def execute(cluster: Cluster, changes: Sequence[Change], stop: Stop, *, delete_timeout: float = 30.0) -> Outcome:
    """Write every change in order; on the first failure, or when `stop` is set, undo those written.

    `delete_timeout`, in seconds, is how long a deleted object may stay. Never raises a Failure: the outcome tells.
    """
    written: list[Written] = []
    for change in ordered(changes):
        if stop.is_set():
            return _undone(cluster, written, (), stop.reason, stop.code, delete_timeout)
        try:
            written.append(_write(cluster, change, delete_timeout))
        except Failure as error:
            log.error("Write failed", action=change.action.value, policy=str(change.identity), reason=error.message)
            if isinstance(error, RemoteError):
                # Nobody knows whether the server acted: the undo looks, and takes it back if it did.
                written.append(Written(change=change, stored=None))
            failed = ((change.identity, _reason(error)),)
            return _undone(
                cluster, written, failed, f"{change.identity}: {error.message}", ExitCode.ROLLED_BACK, delete_timeout
            )
    return Outcome(
        applied=_identities(written, Action.CREATE, Action.ADOPT),
        updated=_identities(written, Action.UPDATE),
        removed=_identities(written, Action.DELETE),
    )


def _reason(error: Failure) -> str:
    return f"{error.message} {error.hint}".strip()


def _identities(written: Sequence[Written], *actions: Action) -> tuple[Identity, ...]:
    return tuple(sorted(entry.change.identity for entry in written if entry.change.action in actions))


def _write(cluster: Cluster, change: Change, delete_timeout: float) -> Written:
    if change.action is Action.CREATE:
        stored = _create(cluster, change)
    elif change.action is Action.DELETE:
        _delete(cluster, change.identity, change.before or {}, delete_timeout)
        stored = None
    else:
        stored = _update(cluster, change)
    kind = change.identity.kind
    log.info(
        "Policy written",
        action=change.action.value,
        policy=str(change.identity),
        before=digest(content(change.before, kind)) if change.before else None,
        after=digest(content(stored, kind)) if stored else None,
    )
    return Written(change=change, stored=stored)


def _create(cluster: Cluster, change: Change) -> JsonObject:
    body = change.after or {}
    try:
        return cluster.create(body, change.identity)
    except RemoteError:
        # The answer is lost, not necessarily the write.
        found = cluster.read(change.identity)
        if found is not None and _holds(found, body, change.identity):
            return found
        raise
    except ServerRefused as error:
        if error.status.reason == "AlreadyExists":
            raise ChangedMeanwhile(
                "somebody else created it while this run was at work", hint="Run again to see the difference."
            ) from error
        raise


def _update(cluster: Cluster, change: Change) -> JsonObject:
    live = change.before or {}
    for _ in range(_CONFLICTS):
        try:
            return cluster.patch(change.identity, diff.guarded(live, change.patch))
        except RemoteError:
            found = cluster.read(change.identity)
            if found is not None and _holds(found, change.after or {}, change.identity):
                return found
            raise
        except ServerRefused as error:
            if error.status.code not in (404, 409, 422):
                raise
            found = cluster.read(change.identity)
            if found is None or found["metadata"]["uid"] != live["metadata"]["uid"]:
                raise ChangedMeanwhile("somebody else deleted or replaced it while this run was at work") from error
            if error.status.code == 422:
                raise
            if not _holds(found, content(change.before or {}, change.identity.kind), change.identity):
                raise ChangedMeanwhile(
                    "somebody else changed it while this run was at work", hint="Run again to see the difference."
                ) from error
            live = found  # only its status or its version moved
    raise ChangedMeanwhile(f"it changed {_CONFLICTS} times while this run tried to write it")


def _delete(cluster: Cluster, identity: Identity, live: JsonObject, timeout: float) -> None:
    uid = live["metadata"]["uid"]
    before = content(live, identity.kind)
    for _ in range(_CONFLICTS):
        try:
            cluster.delete(identity, uid=uid, resource_version=live["metadata"]["resourceVersion"])
            break
        except RemoteError:
            found = cluster.read(identity)
            if found is None or "deletionTimestamp" in found["metadata"]:
                break
            raise
        except ServerRefused as error:
            if error.status.code == 404:
                return
            if error.status.code != 409:
                raise
            found = cluster.read(identity)
            if found is None:
                return
            if found["metadata"]["uid"] != uid or not _holds(found, before, identity):
                raise ChangedMeanwhile(
                    "somebody else changed it while this run was at work", hint="Run again to see the difference."
                ) from error
            live = found
    _wait_until_gone(cluster, identity, uid, timeout)


def _wait_until_gone(cluster: Cluster, identity: Identity, uid: str, timeout: float) -> None:
    end = time.monotonic() + timeout
    while (found := cluster.read(identity)) is not None and found["metadata"]["uid"] == uid:
        if time.monotonic() >= end:
            finalizers = ", ".join(found["metadata"].get("finalizers") or ()) or "none that are known"
            raise Failure(
                f"it was deleted and still exists after {timeout:.0f} s; finalizers: {finalizers}",
                hint="Find out why the controller that owns the finalizer does not finish.",
            )
        time.sleep(_POLL_SECONDS)


def _holds(found: JsonObject, wanted: JsonObject, identity: Identity) -> bool:
    return content(found, identity.kind) == wanted


def _undone(
    cluster: Cluster,
    written: Sequence[Written],
    failed: tuple[tuple[Identity, str], ...],
    reason: str,
    code: ExitCode,
    delete_timeout: float,
) -> Outcome:
    """Take every write back, the last first, and tell what became of each."""
    restored: list[Identity] = []
    left: list[tuple[Identity, str]] = []
    stuck: list[tuple[Identity, str]] = []
    for entry in reversed(written):
        identity = entry.change.identity
        try:
            if _undo(cluster, entry, delete_timeout):
                restored.append(identity)
                log.info("Write undone", action=entry.change.action.value, policy=str(identity))
        except ChangedMeanwhile as error:
            left.append((identity, error.message))
            log.warning("Write not undone", policy=str(identity), reason=error.message)
        except Failure as error:
            stuck.append((identity, _reason(error)))
            log.error("Write could not be undone", policy=str(identity), reason=error.message)
    return Outcome(
        failed=failed,
        restored=tuple(restored),
        left_alone=tuple(left),
        not_undone=tuple(stuck),
        reason=reason,
        code=ExitCode.ROLLBACK_INCOMPLETE if stuck else code,
    )


def _undo(cluster: Cluster, entry: Written, delete_timeout: float) -> bool:
    """Take one write back; False when the server turns out not to have made it."""
    change = entry.change
    found = cluster.read(change.identity)
    if change.action is Action.CREATE:
        return _undo_create(cluster, entry, found, delete_timeout)
    if change.action is Action.DELETE:
        return _undo_delete(cluster, change, found)
    return _undo_update(cluster, entry, found)


def _undo_create(cluster: Cluster, entry: Written, found: JsonObject | None, delete_timeout: float) -> bool:
    identity = entry.change.identity
    if found is None:
        return False
    ours = entry.stored is None or entry.stored["metadata"]["uid"] == found["metadata"]["uid"]
    if not ours or _spec(found) != _spec(entry.change.after or {}):
        raise ChangedMeanwhile("somebody else changed what this run created; theirs stands")
    _delete(cluster, identity, found, delete_timeout)
    return True


def _undo_delete(cluster: Cluster, change: Change, found: JsonObject | None) -> bool:
    before = change.before or {}
    if found is None:
        cluster.create(content(before, change.identity.kind), change.identity)
        return True
    if found["metadata"]["uid"] != before["metadata"]["uid"]:
        raise ChangedMeanwhile("somebody else created it again; theirs stands")
    if "deletionTimestamp" in found["metadata"]:
        raise Failure("its deletion can't be taken back while its finalizers hold it")
    return False


def _undo_update(cluster: Cluster, entry: Written, found: JsonObject | None) -> bool:
    change = entry.change
    kind = change.identity.kind
    before, after = content(change.before or {}, kind), change.after or {}
    for _ in range(_CONFLICTS):
        if found is None or found["metadata"]["uid"] != (change.before or {})["metadata"]["uid"]:
            raise ChangedMeanwhile("somebody else deleted or replaced it; theirs stands")
        now = content(found, kind)
        if entry.stored is None and now == before:
            return False
        if _spec(now) != _spec(after):
            raise ChangedMeanwhile("somebody else changed its spec after this run did; theirs stands")
        operations = diff.patch(now, restored(before=before, after=after, now=now))
        if not operations:
            return True
        try:
            cluster.patch(change.identity, diff.guarded(found, operations))
        except ServerRefused as error:
            if error.status.code != 409:
                raise
            found = cluster.read(change.identity)
        else:
            return True
    raise Failure(f"it changed {_CONFLICTS} times while this run tried to restore it")


def restored(*, before: JsonObject, after: JsonObject, now: JsonObject) -> JsonObject:
    """What to put in place of `now` to take the step from `before` to `after` back, and nothing else. Pure.

    Labels and annotations that others set or changed since stay; the rest is as before.
    """
    metadata = dict(now["metadata"])
    for section in ("labels", "annotations"):
        old, new = before["metadata"].get(section, {}), after["metadata"].get(section, {})
        keys = dict(metadata.pop(section, {}))
        for key in old.keys() | new.keys():
            if old.get(key) != new.get(key) and keys.get(key) == new.get(key):
                keys.pop(key, None)
                if key in old:
                    keys[key] = old[key]
        if keys:
            metadata[section] = keys
    return {**before, "metadata": metadata}


def _spec(body: JsonObject) -> JsonObject:
    return {key: value for key, value in body.items() if key not in ("metadata", "status", "apiVersion", "kind")}
