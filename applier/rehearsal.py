"""Asks the server, by dry runs, what each write of a draft would give, and collects every refusal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from applier import diff
from applier.change import Action, Change
from applier.cluster import hearing
from applier.guards import rights
from applier.ports import Cluster, Forbidden, ServerRefused
from applier.verdict import Finding, Layer, Verdict
from renderer.errors import ExitCode, Problem, Refusal
from renderer.manifest import effect
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content, digest
from renderer.status_line import STATUS

_CONCURRENCY = 8
#: A name of 63 characters at most, which is what Kyverno takes, and one that nobody has.
_STEM, _SUFFIX = 50, 12
#: The kinds for which Kyverno registers no webhook, though its group is its own (1.19).
UNWATCHED: Final = frozenset({"NamespacedDeletingPolicy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The server's answers to the dry runs that it accepted, and its refusals as a verdict.

    `replacing` has the policies that can't be changed in place but can be created anew, with the server's words;
    `deletable` those that it would delete.
    """

    answers: Mapping[Identity, JsonObject]
    replacing: Mapping[Identity, str]
    deletable: frozenset[Identity]
    verdict: Verdict


def rehearse(cluster: Cluster, changes: Iterable[Change]) -> Rehearsal:
    """Dry-run every write.

    Raises RemoteError or NotPermitted when the server can't be asked, Refusal when a policy changed meanwhile.
    """
    changes = list(changes)
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        asked = pool.map(lambda change: _asked(cluster, change), changes)
        results = list(STATUS.counting(asked, "Asking the server", len(changes)))
    forbidden = {
        rights.of_dry_run(c): r for c, (r, _) in zip(changes, results, strict=True) if isinstance(r, Forbidden)
    }
    if forbidden:
        raise rights.refusal({access: error.status.message for access, error in forbidden.items()})
    answers = {c.identity: r for c, (r, _) in zip(changes, results, strict=True) if isinstance(r, dict)}
    replaced = {c.identity: r for c, (r, _) in zip(changes, results, strict=True) if isinstance(r, _Replaced)}
    findings = [result for result, _ in results if isinstance(result, Finding)]
    findings += [warning for _, warnings in results for warning in warnings]
    return Rehearsal(
        answers=answers | {identity: result.answer for identity, result in replaced.items()},
        replacing={identity: result.why for identity, result in replaced.items()},
        deletable=frozenset(c.identity for c, (r, _) in zip(changes, results, strict=True) if r is None),
        verdict=Verdict(findings=tuple(findings)),
    )


def unwatched(changes: Iterable[Change]) -> tuple[str, ...]:
    """Say of which changes Kyverno's own checks are not asked."""
    names = [str(c.identity) for c in changes if c.identity.kind.name in UNWATCHED and c.action is not Action.DELETE]
    if not names:
        return ()
    judges = "only the schema and the kyverno CLI judge such a policy"
    return (f"Kyverno's admission controller does not check {', '.join(names)}: {judges}",)


def _asked(
    cluster: Cluster, change: Change
) -> tuple[JsonObject | Finding | Forbidden | _Replaced | None, Sequence[Finding]]:
    """The answer to a dry run, and what the server warned of; of what goes, a warning is of no use."""
    with hearing.listen() as heard:
        try:
            answer = _dry_run(cluster, change)
        except Forbidden as error:
            return error, ()
    policy = change.policy
    if policy is None or change.action is Action.DELETE:
        return answer, ()
    problems = [policy.problem(text) for text in dict.fromkeys(heard)]
    return answer, [Finding(policy=policy.identity, layer=Layer.SERVER, problem=p, warning=True) for p in problems]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replaced:
    """What the server would store of a policy that is deleted and created anew, and why it can't be changed."""

    answer: JsonObject
    why: str


def _dry_run(cluster: Cluster, change: Change) -> JsonObject | Finding | _Replaced | None:
    try:
        if change.action is Action.CREATE:
            return cluster.create(change.after or {}, change.identity, dry_run=True)
        live = change.before or {}
        if change.action is Action.DELETE:
            cluster.delete(change.identity, uid=live["metadata"]["uid"], dry_run=True)
            return None
        # Its status may move its version at any moment, which a dry run need not care for.
        answer = cluster.patch(change.identity, diff.pinned(live, change.patch), dry_run=True)
    except ServerRefused as error:
        finding = Finding(policy=change.identity, layer=Layer.SERVER, problem=_problem(change, error))
        return _replaced(cluster, change, error) or finding
    _require_unchanged(cluster, change, answer)
    return answer


def _require_unchanged(cluster: Cluster, change: Change, answer: JsonObject) -> None:
    """Raise Refusal when the answer is about another state of the object than the plan.

    What somebody else put there meanwhile would be taken for ours, and an undo would take it away.
    """
    live, identity = change.before or {}, change.identity
    if answer["metadata"].get("resourceVersion") == live["metadata"]["resourceVersion"]:
        return
    found = cluster.read(identity)
    if found is None or content(found, identity.kind) != content(live, identity.kind):
        raise Refusal(
            ExitCode.STALE_PLAN,
            f"Somebody else changed {identity} while the plan was made; nothing was written.",
            hint="Run again.",
        )


def _replaced(cluster: Cluster, change: Change, error: ServerRefused) -> _Replaced | None:
    """What replacing gives where the server would take the policy, and only forbids to change the one that is there.

    Kyverno's webhook does so with the match of generate rules (400). It is asked, not foretold: which fields
    those are depends on its version. The name is taken, so another one stands in for it.
    """
    live, kind = change.before, change.identity.kind
    if error.status.code != 400 or live is None or not effect.compare(None, live, kind).generates:
        return None
    wanted = change.after or {}
    name = f"{change.identity.name[:_STEM]}-{digest(wanted)[:_SUFFIX]}"
    try:
        body = {**wanted, "metadata": {**wanted["metadata"], "name": name}}
        stored = cluster.create(body, replace(change.identity, name=name), dry_run=True)
        cluster.delete(change.identity, uid=live["metadata"]["uid"], dry_run=True)
    except ServerRefused:
        return None
    answer = {**stored, "metadata": {**stored["metadata"], "name": change.identity.name}}
    return _Replaced(answer=answer, why=error.status.message)


def _problem(change: Change, error: ServerRefused) -> Problem:
    status = error.status
    if status.code == 404 and change.action is Action.CREATE and change.identity.namespace:
        message = f"its namespace {change.identity.namespace} does not exist on this cluster"
    else:
        message = status.message or str(error)
    if change.policy is None:
        return Problem(source=str(change.identity), message=message)
    field = status.causes[0][0] if len(status.causes) == 1 else ""
    return change.policy.problem(f"{field}: {message}" if field and field not in message else message)


def may_write(cluster: Cluster, changes: Iterable[Change]) -> tuple[list[Change], list[Change]]:
    """The changes of kinds that this account may write, and the others."""
    changes = list(changes)
    allowed = cluster.may_write(sorted({change.identity.kind for change in changes})) if changes else frozenset()
    return (
        [change for change in changes if change.identity.kind in allowed],
        [change for change in changes if change.identity.kind not in allowed],
    )
