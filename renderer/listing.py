"""A snapshot as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from renderer.manifest import effect
from renderer.manifest.document import Policy
from renderer.manifest.policyset import PolicySet

_HEADINGS: Final = ("KIND", "NAMESPACE", "NAME", "ENFORCES", "TITLE")
_TITLE: Final = "policies.kyverno.io/title"
_BINDING: Final = "ValidatingAdmissionPolicyBinding"


def rows(policies: PolicySet) -> list[tuple[str, ...]]:
    """One row a policy: kind, namespace, name, whether it blocks anything, and its title."""
    bindings = [policy.body for policy in policies if policy.identity.kind.name == _BINDING]
    return [
        (
            policy.identity.kind.name,
            policy.identity.namespace,
            policy.identity.name,
            "yes" if effect.enforces(policy.body, policy.identity.kind, bindings=bindings) else "no",
            _title(policy),
        )
        for policy in policies
    ]


def table(policies: PolicySet) -> Iterator[str]:
    """The rows below their headings, in columns; nothing for no policies."""
    if len(policies):
        yield from _columns([_HEADINGS, *rows(policies)])


def _title(policy: Policy) -> str:
    annotations = policy.body["metadata"].get("annotations") or {}
    return str(annotations.get(_TITLE, "")).splitlines()[0] if annotations.get(_TITLE) else ""


def _columns(lines: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = list(lines)
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
