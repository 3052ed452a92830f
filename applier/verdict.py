"""What validation says of each policy: findings, and which checks could not be made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from renderer.errors import Problem, printable
from renderer.manifest.identity import Identity

_INDEX: Final = re.compile(r"\[\d+\]")
_VERSION: Final = re.compile(r"^([a-z.]+)/v\w+ ")
#: How many of those whom a notice is about it names.
_NAMED: Final = 5


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
class Notice:
    """What is said in the same words of several policies; `problems` are in order."""

    layer: Layer
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        first = self.problems[0]
        if len(self.problems) == 1:
            return str(first)
        named = ", ".join(dict.fromkeys(problem.policy or problem.source for problem in self.problems[:_NAMED]))
        more = f" and {len(self.problems) - _NAMED} more" if len(self.problems) > _NAMED else ""
        field = f"{_pattern(first)}: " if first.field else ""
        return printable(f"{field}{first.message} ({len(self.problems)} times: {named}{more})", indent="  ")


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

    @property
    def notices(self) -> tuple[Notice, ...]:
        """The warnings, each text once, in the order in which they were first given."""
        found: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.warnings:
            found.setdefault((_pattern(finding.problem), finding.problem.message), []).append(finding)
        return tuple(
            Notice(layer=same[0].layer, problems=tuple(sorted(finding.problem for finding in same)))
            for same in found.values()
        )

    def strict(self) -> Verdict:
        """The same with every warning as an error."""
        return replace(self, findings=tuple(replace(finding, warning=False) for finding in self.findings))

    @staticmethod
    def together(verdicts: Iterable[Verdict]) -> Verdict:
        """All that these verdicts say, and no warning of a policy twice, whichever layers gave it."""
        verdicts = tuple(verdicts)
        findings = [finding for verdict in verdicts for finding in verdict.findings]
        first = {(finding.policy, _said(finding)): finding for finding in reversed(findings)}
        return Verdict(
            findings=tuple(
                finding
                for finding in findings
                if not finding.warning or first[finding.policy, _said(finding)] is finding
            ),
            unjudged=tuple(entry for verdict in verdicts for entry in verdict.unjudged),
        )


def _pattern(problem: Problem) -> str:
    """The field, whichever items of lists it is in."""
    return _INDEX.sub("[]", problem.field)


def _said(finding: Finding) -> str:
    """The words of a warning without what layers say differently.

    The server writes a field before them, and Kyverno's webhook names the version in which it was asked.
    """
    problem = finding.problem
    return _VERSION.sub(r"\1 ", problem.message.removeprefix(f"{problem.field}: "))
