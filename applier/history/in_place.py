"""Pure: which policies are in place after a run that was asked for some of them only."""

from __future__ import annotations

from dataclasses import replace

from applier.ports import Live
from applier.selection import Selection
from renderer.manifest import ownership
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet


def in_place(desired: PolicySet, selected: Selection, live: Live) -> PolicySet:
    """What was asked for as it is wanted, and of what else Insights owns, what of it is Insights'.

    `live` is what the cluster holds after the run.
    """
    wanted = {policy.identity: policy for policy in selected.of(desired)}
    others = [
        Policy(identity=identity, body=_ours(body, identity))
        for identity, body in live.objects.items()
        if identity not in wanted and ownership.is_owned(body) and not ownership.is_generated(body)
    ]
    return PolicySet([*(replace(policy, document=None) for policy in wanted.values()), *others])


def _ours(body: JsonObject, identity: Identity) -> JsonObject:
    """The object as it would be rendered: of its labels and annotations only those that Insights set."""
    whole = content(body, identity.kind)
    metadata: JsonObject = {"name": identity.name}
    if identity.namespace:
        metadata["namespace"] = identity.namespace
    for section in ("labels", "annotations"):
        mine = ownership.managed_keys(body, section)
        kept = {key: value for key, value in whole["metadata"].get(section, {}).items() if key in mine}
        if kept:
            metadata[section] = kept
    return ownership.stamp({**whole, "metadata": metadata})
