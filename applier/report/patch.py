"""A plan as RFC 6902 patches, one line of JSON a policy, for `kubectl patch --type=json` and the like."""

from __future__ import annotations

import json
from collections.abc import Iterator

from applier import diff
from applier.change import Action, Change, Plan
from applier.report.review import Context, Review
from renderer.manifest.jsontypes import JsonObject


def write(review: Review, _context: Context) -> str:
    """The lines of all the policies that are changed in place."""
    return "".join(f"{line}\n" for line in patch_lines(review.plan))


def patch_lines(plan: Plan) -> Iterator[str]:
    """What each policy that is changed in place would get, in the order of identities."""
    for change in plan.of(Action.UPDATE, Action.ADOPT):
        if change.before:
            yield json.dumps(_patch(change, change.before), ensure_ascii=True)


def without_patch(plan: Plan) -> Iterator[str]:
    """What the lines can't show, as one sentence; nothing when they show all."""
    counted = [
        (len(plan.of(Action.CREATE)), "to create"),
        (len(plan.of(Action.REPLACE)), "to replace"),
        (len(plan.of(Action.DELETE)), "to delete"),
    ]
    parts = [f"{count} {what}" for count, what in counted if count]
    if parts:
        yield f"No patch can show these: {', '.join(parts)}."


def _patch(change: Change, live: JsonObject) -> JsonObject:
    kind = change.identity.kind
    # kubectl would take the version that the group prefers, which may lack fields of the one that is stored.
    version = live["apiVersion"].rpartition("/")[2]
    return {
        "resource": f"{kind.plural}.{version}.{kind.group}/{change.identity.name}",
        "namespace": change.identity.namespace,
        "patch": diff.with_tests(live, change.patch, kind),
    }
