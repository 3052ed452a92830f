"""What the API server's own audit log says of who wrote what when, and whether each wrote only while it held the lock.

The log counts, not what the programs say. A write's place is the moment when the server received it, which is after it
answered all that its sender waited for; and, where its answer carries one, the revision of the store, which is an order
of all writes to all objects.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS

_POLICIES = {(kind.group, kind.plural) for kind in KINDS}
_LEASES = ("coordination.k8s.io", "leases")
_CONFIG_MAPS = ("", "configmaps")
_WRITES = {"create", "update", "patch", "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One write that the server made, or one look at a Lease: `verb` is `get` then.

    `received` is RFC 3339 with six digits of the second, so that text sorts as time; `holder` is a Lease's.
    """

    who: str
    verb: str
    resource: str
    received: str
    revision: int | None = None
    holder: str = ""

    @property
    def is_lease(self) -> bool:
        """Whether it is about the lock itself."""
        return self.resource == "leases"

    @property
    def is_policy(self) -> bool:
        """Whether it is about a policy."""
        return self.resource not in ("leases", "configmaps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One holder's time with the Lease: the write that took it, and the one that gave it up."""

    taken: Act
    released: Act

    def holds(self, act: Act) -> bool:
        """Whether the write was received, and made as far as that is known, within the term."""
        made = act.revision is None or _revision(self.taken) < act.revision < _revision(self.released)
        return made and self.saw(act)

    def saw(self, act: Act) -> bool:
        """Whether it was received within the term."""
        return self.taken.received < act.received < self.released.received


def read(log: Path, accounts: Collection[str]) -> list[Act]:
    """Every write of these accounts to policies, Leases and ConfigMaps, and every look at a Lease, as received."""
    events = (json.loads(line) for line in log.read_text().splitlines())
    return sorted(
        (_act(event) for event in events if event["user"]["username"] in accounts and _counts(event)),
        key=lambda act: act.received,
    )


def _counts(event: JsonObject) -> bool:
    about = event.get("objectRef") or {}
    what = (about.get("apiGroup", ""), about.get("resource", ""))
    if event["responseStatus"]["code"] >= 300 or "dryRun" in event["requestURI"]:
        return False
    if what == _LEASES and event["verb"] == "get":
        return True
    # With a body, the query of a DELETE says nothing.
    options = event.get("requestObject") if event["verb"] == "delete" else None
    kept = not (options or {}).get("dryRun")
    return event["verb"] in _WRITES and kept and what in {*_POLICIES, _LEASES, _CONFIG_MAPS}


def _act(event: JsonObject) -> Act:
    answer = event.get("responseObject") or {}
    revision = (answer.get("metadata") or {}).get("resourceVersion")
    return Act(
        who=event["user"]["username"],
        verb=event["verb"],
        resource=event["objectRef"]["resource"],
        received=event["requestReceivedTimestamp"],
        revision=int(revision) if revision and event["verb"] != "delete" else None,
        holder=(answer.get("spec") or {}).get("holderIdentity") or "",
    )


def terms(acts: Sequence[Act]) -> list[Term]:
    """The terms of the Lease, in the order of the store. It fails where one begins before the last one was given up."""
    found: list[Term] = []
    taken: Act | None = None
    for act in sorted((act for act in acts if act.is_lease and act.verb != "get"), key=_revision):
        if taken is None:
            assert act.holder, f"a Lease was written that nobody took: {act}"
            taken = act
        elif not act.holder:
            assert act.who == taken.who, f"{act} gave up what {taken} took"
            found.append(Term(taken=taken, released=act))
            taken = None
        else:
            assert (act.holder, act.who) == (taken.holder, taken.who), f"{act} took over from {taken}"
    assert taken is None, f"{taken} was never given up"
    return found


def strays(acts: Sequence[Act], held: Sequence[Term]) -> list[Act]:
    """The writes to policies and ConfigMaps that are not within a term of who made them."""
    writes = [act for act in acts if not act.is_lease]
    return [act for act in writes if not any(act.who == term.taken.who and term.holds(act) for term in held)]


def intruders(acts: Sequence[Act], term: Term) -> list[Act]:
    """The others' writes to policies between the first and the last one of that term's holder."""
    writes = [act for act in acts if act.is_policy]
    ours = [act.received for act in writes if act.who == term.taken.who and term.saw(act)]
    if not ours:
        return []
    return [act for act in writes if act.who != term.taken.who and ours[0] <= act.received <= ours[-1]]


def _revision(act: Act) -> int:
    assert act.revision is not None, f"an answer without a resourceVersion: {act}"
    return act.revision
