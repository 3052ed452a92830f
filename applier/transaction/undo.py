"""Takes one write back, with preconditions again, and never over what somebody else did since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from applier import diff
from applier.change import Action, Change
from applier.ports import Cluster, ServerRefused
from applier.transaction.writes import CONFLICTS, ChangedMeanwhile, NotMade, delete, go_on_unless, never
from renderer.errors import Failure
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write that was made, or may have been: `stored` is None for a delete, and where no answer came.

    Until `unsettled_until` on the monotonic clock the server may still be at work at it.
    """

    change: Change
    stored: JsonObject | None = None
    unsettled_until: float = 0.0

    @property
    def after(self) -> JsonObject:
        """What the write left there: by the server's answer, else as planned."""
        if self.stored is not None:
            return content(self.stored, self.change.identity.kind)
        return self.change.after or {}


def undo(
    cluster: Cluster, entry: Written, *, delete_timeout: float, stopped: Callable[[], bool] = never
) -> JsonObject | None:
    """Take the write back and give the object as it is then; None when there is none. Undone once, it stays undone.

    Raises ChangedMeanwhile when somebody else changed its spec since (theirs stands), and whatever else keeps it
    from being taken back. Once `stopped` is true no further request starts that changes something.
    """
    found = cluster.read(entry.change.identity)
    if stopped():
        # The answer was long in coming, and the Lease may be another's meanwhile.
        raise Failure("the run had to stop before it was taken back.")
    try:
        if entry.change.action is Action.CREATE:
            _undo_create(cluster, entry, found, delete_timeout, stopped)
            return None
        if entry.change.action is Action.DELETE:
            return _undo_delete(cluster, entry.change, found)
        if entry.change.action is Action.REPLACE:
            return _undo_replace(cluster, entry, found, delete_timeout, stopped)
        return _undo_update(cluster, entry, found, stopped)
    except NotMade as error:
        raise error.failure from error


def _undo_create(
    cluster: Cluster, entry: Written, found: JsonObject | None, delete_timeout: float, stopped: Callable[[], bool]
) -> None:
    identity = entry.change.identity
    for _ in range(CONFLICTS):
        if found is None:
            return
        ours = entry.stored is None or entry.stored["metadata"]["uid"] == found["metadata"]["uid"]
        if not ours or spec(found) != spec(entry.after):
            raise ChangedMeanwhile("somebody else changed what this run created; theirs stands.")
        try:
            delete(cluster, identity, found, timeout=delete_timeout, stopped=stopped)
        except NotMade as error:
            # A label that somebody else sets meanwhile does not make it theirs.
            if not isinstance(error.failure, ChangedMeanwhile):
                raise
            go_on_unless(stopped)
            found = cluster.read(identity)
        else:
            return
    raise Failure(f"it changed {CONFLICTS} times while this run tried to delete it.")


def _undo_delete(cluster: Cluster, change: Change, found: JsonObject | None) -> JsonObject:
    before = change.before or {}
    if found is None:
        return cluster.create(content(before, change.identity.kind), change.identity)
    if found["metadata"]["uid"] != before["metadata"]["uid"] and spec(found) != spec(before):
        raise ChangedMeanwhile("somebody else created it again; theirs stands.")
    if "deletionTimestamp" in found["metadata"]:
        raise Failure("its deletion can't be taken back while its finalizers hold it.")
    return found


def _undo_replace(
    cluster: Cluster, entry: Written, found: JsonObject | None, delete_timeout: float, stopped: Callable[[], bool]
) -> JsonObject:
    """First what was created, then what was deleted for it; what is as before already stays."""
    before = entry.change.before or {}
    if found is not None and found["metadata"]["uid"] != before["metadata"]["uid"] and spec(found) != spec(before):
        _undo_create(cluster, entry, found, delete_timeout, stopped)
        found = None
    return _undo_delete(cluster, entry.change, found)


def _undo_update(cluster: Cluster, entry: Written, found: JsonObject | None, stopped: Callable[[], bool]) -> JsonObject:
    change = entry.change
    kind = change.identity.kind
    before = content(change.before or {}, kind)
    for _ in range(CONFLICTS):
        if found is None or found["metadata"]["uid"] != (change.before or {})["metadata"]["uid"]:
            raise ChangedMeanwhile("somebody else deleted or replaced it; theirs stands.")
        now = content(found, kind)
        if now == before:
            return found
        if spec(now) not in (spec(entry.after), spec(before)):
            raise ChangedMeanwhile("somebody else changed its spec after this run did; theirs stands.")
        operations = diff.patch(now, restored(before=before, after=entry.after, now=now))
        if not operations:
            return found
        try:
            return cluster.patch(change.identity, diff.guarded(found, operations))
        except ServerRefused as error:
            if error.status.code != 409:
                raise
        go_on_unless(stopped)
        found = cluster.read(change.identity)
    raise Failure(f"it changed {CONFLICTS} times while this run tried to restore it.")


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


def spec(body: JsonObject) -> JsonObject:
    """What the object is for: all of it but its metadata and status."""
    return {key: value for key, value in body.items() if key not in ("metadata", "status", "apiVersion", "kind")}
