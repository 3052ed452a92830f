"""The steps that plan, apply and sync share: look, plan, ask the server, validate, lock, write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from applier import lock, plan
from applier.change import Action, Plan
from applier.guards import Allowed
from applier.ports import Cluster, Leases, Validator
from applier.rehearsal import may_write, rehearse
from applier.stop import Stop, on_signals
from applier.transaction import Outcome, execute
from applier.verdict import Verdict
from renderer.errors import ApplyFailed, ExitCode, InvalidPolicies, Refusal
from renderer.manifest.kinds import KINDS
from renderer.manifest.policyset import PolicySet


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

    With `writes` False the account needs no right to write; what it may not write is then not dry-run.
    """
    live = cluster.observe(KINDS)
    drafted = plan.draft(desired, live, allowed=allowed, prune=prune)
    uncertain = list(plan.to_rehearse(drafted))
    deletions = list(drafted.of(Action.DELETE))
    if not writes:
        uncertain, _ = may_write(cluster, uncertain)
        deletions, _ = may_write(cluster, deletions)
    # Guards come first: what they refuse is not worth asking about, but a plan shows all of it.
    rehearsal = rehearse(cluster, uncertain + (deletions if not drafted.refusals else []))
    refused = {finding.policy for finding in rehearsal.verdict.errors}
    settled = plan.settle(drafted, rehearsal.answers, refused)
    verdicts = [rehearsal.verdict]
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


def apply(
    cluster: Cluster,
    leases: Leases,
    prepare_plan: Callable[[], Prepared],
    *,
    locking: LockSettings,
    delete_timeout: float,
    on_prepared: Callable[[Prepared], None] = lambda _: None,
) -> Outcome:
    """Take the lock, make the plan, and write all of it or none of it.

    `on_prepared` sees the plan before anything is judged or written. Raises Locked, Refusal, InvalidPolicies and
    whatever keeps the plan from being made; from the first write on, the outcome tells.
    """
    stop = Stop()
    with ExitStack() as stack:
        stack.enter_context(lock.file_lock(locking.file))
        stack.enter_context(
            lock.lease(
                leases,
                namespace=locking.namespace,
                identity=lock.holder_identity(),
                wait=locking.wait,
                hold=locking.hold,
                stop=stop,
            )
        )
        prepared = prepare_plan()
        on_prepared(prepared)
        require_allowed(prepared)
        try:
            with on_signals(stop):
                return execute(cluster, prepared.plan.changes, stop, delete_timeout=delete_timeout)
        except KeyboardInterrupt as error:
            raise ApplyFailed(
                ExitCode.ROLLBACK_INCOMPLETE,
                "A second signal ended the run while it was taking its writes back.",
                hint="Some of them may stand: see `insights-applier plan`, and the log for what was written.",
            ) from error
