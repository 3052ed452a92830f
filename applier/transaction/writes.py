"""One write, with its preconditions, and what became of it when the answer is lost or somebody else was faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from applier import diff
from applier.change import Action, Change
from applier.ports import Cluster, ServerRefused
from renderer.errors import ExitCode, Failure, NotPermitted, RemoteError
from renderer.http import PassingError
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content

#: How often a write is tried when only the object's version moved under it.
CONFLICTS: Final = 5
_POLL_SECONDS: Final = 0.05
_SEE: Final = "Run again to see the difference."


class OnFailure(Enum):
    """What a run does when a write fails."""

    #: Take back what was written: all or nothing.
    ROLLBACK = "rollback"
    #: Write what can be written, and name the rest.
    CONTINUE = "continue"
    #: Leave everything as it is, and the journal with it.
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSettings:
    """How a plan is written. All times are in seconds.

    `grace` is how long what failed to be taken back is tried again, from when the run was to stop; `unsettled`, how
    long the server may still be at work at a write whose answer was lost.
    """

    on_failure: OnFailure = OnFailure.ROLLBACK
    concurrency: int = 8
    grace: float = 25.0
    delete_timeout: float = 30.0
    unsettled: float = 6.0


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
    who undoes has to look. Once `stopped` is true no further request starts that changes something.
    """
    if change.action is Action.CREATE:
        return _create(cluster, change)
    if change.action is Action.DELETE:
        delete(cluster, change.identity, change.before or {}, timeout=delete_timeout, stopped=stopped)
        return None
    if change.action is Action.REPLACE:
        return _replace(cluster, change, delete_timeout, stopped)
    return _update(cluster, change, stopped)


def _replace(cluster: Cluster, change: Change, delete_timeout: float, stopped: Callable[[], bool]) -> JsonObject:
    delete(cluster, change.identity, change.before or {}, timeout=delete_timeout, stopped=stopped)
    # From here on half of it is made: that has to be taken back.
    if stopped():
        raise Failure("it was deleted, and the run had to stop before it was created anew.")
    try:
        return _create(cluster, change)
    except NotMade as error:
        raise error.failure from error


def _create(cluster: Cluster, change: Change) -> JsonObject:
    body = change.after or {}
    try:
        return cluster.create(body, change.identity)
    except ServerRefused as error:
        if error.status.reason != "AlreadyExists":
            raise NotMade(error) from error
        # Something on the way may have sent it twice.
        found = cluster.read(change.identity)
        if found is not None and holds(found, body, change.identity):
            return found
        raise NotMade(ChangedMeanwhile("somebody else created it while this run was at work.", hint=_SEE)) from error
    except NotPermitted as error:
        raise NotMade(error) from error
    except RemoteError as error:
        return _found_made(cluster, change, error)


def _update(cluster: Cluster, change: Change, stopped: Callable[[], bool]) -> JsonObject:
    live = change.before or {}
    for _ in range(CONFLICTS):
        try:
            return cluster.patch(change.identity, diff.guarded(live, change.patch))
        except NotPermitted as error:
            raise NotMade(error) from error
        except RemoteError as error:
            return _found_made(cluster, change, error)
        except ServerRefused as error:
            found = _unless_changed(cluster, change, live, error)
            if holds(found, change.after or {}, change.identity):
                return found
            live = found
        go_on_unless(stopped)
    raise NotMade(ChangedMeanwhile(f"it changed {CONFLICTS} times while this run tried to write it."))


def _found_made(cluster: Cluster, change: Change, error: RemoteError) -> JsonObject:
    """The object if it is as the write leaves it: the answer is lost, not necessarily the write. Raises the error."""
    if certainly_not_made(error):
        raise NotMade(error) from error
    found = cluster.read(change.identity)
    if found is not None and holds(found, change.after or {}, change.identity):
        return found
    raise error


def certainly_not_made(error: RemoteError) -> bool:
    """Whether the server answered in a way that tells that it did nothing."""
    return isinstance(error, PassingError) and error.refused


def go_on_unless(stopped: Callable[[], bool]) -> None:
    """Raise NotMade when no further request may start; call it before a write is tried again."""
    if stopped():
        raise NotMade(Failure("it changed while this run tried to write it, and the run has to stop."))


def _unless_changed(cluster: Cluster, change: Change, live: JsonObject, error: ServerRefused) -> JsonObject:
    """The object if it is as planned, before or after; raises NotMade when it is not, or that is not why it failed."""
    if error.status.code not in (404, 409, 422):
        raise NotMade(error) from error
    found = cluster.read(change.identity)
    if found is None or found["metadata"]["uid"] != live["metadata"]["uid"]:
        gone = ChangedMeanwhile("somebody else deleted or replaced it while this run was at work.", hint=_SEE)
        raise NotMade(gone) from error
    if error.status.code == 422:
        raise NotMade(error) from error
    before = content(change.before or {}, change.identity.kind)
    if content(found, change.identity.kind) not in (before, change.after):
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
    for _ in range(CONFLICTS):
        found = _delete_once(cluster, identity, live)
        if found is None:
            break
        live = found
        go_on_unless(stopped)
    else:
        raise NotMade(ChangedMeanwhile(f"it changed {CONFLICTS} times while this run tried to delete it."))
    _wait_until_gone(cluster, identity, uid, timeout, stopped)


def _delete_once(cluster: Cluster, identity: Identity, live: JsonObject) -> JsonObject | None:
    """None when it is gone or going; the object to try again with when only its version moved."""
    uid = live["metadata"]["uid"]
    try:
        cluster.delete(identity, uid=uid, resource_version=live["metadata"]["resourceVersion"])
    except NotPermitted as error:
        raise NotMade(error) from error
    except RemoteError as error:
        if certainly_not_made(error):
            raise NotMade(error) from error
        if _stays(cluster.read(identity), uid):
            raise
    except ServerRefused as error:
        if error.status.code not in (404, 409):
            raise NotMade(error) from error
        found = cluster.read(identity) if error.status.code == 409 else None
        if found is None or (found["metadata"]["uid"] == uid and not _stays(found, uid)):
            return None
        if found["metadata"]["uid"] != uid or not holds(found, content(live, identity.kind), identity):
            edited = ChangedMeanwhile("somebody else changed it while this run was at work.", hint=_SEE)
            raise NotMade(edited) from error
        return found
    return None


def _stays(found: JsonObject | None, uid: str) -> bool:
    """Whether that very object is there, and nobody has deleted it yet."""
    return found is not None and found["metadata"]["uid"] == uid and "deletionTimestamp" not in found["metadata"]


def _wait_until_gone(
    cluster: Cluster, identity: Identity, uid: str, timeout: float, stopped: Callable[[], bool]
) -> None:
    end = time.monotonic() + timeout
    while (found := cluster.read(identity)) is not None and found["metadata"]["uid"] == uid:
        late = time.monotonic() >= end  # pragma: no mutate (no clock shows that very instant)
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
