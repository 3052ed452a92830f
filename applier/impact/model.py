"""The model of an impact: what a plan's changes do to resources that are there already, for every report to show."""

from __future__ import annotations

from collections.abc import Iterable
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
        return f"{self.kind}/{self.name}{self._more}"

    @property
    def full_name(self) -> str:
        """Its own name with its namespace."""
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))

    @property
    def described(self) -> str:
        """The same with how many are alike, where nothing else tells in which namespace they are."""
        return f"{self.full_name}{self._more}"

    @property
    def _more(self) -> str:
        return f" (and {self.alike} alike)" if self.alike else ""


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
        return counted({one.resource for one in self.affected if one.effect is effect})

    def by_namespace(self, effect: Effect) -> list[tuple[str, list[Affected]]]:
        """Those of one effect by namespace, the one with the most resources first."""
        found: dict[str, list[Affected]] = {}
        for one in self.affected:
            if one.effect is effect:
                found.setdefault(one.resource.namespace, []).append(one)
        counts = {name: len({one.resource for one in affected}) for name, affected in found.items()}
        return sorted(found.items(), key=lambda entry: (-counts[entry[0]], entry[0]))

    def by_rule(self) -> list[tuple[Affected, list[Resource]]]:
        """What each rule does, as the first that it does it to, and all of these; the worst first, then the most."""
        found: dict[tuple[Effect, Identity, str], list[Affected]] = {}
        for one in self.affected:
            found.setdefault((one.effect, one.policy, one.rule), []).append(one)
        groups = [(affected[0], [one.resource for one in affected]) for affected in found.values()]
        return sorted(
            groups,
            key=lambda group: (_ORDER.index(group[0].effect), -counted(group[1]), group[0].policy, group[0].rule),
        )


def counted(resources: Iterable[Resource]) -> int:
    """How many resources these stand for."""
    return sum(1 + resource.alike for resource in resources)


_ORDER = list(Effect)


def in_order(affected: list[Affected]) -> tuple[Affected, ...]:
    """The worst first, then by namespace, policy, rule and resource."""
    return tuple(
        sorted(
            affected,
            key=lambda one: (_ORDER.index(one.effect), one.resource.namespace, one.policy, one.rule, one.resource),
        )
    )
