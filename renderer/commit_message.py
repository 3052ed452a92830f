"""Pure: tells a reviewer what a commit of snapshots adds, changes and removes, and what that does."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from renderer.manifest.document import Policy
from renderer.manifest.effect import compare
from renderer.manifest.policyset import PolicySet

#: The trailers of each snapshot, in this order; `git interpret-trailers --parse` reads them.
ORGANIZATION: Final = "Insights-Organization"
CLUSTER: Final = "Insights-Cluster"
SNAPSHOT: Final = "Insights-Snapshot"

_WIDTH: Final = 72
_MOST_LINES: Final = 200
_MOST_PLACES: Final = 5
_TRAILER: Final = re.compile(r"[A-Za-z0-9-]+: .+")


class Action(Enum):
    """What a commit does to one policy's file."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One policy that a snapshot gains, changes or loses: how it is called, and what that does."""

    action: Action
    name: str
    effect: str
    weakens: bool = False
    enforced_before: bool = False
    enforces_after: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotChange:
    """What a commit changes in one snapshot. It holds no policy's body, so a thousand of them are small."""

    organization: str
    cluster: str
    digest: str
    policies: tuple[PolicyChange, ...] = ()

    @property
    def place(self) -> str:
        """How a message names the cluster."""
        return _line(f"{self.organization}/{self.cluster}")


def snapshot_change(
    before: PolicySet | None, after: PolicySet, *, organization: str, cluster: str, digest: str
) -> SnapshotChange:
    """Compare the policies of one cluster before (None: there was no snapshot) and after, whose digest is `digest`."""
    before = before or PolicySet(())
    found = [_policy_change(policy, None) for policy in before if policy.identity not in after]
    for policy in after:
        earlier = before.get(policy.identity)
        if earlier is None or earlier.body != policy.body:
            found.append(_policy_change(earlier, policy))
    return SnapshotChange(organization=organization, cluster=cluster, digest=digest, policies=tuple(found))


def _policy_change(before: Policy | None, after: Policy | None) -> PolicyChange:
    identity = (after or before).identity  # type: ignore[union-attr] # one of the two is there
    effect = compare(before.body if before else None, after.body if after else None, identity.kind)
    action = Action.CHANGED if before and after else Action.ADDED if after else Action.REMOVED
    return PolicyChange(
        action=action,
        name=str(identity),
        effect=effect.summary,
        weakens=effect.weakens,
        enforced_before=effect.enforced_before,
        enforces_after=effect.enforces_after,
    )


def commit_message(changes: Sequence[SnapshotChange], *, text: str = "") -> str:
    """The message for these snapshots, one or a fleet: subject, body and trailers.

    `text`, where the user gives it, takes the place of subject and body; the trailers follow it all the same.
    """
    return with_trailers(text if text.strip() else f"{_subject(changes)}\n\n{_body(changes)}", changes)


def with_trailers(text: str, changes: Iterable[SnapshotChange]) -> str:
    """The text, and after it (or after the trailers that it ends with) what each snapshot is."""
    text = text.strip()
    trailers = [
        f"{name}: {_line(value)}"
        for change in changes
        for name, value in (
            (ORGANIZATION, change.organization),
            (CLUSTER, change.cluster),
            (SNAPSHOT, f"sha256:{change.digest}"),
        )
    ]
    _, gap, last = text.rpartition("\n\n")
    continues = bool(gap) and all(_TRAILER.fullmatch(line) for line in last.splitlines())
    return text + ("\n" if continues else "\n\n") + "\n".join(trailers) + "\n"


_TO_THE_CLUSTER: Final = {
    Action.ADDED: "Add {} to {}",
    Action.CHANGED: "Change {} of {}",
    Action.REMOVED: "Remove {} from {}",
}


def _subject(changes: Sequence[SnapshotChange]) -> str:
    places = changes[0].place if len(changes) == 1 else f"{len(changes)} clusters"
    policies = [policy for change in changes for policy in change.policies]
    if len(changes) == 1 and len(policies) == 1:
        subject = _TO_THE_CLUSTER[policies[0].action].format(policies[0].name, places)
        if len(subject) <= _WIDTH:
            return subject
    counts = {action: sum(policy.action is action for policy in policies) for action in Action}
    told = ", ".join(f"{count} {action.value}" for action, count in counts.items() if count)
    return f"Update policies of {places}: {told}" if told else f"Update the snapshot of {places}"


@dataclass(slots=True)
class _Section:
    title: str
    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, line: str, place: str) -> None:
        """Add a line, or one more place to an equal line."""
        self.lines.setdefault(line, []).append(place)


def _body(changes: Sequence[SnapshotChange]) -> str:
    """What enforces differently first, then every policy; what several clusters share is said once."""
    sections = {
        "enforces": _Section("Now enforces"),
        "ceases": _Section("No longer enforces"),
        "weakens": _Section("Enforces less, or may"),
        Action.ADDED: _Section("Added"),
        Action.CHANGED: _Section("Changed"),
        Action.REMOVED: _Section("Removed"),
    }
    for change in changes:
        for policy in change.policies:
            sections[policy.action].add(f"{policy.name}: {_line(policy.effect)}", change.place)
            kind = _enforcement(policy)
            if kind:
                sections[kind].add(policy.name, change.place)
    paragraphs = list(_paragraphs(sections, several=len(changes) > 1))
    return "\n\n".join(paragraphs) or "No policy changes, only how the snapshot is written."


def _enforcement(policy: PolicyChange) -> str:
    if policy.enforces_after and not policy.enforced_before:
        return "enforces"
    if policy.enforced_before and not policy.enforces_after:
        return "ceases"
    return "weakens" if policy.weakens else ""


def _paragraphs(sections: Mapping[object, _Section], *, several: bool) -> Iterator[str]:
    room = _MOST_LINES
    for section in sections.values():
        if section.lines:
            shown = list(section.lines.items())[:room]
            room -= len(shown)
            lines = [_bullet(line, places if several else []) for line, places in shown]
            if len(shown) < len(section.lines):
                lines.append(f"- … and {len(section.lines) - len(shown)} more, which the diff shows")
            yield "\n".join([f"{section.title} ({len(section.lines)}):", *lines])


def _bullet(line: str, places: Sequence[str]) -> str:
    if places:
        more = len(places) - _MOST_PLACES
        line += f" ({', '.join(places[:_MOST_PLACES])}{f' and {more} more clusters' if more > 0 else ''})"
    return textwrap.fill(
        line, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _line(text: str) -> str:
    """The text on one line, without signs that would break a line or control a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
