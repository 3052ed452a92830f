"""Pure: which PolicyExceptions there are for a policy, and which Kyverno says that it does not process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from applier.guards.own_writes import items
from applier.verdict import Verdict
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KYVERNO

#: What the webhook warns of (pkg/validation/exception); with the first two it processes no exception at all.
NONE_PROCESSED: Final = (
    "PolicyException resources would not be processed until it is enabled.",
    "The exceptionNamespace flag is not set",
)
_UNPROCESSED: Final = (*NONE_PROCESSED, "PolicyException resource namespace must match the defined namespace.")


def unprocessed(verdict: Verdict) -> Iterator[tuple[Identity, str]]:
    """The exceptions of which Kyverno's webhook warns that it will not process them."""
    for finding in verdict.warnings:
        message = next((text for text in _UNPROCESSED if text in finding.problem.message), "")
        if message and finding.policy.kind.name == "PolicyException":
            yield finding.policy, message


def in_world(world: Mapping[Identity, JsonObject]) -> list[tuple[Identity, JsonObject]]:
    """The exceptions among these objects, in the order of their identities."""
    return sorted(
        (
            (identity, body)
            for identity, body in world.items()
            if identity.kind.name == "PolicyException" and isinstance(body.get("spec"), dict)
        ),
        key=lambda entry: entry[0],
    )


def naming(identity: Identity, exceptions: Iterable[tuple[Identity, JsonObject]]) -> list[tuple[Identity, JsonObject]]:
    """Those that name the policy."""
    return [
        (other, body)
        for other, body in exceptions
        if other.kind.group == identity.kind.group and _references(body["spec"], identity)
    ]


def _references(spec: JsonObject, identity: Identity) -> list[JsonObject]:
    """The entries of an exception that name the policy."""
    if identity.kind.group == KYVERNO:
        name = "/".join(filter(None, (identity.namespace, identity.name)))
        return [entry for entry in items(spec.get("exceptions")) if entry.get("policyName") == name]
    return [
        entry
        for entry in items(spec.get("policyRefs"))
        if (entry.get("name"), entry.get("kind")) == (identity.name, identity.kind.name)
    ]


def spec_for(identity: Identity, exception: JsonObject, name: str) -> JsonObject:
    """The spec of an exception for that policy alone, which is called `name`."""
    spec = exception["spec"]
    if identity.kind.group == KYVERNO:
        full = "/".join(filter(None, (identity.namespace, name)))
        entries = [{**entry, "policyName": full} for entry in _references(spec, identity)]
        return {**spec, "exceptions": entries}
    entries = [{**entry, "name": name} for entry in _references(spec, identity)]
    return {**spec, "policyRefs": entries}
