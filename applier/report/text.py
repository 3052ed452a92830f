"""A plan, a verdict and an outcome as plain text for people, coloured where colours can be seen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

import click

from applier.change import Action, Change, Plan, Refused, Rehearsed
from applier.transaction import Outcome
from applier.verdict import Verdict
from renderer.manifest import effect, yamlio
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content

_SIGNS: Final = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.ADOPT: ("~", "yellow"),
    Action.DELETE: ("-", "red"),
}
_EFFECTS_SHOWN: Final = 5
_LINE_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}


def plan_lines(plan: Plan, *, server: str, diffs: bool = True) -> Iterator[str]:
    """The plan: a line that counts, each change with its difference, what is refused, and the count again."""
    headline = f"{counts(plan)} on {server}"
    yield click.style(headline, bold=True)
    for note in plan.notes:
        yield click.style(f"Note: {note}.", fg="yellow")
    for change in plan.effective:
        if diffs:
            yield ""
        yield from _change_lines(change, diffs=diffs)
    for refusal in plan.refusals:
        yield ""
        yield from refusal_lines(refusal)
    if plan.effective and diffs:
        yield ""
        yield click.style(headline, bold=True)


def counts(plan: Plan) -> str:
    """`2 to create, 1 to update, 57 unchanged`; `No changes: 60 unchanged` when nothing is to be done."""
    named = [
        (len(plan.of(Action.CREATE)), "to create"),
        (len(plan.of(Action.UPDATE)), "to update"),
        (len(plan.of(Action.ADOPT)), "to adopt"),
        (len(plan.of(Action.DELETE)), "to delete"),
    ]
    parts = [f"{count} {what}" for count, what in named if count]
    unchanged = f"{len(plan.of(Action.UNCHANGED))} unchanged"
    return ", ".join([*parts, unchanged]) if parts else f"No changes: {unchanged}"


def refusal_lines(refusal: Refused) -> Iterator[str]:
    """What a guard refuses, of what, and how to allow it."""
    yield click.style(f"Refused: {refusal.message}", fg="red", bold=True)
    for subject in refusal.subjects:
        yield f"  {subject}"
    yield refusal.hint


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """Every finding, errors first, and what could not be judged."""
    for finding in verdict.errors:
        yield f"{click.style('error', fg='red', bold=True)} [{finding.layer.value}] {finding.problem}"
    for finding in verdict.warnings:
        yield f"{click.style('warning', fg='yellow')} [{finding.layer.value}] {finding.problem}"
    for identity, reason in verdict.unjudged:
        yield f"{click.style('note', fg='cyan')} {identity}: {reason}"


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """What was written, or what became of it."""
    for sign, colour, identities in (
        ("+", "green", outcome.applied),
        ("~", "yellow", outcome.updated),
        ("-", "red", outcome.removed),
    ):
        for identity in identities:
            yield click.style(f"{sign} {identity}", fg=colour)
    for identity in outcome.restored:
        yield f"restored {identity}"
    for identity, why in outcome.left_alone:
        yield click.style(f"left alone {identity}: {why}", fg="yellow")
    for identity, why in outcome.not_undone:
        yield click.style(f"not restored {identity}: {why}", fg="red")


def _change_lines(change: Change, *, diffs: bool) -> Iterator[str]:
    sign, colour = _SIGNS[change.action]
    remarks = []
    if change.drifted_by and change.action is Action.UPDATE:
        remarks.append(f"spec also written by {', '.join(change.drifted_by)}")
    if change.rehearsed is Rehearsed.NOT_ASKED:
        remarks.append("not dry-run: this account may not write it, so the server's defaults may show as changes")
    if change.rehearsed is Rehearsed.REFUSED:
        remarks.append("the server refuses it, see below")
    remark = f"  ({'; '.join(remarks)})" if remarks else ""
    yield click.style(f"{sign} {change.action.value} {change.identity}", fg=colour, bold=True) + remark
    yield from _effect_lines(change)
    if diffs:
        yield from _difference(change)


def _effect_lines(change: Change) -> Iterator[str]:
    """What the change does to the cluster, in words, the worst first."""
    found = effect.compare(change.before, change.after, change.identity.kind).changes
    for entry in found[:_EFFECTS_SHOWN]:
        sentence = f"  {entry.sentence[0].upper()}{entry.sentence[1:]}."
        yield click.style(sentence, fg="red") if entry.weakens else sentence
    if len(found) > _EFFECTS_SHOWN:
        yield f"  And {len(found) - _EFFECTS_SHOWN} more changes of what it does."


def _difference(change: Change) -> Iterable[str]:
    kind = change.identity.kind
    before, after = _yaml(change.before, kind), _yaml(change.after, kind)
    lines = list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]
    for line in lines:
        # Where all is new or all goes, the place says nothing.
        if line.startswith("@@") and not (before and after):
            continue
        yield click.style(f"    {line}", fg=_LINE_COLOURS.get(line[:1]))


def _yaml(body: JsonObject | None, kind: Kind) -> list[str]:
    return yamlio.dump(content(body, kind)).splitlines() if body is not None else []
