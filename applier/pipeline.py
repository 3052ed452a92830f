"""The steps that plan, apply and sync share: look, plan, ask the server, validate, lock, write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from applier import lock, plan, schema
from applier.change import Action, Plan, Rehearsed
from applier.guards import Allowed
from applier.ports import Cluster, Leases, Validator
from applier.rehearsal import may_write, rehearse
from applier.stop import Stop, on_signals
from applier.transaction import Outcome, execute
from applier.verdict import Verdict
from renderer import logs
from renderer.errors import ApplyFailed, ExitCode, InvalidPolicies, Refusal, interrupted
from renderer.manifest.identity import Identity
from renderer.manifest.kinds import KINDS
from renderer.manifest.policyset import PolicySet

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan, and what the server and the validator said of it."""

    plan: Plan
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LockSettings:
    """Where the lock is kept, how long to wait for it, and how long to hold it at most (seconds)."""

    namespace: str
    wait: float
    hold: float
    file: Path = lock.FILE


def prepare(
    cluster: Cluster,
    desired: PolicySet,
    *,
    allowed: Allowed,
    validator: Validator | None = None,
    writes: bool = True,
    prune: bool = True,
) -> Prepared:
    """Compare what is wanted with what is live, and have the server and the validator judge every change.

    What is as it should be costs no request: the cluster's own schemas tell how the server would store a policy.
    With `writes` False the account needs no right to write; what it may not write is then not dry-run.
    """
    live = cluster.observe(KINDS)
    schemas = cluster.schemas(schema.needed(desired, live.resources))
    stored = schema.default(desired, live.resources, schemas)
    drafted = plan.draft(desired, live, allowed=allowed, prune=prune, bodies=stored.bodies)
    drafted = replace(drafted, notes=(*drafted.notes, *stored.notes))
    refused = {finding.policy for finding in stored.verdict.errors}
    uncertain = [change for change in plan.to_rehearse(drafted) if change.identity not in refused]
    deletions = list(drafted.of(Action.DELETE))
    if not writes:
        uncertain, _ = may_write(cluster, uncertain)
        deletions, _ = may_write(cluster, deletions)
    # Guards come first: what they refuse is not worth asking about, but a plan shows all of it.
    rehearsal = rehearse(cluster, uncertain + (deletions if not drafted.refusals else []))
    refused |= {finding.policy for finding in rehearsal.verdict.errors}
    settled = plan.settle(drafted, rehearsal.answers, refused)
    verdicts = [stored.verdict, rehearsal.verdict]
    if validator is not None:
        changed = settled.of(Action.CREATE, Action.UPDATE, Action.ADOPT)
        verdicts.append(validator.validate([change.policy for change in changed if change.policy]))
    return Prepared(plan=settled, verdict=Verdict.together(verdicts))


def require_allowed(prepared: Prepared) -> None:
    """Raise Refusal for what a guard refuses, InvalidPolicies for what validation refuses."""
    refusals = prepared.plan.refusals
    if refusals:
        first = refusals[0]
        others = [f"Also refused: {refusal.message}" for refusal in refusals[1:]]
        raise Refusal(first.code, first.message, hint=first.hint, details=[*first.subjects, *others])
    errors = prepared.verdict.errors
    if errors:
        policies = len({finding.policy for finding in errors})
        raise InvalidPolicies(
            f"{policies} {'policy is' if policies == 1 else 'policies are'} not valid; nothing was written.",
            details=[f"[{finding.layer.value}] {finding.problem}" for finding in errors],
            hint="Correct them in Insights (or where they come from), then run again.",
        )


def unchecked(desired: PolicySet, made: Plan, verdict: Verdict, *, by_cli: bool) -> set[Identity]:
    """The policies that nobody could judge: not the server, for want of rights or of the kind, and not the CLI."""
    by_server = {change.identity for change in made.changes if change.rehearsed is not Rehearsed.NOT_ASKED}
    unjudged = {identity for identity, _ in verdict.unjudged}
    return {
        policy.identity
        for policy in desired
        if policy.identity not in by_server and (not by_cli or policy.identity in unjudged)
    }


def apply(
    cluster: Cluster,
    leases: Leases,
    prepare_plan: Callable[[], Prepared],
    *,
    locking: LockSettings,
    delete_timeout: float,
) -> Outcome:
    """Take the lock, make the plan, and write all of it or none of it.

    Raises Locked, Refusal, InvalidPolicies and whatever keeps the plan from being made; from the first write on,
    the outcome tells.
    """
    stop = Stop()
    try:
        # Entered late and left last: a signal must not cut off the undo, nor the release of the lock.
        with ExitStack() as signals, ExitStack() as locks:
            locks.enter_context(lock.file_lock(locking.file))
            locks.enter_context(_leased(leases, locking, stop))
            prepared = prepare_plan()
            announce(prepared)
            require_allowed(prepared)
            signals.enter_context(on_signals(stop))
            outcome = _executed(cluster, prepared, stop, delete_timeout)
    except KeyboardInterrupt as error:
        raise interrupted(error) from error
    return replace(outcome, signalled=stop.signalled)


def _leased(leases: Leases, locking: LockSettings, stop: Stop) -> AbstractContextManager[None]:
    return lock.lease(
        leases,
        namespace=locking.namespace,
        identity=lock.holder_identity(),
        wait=locking.wait,
        hold=locking.hold,
        stop=stop,
    )


def _executed(cluster: Cluster, prepared: Prepared, stop: Stop, delete_timeout: float) -> Outcome:
    try:
        return execute(cluster, prepared.plan.changes, stop, delete_timeout=delete_timeout)
    except KeyboardInterrupt as error:
        raise ApplyFailed(
            ExitCode.ROLLBACK_INCOMPLETE,
            "A second signal ended the run while it was taking its writes back.",
            hint="Some of them may stand: see `insights-applier plan`, and the log for what was written.",
        ) from error


def announce(prepared: Prepared) -> None:
    """Log what the plan notes and what validation only warns of: nothing is skipped in silence."""
    for note in prepared.plan.notes:
        log.warning("Note", note=note)
    for finding in prepared.verdict.warnings:
        log.warning("Validation warns", layer=finding.layer.value, problem=str(finding.problem))
    for identity, reason in prepared.verdict.unjudged:
        log.info("Not judged by the kyverno CLI", policy=str(identity), reason=reason)
