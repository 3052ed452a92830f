"""The steps that plan, apply and sync share: look, plan, ask the server, validate, lock, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from applier import plan, selection
from applier.change import Action, Plan, Rehearsed
from applier.guards import refusals as guards
from applier.guards import rights, weakening
from applier.guards.refusals import Allowed
from applier.guards.self_block import SelfBlock
from applier.lock import LockSettings, locked
from applier.lock.elector import Held
from applier.ports import Access, Cluster, Counterpart, Journal, Leases, Live, Validator
from applier.recovery import Journalling, Recovery
from applier.rehearsal import may_write, rehearse, unwatched
from applier.schema import check, defaults, deprecation
from applier.selection import Selection
from applier.stop import Stop, on_signals
from applier.transaction import references
from applier.transaction.execution import Outcome, execute
from applier.transaction.writes import OnFailure, WriteSettings
from applier.verdict import Layer, Verdict
from renderer import logs
from renderer.errors import ApplyFailed, ExitCode, InvalidPolicies, Refusal, interrupted
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.kinds import KINDS
from renderer.manifest.policyset import PolicySet
from renderer.status_line import STATUS

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan, what the server and the validator said of it, and what it was compared with."""

    plan: Plan
    verdict: Verdict
    live: Live


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """How policies are judged beyond what schemas and dry runs say.

    Without a `validator` the kyverno CLI is not asked. `unchanged` has it and the schemas judge also what would not
    change. `self_block` finds what would deny our own writes; None looks for nothing.
    """

    validator: Validator | None = None
    self_block: SelfBlock | None = None
    warnings_as_errors: bool = False
    unchanged: bool = False


#: Nothing beyond them.
CHECKS: Final = Checks()


def prepare(
    cluster: Cluster,
    desired: PolicySet,
    *,
    allowed: Allowed,
    checks: Checks = CHECKS,
    writes: bool = True,
    prune: bool = True,
    selected: Selection = selection.ALL,
) -> Prepared:
    """Compare what is wanted with what is live, and have the server and the validator judge every change.

    What is as it should be costs no request: the cluster's own schemas tell how the server would store a policy.
    With `writes` False the account needs no right to write; what it may not write is then not dry-run.
    """
    live = cluster.observe(KINDS)
    drafted, by_schemas = _draft(
        cluster, live, desired, allowed=allowed, prune=prune, selected=selected, unchanged=checks.unchanged
    )
    refused = {finding.policy for finding in by_schemas.errors}
    uncertain = [change for change in plan.to_rehearse(drafted) if change.identity not in refused]
    deletions = list(drafted.of(Action.DELETE))
    if not writes:
        uncertain, _ = may_write(cluster, uncertain)
        deletions, _ = may_write(cluster, deletions)
    # Guards come first: what they refuse is not worth asking about, but a plan shows all of it.
    rehearsal = rehearse(cluster, uncertain + (deletions if not drafted.refusals else []))
    refused |= {finding.policy for finding in rehearsal.verdict.errors}
    settled = plan.settle(drafted, rehearsal.answers, refused, rehearsal.replacing, rehearsal.deletable)
    if checks.self_block is not None and not allowed.self_block:
        settled = plan.refuse_self_blocking(settled, checks.self_block.find(settled, live, cluster))
    settled = _guarded(settled, live, allowed, writes=writes)
    settled = replace(settled, notes=(*settled.notes, *unwatched(settled.effective)))
    wanted = selected.of(desired)
    verdict = _judged(settled, wanted, checks, [by_schemas, rehearsal.verdict], live)
    return Prepared(plan=settled, verdict=verdict, live=live)


