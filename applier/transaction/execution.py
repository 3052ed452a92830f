"""Executes a plan in its steps: every change or none, or what `on_failure` says instead."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from applier.change import Action, Change
from applier.ports import Cluster, Journal, NoJournal
from applier.stop import Stop
from applier.transaction import order, references, verification
from applier.transaction.parallel import in_parallel
from applier.transaction.rollback import roll_back, whereabouts
from applier.transaction.undo import Written
from applier.transaction.writes import NotMade, OnFailure, WriteSettings, write
from renderer import logs
from renderer.errors import ExitCode, Failure, defect
from renderer.manifest.identity import Identity
from renderer.manifest.normalize import content, digest
from renderer.status_line import STATUS

log = logs.get_logger()

_POLL_SECONDS: Final = 0.05
_RECOVER: Final = "`insights-applier recover` takes back what is left of it, and so does the next apply or sync."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did: identities by what became of them, and why it failed if it did.

    The first three stand on the cluster. `failed` are the changes that could not be made, and why. After a rollback,
    `restored` are those that are as before, `left_alone` those that somebody else changed since, `not_undone` those
    that could not be taken back; each with what is there now and why. `changed_since` are writes that were made and
    that somebody else changed before the run ended. `signalled` is true when a signal asked it to stop, even when all
    was written by then.
    """

    applied: tuple[Identity, ...] = ()
    updated: tuple[Identity, ...] = ()
    removed: tuple[Identity, ...] = ()
    failed: tuple[tuple[Identity, str], ...] = ()
    restored: tuple[Identity, ...] = ()
    left_alone: tuple[tuple[Identity, str], ...] = ()
    not_undone: tuple[tuple[Identity, str], ...] = ()
    changed_since: tuple[tuple[Identity, str], ...] = ()
    reason: str = ""
    hint: str = ""
    code: ExitCode = ExitCode.OK
    signalled: bool = False

    @property
    def success(self) -> bool:
        """Whether everything that was planned is in place."""
        return self.code is ExitCode.OK

    @property
    def standing(self) -> frozenset[Identity]:
        """The changes that were made and stand."""
        return frozenset((*self.applied, *self.updated, *self.removed))


def execute(
    cluster: Cluster,
    changes: Sequence[Change],
    stop: Stop,
    *,
    journal: Journal | None = None,
    settings: WriteSettings | None = None,
    refused: Mapping[Identity, str] = MappingProxyType({}),
) -> Outcome:
    """Write every change, step after step; on the first failure, or when `stop` is set, start no more and undo.

    `refused` are changes that are not to be made, and why: with OnFailure.CONTINUE the others are made, and so it is
    with those that fail; what refers to one of them, or is referred to by one, is left out too. With OnFailure.STOP
    what was written stays, and so does the journal. A signal, or the loss of the lock, stops CONTINUE as it stops
    ROLLBACK. When another run took the lock, nothing is taken back: that run does it, from the journal.

    Raises a Failure only from `journal.begin`, before anything is written. From then on the outcome tells, also of a
    defect of ours, so that nothing stays half-written. A KeyboardInterrupt, which a second signal raises, ends it
    between two requests; the journal is left.
    """
    settings, journal = settings or WriteSettings(), journal or NoJournal()
    run = _Execution(cluster, changes, stop, settings, refused)
    if run.steps:
        try:
            journal.begin([change for step in run.steps for change in step])
        except Failure:
            if not stop.is_set():
                raise
            return Outcome(reason=stop.reason, code=stop.code)
        run.write()
        run.verify()
    return run.ended(journal)


