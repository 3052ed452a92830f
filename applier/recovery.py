"""Finishes what a dead run began: by its journal takes its writes back, or makes the rest of them.

Nothing is done on the word of a journal alone: what is live decides for each intent whether there is anything to do,
and what somebody else did since stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from applier.change import Change
from applier.journal.format import Fencing, Head, JournalError
from applier.journal.found import Found, journals
from applier.journal.journal import Run, StoredJournal, clean_up, commit, remove
from applier.journal.key import Key
from applier.journal.sealed import Trust
from applier.journal.store import Store
from applier.lock.elector import Held
from applier.ports import Cluster, Live
from applier.stop import Stop
from applier.transaction import order
from applier.transaction.execution import execute
from applier.transaction.rollback import roll_back
from applier.transaction.standing import Standing, from_here, given_up, may_go_on, standing
from applier.transaction.undo import Written
from applier.transaction.writes import OnFailure, WriteSettings
from renderer import logs
from renderer.errors import ApplyFailed, ExitCode, Failure, Interrupted
from renderer.manifest.identity import Identity

log = logs.get_logger()

_RECOVER = "See `insights-applier recover --show`, then run `insights-applier recover`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Journalling:
    """Where runs keep their journals, and the key that signs them, if there is one.

    With `supersede`, a journal that can't be acted on is no obstacle: this run plans afresh, and the journal goes
    when it has committed.
    """

    store: Store
    key: Key | None
    supersede: bool = False


def forewarn(store: Store) -> None:
    """Log, for who only looks, that a journal waits: a run that writes first takes back what it tells of.

    It may be of a run that is at work. Where this account may not read it, nothing is said.
    """
    with suppress(Failure):
        if store.heads():
            log.warning(
                "A run that died, or is at work, keeps a journal. A run that writes first takes back what a dead one "
                "wrote, so it may do other things than are shown here",
                place=store.place,
                hint=_RECOVER,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of one journal's intents, each identity with what is there and why where that has to be said.

    `made` counts those that were made when it was rolled forward. `refused` are those of `not_undone` that the server
    refuses for what they hold: trying again is of no use.
    """

    head: Head
    forward: bool = False
    restored: tuple[Identity, ...] = ()
    made: tuple[Identity, ...] = ()
    left_alone: tuple[tuple[Identity, str], ...] = ()
    not_undone: tuple[tuple[Identity, str], ...] = ()
    refused: frozenset[Identity] = frozenset()

    @property
    def over(self) -> bool:
        """Whether nothing more can be done by trying again: the journal is of no more use."""
        return not self.not_undone and not (self.forward and self.left_alone)

    @property
    def code(self) -> ExitCode:
        """0 when the cluster is as before, or as it was to be."""
        return ExitCode.ROLLBACK_INCOMPLETE if self.left_alone or self.not_undone else ExitCode.OK


def require_verified(found: Found) -> None:
    """Raise JournalError for a journal that is not known to be ours."""
    if found.trust is not Trust.VERIFIED:
        raise unverified(found)


def unverified(found: Found) -> JournalError:
    """Why a journal is not acted on, and what a person can do."""
    return JournalError(
        f"A dead run's journal {found.transaction} can't be verified: {found.trust.value}.",
        hint="Give the token or key of the run that wrote it (FAIRWINDS_TOKEN, --journal-key). "
        "`insights-applier recover --show` shows what it would do; `recover --trust-journal` does it all the same.",
    )


