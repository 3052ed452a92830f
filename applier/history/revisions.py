"""The revisions of one cluster in a store: read and judged, kept after a run, and the older ones removed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Final

from applier.history.format import MOST, Head, Origin, RevisionError, pack, read_head, unpack, write_head
from applier.journal.configmaps import Family
from applier.journal.journal import put, remove
from applier.journal.key import Key
from applier.journal.sealed import Trust, chunk_digest, same_cluster
from applier.journal.store import Store, lease_mark, read_chunks
from applier.lock.elector import Held
from applier.ports import Cluster
from applier.stop import Stop
from applier.transaction.execution import Outcome
from renderer import logs
from renderer.errors import Failure, Interrupted
from renderer.manifest.policyset import PolicySet
from renderer.snapshot import digest_of

log = logs.get_logger()

#: How they are called where ConfigMaps keep them.
REVISIONS: Final = Family(prefix="insights-revision-", label="insights.fairwinds.com/revision", called="revision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A revision as it is found: its head as far as it can be read, and the problem that makes it unusable, or ""."""

    name: str
    head: Head | None = None
    trust: Trust = Trust.WRONG
    problem: str = ""

    @property
    def number(self) -> int:
        """Its number; 0 where that can't be read."""
        return self.head.number if self.head else 0

    @property
    def foreign(self) -> bool:
        """Whether it is of another cluster."""
        return self.head is not None and bool(self.problem)

    @property
    def verified(self) -> bool:
        """Whether it is known to be ours, and of this cluster."""
        return not self.problem and self.trust is Trust.VERIFIED


def revisions(store: Store, key: Key | None, *, cluster: Callable[[], Mapping[str, str]], lease: str) -> list[Revision]:
    """Every revision of the store, the latest first.

    `cluster` gives the UIDs by which this cluster is known, `lease` is that of its Lease.
    """
    heads = store.heads()
    known = cluster() if heads else {}
    found = [_found(name, data, key, known, lease) for name, data in heads.items()]
    return sorted(found, key=lambda one: (one.number, one.verified, one.name), reverse=True)


def _found(name: str, data: bytes, key: Key | None, known: Mapping[str, str], lease: str) -> Revision:
    try:
        head, trust = read_head(data, key)
        if head.name != name:
            raise RevisionError("its head is that of another revision.")
    except RevisionError as error:
        return Revision(name=name, problem=error.message)
    ours = head.lease == lease or same_cluster(head.cluster, known)
    return Revision(name=name, head=head, trust=trust, problem="" if ours else "it is of another cluster.")


def current(found: Sequence[Revision]) -> Revision | None:
    """The revision that was put in place last: the latest that can be verified, if there is one, else the latest."""
    usable = [one for one in found if not one.problem]
    return next((one for one in usable if one.verified), usable[0] if usable else None)


def policies_of(store: Store, revision: Revision) -> PolicySet:
    """The policies of a revision, whoever wrote it. Raises RevisionError when it can't be used."""
    try:
        if revision.problem or revision.head is None:
            raise RevisionError(revision.problem)
        return unpack(revision.head, read_chunks(store, revision.name, revision.head.chunks, RevisionError))
    except RevisionError as error:
        raise RevisionError(
            f"Revision {revision.number or revision.name} in {store.place} can't be used: {error.message}",
            hint=error.hint or "`insights-applier history` lists the others.",
            details=error.details,
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Keeps what a run put in place, as long as the run holds the lock.

    `policies` gives the whole set that is in place, `most` is how many revisions are kept.
    """

    cluster: Cluster
    store: Store
    key: Key | None
    most: int
    origin: Origin
    policies: Callable[[], PolicySet]

    def keep(self, held: Held, stop: Stop, outcome: Outcome) -> None:
        """Keep a revision, unless the latest one is the same set, and remove what is too old.

        It never fails: the policies are in place by now. What can't be kept is told, and the next run keeps it.
        """
        try:
            fenced = replace(self, store=self.store.fenced(stop.may_write))
            fenced._keep(held, stop, outcome)  # noqa: SLF001 - it is one of us
        except Failure as error:
            log.warning("The policies are in place, but no revision of them is kept", reason=str(error))
        except KeyboardInterrupt:
            log.warning("The policies are in place, but no revision of them is kept", reason="It was ended before.")

    def _keep(self, held: Held, stop: Stop, outcome: Outcome) -> None:
        found = revisions(self.store, self.key, cluster=self.cluster.identity, lease=held.uid)
        # A directory can be shared by mistake: another cluster's are not ours to remove.
        found = [one for one in found if not one.foreign]
        if self.most:
            policies = self.policies()
            chunks = pack(policies)
            digest = cache(partial(digest_of, policies))
            added = 0
            if not _is_that(self._latest(found), chunks, digest):
                self._write(self._head(digest(), len(policies), held, outcome, _next_number(found)), chunks, stop)
                self._sweep(held)
                added = 1
            found = self._kept_longest(found)[self.most - added :]
        for old in found:
            _go_on(stop)
            remove(self.store, old.name)

    def _latest(self, found: Sequence[Revision]) -> Head | None:
        """The latest one's head. What is not known to be ours never keeps ours from being kept."""
        latest = current(found)
        return latest.head if latest is not None and (self.key is None or latest.verified) else None

    def _kept_longest(self, found: Sequence[Revision]) -> list[Revision]:
        """What cannot be verified goes before what can."""
        return sorted(found, key=lambda one: one.verified, reverse=True)

    def _head(self, digest: str, policies: int, held: Held, outcome: Outcome, number: int) -> Head:
        account = self.cluster.account()
        return Head(
            name=f"{lease_mark(held.uid)}-{number}-{secrets.token_hex(4)}",
            number=number,
            kept=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            lease=held.uid,
            cluster=self.cluster.identity(),
            run=held.holder,
            account=account.name if account else "",
            origin=self.origin,
            digest=digest,
            policies=policies,
            created=len(outcome.applied),
            updated=len(outcome.updated),
            deleted=len(outcome.removed),
        )

    def _write(self, head: Head, chunks: Sequence[bytes], stop: Stop) -> None:
        signed = write_head(replace(head, chunks=_digests(chunks)), self.key)
        put(self.store, head.name, chunks, signed, lambda: _go_on(stop))
        log.info("Revision kept", revision=head.number, policies=head.policies, place=self.store.place)

    def _sweep(self, held: Held) -> None:
        """What a run that died here left; nobody else writes while this one holds the lock."""
        for name in sorted(self.store.headless(held.uid)):
            self.store.remove_chunks(name)


def _is_that(head: Head | None, chunks: Sequence[bytes], digest: Callable[[], str]) -> bool:
    """Whether that revision is the set of these chunks and that digest.

    The same chunks say so at once. Other ones may be the same set, compressed by another library: then its digest has
    to tell, for which it is written as YAML, and that takes three times as long.
    """
    return head is not None and (head.chunks == _digests(chunks) or head.digest == digest())


def _digests(chunks: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(map(chunk_digest, chunks))


def _next_number(found: Sequence[Revision]) -> int:
    """One more than the latest has; where some can be verified, no forged one counts."""
    numbers = [one.number for one in found if one.verified] or [one.number for one in found]
    return min(max(numbers, default=0) + 1, MOST)


def _go_on(stop: Stop) -> None:
    if stop.is_set():
        raise Interrupted(f"The run had to end: {stop.reason}.")
