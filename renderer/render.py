"""Pure: from the bytes of the sources to the set of policies that is written, or everything wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from renderer.errors import DocumentErrors, Problem
from renderer.manifest import ownership, yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet, duplicates


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Bytes to read policies from, and what the user calls the place they came from."""

    name: str
    data: bytes


def render(sources: Iterable[Source]) -> PolicySet:
    """Every policy of the sources, checked, normalised and stamped as Insights' own.

    Raises DocumentErrors with every problem of every source: the answer is whole or it is an error.
    """
    policies, problems = read_policies(sources)
    problems += duplicates(policies)
    if problems:
        raise DocumentErrors(problems)
    return PolicySet(_prepare(policy) for policy in policies)


def read_policies(sources: Iterable[Source]) -> tuple[list[Policy], list[Problem]]:
    """The policies of the sources as they stand there, and every problem found on the way."""
    policies: list[Policy] = []
    problems: list[Problem] = []
    for source in sources:
        documents, found = yamlio.load_documents(source.data, source=source.name)
        problems += found
        for document in documents:
            policy, found = parse(document)
            problems += found
            if policy:
                policies.append(policy)
    return policies, problems


def _prepare(policy: Policy) -> Policy:
    body = content(policy.body, policy.identity.kind)
    if policy.identity.namespace:
        body["metadata"]["namespace"] = policy.identity.namespace
    return replace(policy, body=ownership.stamp(body))
