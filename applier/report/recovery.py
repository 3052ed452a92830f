"""Journals and what became of them, as lines of text for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from applier.change import Change
from applier.journal.found import Found
from applier.recovery import Recovered
from applier.transaction.standing import Standing

_COLOURS = {Standing.AFTER: "yellow", Standing.BETWEEN: "red", Standing.OTHER: "red", Standing.UNKNOWN: "red"}


def journal_lines(found: Found, place: str, standing: Callable[[Change], Standing]) -> Iterator[str]:
    """One journal: whose it is, and each intent with what of it is on the cluster."""
    yield click.style(f"Journal {found.transaction} in {place}", bold=True)
    if found.head is not None:
        head = found.head
        lock = f"lock {head.fencing.lease}, holder number {head.fencing.transitions}"
        yield f"  begun {head.started} by {head.holder}, on failure {head.mode} ({lock})"
        yield f"  {_use(found)}"
    if found.problem:
        yield click.style(f"  It can't be used: {found.problem}", fg="red")
    for change in found.changes:
        state = standing(change)
        yield f"  {change.action.value} {change.identity}: " + click.style(state.value, fg=_COLOURS.get(state))


def recovered_lines(done: Recovered) -> Iterator[str]:
    """What became of one journal."""
    for identity in done.restored:
        yield f"as before {identity}"
    for identity in done.made:
        yield f"as planned {identity}"
    for identity, why in done.left_alone:
        yield click.style(f"left alone {identity}: {why}", fg="yellow")
    for identity, why in done.not_undone:
        yield click.style(f"not {'written' if done.forward else 'restored'} {identity}: {why}", fg="red")
    yield _summary(done)


def _summary(done: Recovered) -> str:
    journal = done.head.transaction
    if not done.over:
        return f"Journal {journal} stays: it is not recovered. Run `insights-applier recover` again."
    if done.left_alone:
        return f"Journal {journal} is done with; what somebody else changed since stays as it is."
    return f"Journal {journal}: everything is {'as it was planned' if done.forward else 'as it was before'}."


def _use(found: Found) -> str:
    if found.committed:
        return "Committed: it only has to be removed"
    if found.outlived:
        return "A later run has finished since: it is of no use, and only has to be removed"
    text = found.trust.value
    return text[0].upper() + text[1:]
