"""Asks the server, by dry runs, what each write of a draft would give, and collects every refusal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from applier import diff
from applier.change import Action, Change
from applier.ports import Cluster, ServerRefused
from applier.verdict import Finding, Layer, Verdict
from renderer.errors import Problem
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject

_CONCURRENCY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The server's answers to the dry runs that it accepted, and its refusals as a verdict."""

    answers: Mapping[Identity, JsonObject]
    verdict: Verdict


def rehearse(cluster: Cluster, changes: Iterable[Change]) -> Rehearsal:
    """Dry-run every write. Raises RemoteError or NotPermitted when the server can't be asked."""
    changes = list(changes)
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        results = list(pool.map(lambda change: _dry_run(cluster, change), changes))
    answers = {c.identity: r for c, r in zip(changes, results, strict=True) if isinstance(r, dict)}
    findings = tuple(result for result in results if isinstance(result, Finding))
    return Rehearsal(answers=answers, verdict=Verdict(findings=findings))


def _dry_run(cluster: Cluster, change: Change) -> JsonObject | Finding | None:
    try:
        if change.action is Action.CREATE:
            return cluster.create(change.after or {}, change.identity, dry_run=True)
        live = change.before or {}
        if change.action is Action.DELETE:
            cluster.delete(change.identity, uid=live["metadata"]["uid"], dry_run=True)
            return None
        # Its status may move its version at any moment, which a dry run need not care for.
        return cluster.patch(change.identity, diff.pinned(live, change.patch), dry_run=True)
    except ServerRefused as error:
        return Finding(policy=change.identity, layer=Layer.SERVER, problem=_problem(change, error))


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
