"""A plan and a verdict as plain text for people, coloured where colours can be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import click

from applier import risk
from applier.change import Action, Change, Plan, Refused, Rehearsed
from applier.report import difference
from applier.risk import Risk
from applier.verdict import Verdict
from renderer.errors import printable

_SIGNS: Final = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.ADOPT: ("~", "yellow"),
    Action.REPLACE: ("±", "red"),
    Action.DELETE: ("-", "red"),
    Action.REFUSED: ("!", "red"),
}
_RISKS_SHOWN: Final = 5
_SAID_BY_ITS_LINE: Final = ("policy-deleted", "policy-adopted")
#: What every line of a difference, and no other line, begins with.
DIFF_INDENT: Final = "    "
#: What every summary says of a run in which the second layer of validation was turned off.
CLI_SKIPPED: Final = "The kyverno CLI was not asked (VALIDATE_POLICIES=false)"
_NOT_ASKED: Final = "not dry-run: this account may not write it, so the server's defaults may show as changes"
_LINE_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}


def plan_lines(plan: Plan, *, where: str, diffs: bool = True, said: Sequence[str] = ()) -> Iterator[str]:
    """The plan: a line that counts, the changes, what is refused, what more is `said` of it, and the count again.

    `where` says of what: `on https://…`, `against FILE`.
    """
    between = [""] if diffs else []
    yield from overview_lines(plan, where=where, diffs=diffs)
    if said:
        yield from (*(between if said[0] else ()), *said)
    if plan.effective or plan.refusals or said:
        yield from (*between, _headline(plan, where))


def overview_lines(plan: Plan, *, where: str, diffs: bool = False) -> Iterator[str]:
    """The first part of it: a line that counts, each change, and what is refused."""
    yield _headline(plan, where)
    if risks := risk.counts(plan):
        yield click.style(f"Risk: {risks}", fg="red")
    yield from _note_lines(plan)
    for change in risk.shown(plan):
        if diffs:
            yield ""
        yield from _change_lines(change, plan, diffs=diffs)
    for refusal in plan.refusals:
        yield ""
        yield from refusal_lines(refusal)


def brief_lines(plan: Plan, *, where: str, verdict: Verdict) -> Iterator[str]:
    """The line that counts, and what keeps the plan from being applied."""
    yield _headline(plan, where)
    yield from blocking_lines(plan, verdict)


def blocking_lines(plan: Plan, verdict: Verdict) -> Iterator[str]:
    """What guards refuse, and what is not valid."""
    for refusal in plan.refusals:
        yield from refusal_lines(refusal)
    yield from error_lines(verdict)


def _headline(plan: Plan, where: str) -> str:
    return click.style(f"{counts(plan)} {where}", bold=True)


def aside_lines(plan: Plan, verdict: Verdict) -> Iterator[str]:
    """What people must not miss where the plan itself is shown to a program."""
    yield from _note_lines(plan)
    for refusal in plan.refusals:
        yield from refusal_lines(refusal)
    yield from verdict_lines(verdict)


def _note_lines(plan: Plan) -> Iterator[str]:
    for note in plan.notes:
        yield click.style(f"Note: {note}.", fg="yellow")


def counts(plan: Plan) -> str:
    """`2 to create, 1 to update, 57 unchanged`; `No changes: 60 unchanged` when nothing is to be done."""
    named = [
        (len(plan.of(Action.CREATE)), "to create"),
        (len(plan.of(Action.UPDATE)), "to update"),
        (len(plan.of(Action.ADOPT)), "to adopt"),
        (len(plan.of(Action.REPLACE)), "to replace"),
        (len(plan.of(Action.DELETE)), "to delete"),
    ]
    parts = [f"{count} {what}" for count, what in named if count]
    refused = len(plan.of(Action.REFUSED))
    unchanged = f"{len(plan.of(Action.UNCHANGED))} unchanged" + (f", {refused} refused" if refused else "")
    return ", ".join([*parts, unchanged]) if parts else f"No changes: {unchanged}"


def refusal_lines(refusal: Refused) -> Iterator[str]:
    """What a guard refuses, of what, and how to allow it."""
    yield click.style(f"Refused: {refusal.message}", fg="red", bold=True)
    for subject in refusal.subjects:
        yield f"  {subject}"
    yield refusal.hint


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """Every finding, errors first, and what could not be judged."""
    yield from error_lines(verdict)
    yield from warning_lines(verdict)
    for identity, reason in verdict.unjudged:
        yield f"{click.style('note', fg='cyan')} {printable(f'{identity}: {reason}', indent='  ')}"


def error_lines(verdict: Verdict) -> Iterator[str]:
    """What keeps policies from being applied."""
    for finding in verdict.errors:
        yield f"{click.style('error', fg='red', bold=True)} [{finding.layer.value}] {finding.problem}"


def warning_lines(verdict: Verdict) -> Iterator[str]:
    """What validation only warns of, each text once."""
    for notice in verdict.notices:
        yield f"{click.style('warning', fg='yellow')} [{notice.layer.value}] {notice}"


def _change_lines(change: Change, plan: Plan, *, diffs: bool) -> Iterator[str]:
    sign, colour = _SIGNS[change.action]
    remarks = [change.reason] if change.reason else []
    if change.drifted_by and change.action is Action.UPDATE:
        remarks.append(f"spec also written by {', '.join(change.drifted_by)}")
    if change.rehearsed is Rehearsed.NOT_ASKED and change.action is not Action.REFUSED:
        remarks.append("not dry-run" if change.action is Action.DELETE else _NOT_ASKED)
    if change.rehearsed is Rehearsed.REFUSED:
        remarks.append("it is refused, see below")
    remark = f"  ({'; '.join(remarks)})" if remarks else ""
    yield click.style(f"{sign} {change.action.value} {change.identity}", fg=colour, bold=True) + remark
    yield from _risk_lines(risk.of_change(change, plan))
    if diffs:
        for line in difference.lines(change):
            yield click.style(f"{DIFF_INDENT}{line}", fg=_LINE_COLOURS.get(line[:1]))


def _risk_lines(risks: Sequence[Risk]) -> Iterator[str]:
    """What the change does to the cluster, in words, the worst first; what its own line says already is left out."""
    told = [one for one in risks if one.code not in _SAID_BY_ITS_LINE]
    for one in told[:_RISKS_SHOWN]:
        yield click.style(f"  {one.text}", fg="red") if one.level.warns else f"  {one.text}"
    if len(told) > _RISKS_SHOWN:
        yield f"  And {len(told) - _RISKS_SHOWN} more changes of what it does."
