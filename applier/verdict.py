"""What validation says of each policy: findings, and which checks could not be made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from renderer.errors import Problem
from renderer.manifest.identity import Identity


class Layer(Enum):
    """Who judged: each layer catches what the one before it can't see."""

    SCHEMA = "schema"
    CLI = "kyverno CLI"
    SERVER = "server"
    DEPRECATION = "deprecation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a layer says of a policy. An error keeps everything from being applied, a warning nothing."""

    policy: Identity
    layer: Layer
    problem: Problem
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The findings of some layers, and the policies that a layer could not judge, with its reason."""

    findings: tuple[Finding, ...] = ()
    unjudged: tuple[tuple[Identity, str], ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep everything from being applied."""
        return tuple(finding for finding in self.findings if not finding.warning)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that people should know of."""
        return tuple(finding for finding in self.findings if finding.warning)

    @staticmethod
    def together(verdicts: Iterable[Verdict]) -> Verdict:
        """All that these verdicts say."""
        verdicts = tuple(verdicts)
        return Verdict(
            findings=tuple(finding for verdict in verdicts for finding in verdict.findings),
            unjudged=tuple(entry for verdict in verdicts for entry in verdict.unjudged),
        )
