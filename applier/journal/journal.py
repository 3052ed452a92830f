"""One run's journal in a store: chunks first and the head last, and the other way when all is over."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from applier.change import Change
from applier.journal.format import Fencing, Head, State, pack, write_head
from applier.journal.key import Key
from applier.journal.sealed import chunk_digest
from applier.journal.store import Store, lease_mark
from renderer import logs
from renderer.errors import Failure

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Who keeps a journal: the holder of the lock and its fencing number, on which cluster, in which mode."""

    fencing: Fencing
    holder: str
    cluster: Mapping[str, str]
    mode: str


class StoredJournal:
    """A `ports.Journal`. `supersedes` names earlier ones that go when this run commits, whatever it did."""

    def __init__(
        self,
        store: Store,
        run: Callable[[], Run],
        *,
        key: Key | None,
        supersedes: Sequence[str] = (),
        go_on: Callable[[], None] = lambda: None,
        finished: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is kept yet. `go_on` raises when no further write may start, because the lock is lost, say.

        `finished` is told when the run has finished, so that neither its journal nor an earlier one is of use any more.
        """
        self._store = store
        self._run = run
        self._key = key
        self._supersedes = tuple(supersedes)
        self._go_on = go_on
        self._finished = finished
        self._head: Head | None = None

    def begin(self, changes: Sequence[Change]) -> None:
        """See `ports.Journal`."""
        if not changes:
            return
        if self._key is None:
            log.warning(
                "The journal is not signed: there is no token (FAIRWINDS_TOKEN) and no --journal-key. "
                "If this run dies, `insights-applier recover` will ask before it acts on it"
            )
        chunks = pack(changes)
        head = self._first_head(changes, chunks)
        put(self._store, head.transaction, chunks, write_head(head, self._key), self._go_on)
        self._head = head
        log.info("Journal written", transaction=head.transaction, place=self._store.place, intents=head.intents)

    def commit(self) -> None:
        """See `ports.Journal`."""
        if self._head is None:
            _quietly(lambda: _remove_all(self._store, self._supersedes))
        else:
            commit(self._store, self._head, self._key)
        self._finished()

    def discard(self) -> None:
        """See `ports.Journal`."""
        if self._head is not None:
            remove(self._store, self._head.transaction)

    def _first_head(self, changes: Sequence[Change], chunks: Sequence[bytes]) -> Head:
        run = self._run()
        name = f"{lease_mark(run.fencing.lease)}-{run.fencing.transitions}-{secrets.token_hex(4)}"
        return Head(
            transaction=name,
            fencing=run.fencing,
            cluster=run.cluster,
            holder=run.holder,
            started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            mode=run.mode,
            supersedes=self._supersedes,
            intents=len(changes),
            chunks=tuple(map(chunk_digest, chunks)),
        )


def commit(store: Store, head: Head, key: Key | None) -> None:
    """Mark the journal as over, then remove it. Raises a Failure when it could not be marked, or that is not known."""
    done = replace(head, state=State.COMMITTED)
    store.replace_head(done.transaction, write_head(done, key))
    _quietly(lambda: clean_up(store, done))


def clean_up(store: Store, head: Head) -> None:
    """Remove a committed journal, and before it those that it supersedes: what it replaced must not come back."""
    _remove_all(store, head.supersedes)
    store.remove_chunks(head.transaction)
    store.remove_head(head.transaction)


def put(store: Store, name: str, chunks: Sequence[bytes], head: bytes, go_on: Callable[[], None]) -> None:
    """Keep chunks and then the head that names them, or nothing; `go_on` raises when no further write may start."""
    try:
        for chunk in chunks:
            go_on()
            store.put_chunk(name, chunk_digest(chunk), chunk)
        go_on()
        store.put_head(name, head)
    except Failure:
        # Nobody acts on it yet: whatever is there of it is rubbish.
        _quietly(lambda: remove(store, name))
        raise


def remove(store: Store, transaction: str) -> None:
    """Remove a journal that is not committed: once its head is gone, the rest is rubbish."""
    store.remove_head(transaction)
    _quietly(lambda: store.remove_chunks(transaction))


def _remove_all(store: Store, transactions: Sequence[str]) -> None:
    for transaction in transactions:
        remove(store, transaction)


def _quietly(tidy: Callable[[], None]) -> None:
    """Tidy up; what can't be tidied now is by the next run, and is no failure of this one."""
    try:
        tidy()
    except Failure as error:
        log.warning("The journal is not tidied up; the next run does it", reason=error.message)