class _Execution:
    """The writes of one plan so far. The threads of a step share it; each has changes of its own."""

    def __init__(
        self,
        cluster: Cluster,
        changes: Sequence[Change],
        stop: Stop,
        settings: WriteSettings,
        refused: Mapping[Identity, str],
    ) -> None:
        self._cluster, self._stop, self._settings = cluster, stop, settings
        self._by_identity = {change.identity: change for change in changes}
        self._cut = threading.Event()
        self.steps = order.steps(change for change in changes if change.identity not in refused)
        self._total, self._number = sum(map(len, self.steps)), itertools.count(1)
        #: Until its answer is here, a write may have been made: it is in here from before it is sent.
        self.written: dict[Identity, Written] = {}
        self.failed: dict[Identity, str] = dict(refused)
        self.changed_since: dict[Identity, str] = {}

    def write(self) -> None:
        """Make every change, until one fails or the run must stop."""
        with STATUS.saying(f"Writing 0/{self._total}"):
            self._write_steps()

    def _write_steps(self) -> None:
        for step in self.steps:
            if self._ends():
                return
            in_parallel(self._counted, step, concurrency=self._settings.concurrency, cut=self._cut)

    def _ends(self) -> bool:
        """Whether no new write may start."""
        return self._failing() or self._may_not_go_on()

    def _counted(self, change: Change) -> None:
        self._attempt(change)
        STATUS.show(f"Writing {next(self._number)}/{self._total}")

    def _attempt(self, change: Change) -> None:
        if self._ends():
            return
        identity = change.identity
        failed = [self._by_identity[other] for other in list(self.failed) if other in self._by_identity]
        held = references.between(change, failed)
        if held:
            self._fail(change, Failure(references.because(held)))
            return
        self.written[identity] = Written(change=change)
        try:
            stored = write(
                self._cluster, change, delete_timeout=self._settings.delete_timeout, stopped=self._may_not_go_on
            )
        except NotMade as error:
            del self.written[identity]
            self._fail(change, error.failure)
        except Exception as error:  # noqa: BLE001 - whatever it is, what was written must be taken back
            unsettled = time.monotonic() + self._settings.unsettled
            self.written[identity] = Written(change=change, unsettled_until=unsettled)
            self._fail(change, error if isinstance(error, Failure) else defect(error))
            if self._settings.on_failure is OnFailure.CONTINUE:
                self._take_back_alone(change)
        else:
            self.written[identity] = Written(change=change, stored=stored)
            _log_write(self.written[identity])

    def _may_not_go_on(self) -> bool:
        return self._cut.is_set() or self._stop.is_set()

    def _fail(self, change: Change, failure: Failure) -> None:
        log.error("Write failed", action=change.action.value, policy=str(change.identity), reason=failure.message)
        self.failed[change.identity] = f"{failure.message} {failure.hint}".strip()

    def _take_back_alone(self, change: Change) -> None:
        """Where the others go on, one that failed shall be as before; a deletion that began goes on, too."""
        entry = self.written[change.identity]
        if change.action is Action.DELETE:
            self._settle_deletion(entry)
            return
        back = roll_back(self._cluster, [[entry]], self._stop, self._settings, cut=self._cut)
        if back.restored:
            del self.written[change.identity]
        for identity, why in (*back.left_alone, *back.not_undone):
            self.failed[identity] = f"{self.failed[identity]} {why}"

    def _settle_deletion(self, entry: Written) -> None:
        """A deletion whose answer was lost: done, or not made, by what is there when it must have ended."""
        identity, before = entry.change.identity, entry.change.before or {}
        while time.monotonic() < entry.unsettled_until and not self._may_not_go_on():
            self._cut.wait(_POLL_SECONDS)
        try:
            found = self._cluster.read(identity)
        except Failure as error:
            self.failed[identity] += f" What is there now is not known: {error.message}"
            return
        if found is None or found["metadata"]["uid"] != before["metadata"]["uid"]:
            del self.failed[identity]
        elif "deletionTimestamp" not in found["metadata"]:
            del self.written[identity]

    def verify(self) -> None:
        """Read back what was written: what is not there has failed, whoever took it back."""
        if not self._done():
            return
        found = verification.verify(self._cluster, self._made())
        for identity, why in found.missing.items():
            self._fail(self._by_identity[identity], Failure(why))
        for identity, why in found.changed_since.items():
            log.warning("Changed since it was written", policy=str(identity), reason=why)
            self.changed_since[identity] = why

    def ended(self, journal: Journal) -> Outcome:
        """Take back what was written, or close the journal, and tell what became of everything."""
        # What comes later than this does not change why the run ends.
        stopped = self._stop.is_set()
        if self._done():
            self._wait_for_the_lease()
            if self._stop.may_write():
                return self._finished(journal)
            stopped = True
        reason = self._stop.reason if stopped else self._first_failure()
        if self._settings.on_failure is OnFailure.STOP and self.written and not self._stop.lost:
            return self._left(reason)
        code = self._stop.code if stopped else ExitCode.ROLLED_BACK
        return self._rolled_back(journal, reason, code)

    def _done(self) -> bool:
        """Whether every change was made, or, where the others go on, failed."""
        tried = self.written.keys() | self.failed.keys()
        return not self._failing() and all(change.identity in tried for step in self.steps for change in step)

    def _failing(self) -> bool:
        return bool(self.failed) and self._settings.on_failure is not OnFailure.CONTINUE

    def _made(self) -> list[Written]:
        return [entry for identity, entry in self.written.items() if identity not in self.failed]

    def _first_failure(self) -> str:
        return next((f"{identity}: {why}" for identity, why in self.failed.items()), "")

    def _wait_for_the_lease(self) -> None:
        end = time.monotonic() + self._settings.grace
        while not self._stop.may_write() and not self._stop.lost and time.monotonic() < end:
            self._cut.wait(_POLL_SECONDS)

    def _finished(self, journal: Journal) -> Outcome:
        failed = sorted(self.failed.items())
        outcome = replace(
            self._standing(),
            failed=tuple(failed),
            reason=self._first_failure(),
            code=ExitCode.PARTLY_APPLIED if failed else ExitCode.OK,
        )
        try:
            journal.commit()
        except Failure as error:
            reason = f"Everything is written, but the journal could not be closed: {error.message}"
            return replace(outcome, reason=reason, hint=_RECOVER, code=ExitCode.ROLLBACK_INCOMPLETE)
        return outcome

    def _standing(self) -> Outcome:
        made = self._made()
        return Outcome(
            applied=_identities(made, Action.CREATE, Action.ADOPT),
            updated=_identities(made, Action.UPDATE, Action.REPLACE),
            removed=_identities(made, Action.DELETE),
            changed_since=tuple(sorted(self.changed_since.items())),
        )

    def _left(self, reason: str) -> Outcome:
        """What OnFailure.STOP leaves: all that was written, and the journal."""
        failed = {
            identity: f"{why} {whereabouts(self._cluster, self.written[identity])}" if identity in self.written else why
            for identity, why in self.failed.items()
        }
        return replace(
            self._standing(),
            failed=tuple(sorted(failed.items())),
            reason=reason,
            hint=f"What was written stands. {_RECOVER}",
            code=ExitCode.ROLLBACK_INCOMPLETE,
        )

    def _rolled_back(self, journal: Journal, reason: str, code: ExitCode) -> Outcome:
        steps = [
            [self.written[change.identity] for change in step if change.identity in self.written] for step in self.steps
        ]
        back = roll_back(self._cluster, steps, self._stop, self._settings, cut=self._cut)
        hint = _RECOVER if back.not_undone else ""
        if self.steps and not back.not_undone:
            try:
                journal.discard()
            except Failure as error:
                log.warning("The journal could not be removed; the next run finds nothing to take back in it",
                            reason=error.message)  # fmt: skip
        # The cluster is as it was only when everything was taken back.
        incomplete = back.not_undone or back.left_alone
        return Outcome(
            failed=tuple(sorted(self.failed.items())),
            restored=back.restored,
            left_alone=back.left_alone,
            not_undone=back.not_undone,
            reason=reason,
            hint=hint,
            code=ExitCode.ROLLBACK_INCOMPLETE if incomplete else code,
        )


def _log_write(entry: Written) -> None:
    """The audit trail: what was done to which policy, and the digests of its content before and after."""
    change, kind = entry.change, entry.change.identity.kind
    log.info(
        "Policy written",
        action=change.action.value,
        policy=str(change.identity),
        before=digest(content(change.before, kind)) if change.before else None,
        after=digest(entry.after) if entry.stored else None,
    )
    if entry.stored and entry.after != change.after:
        log.warning("The server stored it otherwise than its dry run said", policy=str(change.identity))


def _identities(written: Sequence[Written], *actions: Action) -> tuple[Identity, ...]:
    return tuple(sorted(entry.change.identity for entry in written if entry.change.action in actions))
