"""Executes a plan: every change or none. What was written is undone when one write fails or the run must stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from applier.change import Action, Change
from applier.order import ordered
from applier.ports import Cluster
from applier.stop import Stop
from applier.undo import Written, undo
from applier.writes import ChangedMeanwhile, NotMade, write
from renderer import logs
from renderer.errors import ExitCode, Failure, defect
from renderer.manifest.identity import Identity
from renderer.manifest.normalize import content, digest

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did: identities by what became of them, and why it failed if it did.

    `signalled` is true when a signal asked it to stop, even when all was written by then.
    """

    applied: tuple[Identity, ...] = ()
    updated: tuple[Identity, ...] = ()
    removed: tuple[Identity, ...] = ()
    failed: tuple[tuple[Identity, str], ...] = ()
    restored: tuple[Identity, ...] = ()
    left_alone: tuple[tuple[Identity, str], ...] = ()
    not_undone: tuple[tuple[Identity, str], ...] = ()
    reason: str = ""
    code: ExitCode = ExitCode.OK
    signalled: bool = False

    @property
    def success(self) -> bool:
        """Whether everything that was planned is in place."""
        return self.code is ExitCode.OK


def execute(cluster: Cluster, changes: Sequence[Change], stop: Stop, *, delete_timeout: float = 30.0) -> Outcome:
    """Write every change in order; on the first failure, or when `stop` is set, undo those written.

    `delete_timeout`, in seconds, is how long a deleted object may stay. Raises no Exception: the outcome tells,
    also of a defect of ours, so that nothing stays half-written.
    """
    written: list[Written] = []
    for change in ordered(changes):
        if stop.is_set():
            return _undone(cluster, written, (), stop.reason, stop.code, delete_timeout)
        # Until its answer is here, a write may have been made: what is undone is looked at first.
        written.append(Written(change=change))
        try:
            stored = write(cluster, change, delete_timeout=delete_timeout, stopped=stop.is_set)
        except NotMade as error:
            written.pop()
            failure = error.failure
        except Failure as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, what was written must be taken back
            failure = defect(error)
        else:
            written[-1] = Written(change=change, stored=stored)
            _log_write(written[-1])
            continue
        log.error("Write failed", action=change.action.value, policy=str(change.identity), reason=failure.message)
        failed = ((change.identity, _reason(failure)),)
        code = stop.code if stop.is_set() else ExitCode.ROLLED_BACK
        return _undone(cluster, written, failed, f"{change.identity}: {failure.message}", code, delete_timeout)
    return Outcome(
        applied=_identities(written, Action.CREATE, Action.ADOPT),
        updated=_identities(written, Action.UPDATE),
        removed=_identities(written, Action.DELETE),
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


def _reason(error: Failure) -> str:
    return f"{error.message} {error.hint}".strip()


def _identities(written: Sequence[Written], *actions: Action) -> tuple[Identity, ...]:
    return tuple(sorted(entry.change.identity for entry in written if entry.change.action in actions))


def _undone(
    cluster: Cluster,
    written: Sequence[Written],
    failed: tuple[tuple[Identity, str], ...],
    reason: str,
    code: ExitCode,
    delete_timeout: float,
) -> Outcome:
    """Take every write back, the last first, and tell what became of each."""
    restored: list[Identity] = []
    left: list[tuple[Identity, str]] = []
    stuck: list[tuple[Identity, str]] = []
    for entry in reversed(written):
        identity = entry.change.identity
        try:
            if undo(cluster, entry, delete_timeout=delete_timeout):
                restored.append(identity)
                log.info("Write undone", action=entry.change.action.value, policy=str(identity))
        except ChangedMeanwhile as error:
            left.append((identity, error.message))
            log.warning("Write not undone", policy=str(identity), reason=error.message)
        except Exception as error:  # noqa: BLE001 - one that can't be taken back must not keep the others
            failure = error if isinstance(error, Failure) else defect(error)
            stuck.append((identity, _reason(failure)))
            log.error("Write could not be undone", policy=str(identity), reason=failure.message)
    return Outcome(
        failed=failed,
        restored=tuple(restored),
        left_alone=tuple(left),
        not_undone=tuple(stuck),
        reason=reason,
        # The cluster is as it was only when everything was taken back.
        code=ExitCode.ROLLBACK_INCOMPLETE if stuck or left else code,
    )
