"""`history` and `rollback`: which revisions are kept, which of them is live, and which one to put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from applier import pipeline
from applier.guards.refusals import Allowed, MaxDelete
from applier.history.format import Head, Origin, RevisionError
from applier.history.revisions import Revision, current, policies_of, revisions
from applier.journal.key import Key
from applier.journal.sealed import Trust
from applier.journal.store import Store
from applier.lock import LEASE
from applier.ports import Cluster, Leases
from applier.report.history import Listing
from renderer.errors import NotPermitted
from renderer.manifest.policyset import PolicySet

#: To see what differs, whoever it belongs to and however much it is.
_ALL: Final = Allowed(adopt=True, empty=True, weaken=True, replace=True, max_delete=MaxDelete.of("100%"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where revisions are kept, the key that signs them, and the namespace of the Lease."""

    store: Store
    key: Key | None
    namespace: str


def find(cluster: Cluster, leases: Leases, kept: Kept) -> list[Revision]:
    """Every revision that is kept, the latest first; it only reads."""
    lease = None
    # The cluster is known by more than its Lease, which an account that only reads may not see.
    with suppress(NotPermitted):
        lease = leases.read_lease(kept.namespace, LEASE)
    uid = lease["metadata"]["uid"] if lease else ""
    return revisions(kept.store, kept.key, cluster=cluster.identity, lease=uid)


def listing(cluster: Cluster, leases: Leases, kept: Kept) -> Listing:
    """The revisions, and how the cluster differs from the one that was put in place last; it only reads."""
    found = find(cluster, leases, kept)
    latest = current(found)
    if latest is None:
        return Listing(place=kept.store.place, revisions=tuple(found))
    try:
        policies = policies_of(kept.store, latest)
    except RevisionError as error:
        return Listing(place=kept.store.place, revisions=tuple(found), current=latest.name, unknown=error.message)
    plan = pipeline.compare(cluster, policies, allowed=_ALL).plan
    if plan.refusals:
        unknown = plan.refusals[0].message
        return Listing(place=kept.store.place, revisions=tuple(found), current=latest.name, unknown=unknown)
    differing = tuple(change.identity for change in plan.effective)
    return Listing(place=kept.store.place, revisions=tuple(found), current=latest.name, differing=differing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The revision to put back, with its policies."""

    head: Head
    policies: PolicySet

    @property
    def origin(self) -> Origin:
        """Where the set comes from that is put in place."""
        return replace(self.head.origin, command=f"rollback to {self.head.number}")

    @property
    def lines(self) -> Iterator[str]:
        """Which revision it is, for people."""
        head = self.head
        yield f"Revision {head.number}: {head.policies} policies, kept {head.kept}, digest {head.digest[:12]}"


def choose(cluster: Cluster, leases: Leases, kept: Kept, *, to: int | None, trust: bool) -> Chosen:
    """The revision to put back, by default the one before that which was put in place last.

    Raises RevisionError when there is none such, or it can't be used or, unless `trust` says so, not be verified.
    """
    found = find(cluster, leases, kept)
    if not found:
        raise RevisionError(
            f"No revision is kept in {kept.store.place}.",
            hint="`apply` and `sync` keep one of each set of policies that they put in place (--keep-revisions). "
            "Another namespace is named by --lock-namespace, a directory by --journal.",
        )
    revision = _named(found, to) if to is not None else _before_the_latest(found)
    if not revision.problem and revision.trust is not Trust.VERIFIED and not trust:
        raise RevisionError(
            f"Revision {revision.number} can't be verified: {revision.trust.value}.",
            hint="Give the token or key of the run that kept it (FAIRWINDS_TOKEN, --journal-key). Only when you know "
            "that nobody else can write ConfigMaps in its namespace: --trust-history.",
        )
    policies = policies_of(kept.store, revision)
    assert revision.head is not None  # noqa: S101 (what has policies has a head)
    return Chosen(head=revision.head, policies=policies)


def _named(found: Sequence[Revision], number: int) -> Revision:
    for one in found:
        if one.head is not None and one.number == number:
            return one
    raise RevisionError(f"There is no revision {number}.", hint=f"These are kept: {_numbers(found)}.")


def _before_the_latest(found: Sequence[Revision]) -> Revision:
    latest = current(found)
    for one in found:
        if latest is not None and not one.problem and one.number < latest.number:
            return one
    raise RevisionError(
        "There is no revision before the one that was put in place last.", hint=f"These are kept: {_numbers(found)}."
    )


def _numbers(found: Sequence[Revision]) -> str:
    return ", ".join(str(number) for number in sorted({one.number for one in found if one.head})) or "none to be read"
