"""Pure: what of an intent is on the cluster, and the step that is left to make from there."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from applier import diff
from applier.change import Action, Change
from applier.ports import Live
from applier.transaction.undo import restored, spec
from renderer.manifest import ownership
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content


class Standing(Enum):
    """What of an intent is on the cluster."""

    BEFORE = "not made"
    AFTER = "made"
    #: Of a replacement: the old one is gone, and the new one is not there.
    BETWEEN = "half made"
    OTHER = "changed by somebody else"
    UNKNOWN = "not readable"


def standing(change: Change, live: Live) -> Standing:
    """What of the intent is live.

    Labels and annotations that others set since do not matter, and an object that was created again just as it was
    before is taken for it.
    """
    if change.identity.kind in live.unreadable or change.identity.kind not in live.resources:
        return Standing.UNKNOWN
    found = live.objects.get(change.identity)
    if found is None:
        gone = {
            Action.CREATE: Standing.BEFORE,
            Action.DELETE: Standing.AFTER,
            Action.REPLACE: Standing.BETWEEN,
        }
        return gone.get(change.action, Standing.OTHER)
    if "deletionTimestamp" in found["metadata"]:
        return Standing.OTHER
    if _is_before(change, found):
        return Standing.BEFORE
    return Standing.AFTER if _is_after(change, found) else Standing.OTHER


def _is_before(change: Change, found: JsonObject) -> bool:
    before = change.before
    if before is None:
        return False
    same = bool(found["metadata"]["uid"] == before["metadata"]["uid"])
    if change.action in (Action.DELETE, Action.REPLACE):
        return same or spec(found) == spec(before)
    kind = change.identity.kind
    was, after, now = content(before, kind), change.after or {}, content(found, kind)
    # As it was, if taking the step back would change nothing.
    return same and spec(now) == spec(was) and restored(before=was, after=after, now=now) == now


def _is_after(change: Change, found: JsonObject) -> bool:
    if change.action is Action.DELETE or spec(found) != spec(change.after or {}):
        return False
    in_place = change.action in (Action.UPDATE, Action.ADOPT)
    same = in_place and found["metadata"]["uid"] == (change.before or {})["metadata"]["uid"]
    return ownership.is_owned(found) and same is in_place


def given_up(change: Change, live: Live) -> bool:
    """Whether somebody took the object from Insights since: what is not owned is never changed."""
    found = live.objects.get(change.identity)
    return found is not None and not ownership.is_owned(found) and standing(change, live) is not Standing.BEFORE


def may_go_on(change: Change, live: Live) -> bool:
    """Whether the rest of the step may be made: what Insights does not own any more is not changed, nor deleted."""
    found = live.objects.get(change.identity)
    return found is None or change.action is Action.ADOPT or ownership.is_owned(found)


def from_here(change: Change, live: Live) -> Change:
    """The same step from what is live, which is as before or half made: others' labels and annotations stay."""
    found = live.objects.get(change.identity)
    if found is None:
        return replace(change, action=Action.CREATE, before=None, patch=())
    if change.action not in (Action.UPDATE, Action.ADOPT):
        return replace(change, before=found)
    kind = change.identity.kind
    now = content(found, kind)
    after = restored(before=change.after or {}, after=content(change.before or {}, kind), now=now)
    return replace(change, before=found, after=after, patch=diff.patch(now, after))
