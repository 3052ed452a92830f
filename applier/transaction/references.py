"""Pure: which policies refer to which, so that what can't stand without another is not written without it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from applier.change import Change
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import KYVERNO, POLICIES

_BOUND: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ValidatingAdmissionPolicyBinding": "ValidatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding": "MutatingAdmissionPolicy",
    }
)
_CONTEXT: Final = "GlobalContextEntry"
_EXCEPTION: Final = "PolicyException"


def between(change: Change, others: Iterable[Change]) -> Identity | None:
    """The first of the others that the change refers to, or that refers to it, before or after; None if none does.

    A binding refers to its policy, an exception to the policies that it excepts from, a policy to the global context
    entries that it reads.
    """
    for other in others:
        if any(_refers(a, b) for a, b in ((change, other), (other, change))):
            return other.identity
    return None


def left_out(changes: Iterable[Change], refused: Mapping[Identity, str]) -> dict[Identity, str]:
    """The changes that are not to be made, and why: those that are refused, and those that need one of them."""
    changes = list(changes)
    out = dict(refused)
    while True:
        missing = [change for change in changes if change.identity in out]
        needing = ((change, between(change, missing)) for change in changes if change.identity not in out)
        found = {change.identity: because(needed) for change, needed in needing if needed}
        if not found:
            return out
        out |= found


def because(needed: Identity) -> str:
    """Why a change is left out that needs one which could not be made."""
    return f"it was left out, because {needed} could not be written."


def _refers(change: Change, to: Change) -> bool:
    return any(_body_refers(change.identity, body, to.identity) for body in (change.before, change.after) if body)


def _body_refers(identity: Identity, body: JsonObject, to: Identity) -> bool:
    kind, spec = identity.kind, body.get("spec") or {}
    if kind.name in _BOUND:
        return to.kind.name == _BOUND[kind.name] and spec.get("policyName") == to.name
    if kind.name == _EXCEPTION and kind.group == KYVERNO:
        names = {_text(entry, "policyName") for entry in spec.get("exceptions") or ()}
        return to.kind.name in ("ClusterPolicy", "Policy") and _qualified(to) in names
    if kind.name == _EXCEPTION:
        refs = spec.get("policyRefs") or ()
        return to.kind.group == POLICIES and (to.kind.name, to.name) in {
            (_text(ref, "kind"), _text(ref, "name")) for ref in refs
        }
    # An expression names its entry in quotes of one kind or another; a name too many holds back a policy, no more.
    return to.kind.name == _CONTEXT and _mentions(spec, to.name)


def _qualified(identity: Identity) -> str:
    return f"{identity.namespace}/{identity.name}" if identity.namespace else identity.name


def _text(entry: Json, key: str) -> str:
    return str(entry.get(key, "")) if isinstance(entry, dict) else ""


def _mentions(spec: Json, name: str) -> bool:
    text = json.dumps(spec)
    return any(quoted in text for quoted in (f'"{name}"', f'"{name}\\"', f"'{name}'"))
