"""An impact as text for people, and as the part of a plan's document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import click

from applier.impact.model import Affected, Effect, Impact
from renderer.errors import printable
from renderer.manifest.jsontypes import JsonObject

_WORDS: Final = {
    Effect.BLOCKED: ("newly blocked", "red"),
    Effect.REPORTED: ("newly reported", "yellow"),
    Effect.LET_THROUGH: ("newly let through", "cyan"),
}
#: How many resources of one rule, and subjects of one reason, are named.
_NAMED: Final = 5
_MESSAGE_LIMIT: Final = 300


def impact_lines(impact: Impact) -> Iterator[str]:
    """What would become of each resource if it were created again, the worst first."""
    yield ""
    counts = ", ".join(f"{impact.count(effect)} {_WORDS[effect][0]}" for effect in Effect)
    yield click.style(f"Impact on {impact.source}: {counts}", bold=True)
    yield (
        f"  {_count(impact.resources, 'resource')} evaluated as if created now, "
        f"by {_count(impact.policies, 'changed policy')}."
    )
    for effect in Effect:
        for namespace, affected in impact.by_namespace(effect):
            yield from _namespace_lines(effect, namespace, affected)
    for sentence in not_evaluated(impact):
        yield f"  {click.style('not evaluated', fg='yellow')} {printable(sentence, indent='    ')}"


def outcome(effect: Effect) -> str:
    """What it means for a resource, in words."""
    return _WORDS[effect][0]


def not_evaluated(impact: Impact) -> Iterator[str]:
    """What was not, and why; many subjects of one reason are not all named."""
    for entry in impact.not_evaluated:
        yield f"{_some(entry.subjects)}: {entry.reason}"


def _namespace_lines(effect: Effect, namespace: str, affected: Sequence[Affected]) -> Iterator[str]:
    words, colour = _WORDS[effect]
    where = f"in {namespace}" if namespace else "of the cluster"
    yield click.style(f"  {words} {where}", fg=colour, bold=True)
    for (policy, rule), group in groupby(affected, key=lambda one: (one.policy, one.rule)):
        some = list(group)
        named = f"{policy} rule {rule}" if rule else str(policy)
        message = some[0].message[:_MESSAGE_LIMIT]
        yield f"    {printable(f'{named}: {message}', indent='      ')}"
        yield f"      {printable(_some([str(one.resource) for one in some]))}"


def _some(subjects: Sequence[str]) -> str:
    more = f" and {len(subjects) - _NAMED} more" if len(subjects) > _NAMED else ""
    return ", ".join(subjects[:_NAMED]) + more


def _count(number: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


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
