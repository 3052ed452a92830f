"""Reads back what a run wrote, and tells what of it is not there, and what somebody else changed since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from applier.change import Action
from applier.ports import Cluster
from applier.transaction.undo import Written, spec
from renderer import logs
from renderer.errors import Failure
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content

log = logs.get_logger()


@dataclass(slots=True)
class Verification:
    """Writes that are not there, and those that were changed since; with why, by identity."""

    missing: dict[Identity, str] = field(default_factory=dict)
    changed_since: dict[Identity, str] = field(default_factory=dict)


def verify(cluster: Cluster, written: Iterable[Written]) -> Verification:
    """Compare what the cluster holds with what was stored; one LIST per kind that was written.

    A write is missing when the object is as it was before, or gone: then the run has not done what it had to, whoever
    took it back. An object that somebody else changed otherwise is theirs: the run did its work. When the cluster
    can't be read, the server's answers to the writes have to suffice.
    """
    found = Verification()
    entries = {entry.change.identity: entry for entry in written}
    try:
        live = cluster.observe(sorted({identity.kind for identity in entries}))
    except Failure as error:
        log.warning("What was written could not be read back", reason=error.message)
        return found
    for identity, entry in entries.items():
        if identity.kind in live.unreadable:
            log.warning("What was written could not be read back", policy=str(identity))
            continue
        _compare(entry, live.objects.get(identity), found)
    return found


def _compare(entry: Written, live: JsonObject | None, found: Verification) -> None:
    identity, before = entry.change.identity, entry.change.before
    if entry.change.action is Action.DELETE:
        if live is not None and before is not None and live["metadata"]["uid"] == before["metadata"]["uid"]:
            found.missing[identity] = "it was to be deleted and is still there."
        elif live is not None:
            found.changed_since[identity] = "somebody else created it again after this run deleted it."
    elif live is None:
        found.missing[identity] = "it is not there any more: somebody else deleted it after this run wrote it."
    elif content(live, identity.kind) == entry.after:
        return
    elif before is not None and _put_back(live, before, entry):
        found.missing[identity] = "it is as it was before: somebody else put it back after this run wrote it."
    else:
        found.changed_since[identity] = "somebody else changed it after this run wrote it; theirs stands."


def _put_back(live: JsonObject, before: JsonObject, entry: Written) -> bool:
    kind = entry.change.identity.kind
    return content(live, kind) == content(before, kind) or spec(live) == spec(before) != spec(entry.after)
