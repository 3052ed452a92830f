"""The words for an impact, which every report takes from here; and all of it as text, and in a plan's document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import click

from applier.impact.model import Affected, Effect, Impact, Resource, counted
from renderer.errors import printable
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject

_WORDS: Final = {
    Effect.BLOCKED: "newly blocked",
    Effect.REPORTED: "newly reported",
    Effect.LET_THROUGH: "newly let through",
}
_COLOURS: Final = {Effect.BLOCKED: "red", Effect.REPORTED: "yellow", Effect.LET_THROUGH: "cyan"}
#: How many resources of one rule, and subjects of one reason, are named.
_NAMED: Final = 5
_MESSAGE_LIMIT: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one rule does to resources of one namespace (`namespace` is "" for those of the cluster)."""

    namespace: str
    policy: Identity
    rule: str
    message: str
    resources: Sequence[Resource]


def outcome(effect: Effect) -> str:
    """What it means for a resource, in words."""
    return _WORDS[effect]


def counts(impact: Impact) -> str:
    """`3 newly blocked, 0 newly reported, 1 newly let through`."""
    return ", ".join(f"{impact.count(effect)} {outcome(effect)}" for effect in Effect)


def headline(impact: Impact) -> str:
    """The same with what it is on."""
    return f"Impact on {impact.source}: {counts(impact)}"


def evaluated(impact: Impact) -> str:
    """How much was looked at, as a sentence."""
    resources, policies = _count(impact.resources, "resource"), _count(impact.policies, "changed policy")
    return f"{resources} evaluated as if created now, by {policies}."


def not_evaluated(impact: Impact) -> Iterator[str]:
    """What was not, and why; many subjects of one reason are not all named."""
    for entry in impact.not_evaluated:
        yield f"{some(entry.subjects)}: {entry.reason}"


def rows(impact: Impact, effect: Effect) -> Iterator[Row]:
    """What has that effect, namespace by namespace, the one with the most resources first, and rule by rule in it."""
    for namespace, affected in impact.by_namespace(effect):
        for (policy, rule), group in groupby(affected, key=lambda one: (one.policy, one.rule)):
            found = list(group)
            yield Row(
                namespace=namespace,
                policy=policy,
                rule=rule,
                message=shortened(found[0].message),
                resources=[one.resource for one in found],
            )


def sentence(first: Affected, resources: Sequence[Resource]) -> str:
    """What a rule does to these, as `Rule team: 7 resources newly blocked: ConfigMap/shop/a, … and 2 more.` has it."""
    rule = f"Rule {first.rule}: " if first.rule else ""
    named = some([resource.described for resource in resources])
    return f"{rule}{_count(counted(resources), 'resource')} {outcome(first.effect)}: {named}."


def of_one(resource: Resource, rule: str, message: str, effect: Effect | None) -> str:
    """What a rule does to one, as `Rule team: ConfigMap/shop/a newly blocked: Set the label team.` has it."""
    what = f" {outcome(effect)}" if effect else ""
    return f"{f'Rule {rule}: ' if rule else ''}{resource.described}{what}: {message}"


def where(namespace: str) -> str:
    """`in shop`, or for what is in no namespace."""
    return f"in {namespace}" if namespace else "of the cluster"


def rule_of(policy: Identity, rule: str) -> str:
    """The policy with its rule, where it has rules."""
    return f"{policy} rule {rule}" if rule else str(policy)


def some(subjects: Sequence[object]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(subjects) - _NAMED} more" if len(subjects) > _NAMED else ""
    return ", ".join(map(str, subjects[:_NAMED])) + more


def shortened(message: str) -> str:
    """A rule's message, which may be of any length, as far as people read it where there are many."""
    return message if len(message) <= _MESSAGE_LIMIT else f"{message[:_MESSAGE_LIMIT]}…"


def _count(number: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


# --- for people at a terminal ----------------------------------------------------------------------


def impact_lines(impact: Impact) -> Iterator[str]:
    """What would become of each resource if it were created again, the worst first."""
    yield ""
    yield click.style(headline(impact), bold=True)
    yield f"  {evaluated(impact)}"
    for effect in Effect:
        for namespace, found in groupby(rows(impact, effect), key=lambda row: row.namespace):
            yield click.style(
                f"  {outcome(effect)} {printable(where(namespace), indent='    ')}", fg=_COLOURS[effect], bold=True
            )
            for row in found:
                said = f"{rule_of(row.policy, row.rule)}: {row.message}"
                yield f"    {printable(said, indent='      ')}"
                yield f"      {printable(some(row.resources), indent='      ')}"
    for sentence in not_evaluated(impact):
        yield f"  {click.style('not evaluated', fg='yellow')} {printable(sentence, indent='    ')}"


# --- for programs ----------------------------------------------------------------------------------


def impact_document(impact: Impact) -> JsonObject:
    """The same whole, as the schema of a plan has it."""
    return {
        "source": impact.source,
        "policies": impact.policies,
        "resources": impact.resources,
        "summary": {effect.value: impact.count(effect) for effect in Effect},
        "affected": [_affected(one) for one in impact.affected],
        "notEvaluated": [{"reason": one.reason, "subjects": list(one.subjects)} for one in impact.not_evaluated],
    }


def _affected(one: Affected) -> JsonObject:
    kind, resource = one.policy.kind, one.resource
    return {
        "effect": one.effect.value,
        "policy": {"group": kind.group, "kind": kind.name, "namespace": one.policy.namespace, "name": one.policy.name},
        "rule": one.rule or None,
        "resource": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": resource.namespace,
            "name": resource.name,
            "alike": resource.alike,
        },
        "message": one.message,
    }
