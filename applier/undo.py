"""Takes one write back, with preconditions again, and never over what somebody else did since."""

from __future__ import annotations

from dataclasses import dataclass

from applier import diff
from applier.change import Action, Change
from applier.ports import Cluster, ServerRefused
from applier.writes import CONFLICTS, ChangedMeanwhile, NotMade, delete
from renderer.errors import Failure
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A write that was made, or may have been: `stored` is None for a delete, and where no answer came."""

    change: Change
    stored: JsonObject | None = None

    @property
    def after(self) -> JsonObject:
        """What the write left there: by the server's answer, else as planned."""
        if self.stored is not None:
            return content(self.stored, self.change.identity.kind)
        return self.change.after or {}


def undo(cluster: Cluster, entry: Written, *, delete_timeout: float) -> bool:
    """Take the write back; False when the server turns out not to have made it.

    Raises ChangedMeanwhile when somebody else changed its spec since (theirs stands), and whatever else keeps it
    from being taken back.
    """
    found = cluster.read(entry.change.identity)
    try:
        if entry.change.action is Action.CREATE:
            return _undo_create(cluster, entry, found, delete_timeout)
        if entry.change.action is Action.DELETE:
            return _undo_delete(cluster, entry.change, found)
        return _undo_update(cluster, entry, found)
    except NotMade as error:
        raise error.failure from error


def _undo_create(cluster: Cluster, entry: Written, found: JsonObject | None, delete_timeout: float) -> bool:
    identity = entry.change.identity
    if found is None:
        return False
    ours = entry.stored is None or entry.stored["metadata"]["uid"] == found["metadata"]["uid"]
    if not ours or _spec(found) != _spec(entry.after):
        raise ChangedMeanwhile("somebody else changed what this run created; theirs stands.")
    delete(cluster, identity, found, timeout=delete_timeout)
    return True


def _undo_delete(cluster: Cluster, change: Change, found: JsonObject | None) -> bool:
    before = change.before or {}
    if found is None:
        cluster.create(content(before, change.identity.kind), change.identity)
        return True
    if found["metadata"]["uid"] != before["metadata"]["uid"]:
        raise ChangedMeanwhile("somebody else created it again; theirs stands.")
    if "deletionTimestamp" in found["metadata"]:
        raise Failure("its deletion can't be taken back while its finalizers hold it.")
    return False


def _undo_update(cluster: Cluster, entry: Written, found: JsonObject | None) -> bool:
    change = entry.change
    kind = change.identity.kind
    before = content(change.before or {}, kind)
    for _ in range(CONFLICTS):
        if found is None or found["metadata"]["uid"] != (change.before or {})["metadata"]["uid"]:
            raise ChangedMeanwhile("somebody else deleted or replaced it; theirs stands.")
        now = content(found, kind)
        if entry.stored is None and now == before:
            return False
        if _spec(now) != _spec(entry.after):
            raise ChangedMeanwhile("somebody else changed its spec after this run did; theirs stands.")
        operations = diff.patch(now, restored(before=before, after=entry.after, now=now))
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


def _spec(body: JsonObject) -> JsonObject:
    return {key: value for key, value in body.items() if key not in ("metadata", "status", "apiVersion", "kind")}
