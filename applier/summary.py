"""Pure: the outcome of a sync as the one line that ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from applier.change import Action, Plan
from applier.transaction.execution import Outcome
from renderer.durations import format_duration
from renderer.errors import Failure
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject


def of_outcome(outcome: Outcome, *, seconds: float) -> JsonObject:
    """The line after an apply: what was applied, updated, removed and failed, by name."""
    lists = {
        "applied": outcome.applied,
        "updated": outcome.updated,
        "removed": outcome.removed,
        "failed": tuple(identity for identity, _ in outcome.failed),
    }
    line = _line(lists, success=outcome.success, seconds=seconds)
    return line if outcome.success else {**line, "error": f"{outcome.reason}\n{outcome.hint}".strip()}


def of_dry_run(plan: Plan, *, failed: Mapping[Identity, str] = MappingProxyType({}), seconds: float) -> JsonObject:
    """The line after a dry run: what would have been done, and what would have failed, with why."""

    def of(*actions: Action) -> tuple[Identity, ...]:
        return tuple(change.identity for change in plan.of(*actions) if change.identity not in failed)

    lists = {
        "applied": of(Action.CREATE, Action.ADOPT),
        "updated": of(Action.UPDATE, Action.REPLACE),
        "removed": of(Action.DELETE),
        "failed": tuple(failed),
    }
    line = _line(lists, success=not failed, seconds=seconds)
    if failed:
        line["error"] = "\n".join(f"{identity}: {why}" for identity, why in sorted(failed.items()))
    line["summary"] = "Dry run, nothing was written: " + line["summary"]
    return {**line, "dryRun": True}


def of_failure(error: Failure, *, failed: Iterable[Identity] = (), seconds: float) -> JsonObject:
    """The line after a run that failed before it wrote anything."""
    line = _line({"applied": (), "updated": (), "removed": (), "failed": tuple(failed)}, success=False, seconds=seconds)
    return {**line, "error": str(error)}


def without_cli(line: JsonObject) -> JsonObject:
    """The same line of a run in which the kyverno CLI was not asked."""
    return {**line, "summary": f"{line['summary']}. The kyverno CLI was not asked (VALIDATE_POLICIES=false)"}


def _line(lists: dict[str, tuple[Identity, ...]], *, success: bool, seconds: float) -> JsonObject:
    names = _names({identity for identities in lists.values() for identity in identities})
    applied, updated, removed, failed = (len(lists[key]) for key in ("applied", "updated", "removed", "failed"))
    return {
        "level": "info" if success else "error",
        "msg": f"Policy sync {'completed' if success else 'failed'}",
        "success": success,
        "duration": format_duration(seconds),
        "summary": f"Applied {applied}, Updated {updated}, Removed {removed}, Failed {failed}",
        **{key: sorted(names[identity] for identity in identities) for key, identities in lists.items()},
    }


def _names(identities: Iterable[Identity]) -> dict[Identity, str]:
    """Bare names, and `Kind/name` for those that share theirs with another policy of the run."""
    identities = list(identities)
    count = Counter(identity.name for identity in identities)
    return {identity: identity.name if count[identity.name] == 1 else str(identity) for identity in identities}
