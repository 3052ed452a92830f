"""One write, with its preconditions, and what became of it when the answer is lost or somebody else was faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from applier import diff
from applier.change import Action, Change
from applier.ports import Cluster, ServerRefused
from renderer.errors import ExitCode, Failure, NotPermitted, RemoteError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content

#: How often a write is tried when only the object's version moved under it.
CONFLICTS: Final = 5
_POLL_SECONDS: Final = 0.05
_SEE: Final = "Run again to see the difference."


class ChangedMeanwhile(Failure):
    """Somebody else changed the policy between our reading it and our writing it; theirs stands."""

    code = ExitCode.ROLLED_BACK


class NotMade(Exception):
    """It is certain that the server did not make the write; the cause says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def never() -> bool:
    """For waits that nothing stops."""
    return False


def write(
    cluster: Cluster, change: Change, *, delete_timeout: float, stopped: Callable[[], bool] = never
) -> JsonObject | None:
    """Make the change and give the object as stored (None for a delete).

    Raises NotMade when the server did certainly not make it. After every other exception it may have been made:
    who undoes has to look.
    """
    if change.action is Action.CREATE:
        return _create(cluster, change)
    if change.action is Action.DELETE:
        delete(cluster, change.identity, change.before or {}, timeout=delete_timeout, stopped=stopped)
        return None
    return _update(cluster, change)


def _create(cluster: Cluster, change: Change) -> JsonObject:
    body = change.after or {}
    try:
        return cluster.create(body, change.identity)
    except ServerRefused as error:
        if error.status.reason == "AlreadyExists":
            raise NotMade(
                ChangedMeanwhile("somebody else created it while this run was at work.", hint=_SEE)
            ) from error
        raise NotMade(error) from error
    except NotPermitted as error:
        raise NotMade(error) from error
    except RemoteError:
        # The answer is lost, not necessarily the write.
        found = cluster.read(change.identity)
        if found is not None and holds(found, body, change.identity):
            return found
        raise


def _update(cluster: Cluster, change: Change) -> JsonObject:
    live = change.before or {}
    for _ in range(CONFLICTS):
        try:
            return cluster.patch(change.identity, diff.guarded(live, change.patch))
        except NotPermitted as error:
            raise NotMade(error) from error
        except RemoteError:
            found = cluster.read(change.identity)
            if found is not None and holds(found, change.after or {}, change.identity):
                return found
            raise
        except ServerRefused as error:
            live = _unless_only_its_version_moved(cluster, change, live, error)
    raise NotMade(ChangedMeanwhile(f"it changed {CONFLICTS} times while this run tried to write it."))


def _unless_only_its_version_moved(
    cluster: Cluster, change: Change, live: JsonObject, error: ServerRefused
) -> JsonObject:
    """The object to try again with; raises NotMade when somebody changed it, or when that is not why it failed."""
    if error.status.code not in (404, 409, 422):
        raise NotMade(error) from error
    found = cluster.read(change.identity)
    if found is None or found["metadata"]["uid"] != live["metadata"]["uid"]:
        gone = ChangedMeanwhile("somebody else deleted or replaced it while this run was at work.", hint=_SEE)
        raise NotMade(gone) from error
    if error.status.code == 422:
        raise NotMade(error) from error
    if not holds(found, content(change.before or {}, change.identity.kind), change.identity):
        edited = ChangedMeanwhile("somebody else changed it while this run was at work.", hint=_SEE)
        raise NotMade(edited) from error
    return found


def delete(
    cluster: Cluster,
    identity: Identity,
    live: JsonObject,
    *,
    timeout: float,
    stopped: Callable[[], bool] = never,
) -> None:
    """Delete that very object and wait until it is gone, `timeout` seconds at most, or until `stopped`.

    Raises as `write`.
    """
    uid = live["metadata"]["uid"]
    before = content(live, identity.kind)
    for _ in range(CONFLICTS):
        try:
            cluster.delete(identity, uid=uid, resource_version=live["metadata"]["resourceVersion"])
            break
        except NotPermitted as error:
            raise NotMade(error) from error
        except RemoteError:
            found = cluster.read(identity)
            if found is None or "deletionTimestamp" in found["metadata"]:
                break
            raise
        except ServerRefused as error:
            if error.status.code == 404:
                return
            if error.status.code != 409:
                raise NotMade(error) from error
            found = cluster.read(identity)
            if found is None:
                return
            if found["metadata"]["uid"] != uid or not holds(found, before, identity):
                edited = ChangedMeanwhile("somebody else changed it while this run was at work.", hint=_SEE)
                raise NotMade(edited) from error
            live = found
    else:
        raise NotMade(ChangedMeanwhile(f"it changed {CONFLICTS} times while this run tried to delete it."))
    _wait_until_gone(cluster, identity, uid, timeout, stopped)


def _wait_until_gone(
    cluster: Cluster, identity: Identity, uid: str, timeout: float, stopped: Callable[[], bool]
) -> None:
    end = time.monotonic() + timeout
    while (found := cluster.read(identity)) is not None and found["metadata"]["uid"] == uid:
        late = time.monotonic() >= end
        if late or stopped():
            finalizers = ", ".join(found["metadata"].get("finalizers") or ()) or "none that are known"
            after = f"after {timeout:.0f} s" if late else "while this run has to stop"
            raise Failure(
                f"it was deleted and still exists {after}; finalizers: {finalizers}.",
                hint="Find out why the controller that owns the finalizer does not finish.",
            )
        time.sleep(_POLL_SECONDS)


def holds(found: JsonObject, wanted: JsonObject, identity: Identity) -> bool:
    """Whether the object holds exactly that content."""
    return content(found, identity.kind) == wanted
