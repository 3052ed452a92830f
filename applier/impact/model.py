"""The model of an impact: what a plan's changes do to resources that are there already, for every report to show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from renderer.manifest.identity import Identity


class Effect(Enum):
    """What becomes of a resource when it is created again, the worst first."""

    BLOCKED = "blocked"
    REPORTED = "reported"
    LET_THROUGH = "letThrough"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Resource:
    """A resource that was evaluated; `alike` more Pods of the same owner are the same but for their names."""

    kind: str
    namespace: str
    name: str
    api_version: str = ""
    alike: int = 0

    def __str__(self) -> str:
        more = f" (and {self.alike} alike)" if self.alike else ""
        return f"{self.kind}/{self.name}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """One rule of a policy (`rule` is "" where the policy is its own rule), and what it would newly do to a resource.

    `message` is the rule's: for what is let through, the one that kept it out.
    """

    effect: Effect
    policy: Identity
    rule: str
    resource: Resource
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotEvaluated:
    """What could not be looked at, and why: rules, kinds, or so many resources of a rule."""

    reason: str
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """All of it. `source` is where the resources are from; `policies` and `resources` count what was evaluated."""

    source: str
    policies: int
    resources: int
    affected: tuple[Affected, ...] = ()
    not_evaluated: tuple[NotEvaluated, ...] = ()

    def count(self, effect: Effect) -> int:
        """How many resources that is, each once, however many rules say so."""
        found = {one.resource: one.resource.alike for one in self.affected if one.effect is effect}
        return len(found) + sum(found.values())

    def by_namespace(self, effect: Effect) -> list[tuple[str, list[Affected]]]:
        """Those of one effect by namespace, the one with the most resources first."""
        counts = Counter(resource.namespace for resource in {a.resource for a in self.affected if a.effect is effect})
        return [
            (name, [one for one in self.affected if one.effect is effect and one.resource.namespace == name])
            for name, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        ]


_ORDER = list(Effect)


def in_order(affected: list[Affected]) -> tuple[Affected, ...]:
    """The worst first, then by namespace, policy, rule and resource."""
    return tuple(
        sorted(
            affected,
            key=lambda one: (_ORDER.index(one.effect), one.resource.namespace, one.policy, one.rule, one.resource),
        )
    )
