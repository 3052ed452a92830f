"""The revisions that are kept, as a table for people and as a JSON document for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from applier.history.revisions import Revision
from applier.journal.sealed import Trust
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject

#: The version of the JSON document; a field that goes or changes its meaning makes a new one.
FORMAT_VERSION: Final = 1
_HEADINGS: Final = ("REVISION", "KEPT", "BY", "WITH", "POLICIES", "CHANGED", "DIGEST", "STATE")
#: As much of a digest as people compare.
_DIGEST_SHOWN: Final = 12
_NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The revisions in `place`, the latest first; `current` is the name of the one that was put in place last.

    `differing` are the policies that are no longer as it has them; `unknown` is why that can't be told, or "".
    """

    place: str
    revisions: tuple[Revision, ...]
    current: str = ""
    differing: tuple[Identity, ...] = ()
    unknown: str = ""

    def live(self, revision: Revision) -> bool | None:
        """Whether the cluster holds it now; None for the latest one when that can't be told."""
        if revision.name != self.current:
            return False
        return None if self.unknown else not self.differing


def lines(listing: Listing) -> Iterator[str]:
    """A table of the revisions, and below it what has to be known of them."""
    if not listing.revisions:
        yield f"No revision is kept in {listing.place}."
        return
    rows = [_HEADINGS, *(_row(listing, one) for one in listing.revisions)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for number, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield click.style(line, bold=True) if number == 0 else line
    if listing.unknown:
        yield click.style(f"Note: whether the latest one is live can't be told: {listing.unknown}", fg="yellow")
    if listing.differing:
        named = ", ".join(map(str, listing.differing[:_NAMES_SHOWN]))
        more = len(listing.differing) - _NAMES_SHOWN
        others = f" and {more} more" if more > 0 else ""
        yield click.style(f"Note: changed since the latest one was put in place: {named}{others}.", fg="yellow")
    for one in listing.revisions:
        if one.problem:
            yield click.style(f"Note: {one.name} can't be used: {one.problem}", fg="yellow")
    for trust in (trust for trust in Trust if trust is not Trust.VERIFIED):
        numbers = [str(one.number) for one in listing.revisions if not one.problem and one.trust is trust]
        if numbers:
            yield click.style(f"Note: what can't be verified: {', '.join(numbers)}; {trust.value}.", fg="yellow")


def document(listing: Listing) -> JsonObject:
    """The same as JSON values; what can't be read of a revision is null."""
    return {
        "formatVersion": FORMAT_VERSION,
        "place": listing.place,
        "revisions": [_entry(listing, one) for one in listing.revisions],
    }


def _row(listing: Listing, one: Revision) -> tuple[str, ...]:
    head = one.head
    if head is None:
        return ("?", "", "", "", "", "", "", "unusable")
    changed = " ".join(
        f"{sign}{count}" for sign, count in (("+", head.created), ("~", head.updated), ("-", head.deleted)) if count
    )
    return (
        str(head.number),
        _shown(head.kept),
        _shown(head.account or head.run),
        _shown(head.origin.command),
        str(head.policies),
        changed or "none",
        head.digest[:_DIGEST_SHOWN],
        _state(listing, one),
    )


def _shown(words: str) -> str:
    """What nobody may vouch for, with nothing in it that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _state(listing: Listing, one: Revision) -> str:
    if one.problem:
        return "unusable"
    words = [] if one.trust is Trust.VERIFIED else ["not verified"]
    if one.name == listing.current:
        live = {True: "live", False: f"latest, {len(listing.differing)} differ", None: "latest"}
        words.insert(0, live[listing.live(one)])
    return ", ".join(words)


def _entry(listing: Listing, one: Revision) -> JsonObject:
    entry: JsonObject = {
        "name": one.name,
        "problem": one.problem or None,
        "verified": one.verified,
        "trust": one.trust.value if one.head else None,
        "latest": one.name == listing.current,
        "live": listing.live(one),
        "differing": [str(identity) for identity in listing.differing] if one.name == listing.current else [],
    }
    head = one.head
    if head is None:
        return entry
    return entry | {
        "revision": head.number,
        "kept": head.kept,
        "account": head.account or None,
        "run": head.run,
        "command": head.origin.command,
        "organization": head.origin.organization or None,
        "cluster": head.origin.cluster or None,
        "commit": head.origin.commit or None,
        "digest": head.digest,
        "policies": head.policies,
        "created": head.created,
        "updated": head.updated,
        "deleted": head.deleted,
    }
