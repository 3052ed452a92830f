"""Evaluates the versions of changed policies on what is there, within a time limit, and says what changes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from applier.guards.own_writes import NAME_LABEL
from applier.impact import judging, patterns
from applier.impact.exclusions import Exclusions
from applier.impact.judging import Judgement, Row
from applier.impact.model import Affected, Effect, Impact, NotEvaluated, in_order
from applier.impact.patterns import Served
from applier.impact.ports import Source
from applier.impact.versions import Version, Versions
from applier.impact.workloads import Crowd, Workload
from applier.kyverno_cli import KyvernoCli
from applier.kyverno_cli.bulk import Bulk, OutOfTimeError
from applier.verdict import Verdict
from renderer import logs
from renderer.errors import Failure, InvalidPolicies, NotPermitted
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import JsonObject

log = logs.get_logger()

#: One run of the CLI gets that much: a policy of kyverno.io on an object counts 1 (some 0.4 ms), one in CEL, which the
#: CLI compiles for each object, 25. That bounds the memory and the output of a run, and how long it takes.
_RUN: Final = 20_000
_CEL: Final = 25
_SECRETS: Final = "secrets are never fetched"
_UNEXCLUDED: Final = "Kyverno's settings (ConfigMap kyverno/kyverno) could not be read, so what they exclude counts too"


def assess(
    versions: Versions,
    source: Source,
    cli: KyvernoCli,
    *,
    seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Impact:
    """Evaluate them on all that the source holds of what they match, for so many seconds at most.

    What could not be evaluated in that time, or at all, is in the result, with the reason. Raises Failure where the
    source can't say what it holds.
    """
    if not versions.changed:
        return Impact(source=source.name, policies=0, resources=0, not_evaluated=versions.not_evaluated)
    end = monotonic() + seconds
    exclusions, namespaces = source.exclusions(), source.namespaces()
    assessment = _Assessment(
        source=source,
        bulk=Bulk(process=cli.process, seconds_left=lambda: end - monotonic()),
        exclusions=exclusions or Exclusions(),
        namespaces=namespaces or {},
        limit=f"the time limit was reached after {seconds:g} seconds; --impact-timeout raises it",
    )
    if exclusions is None:
        assessment.tell(_UNEXCLUDED, source.name)
    changed = assessment.loaded(versions.changed, cli)
    if namespaces is None:
        for version in changed:
            if version.needs_namespaces:
                assessment.tell("it looks at namespaces, which this account may not list", str(version.policy))
        changed = [version for version in changed if not version.needs_namespaces]
    assessment.run(changed, versions.steady)
    return Impact(
        source=source.name,
        policies=len({version.policy for version in changed}),
        resources=assessment.evaluated,
        affected=in_order(assessment.affected()),
        not_evaluated=(*versions.not_evaluated, *assessment.not_evaluated()),
    )


@dataclass(slots=True, kw_only=True)
class _Assessment:
    """What was found so far."""

    source: Source
    bulk: Bulk
    exclusions: Exclusions
    namespaces: Mapping[str, JsonObject]
    limit: str
    evaluated: int = 0
    _crowds: dict[Served, Crowd] = field(default_factory=dict)
    _found: list[tuple[Crowd, str, Affected]] = field(default_factory=list)
    _told: dict[str, dict[str, None]] = field(default_factory=dict)
    _failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    _examples: dict[str, str] = field(default_factory=dict)

    def tell(self, reason: str, subject: str) -> None:
        """Say that this is not evaluated."""
        self._told.setdefault(reason, {})[subject] = None

    def fail(self, subject: str, reason: str, count: int = 1) -> None:
        """Say that a policy or rule could not be evaluated on so many resources; the first reason stands for all."""
        self._failures[subject, self._examples.setdefault(subject, reason)] += count

    def affected(self) -> list[Affected]:
        """All that was found, with the Pods that are alike."""
        return [replace(one, resource=replace(one.resource, alike=crowd.alike(key))) for crowd, key, one in self._found]

    def not_evaluated(self) -> Iterator[NotEvaluated]:
        """All that was told, reason by reason."""
        over = sum(crowd.over for crowd in self._crowds.values())
        if over:
            yield NotEvaluated(
                reason="they run no more", subjects=(f"{over} ended Pods and ReplicaSets that were replaced",)
            )
        for reason, subjects in self._told.items():
            yield NotEvaluated(reason=reason, subjects=tuple(subjects))
        for (subject, reason), count in self._failures.items():
            resources = "1 resource" if count == 1 else f"{count} resources"
            yield NotEvaluated(reason=reason, subjects=(f"{subject} on {resources}",))

    def loaded(self, versions: Sequence[Version], cli: KyvernoCli) -> list[Version]:
        """Those that the CLI is known to load as they are evaluated: what it drops in silence would seem to pass."""
        policies = {
            version.number: Policy(
                identity=replace(version.policy, name=version.body["metadata"]["name"]), body=version.body
            )
            for version in versions
        }
        try:
            verdict = cli.validate(list(policies.values()))
        except InvalidPolicies as error:
            for version in versions:
                self.tell(error.message.partition(";")[0], str(version.policy))
            return []
        whole = []
        for version in versions:
            reason = _refusal(verdict, policies[version.number])
            if reason:
                self.tell(reason, str(version.policy))
            else:
                whole.append(version)
        return whole

    def run(self, changed: Sequence[Version], steady: Sequence[Version]) -> None:
        """Evaluate on kind after kind, until the time is over."""
        served = [one for one in self.source.kinds() if one.listable]
        wanted = {version.number: patterns.chosen(version.patterns, served) for version in changed}
        others = {version.number: patterns.chosen(version.patterns, served) for version in steady}
        kinds = sorted(set().union(*wanted.values()))
        for position, kind in enumerate(kinds):
            mine = [version for version in changed if kind in wanted[version.number]]
            if not self._is_asked_about(kind, mine):
                continue
            log.info("Evaluating what is there", kind=kind.resource, policies=len({one.policy for one in mine}))
            try:
                self._of_kind(kind, mine, [one for one in steady if kind in others[one.number]])
            except OutOfTimeError:
                for late in kinds[position:]:
                    self.tell(self.limit, late.resource)
                return

    def _is_asked_about(self, kind: Served, versions: Collection[Version]) -> bool:
        if (kind.group, kind.kind) == ("", "Secret"):
            self.tell(_SECRETS, kind.resource)
            return False
        return any(one.asked_by_server for one in versions) or not self.exclusions.leave_out_kind(kind.kind)

    def _of_kind(self, kind: Served, changed: Sequence[Version], steady: Sequence[Version]) -> None:
        crowd = self._crowds.setdefault(kind, Crowd())
        size = max(1, _RUN // sum(_CEL if version.in_cel else 1 for version in changed))
        try:
            for page in self._pages(kind):
                workloads = list(crowd.take(page))
                for start in range(0, len(workloads), size):
                    self._batch(crowd, workloads[start : start + size], changed, steady)
        except NotPermitted:
            self.tell("this account may not list them", kind.resource)
        except Failure as error:
            self.tell(f"they can't be listed: {error.message}", kind.resource)

    def _pages(self, kind: Served) -> Iterator[list[JsonObject]]:
        """The pages of a kind while there is time: asking for them takes some, too."""
        pages = self.source.pages(kind)
        while self.bulk.seconds_left() > 0:
            page = next(pages, None)
            if page is None:
                return
            yield page
        raise OutOfTimeError

    def _batch(
        self, crowd: Crowd, workloads: Sequence[Workload], changed: Sequence[Version], steady: Sequence[Version]
    ) -> None:
        rows = self._rows(workloads, changed, told=True)
        judgements = {one.uid: self._judge(one, rows.get(one.uid, ())) for one in workloads}
        contested = [one for one in workloads if _is_contested(judgements[one.uid])]
        if contested and steady:
            # What another policy blocks anyway is neither newly blocked nor let through.
            more = self._rows(contested, steady, told=False)
            for one in contested:
                judgements[one.uid] = self._judge(one, [*rows.get(one.uid, ()), *more.get(one.uid, ())])
        self.evaluated += len(workloads)
        for one in workloads:
            self._found += ((crowd, one.key, affected) for affected in judgements[one.uid].affected)
            for subject, message in judgements[one.uid].unsure:
                self.fail(subject, f"it fails: {message}")

    def _rows(self, workloads: Sequence[Workload], versions: Sequence[Version], *, told: bool) -> dict[str, list[Row]]:
        """What each version says, by the uid of the resource."""
        numbered = {version.number: version for version in versions}
        said, failed = self.bulk.evaluate(
            {version.number: version.body for version in versions},
            {version.number: version.exceptions for version in versions},
            [workload.body for workload in workloads],
            [self._namespace(name) for name in sorted({_namespace_of(one) for one in workloads} - {""})],
        )
        for failure in failed if told else ():
            self.fail(str(numbered[failure.number].policy), failure.reason, failure.objects)
        rows: dict[str, list[Row]] = {}
        for one in said:
            result = one.result
            row = Row(version=numbered[one.number], rule=result.rule, outcome=result.outcome, message=result.message)
            rows.setdefault(result.uid, []).append(row)
        return rows

    def _judge(self, workload: Workload, rows: Sequence[Row]) -> Judgement:
        return judging.judge(workload.resource(0), self._labels(workload), rows, self.exclusions)

    def _labels(self, workload: Workload) -> Mapping[str, str]:
        name = workload.body["metadata"]["name"] if workload.body["kind"] == "Namespace" else _namespace_of(workload)
        labels: Mapping[str, str] = self._namespace(name)["metadata"].get("labels") or {}
        return labels

    def _namespace(self, name: str) -> JsonObject:
        """The namespace as the CLI takes it; of one that is not known, what is true of every one."""
        metadata = self.namespaces.get(name) or {"labels": {NAME_LABEL: name}}
        kept = {key: metadata[key] for key in ("labels", "annotations") if metadata.get(key)}
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **kept}}


def _namespace_of(workload: Workload) -> str:
    return str(workload.body["metadata"].get("namespace") or "")


def _is_contested(judgement: Judgement) -> bool:
    return any(one.effect is not Effect.REPORTED for one in judgement.affected)


def _refusal(verdict: Verdict, policy: Policy) -> str:
    """Why the CLI does not load it, "" when it does."""
    for finding in verdict.errors:
        if finding.policy == policy.identity:
            return f"the kyverno CLI does not load it: {finding.problem.message}"
    return next((reason for identity, reason in verdict.unjudged if identity == policy.identity), "")
