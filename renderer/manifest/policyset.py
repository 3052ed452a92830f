"""The set of policies that are wanted on one cluster: each identity once, in one order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from renderer.errors import Problem
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity


class PolicySet:
    """Policies by identity, iterated in the order of their identities. It never changes."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        """Take policies whose identities differ; `collect` is for those that may not."""
        ordered = sorted(policies, key=lambda policy: policy.identity)
        self._policies: Mapping[Identity, Policy] = MappingProxyType({policy.identity: policy for policy in ordered})
        if len(self._policies) != len(ordered):
            msg = "two policies of a set share an identity"
            raise ValueError(msg)

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._policies.values())

    def __len__(self) -> int:
        return len(self._policies)

    def __contains__(self, identity: object) -> bool:
        return identity in self._policies

    def get(self, identity: Identity) -> Policy | None:
        """The policy of that identity, or None."""
        return self._policies.get(identity)


def duplicates(policies: Iterable[Policy]) -> list[Problem]:
    """One problem for each policy whose identity an earlier one has; it names both places."""
    first: dict[Identity, Policy] = {}
    problems = []
    for policy in policies:
        earlier = first.setdefault(policy.identity, policy)
        if earlier is not policy:
            where = earlier.problem("")
            problems.append(
                policy.problem(
                    f"is wanted twice: {where.source}:{where.line} has it too. Keep one of the two",
                    "metadata",
                    "name",
                )
            )
    return problems
