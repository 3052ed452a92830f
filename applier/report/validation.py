"""What `validate` found, as text for people and as a JSON document for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from applier.change import Refused
from applier.report import text
from applier.verdict import Finding, Verdict
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject

#: The version of the JSON document; a field that goes or changes its meaning makes a new one.
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Which policies were judged, what was said of them, and whom nobody could judge.

    `by_cli` says whether the kyverno CLI was asked at all; `refusals` are what keeps the server from being asked. What
    nobody could judge passes only when that is allowed.
    """

    policies: tuple[Identity, ...]
    verdict: Verdict
    unchecked: frozenset[Identity] = frozenset()
    refusals: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    by_cli: bool = True
    allow_unchecked: bool = False

    @property
    def invalid(self) -> frozenset[Identity]:
        """The policies with at least one error."""
        return frozenset(finding.policy for finding in self.verdict.errors)

    @property
    def valid(self) -> int:
        """How many policies were judged and found good."""
        return len(self.policies) - len(self.invalid | self.unchecked)

    @property
    def code(self) -> ExitCode:
        """20 when a policy is not valid or nobody could judge it, else what a guard refuses, else 0."""
        if self.invalid or (self.unchecked and not self.allow_unchecked):
            return ExitCode.INVALID_POLICY
        return self.refusals[0].code if self.refusals else ExitCode.OK


def lines(validation: Validation) -> Iterator[str]:
    """Every finding, what was not judged and why, and a last line that counts."""
    for note in validation.notes:
        yield click.style(f"Note: {note}.", fg="yellow")
    yield from text.verdict_lines(validation.verdict)
    yield from _failure_lines(validation)
    yield summary(validation)


def brief_lines(validation: Validation) -> Iterator[str]:
    """What is wrong, and the last line."""
    yield from text.error_lines(validation.verdict)
    yield from _failure_lines(validation)
    yield summary(validation)


def _failure_lines(validation: Validation) -> Iterator[str]:
    for refusal in validation.refusals:
        yield from text.refusal_lines(refusal)
    for identity in sorted(validation.unchecked - validation.invalid):
        yield f"unchecked {identity}: neither the kyverno CLI nor the server could judge it"


def summary(validation: Validation) -> str:
    """The sentence that counts, and what was not asked."""
    skipped = "" if validation.by_cli else f" {text.CLI_SKIPPED}."
    if validation.unchecked and validation.allow_unchecked:
        skipped = f" --allow-unchecked lets {len(validation.unchecked)} unchecked ones pass.{skipped}"
    return f"{validation.valid} of {len(validation.policies)} policies are valid.{skipped}"


def document(validation: Validation) -> JsonObject:
    """The same as JSON, every finding by itself; the order is that of files, lines and fields."""
    verdict = validation.verdict
    return {
        "formatVersion": FORMAT_VERSION,
        "valid": validation.code is ExitCode.OK,
        "exitCode": int(validation.code),
        "counts": {
            "policies": len(validation.policies),
            "valid": validation.valid,
            "invalid": len(validation.invalid),
            "unchecked": len(validation.unchecked - validation.invalid),
            "errors": len(verdict.errors),
            "warnings": len(verdict.warnings),
        },
        "kyvernoCli": "asked" if validation.by_cli else "skipped",
        "findings": [_finding(each) for each in sorted(verdict.findings, key=lambda each: each.problem)],
        "unjudged": [{"policy": str(identity), "reason": reason} for identity, reason in sorted(verdict.unjudged)],
        "unchecked": [str(identity) for identity in sorted(validation.unchecked - validation.invalid)],
        "refusals": [
            {
                "exitCode": int(refusal.code),
                "message": refusal.message,
                "hint": refusal.hint,
                "subjects": list(refusal.subjects),
            }
            for refusal in validation.refusals
        ],
        "notes": list(validation.notes),
    }


def _finding(finding: Finding) -> JsonObject:
    """One finding; a line or column of 0 means that it is not known."""
    problem = finding.problem
    return {
        "policy": str(finding.policy),
        "layer": finding.layer.value,
        "severity": "warning" if finding.warning else "error",
        "file": problem.source,
        "line": problem.line,
        "column": problem.column,
        "field": problem.field,
        "message": problem.message,
    }
