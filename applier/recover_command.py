"""`recover`: shows what dead runs left, takes it back, or makes the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from applier.journal.format import JournalError
from applier.journal.found import Found, journals
from applier.journal.sealed import Trust
from applier.lock import LEASE, LockSettings, locked
from applier.lock.elector import finished
from applier.ports import Cluster, Leases
from applier.recovery import Journalling, Recovery, observe, require_verified
from applier.report.recovery import journal_lines, recovered_lines
from applier.stop import Stop, interruptible, on_signals
from applier.transaction.standing import standing
from applier.transaction.writes import WriteSettings
from renderer.errors import ExitCode


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverSettings:
    """What to do with journals. `ask` puts a question to a person, or is None where there is none; `echo` shows lines.

    `trust` acts on journals that can't be verified, `forward` makes what is left of the latest one.
    """

    locking: LockSettings
    journalling: Journalling
    writing: WriteSettings
    echo: Callable[[Iterable[str]], None]
    ask: Callable[[str], bool] | None = None
    trust: bool = False
    forward: bool = False

    @property
    def nothing(self) -> str:
        """What is said when there is none."""
        return f"Nothing to recover in {self.journalling.store.place}."


def show(cluster: Cluster, leases: Leases, settings: RecoverSettings) -> ExitCode:
    """Show each journal and what of it is on the cluster; nothing is changed and no lock taken."""
    found = leases.read_lease(settings.locking.namespace, LEASE)
    uid = found["metadata"]["uid"] if found else ""
    store, key = settings.journalling.store, settings.journalling.key
    known = cluster.identity() if store.heads() else {}
    there = journals(store, key, cluster=known, lease=uid, finished=finished(found) if found else -1)
    for journal in there:
        settings.echo(_lines(cluster, settings, journal))
    if not there:
        settings.echo([settings.nothing])
    return ExitCode.OK


def recover(cluster: Cluster, leases: Leases, settings: RecoverSettings) -> ExitCode:
    """Take back what each dead run left, the latest first; gives 0, or 31 when not all of it could be.

    Raises JournalError for a journal that can't be acted on, Locked while another run is at work.
    """
    stop = Stop()
    with locked(leases, settings.locking, stop) as held, on_signals(stop):
        recovery = Recovery(
            cluster=cluster,
            journalling=settings.journalling,
            held=held,
            stop=stop,
            settings=settings.writing,
            accept=lambda found: _accept(cluster, settings, found),
        )
        code = ExitCode.OK
        pending = recovery.pending()
        for journal in pending[:1] if settings.forward else pending:
            done = recovery.roll_forward(journal) if settings.forward else recovery.roll_back(journal)
            settings.echo(recovered_lines(done))
            code = code or done.code
            if not done.over:
                break
        if not pending:
            settings.echo([settings.nothing])
        return code


def _accept(cluster: Cluster, settings: RecoverSettings, found: Found) -> None:
    if settings.trust:
        return
    if found.trust is not Trust.NO_KEY:
        require_verified(found)
        return
    settings.echo(_lines(cluster, settings, found))
    if settings.ask is None:
        require_verified(found)
        return
    with interruptible():
        agreed = settings.ask("Make the rest of it?" if settings.forward else "Take back what was made?")
    if not agreed:
        raise JournalError(f"The journal {found.transaction} was not acted on, as you said.")


def _lines(cluster: Cluster, settings: RecoverSettings, found: Found) -> Iterable[str]:
    live = observe(cluster, found.changes)
    return journal_lines(found, settings.journalling.store.place, lambda change: standing(change, live))
