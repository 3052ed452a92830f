"""Pure: which changes of a plan take away, or may take away, what denies requests on the cluster now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from applier.change import Action, Change, Plan
from applier.ports import Live
from renderer.manifest import effect
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject

_BINDING: Final = "ValidatingAdmissionPolicyBinding"
#: How policies of either group read a GlobalContextEntry.
_READS_CONTEXT: Final = ("globalReference", "globalContext")


def weakened(plan: Plan, live: Live) -> list[tuple[Identity, str]]:
    """The changes that need `--allow-weaken`, refused ones too, each with the worst that it does; in the plan's order.

    What cannot be decided (two CEL expressions that differ, say) counts. What is not in force does not: a policy
    of the server's own that no binding makes deny, an exception from policies that only report.
    """
    found = []
    for change in plan.changes:
        if change.action is Action.UNCHANGED:
            continue
        does = effect.compare(change.before, change.after, change.identity.kind)
        if does.weakens and does.worst is not None and _in_force(change, live):
            found.append((change.identity, does.worst.sentence))
    return found


def _in_force(change: Change, live: Live) -> bool:
    """Whether what the change touches has a part in denying requests, as things are; what can't be read has."""
    kind = change.identity.kind
    if kind.name == "ValidatingAdmissionPolicy":
        unread = any(other.name == _BINDING for other in live.unreadable)
        bindings = [body for identity, body in live.objects.items() if identity.kind.name == _BINDING]
        return effect.enforces(change.before, kind, bindings=None if unread else bindings)
    if kind.name == "PolicyException":
        if any(other.group == kind.group for other in live.unreadable):
            return True
        named = [name for body in (change.before, change.after) if body for name in _excepted(body)]
        return any(
            fnmatchcase(name, pattern)
            for identity, _ in _enforcing(live)
            if identity.kind.group == kind.group
            for name in (identity.name, f"{identity.namespace}/{identity.name}")
            for pattern in named
        )
    if kind.name == "GlobalContextEntry":
        texts = (json.dumps(body.get("spec")) for _, body in _enforcing(live))
        return bool(live.unreadable) or any(word in text for text in texts for word in _READS_CONTEXT)
    return True


def _enforcing(live: Live) -> Iterator[tuple[Identity, JsonObject]]:
    return ((identity, body) for identity, body in live.objects.items() if effect.enforces(body, identity.kind))


def _excepted(exception: JsonObject) -> Iterator[str]:
    """The names of the policies that an exception is for, as it gives them; any where they can't be read."""
    spec = exception.get("spec") or {}
    for field, key in (("exceptions", "policyName"), ("policyRefs", "name")):
        entries = spec.get(field) or []
        for entry in entries if isinstance(entries, list) else [None]:
            yield str(entry.get(key)) if isinstance(entry, dict) else "*"