def _judged(
    made: Plan, wanted: Iterable[Policy], checks: Checks, said: Sequence[Verdict], live: Live | None
) -> Verdict:
    """All that is said of the plan's policies: deprecations first, for servers repeat them."""
    changing = made.of(Action.CREATE, Action.UPDATE, Action.ADOPT, Action.REPLACE)
    changed = [change.policy for change in changing if change.policy]
    policies = list(wanted) if checks.unchanged else changed
    verdicts = [deprecation.judge(policies, live), *said]
    if checks.validator is not None:
        asked = _well_formed(policies, said)
        with STATUS.saying(f"Validating {len(asked)} policies …"):
            verdicts.append(checks.validator.validate(asked))
    verdict = Verdict.together(verdicts)
    return verdict.strict() if checks.warnings_as_errors else verdict


def _well_formed(policies: Iterable[Policy], said: Iterable[Verdict]) -> list[Policy]:
    """Those that are what their schemas say: of the others the kyverno CLI only repeats the first error."""
    refused = {finding.policy for verdict in said for finding in verdict.errors if finding.layer is Layer.SCHEMA}
    return [policy for policy in policies if policy.identity not in refused]


def compare(
    other: Counterpart,
    desired: PolicySet,
    *,
    allowed: Allowed,
    checks: Checks = CHECKS,
    prune: bool = True,
    selected: Selection = selection.ALL,
    notes: Sequence[str] = (),
) -> Prepared:
    """Compare what is wanted with what was saved, by schemas alone: no server is there to be asked.

    `notes` say how it was saved; they come before the plan's own, each once.
    """
    live = other.observe(KINDS)
    drafted, verdict = _draft(
        other, live, desired, allowed=allowed, prune=prune, selected=selected, unchanged=checks.unchanged
    )
    changes = tuple(replace(change, rehearsed=Rehearsed.OFFLINE) for change in drafted.changes)
    told = tuple(dict.fromkeys((*notes, *drafted.notes)))
    made = _guarded(replace(drafted, changes=changes, notes=told), live, allowed, writes=False)
    # What was saved holds no warnings of a server.
    said = _judged(made, selected.of(desired), checks, [verdict], None)
    return Prepared(plan=made, verdict=said, live=live)


def _draft(
    other: Counterpart,
    live: Live,
    desired: PolicySet,
    *,
    allowed: Allowed,
    prune: bool,
    selected: Selection,
    unchanged: bool,
) -> tuple[Plan, Verdict]:
    """The draft, and what the schemas say of what is wanted."""
    wanted = selected.of(desired)
    schemas = other.schemas(defaults.needed(wanted, live.resources))
    stored = defaults.default(wanted, live.resources, schemas)
    drafted = plan.draft(desired, live, allowed=allowed, prune=prune, bodies=stored.bodies, selection=selected)
    notes = (*drafted.notes, *stored.notes, *selection.notes(selected, drafted, desired, live))
    changed = [change.policy for change in plan.to_rehearse(drafted) if change.policy]
    checked = check.check(wanted if unchanged else changed, live.resources, schemas)
    return replace(drafted, notes=notes), Verdict.together([stored.verdict, checked])


def _guarded(settled: Plan, live: Live, allowed: Allowed, *, writes: bool) -> Plan:
    """The plan with what the guards say that judge what would really change."""
    if not allowed.replace:
        settled = plan.refuse_replacing(settled)
    weaker = dict(weakening.weakened(settled, live))
    settled = replace(settled, weakening=frozenset(weaker))
    asked = [change.identity for change in settled.effective if change.identity in weaker]
    if allowed.weaken or not asked:
        return settled
    if writes:
        refusal = guards.weakens([f"{identity}: {weaker[identity]}" for identity in asked])
        return replace(settled, refusals=(*settled.refusals, refusal))
    return replace(settled, notes=(*settled.notes, guards.weakens_note(list(map(str, asked)))))


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