@dataclass(slots=True, kw_only=True)
class Recovery:
    """The work of one holder of the lock.

    `settings` says how writes are made; `accept` raises for a journal that is not to be acted on, by default for
    every one that can't be verified.
    """

    cluster: Cluster
    journalling: Journalling
    held: Held
    stop: Stop
    settings: WriteSettings = field(default_factory=WriteSettings)
    accept: Callable[[Found], None] = field(default=require_verified)

    def __post_init__(self) -> None:
        """No write to the journal starts without the lock."""
        fenced = self.journalling.store.fenced(self.stop.may_write)
        self.journalling = replace(self.journalling, store=fenced)

    def pending(self) -> list[Found]:
        """The journals to act on, the latest first; what is over is tidied up, and rubbish swept, on the way.

        After a takeover it waits first: what the dead run sent last may still arrive. Raises Interrupted when the
        run has to stop meanwhile.
        """
        store = self.journalling.store
        self._wait_for_the_dead()
        found = self._found()
        superseded: set[str] = set()
        for one in found:
            if one.head is not None and one.committed:
                clean_up(store, one.head)
                superseded |= {one.transaction, *one.head.supersedes}
                log.info("Tidied up after a run that had finished", transaction=one.transaction)
            elif one.outlived:
                remove(store, one.transaction)
                superseded.add(one.transaction)
                log.warning("A dead run's journal is removed: a later run has finished since, whose work it would take "
                            "back", transaction=one.transaction)  # fmt: skip
        for transaction in sorted(store.headless(self.held.uid)):
            store.remove_chunks(transaction)
        return [one for one in found if one.transaction not in superseded]

    def _wait_for_the_dead(self) -> None:
        # A Lease that is new has had no holder whose writes could arrive, unless a journal says so.
        if self.held.taken_over and (self.held.transitions or self.journalling.store.heads()):
            log.info("Waiting until what a dead run sent last has arrived")
            self.stop.sleep_until(self.held.quiet_at)
            self._go_on()

    def before_a_run(self) -> tuple[str, ...]:
        """Take back what dead runs left; gives the journals that this run supersedes when it commits.

        Raises JournalError for one that can't be acted on, ApplyFailed when something could not be taken back. With
        `supersede` neither of a journal's faults is an obstacle, but one that may pass is.
        """
        pending = self.pending()
        for number, found in enumerate(pending):
            self._go_on()
            # That of another cluster is for its own recovery.
            rest = tuple(one.transaction for one in pending[number:] if not one.elsewhere)
            try:
                done = self.roll_back(found)
            except JournalError as error:
                if not self.journalling.supersede:
                    raise
                log.warning("A journal is not acted on; what is wanted is planned afresh", reason=error.message)
                return rest
            if done.over:
                continue
            if self.journalling.supersede and done.refused >= {identity for identity, _ in done.not_undone}:
                log.warning("A dead run's writes can't be taken back; what is wanted is planned afresh",
                            transaction=found.transaction)  # fmt: skip
                return rest
            raise ApplyFailed(
                ExitCode.ROLLBACK_INCOMPLETE,
                f"A dead run left writes that could not be taken back (journal {found.transaction}); "
                "nothing else was written.",
                details=[f"{identity}: {why}" for identity, why in (*done.not_undone, *done.left_alone)],
                hint=_RECOVER,
            )
        self._go_on()
        return ()

    def journal(self, supersedes: Sequence[str] = ()) -> StoredJournal:
        """The journal of what this run is going to write."""
        store, key = self.journalling.store, self.journalling.key
        return StoredJournal(
            store, self._run, key=key, supersedes=supersedes, go_on=self._go_on, finished=self.held.finished.set
        )

    def _run(self) -> Run:
        return Run(
            fencing=Fencing(lease=self.held.uid, transitions=self.held.transitions),
            holder=self.held.holder,
            cluster=self.cluster.identity(),
            mode=self.settings.on_failure.value,
        )

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise Interrupted(f"Nothing new was written: {self.stop.reason}.", code=self.stop.code)

    def roll_back(self, found: Found) -> Recovered:
        """Take back what the journal's run wrote. Raises JournalError when the journal can't be acted on."""
        head = self._usable(found)
        log.warning("Taking back what a dead run wrote", transaction=head.transaction, holder=head.holder,
                    started=head.started)  # fmt: skip
        live = observe(self.cluster, found.changes)
        as_before = [change.identity for change in found.changes if standing(change, live) is Standing.BEFORE]
        no_longer_ours = {
            change.identity: "It is no longer owned by Insights; it stays as it is."
            for change in found.changes
            if given_up(change, live)
        }
        steps = order.steps(change for change in found.changes if change.identity not in {*as_before, *no_longer_ours})
        back = roll_back(
            self.cluster, [[Written(change=change) for change in step] for step in steps], self.stop, self.settings
        )
        done = Recovered(
            head=head,
            restored=tuple(sorted([*as_before, *back.restored])),
            left_alone=tuple(sorted([*no_longer_ours.items(), *back.left_alone])),
            not_undone=back.not_undone,
            refused=back.refused,
        )
        if done.over:
            remove(self.journalling.store, head.transaction)
        log.info("Recovered" if done.over else "Not recovered", transaction=head.transaction,
                 restored=len(done.restored), left_alone=len(done.left_alone),
                 not_undone=len(done.not_undone))  # fmt: skip
        return done

    def roll_forward(self, found: Found) -> Recovered:
        """Make those of the journal's writes that are not made yet, and commit it; nothing when one can't be.

        Raises JournalError when the journal can't be acted on.
        """
        head = self._usable(found)
        live = observe(self.cluster, found.changes)
        standings = {change.identity: standing(change, live) for change in found.changes}
        changed = {
            identity: f"It is {state.value}, so that nothing was written."
            for identity, state in standings.items()
            if state in (Standing.OTHER, Standing.UNKNOWN)
        }
        for change in found.changes:
            if not may_go_on(change, live):
                changed.setdefault(change.identity, "It is no longer owned by Insights, so that nothing was written.")
        if changed:
            return Recovered(head=head, forward=True, left_alone=tuple(sorted(changed.items())))
        remaining = [
            from_here(change, live) for change in found.changes if standings[change.identity] is not Standing.AFTER
        ]
        outcome = execute(
            self.cluster, remaining, self.stop, settings=replace(self.settings, on_failure=OnFailure.STOP)
        )
        made = outcome.standing | {identity for identity, state in standings.items() if state is Standing.AFTER}
        missing = dict(outcome.failed)
        for change in found.changes:
            if change.identity not in made:
                missing.setdefault(change.identity, f"It was not written: {outcome.reason}.")
        done = Recovered(head=head, forward=True, made=tuple(sorted(made)), not_undone=tuple(sorted(missing.items())))
        if done.over:
            commit(self.journalling.store, head, self.journalling.key)
        return done

    def _usable(self, found: Found) -> Head:
        if found.problem or found.head is None:
            raise _unusable(found, self.journalling.store.place)
        self.accept(found)
        return found.head

    def _found(self) -> list[Found]:
        known = self.cluster.identity() if self.journalling.store.heads() else {}
        return journals(
            self.journalling.store,
            self.journalling.key,
            cluster=known,
            lease=self.held.uid,
            finished=self.held.finished_before,
        )


def observe(cluster: Cluster, changes: Sequence[Change]) -> Live:
    """What is live of the kinds that the changes are of."""
    return cluster.observe(sorted({change.identity.kind for change in changes}))


def _unusable(found: Found, place: str) -> JournalError:
    remove_it = (
        f"`kubectl -n {place.removeprefix('namespace ')} delete configmaps -l "
        f"insights.fairwinds.com/transaction={found.transaction}`"
        if place.startswith("namespace ")
        else f"deleting the files {found.transaction}.* in it"
    )
    return JournalError(
        f"A dead run's journal {found.transaction} in {place} can't be used: {found.problem}",
        hint=found.hint
        or "`insights-applier plan` shows what differs from the snapshot. When nothing is to be taken "
        f"back, remove the journal by {remove_it}.",
    )
