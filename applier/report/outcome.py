"""What became of an apply, as plain text for people."""

from __future__ import annotations

from collections.abc import Iterator

import click

from applier.transaction.execution import Outcome


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """What was written, or what became of it."""
    for sign, colour, identities in (
        ("+", "green", outcome.applied),
        ("~", "yellow", outcome.updated),
        ("-", "red", outcome.removed),
    ):
        for identity in identities:
            yield click.style(f"{sign} {identity}", fg=colour)
    for identity, why in outcome.changed_since:
        yield click.style(f"changed since {identity}: {why}", fg="yellow")
    for identity, why in outcome.failed:
        yield click.style(f"failed {identity}: {why}", fg="red")
    for identity in outcome.restored:
        yield f"restored {identity}"
    for identity, why in outcome.left_alone:
        yield click.style(f"left alone {identity}: {why}", fg="yellow")
    for identity, why in outcome.not_undone:
        yield click.style(f"not restored {identity}: {why}", fg="red")
