"""The journals that a store holds, read and judged: what each is, and whether it may be acted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from applier.change import Change
from applier.journal.format import Head, JournalError, State, read_head, unpack
from applier.journal.key import Key
from applier.journal.sealed import Trust, same_cluster
from applier.journal.store import Store, read_chunks


class OtherCluster(JournalError):
    """It may be what another cluster's recovery needs: only people can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A journal: its head and intents as far as they can be read, and the problem that makes it unusable, or "".

    It is `outlived` when a later run finished since: what that one wrote must not be taken back by it. So it is with
    one that was kept in another place meanwhile, or that somebody put back. One of `elsewhere` is of another cluster.
    """

    transaction: str
    head: Head | None = None
    trust: Trust = Trust.WRONG
    changes: tuple[Change, ...] = ()
    problem: str = ""
    hint: str = ""
    outlived: bool = False
    elsewhere: bool = False

    @property
    def committed(self) -> bool:
        """Whether its run had finished, so that only tidying up is left."""
        return self.head is not None and self.head.state is State.COMMITTED


def journals(
    store: Store, key: Key | None, *, cluster: Mapping[str, str], lease: str, finished: int = -1
) -> list[Found]:
    """Every journal of the store, the latest first: those that supersede others come before them.

    `cluster` and `lease` are the UIDs by which this cluster is known, `finished` the last holder of the Lease that
    finished its run: it saw to all that was there before it.
    """
    found = [_found(store, name, data, key, cluster, lease) for name, data in store.heads().items()]
    return sorted((_judged(one, lease, finished) for one in found), key=_age)


def _judged(found: Found, lease: str, finished: int) -> Found:
    fencing = found.head.fencing if found.head else None
    return replace(found, outlived=bool(fencing and fencing.lease == lease and fencing.transitions <= finished))


def _age(found: Found) -> tuple[bool, int, int, str]:
    """What can't be read is the oldest; of the others, one supersedes all that were there when it began.

    Of two that supersede as many, the later holder's is the later one.
    """
    if found.head is None:
        return (True, 0, 0, found.transaction)
    return (False, -len(found.head.supersedes), -found.head.fencing.transitions, found.transaction)


def _found(
    store: Store, transaction: str, data: bytes, key: Key | None, cluster: Mapping[str, str], lease: str
) -> Found:
    try:
        head, trust = read_head(data, key)
        if head.transaction != transaction:
            raise JournalError("its head is that of another journal.")
    except JournalError as error:
        return Found(transaction=transaction, problem=error.message, hint=error.hint)
    if head.state is State.COMMITTED:
        return Found(transaction=transaction, head=head, trust=trust)
    try:
        _require_cluster(head, cluster, lease)
        changes = unpack(head, read_chunks(store, head.transaction, head.chunks, JournalError))
    except JournalError as error:
        return Found(
            transaction=transaction,
            head=head,
            trust=trust,
            problem=error.message,
            hint=error.hint,
            elsewhere=isinstance(error, OtherCluster),
        )
    return Found(transaction=transaction, head=head, trust=trust, changes=changes)


def _require_cluster(head: Head, cluster: Mapping[str, str], lease: str) -> None:
    """Its Lease is this cluster's, or else every UID that both sides know is the same, and there is one."""
    if head.fencing.lease != lease and not same_cluster(head.cluster, cluster):
        raise OtherCluster(
            "it is of another cluster.",
            hint="Recover there what its run left, and give each cluster a directory of its own (--journal). Remove it "
            "only if it is a copy, or that cluster is gone.",
        )