def left_out(prepared: Prepared, on_failure: OnFailure) -> Mapping[Identity, str]:
    """The changes that are not to be made, and why: with OnFailure.CONTINUE the invalid ones and what needs them.

    Raises as `require_allowed` for all that keeps everything from being written: a guard's refusal in every mode,
    and policies that are not valid where the others may not go on without them, or nothing is left to go on with.
    """
    reasons: dict[Identity, str] = {}
    for finding in prepared.verdict.errors:
        said = f"[{finding.layer.value}] {finding.problem}"
        reasons[finding.policy] = f"{reasons[finding.policy]}\n{said}" if finding.policy in reasons else said
    valid = any(change.identity not in reasons for change in prepared.plan.effective)
    if on_failure is not OnFailure.CONTINUE or prepared.plan.refusals or not valid:
        require_allowed(prepared)
    return references.left_out(prepared.plan.effective, reasons)


def unchecked(desired: PolicySet, made: Plan, verdict: Verdict, *, by_cli: bool) -> set[Identity]:
    """The policies that nobody could judge: not the server, for want of rights or of the kind, and not the CLI."""
    unasked = (Rehearsed.NOT_ASKED, Rehearsed.OFFLINE)
    by_server = {change.identity for change in made.changes if change.rehearsed not in unasked}
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
    writing: WriteSettings,
    journalling: Journalling,
    afterwards: Callable[[Held, Stop, Outcome], None] = lambda *_: None,
) -> Outcome:
    """Take the lock, make the plan, and write all of it or none of it, or what `writing.on_failure` says.

    What a run that died left is taken back first (`recovery`). `afterwards` is called, still inside the lock, when
    all is in place.

    Raises Locked, Refusal, InvalidPolicies and whatever keeps the plan from being made; from the first write on,
    the outcome tells.
    """
    stop = Stop()
    try:
        # Entered late and left last: a signal must not cut off the undo, nor the release of the lock.
        with ExitStack() as signals, ExitStack() as locks:
            held = locks.enter_context(locked(leases, locking, stop))
            recovery = Recovery(cluster=cluster, journalling=journalling, held=held, stop=stop, settings=writing)
            with on_signals(stop):
                superseded = recovery.before_a_run()
            prepared = prepare_plan()
            announce(prepared)
            refused = left_out(prepared, writing.on_failure)
            _require_rights(
                cluster, prepared.plan, refused, (*locking.uses, *journalling.store.uses), writing.on_failure
            )
            signals.enter_context(on_signals(stop))
            outcome = _executed(cluster, prepared, stop, writing, refused, recovery.journal(superseded))
            if outcome.success:
                afterwards(held, stop, outcome)
    except KeyboardInterrupt as error:
        raise interrupted(error) from error
    return replace(outcome, signalled=stop.signalled)


def _require_rights(
    cluster: Cluster,
    made: Plan,
    refused: Mapping[Identity, str],
    kept: Sequence[Access],
    on_failure: OnFailure,
) -> None:
    """Raise NotPermitted where what would be written could not be confirmed, taken back or kept, nor the lock held."""
    due = [change for change in made.effective if change.identity not in refused]
    rights.require(cluster, due, kept, undo=on_failure is OnFailure.ROLLBACK)


def _executed(
    cluster: Cluster,
    prepared: Prepared,
    stop: Stop,
    writing: WriteSettings,
    refused: Mapping[Identity, str],
    journal: Journal,
) -> Outcome:
    try:
        return execute(cluster, prepared.plan.changes, stop, journal=journal, settings=writing, refused=refused)
    except KeyboardInterrupt as error:
        raise ApplyFailed(
            ExitCode.ROLLBACK_INCOMPLETE,
            "A second signal ended the run before its writes were taken back. Some of them stand.",
            hint="`insights-applier recover` takes them back, and so does the next apply or sync.",
        ) from error


def announce(prepared: Prepared) -> None:
    """Log what the plan notes and what validation only warns of: nothing is skipped in silence."""
    for note in prepared.plan.notes:
        log.warning("Note", note=note)
    for notice in prepared.verdict.notices:
        log.warning("Validation warns", layer=notice.layer.value, problem=str(notice))
    for identity, reason in prepared.verdict.unjudged:
        log.info("Not judged by the kyverno CLI", policy=str(identity), reason=reason)
