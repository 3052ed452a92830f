"""What Insights is told of each policy after a sync, and the telling of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from applier.change import Action, Change, Plan
from applier.transaction.execution import Outcome
from applier.verdict import Verdict
from renderer.errors import Failure, NotReported, RemoteError, defect
from renderer.insights.status import PolicyStatus, report_status
from renderer.insights.transport import Limits, Transport
from renderer.manifest import yamlio
from renderer.manifest.identity import Identity

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig

_CONCURRENCY: Final = 4
#: A run that has done its work waits no longer than this for Insights to hear of it.
LIMITS: Final = Limits(connect_seconds=5, read_seconds=10, request_seconds=10, call_seconds=20)


def of_outcome(plan: Plan, outcome: Outcome, *, at: datetime) -> list[PolicyStatus]:
    """A status for each policy that was to change: whether its change stands, and if not, why."""
    reasons = dict(outcome.failed)
    rolled_back = "failed" if outcome.standing else "failed and was rolled back"
    others = f"Not applied, because the run {rolled_back}: {outcome.reason}"
    stuck = {identity: f"The run failed: {outcome.reason} {why}" for identity, why in outcome.not_undone}
    return _merged(
        [
            _status(
                change,
                "" if change.identity in outcome.standing else (stuck | reasons).get(change.identity, others),
                at,
            )
            for change in plan.effective
        ]
    )


def of_invalid(plan: Plan, verdict: Verdict, *, at: datetime) -> list[PolicyStatus]:
    """A failed status for each policy that was to change: its own errors, or that others have some."""
    errors: dict[Identity, list[str]] = {}
    for finding in verdict.errors:
        errors.setdefault(finding.policy, []).append(f"[{finding.layer.value}] {finding.problem}")
    others = f"Not applied, because other policies are not valid: {', '.join(sorted(map(str, errors)))}"
    return _merged([_status(change, "\n".join(errors.get(change.identity, [others])), at) for change in plan.effective])


def send(transport: Transport, config: InsightsConfig, statuses: Sequence[PolicyStatus]) -> None:
    """Report them all; raise NotReported when one could not be.

    When Insights can't be reached the others are not tried: each would take as long. A signal ends it at once.
    """
    pool = ThreadPoolExecutor(_CONCURRENCY)
    told = 0
    errors: list[Failure] = []
    try:
        for done in as_completed(pool.submit(report_status, transport, config, status) for status in statuses):
            error = done.exception()
            if error is None:
                told += 1
            elif isinstance(error, Failure):
                errors.append(error)
                if isinstance(error, RemoteError):
                    break
            else:
                errors.append(defect(error))
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    # Those under way end within the limits of one call, and log nothing after the run's last line.
    pool.shutdown(cancel_futures=True)
    if errors:
        raise NotReported(
            f"Insights was not told of {len(statuses) - told} of {len(statuses)} policies: {errors[-1].message}",
            hint="The cluster is as this run left it. What Insights shows is old until the next change.",
        )


def _status(change: Change, output: str, at: datetime) -> PolicyStatus:
    body = change.after if change.action is not Action.DELETE else change.before
    return PolicyStatus(
        policy_name=change.identity.name,
        action="delete" if change.action is Action.DELETE else "apply",
        status="failed" if output else "success",
        last_applied_at=at,
        policy_body=yamlio.dump(body) if body else "",
        output=output,
    )


def _merged(statuses: list[PolicyStatus]) -> list[PolicyStatus]:
    """One status a name, since Insights knows no more of a policy: failed if either is, with both outputs."""
    by_name: dict[str, PolicyStatus] = {}
    for status in statuses:
        other = by_name.get(status.policy_name)
        if other is None:
            by_name[status.policy_name] = status
            continue
        worse = status if status.status == "failed" else other
        outputs = [entry.output for entry in (other, status) if entry.output]
        bodies = "---\n".join(entry.policy_body for entry in (other, status))
        by_name[status.policy_name] = replace(worse, policy_body=bodies, output="\n".join(outputs))
    return list(by_name.values())
