"""A plan as one JSON document, for programs and for `apply --plan` to compare with; its schema is beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from applier import diff, risk
from applier.change import Action, Change, Plan, Refused, Rehearsed
from applier.impact.model import Impact
from applier.report.impact import impact_document
from applier.risk import Risk
from applier.verdict import Finding, Verdict
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.normalize import content, digest
from renderer.snapshot import Snapshot

FORMAT: Final = "insights-applier/plan"
FORMAT_VERSION: Final = 1
#: Beside this module; a new format version is a new file.
SCHEMA: Final = f"plan-v{FORMAT_VERSION}.schema.json"

_IDLE: Final = (Action.UNCHANGED, Action.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a plan was made from.

    `server` is None where there was none to ask. `identity` holds the UIDs that tell the cluster from every other, by
    what has them; `commit` is the snapshot's in git, None when it is in none; `flags` are the command line's, as far as
    they decide what the plan holds. What has to be asked for is empty where nobody needs it.
    """

    server: str | None
    snapshot: Snapshot
    identity: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    flags: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One policy of a plan, by what decides whether two plans are equal.

    `before` and `after` are digests of the content that is Insights' business (`diff.managed`), so that neither the
    server's fields nor other people's labels count. `rehearsed` is None where nothing is to be written.
    """

    identity: Identity
    action: Action
    uid: str | None
    before: str | None
    after: str | None
    rehearsed: Rehearsed | None
    paths: frozenset[str]

    @classmethod
    def of(cls, change: Change) -> Entry:
        """The entry of a change."""
        kind = change.identity.kind
        keys = diff.keys_in_question(change.before, change.after)
        before, after = (
            digest(diff.managed(body, keys, kind)) if body else None for body in (change.before, change.after)
        )
        return cls(
            identity=change.identity,
            action=change.action,
            uid=change.before["metadata"].get("uid") if change.before else None,
            before=before,
            after=after,
            rehearsed=None if change.action in _IDLE else change.rehearsed,
            paths=frozenset(operation["path"] for operation in change.patch),
        )


def document(plan: Plan, verdict: Verdict, basis: Basis, impact: Impact | None = None) -> JsonObject:
    """The plan, what was said of it, and what it was made from: the same plan gives the same document. Pure."""
    return {
        "format": FORMAT,
        "formatVersion": FORMAT_VERSION,
        "cluster": {"server": basis.server, "identity": dict(sorted(basis.identity.items()))},
        "snapshot": {
            "organization": basis.snapshot.organization,
            "cluster": basis.snapshot.cluster,
            "policies": len(basis.snapshot.policies),
            "digest": basis.snapshot.digest,
            "commit": basis.commit,
        },
        "flags": dict(sorted(basis.flags.items())),
        "summary": {action.value: len(plan.of(action)) for action in Action},
        "risks": [_risk(one) for one in risk.of_plan(plan)],
        "changes": [_change(change, plan) for change in plan.changes],
        "refusals": [_refusal(refusal) for refusal in plan.refusals],
        "findings": [_finding(finding) for finding in verdict.findings],
        "notes": list(plan.notes),
        **({"impact": impact_document(impact)} if impact else {}),
    }


def _change(change: Change, plan: Plan) -> JsonObject:
    entry, identity = Entry.of(change), change.identity
    found: JsonObject = {
        "action": entry.action.value,
        "group": identity.kind.group,
        "kind": identity.kind.name,
        "namespace": identity.namespace,
        "name": identity.name,
        "uid": entry.uid,
        "before": entry.before,
        "after": entry.after,
        "dryRun": entry.rehearsed.value if entry.rehearsed else None,
    }
    if change.action is Action.UNCHANGED:
        return found
    if change.reason:
        found["reason"] = change.reason
    if change.before and change.patch:
        found["patch"] = diff.with_tests(change.before, change.patch, identity.kind)
    if change.action in (Action.CREATE, Action.REPLACE) and change.after:
        found["content"] = content(change.after, identity.kind)
    if change.drifted_by:
        found["alsoWrittenBy"] = list(change.drifted_by)
    found["effects"] = [{"sentence": one.sentence, "weakens": one.weakens} for one in risk.of_change(change, plan)]
    return found


def _risk(one: Risk) -> JsonObject:
    identity = one.policy
    return {
        "code": one.code,
        "level": one.level.value,
        "group": identity.kind.group,
        "kind": identity.kind.name,
        "namespace": identity.namespace,
        "name": identity.name,
        "path": one.path,
        "sentence": one.sentence,
        "weakens": one.weakens,
    }


def _refusal(refusal: Refused) -> JsonObject:
    return {
        "exitCode": int(refusal.code),
        "message": refusal.message,
        "hint": refusal.hint,
        "subjects": list(refusal.subjects),
    }


def _finding(finding: Finding) -> JsonObject:
    return {
        "policy": str(finding.policy),
        "layer": finding.layer.value,
        "severity": "warning" if finding.warning else "error",
        "message": str(finding.problem),
    }
