"""Pure: what is to be told of a review, thing by thing, the worst first: for the formats that annotate files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from applier import risk
from applier.change import Refused
from applier.report.review import Context, Review
from applier.risk import Level, Risk
from applier.verdict import Finding, Layer
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.snapshot import LOCK

_PART: Final = re.compile(r"[^.\[\]]+|\[\d+\]")
_LAYERS: Final = {
    Layer.SCHEMA: "schema",
    Layer.CLI: "kyverno-cli",
    Layer.SERVER: "server",
    Layer.DEPRECATION: "deprecated",
}
UNCHECKED: Final = "unchecked"


class Severity(Enum):
    """What an alarm is to the run: an error ends it, a warning wants to be looked at."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One thing to be told: `code` names its kind and stays.

    `file` (from the root of the repository) and `line` (from 1) say where. `policy` is None where it is about no
    single one. `text` is policies' and servers' own words, not to be trusted.
    """

    severity: Severity
    code: str
    text: str
    file: str
    line: int
    policy: Identity | None = None
    path: str = ""


def alarms(review: Review, context: Context) -> Iterator[Alarm]:
    """What guards refuse, what is not valid, what the changes risk, and what is only warned of, in this order."""
    for refusal in review.plan.refusals:
        yield _refused(refusal, context)
    for finding in (*review.verdict.errors,):
        yield _found(finding, review, context)
    yield from _unchecked(review, context)
    if review.validation is None:
        for one in risk.of_plan(review.plan):
            if one.level is not Level.NONE:
                yield _risked(one, review, context)
    for finding in review.verdict.warnings:
        yield _found(finding, review, context)


def _refused(refusal: Refused, context: Context) -> Alarm:
    lines = [refusal.message, *(f"  {subject}" for subject in refusal.subjects), refusal.hint]
    return Alarm(
        severity=Severity.ERROR,
        code=ExitCode(refusal.code).name.lower().replace("_", "-"),
        text="\n".join(lines),
        file=_file(LOCK, context),
        line=1,
    )


def _found(finding: Finding, review: Review, context: Context) -> Alarm:
    problem = finding.problem
    subject = f"{problem.field}: " if problem.field else ""
    wanted = finding.policy in review.basis.snapshot.policies
    return Alarm(
        severity=Severity.WARNING if finding.warning else Severity.ERROR,
        code=_LAYERS[finding.layer],
        text=f"{subject}{problem.message}",
        file=_file(finding.policy.path if wanted else LOCK, context),
        line=max(problem.line, 1) if wanted else 1,
        policy=finding.policy,
        path=problem.field,
    )


def _unchecked(review: Review, context: Context) -> Iterator[Alarm]:
    found = review.validation
    for identity in sorted(found.unchecked - found.invalid) if found else ():
        yield Alarm(
            severity=Severity.WARNING if found and found.allow_unchecked else Severity.ERROR,
            code=UNCHECKED,
            text="Neither the kyverno CLI nor the server could judge it.",
            file=_file(identity.path, context),
            line=1,
            policy=identity,
        )


def _risked(one: Risk, review: Review, context: Context) -> Alarm:
    policy = review.basis.snapshot.policies.get(one.policy)
    line = policy.document.line_of(*_parts(one.path)) if policy and policy.document else 1
    return Alarm(
        severity=Severity.WARNING if one.level.warns else Severity.NOTE,
        code=one.code,
        text=one.text,
        file=_file(one.policy.path if policy else LOCK, context),
        line=line,
        policy=one.policy,
        path=one.path,
    )


def _file(path: str, context: Context) -> str:
    return f"{context.folder}/{path}" if context.folder else path


def _parts(path: str) -> list[str | int]:
    """`spec.rules[0].match` as its keys and indexes."""
    found: list[str] = _PART.findall(path)
    return [int(part[1:-1]) if part.startswith("[") else part for part in found]
