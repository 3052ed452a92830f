"""Pure: what is to be told of a review, thing by thing, the worst first: for the formats that annotate files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from applier import risk
from applier.change import Refused
from applier.impact.model import Effect, Impact, Resource
from applier.report import impact as words
from applier.report.review import Context, Review
from applier.risk import Level, Risk
from applier.verdict import Finding, Layer
from renderer.errors import ExitCode
from renderer.manifest.document import Policy
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
NOT_EVALUATED: Final = "impact-not-evaluated"
_CODES: Final = {
    Effect.BLOCKED: "newly-blocked",
    Effect.REPORTED: "newly-reported",
    Effect.LET_THROUGH: "newly-let-through",
}


class Severity(Enum):
    """What an alarm is to the run: an error ends it, a warning wants to be looked at."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_SEVERITIES: Final = {
    Effect.BLOCKED: Severity.WARNING,
    Effect.REPORTED: Severity.NOTE,
    Effect.LET_THROUGH: Severity.WARNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One thing to be told: `code` names its kind and stays.

    `file` (from the root of the repository) and `line` (from 1) say where. `policy` is None where it is about no
    single one. `text` is policies' and servers' own words, not to be trusted. `effect` is what a rule does to
    `resources`, where it is about an impact: then `text` names some of them, and `message` is the rule's own.
    """

    severity: Severity
    code: str
    text: str
    file: str
    line: int
    policy: Identity | None = None
    path: str = ""
    effect: Effect | None = None
    rule: str = ""
    resources: Sequence[Resource] = ()
    message: str = ""


def alarms(review: Review, context: Context) -> Iterator[Alarm]:
    """What guards refuse, what is not valid, what changes do and risk, what is only warned of, in this order."""
    for refusal in review.plan.refusals:
        yield _refused(refusal, context)
    for finding in review.verdict.errors:
        yield _found(finding, review, context)
    yield from _unchecked(review, context)
    if review.impact:
        yield from _of_impact(review.impact, review, context)
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


def _of_impact(impact: Impact, review: Review, context: Context) -> Iterator[Alarm]:
    """What each rule does to what is there, then what was not evaluated."""
    for first, resources in impact.by_rule():
        policy = review.basis.snapshot.policies.get(first.policy)
        path = _path_of_rule(policy, first.rule) if policy else ""
        message = words.shortened(first.message)
        file, line = _place(first.policy, path, review, context)
        yield Alarm(
            severity=_SEVERITIES[first.effect],
            code=_CODES[first.effect],
            text=f"{words.sentence(first, resources)}\n{message}",
            file=file,
            line=line,
            policy=first.policy,
            path=path or first.rule,
            effect=first.effect,
            rule=first.rule,
            resources=resources,
            message=message,
        )
    if impact.not_evaluated:
        yield Alarm(
            severity=Severity.NOTE,
            code=NOT_EVALUATED,
            text="\n".join(["Not evaluated:", *words.not_evaluated(impact)]),
            file=_file(LOCK, context),
            line=1,
        )


def _path_of_rule(policy: Policy, name: str) -> str:
    """Where the policy has that rule; where it has no rule of that name, its spec."""
    rules = (policy.body.get("spec") or {}).get("rules")
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, dict) and rule.get("name") == name:
            return f"spec.rules[{number}]"
    return "spec"


def _risked(one: Risk, review: Review, context: Context) -> Alarm:
    file, line = _place(one.policy, one.path, review, context)
    return Alarm(
        severity=Severity.WARNING if one.level.warns else Severity.NOTE,
        code=one.code,
        text=one.text,
        file=file,
        line=line,
        policy=one.policy,
        path=one.path,
    )


def _place(identity: Identity, path: str, review: Review, context: Context) -> tuple[str, int]:
    """The file and the line of a field of a policy; of one that is not wanted any more, the lock."""
    policy = review.basis.snapshot.policies.get(identity)
    if policy is None:
        return _file(LOCK, context), 1
    return _file(identity.path, context), policy.document.line_of(*_parts(path)) if policy.document else 1


def _file(path: str, context: Context) -> str:
    return f"{context.folder}/{path}" if context.folder else path


def _parts(path: str) -> list[str | int]:
    """`spec.rules[0].match` as its keys and indexes."""
    found: list[str] = _PART.findall(path)
    return [int(part[1:-1]) if part.startswith("[") else part for part in found]
