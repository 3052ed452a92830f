"""Whose a policy is: the marks that say so, how they are set, and how they are read."""

from __future__ import annotations

import json
from typing import Final

from renderer.manifest.jsontypes import JsonObject

OWNED_BY: Final = "insights.fairwinds.com/owned-by"
OWNER: Final = "Fairwinds Insights"
#: Records which labels and annotations Insights set, so that a later sync may remove those and no others.
MANAGED_KEYS: Final = "insights.fairwinds.com/managed-keys"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_GENERATED_LABEL: Final = ("app.kubernetes.io/managed-by", "kyverno")

_SECTIONS: Final = ("annotations", "labels")


def _section(policy: JsonObject, section: str) -> JsonObject:
    metadata = policy.get("metadata")
    value = metadata.get(section) if isinstance(metadata, dict) else None
    return value if isinstance(value, dict) else {}


def is_owned(policy: JsonObject) -> bool:
    """True when the policy carries the annotation that makes it Insights' own, exactly."""
    return bool(_section(policy, "annotations").get(OWNED_BY) == OWNER)


def is_generated(policy: JsonObject) -> bool:
    """True when Kyverno (or another controller) made the object and keeps it: never ours to touch."""
    key, value = _GENERATED_LABEL
    metadata = policy.get("metadata") or {}
    return bool(metadata.get("ownerReferences")) or _section(policy, "labels").get(key) == value


def stamp(policy: JsonObject) -> JsonObject:
    """The same policy with the ownership annotation and the record of the keys that Insights sets."""
    metadata = dict(policy["metadata"])
    # A record in the source would claim keys that are not there; the owner's mark is set below.
    annotations = {
        key: value for key, value in _section(policy, "annotations").items() if key not in (MANAGED_KEYS, LAST_APPLIED)
    }
    annotations[OWNED_BY] = OWNER
    record = {
        "annotations": sorted({*annotations, MANAGED_KEYS}),
        "labels": sorted(_section(policy, "labels")),
    }
    annotations[MANAGED_KEYS] = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    metadata["annotations"] = dict(sorted(annotations.items()))
    return {**policy, "metadata": metadata}


def managed_keys(policy: JsonObject, section: str) -> frozenset[str]:
    """The keys of `labels` or `annotations` that Insights set on this policy before.

    From our own record; where that is missing, from kubectl's last-applied annotation, as the incumbent
    leaves it; where both are missing or unreadable, none: what we can't prove to be ours is not removed.
    """
    if section not in _SECTIONS:
        msg = f"no such section of metadata: {section}"
        raise ValueError(msg)
    annotations = _section(policy, "annotations")
    keys: object = None
    if MANAGED_KEYS in annotations:
        record = _parse_object(annotations[MANAGED_KEYS])
        keys = record.get(section)
    elif LAST_APPLIED in annotations:
        keys = list(_section(_parse_object(annotations[LAST_APPLIED]), section))
    if not isinstance(keys, list):
        return frozenset()
    return frozenset(key for key in keys if isinstance(key, str))


def _parse_object(text: object) -> JsonObject:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
