"""Pure: from what the kyverno CLI says of a resource under each version to what the plan changes for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from applier.guards.own_writes import selects
from applier.impact.exclusions import Exclusions
from applier.impact.model import Affected, Effect, Resource
from applier.impact.versions import Side, Version
from renderer.manifest.effect.enforcement import Enforcement, Level
from renderer.manifest.identity import Identity

_GENERATED: Final = ("autogen-cronjob-", "autogen-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one rule says of one resource: `outcome` is pass, fail, warn, skip or error."""

    version: Version
    rule: str
    outcome: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the plan changes for a resource; `unsure` names the new rules that fail to be evaluated on it, and why."""

    affected: tuple[Affected, ...] = ()
    unsure: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What violates what on one side, with its message.

    What fails to be evaluated is among what is blocked where Kyverno blocks it, else in `errors`: it goes through.
    """

    blocked: Mapping[tuple[Identity, str], str]
    reported: Mapping[tuple[Identity, str], str]
    errors: Mapping[tuple[Identity, str], str]

    @property
    def violated(self) -> set[str]:
        """The names of the policies that find fault; by name, so that a policy may be moved to another kind."""
        return {policy.name for policy, _ in (*self.blocked, *self.reported)}


def judge(resource: Resource, labels: Mapping[str, str], rows: Sequence[Row], exclusions: Exclusions) -> Judgement:
    """Compare both sides; `labels` are those of the namespace that the resource is in."""
    counted = [row for row in rows if _counts(row, resource, labels, exclusions)]
    before, after = (_side(side, resource, labels, counted) for side in (Side.BEFORE, Side.AFTER))
    unsure = tuple(_unsure(after.errors))
    if after.blocked and not before.blocked:
        effect, found = Effect.BLOCKED, after.blocked
    elif before.blocked and not after.blocked:
        effect, found = Effect.LET_THROUGH, before.blocked
    elif after.blocked:
        return Judgement(unsure=unsure)
    else:
        known = before.violated
        effect = Effect.REPORTED
        found = {key: message for key, message in after.reported.items() if key[0].name not in known}
    return Judgement(affected=tuple(_affected(resource, effect, found)), unsure=unsure)


def _counts(row: Row, resource: Resource, labels: Mapping[str, str], exclusions: Exclusions) -> bool:
    """Whether the cluster would ask this policy: the CLI does so for every resource, wherever it is."""
    own = row.version.policy.namespace
    if own and own != resource.namespace:
        return False
    return row.version.asked_by_server or not exclusions.leave_out(resource, labels)


def _side(side: Side, resource: Resource, labels: Mapping[str, str], rows: Iterable[Row]) -> _Said:
    blocked: dict[tuple[Identity, str], str] = {}
    reported: dict[tuple[Identity, str], str] = {}
    errors: dict[tuple[Identity, str], str] = {}
    for row in rows:
        levels = row.version.levels.get(side)
        if levels is None or row.outcome not in ("fail", "warn", "error"):
            continue
        rule = _own_name(row.rule, levels)
        key = (row.version.policy, rule)
        level = level_in(levels[rule], resource.namespace, labels) if rule in levels else Level.OFF
        if row.outcome == "error" and not (level is Level.DENY and side in row.version.closed):
            errors.setdefault(key, row.message)
        elif level is Level.DENY:
            blocked.setdefault(key, row.message)
        elif level is not Level.OFF:
            reported.setdefault(key, row.message)
    return _Said(blocked=blocked, reported=reported, errors=errors)


def _own_name(rule: str, levels: Mapping[str, Enforcement]) -> str:
    """The rule from which Kyverno made one for a controller of Pods; "" where the policy is its own rule."""
    if "" in levels:
        return ""
    if rule in levels:
        return rule
    return next((rule.removeprefix(start) for start in _GENERATED if rule.startswith(start)), rule)


def level_in(enforcement: Enforcement, namespace: str, labels: Mapping[str, str]) -> Level:
    """What a rule does in one namespace: what the first override that matches says, or else its own action."""
    for place in enforcement.places:
        named = place.get("namespaces")
        if named and not any(fnmatchcase(namespace, pattern) for pattern in named):
            continue
        if selects(place.get("namespaceSelector"), labels, complete=True):
            return Level(place["action"]) if "action" in place else enforcement.elsewhere
    return enforcement.level


def _affected(resource: Resource, effect: Effect, found: Mapping[tuple[Identity, str], str]) -> Iterator[Affected]:
    for (policy, rule), message in found.items():
        yield Affected(effect=effect, policy=policy, rule=rule, resource=resource, message=message)


def _unsure(errors: Mapping[tuple[Identity, str], str]) -> Iterator[tuple[str, str]]:
    for (policy, rule), message in errors.items():
        yield f"{policy} rule {rule}" if rule else str(policy), message
