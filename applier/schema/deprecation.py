"""Pure: which of what a policy uses is deprecated, in whose words, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from applier.ports import Live
from applier.verdict import Finding, Layer, Verdict
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import Json
from renderer.manifest.kinds import KYVERNO, POLICIES, find

_GUIDE: Final = "https://kyverno.io/docs/guides/migration-to-cel/"
#: What Kyverno says to migrate to (its pkg/deprecations, 1.19; it names no release yet that removes them).
_REPLACEMENTS: Final[Mapping[str, str]] = {
    "ClusterPolicy": "ValidatingPolicy, MutatingPolicy, GeneratingPolicy or ImageValidatingPolicy",
    "Policy": "NamespacedValidatingPolicy and the other namespaced policy types",
    "ClusterCleanupPolicy": "DeletingPolicy",
    "CleanupPolicy": "NamespacedDeletingPolicy",
    "PolicyException": "PolicyException",
}
_RULE_KINDS: Final = frozenset({"ClusterPolicy", "Policy"})
_ANY_OR_ALL: Final = tuple(f"{side}.{group}" for side in ("match", "exclude") for group in ("any", "all"))
_NAMES: Final = "use names"
_IN_WEBHOOK: Final = "use the one under webhookConfiguration"
_ATTESTOR_KEYS: Final = "attestors[].entries[].keys.signatureAlgorithm"
#: Fields of ClusterPolicy and Policy, and what to do instead: those whose descriptions in Kyverno's CRDs (1.19)
#: call them deprecated. A test holds this against the CRDs.
RULE_FIELDS: Final[Mapping[str, str]] = {
    "spec.validationFailureAction": "use failureAction under each rule's validate",
    "spec.validationFailureActionOverrides": "use failureActionOverrides under each rule's validate",
    "spec.failurePolicy": _IN_WEBHOOK,
    "spec.webhookTimeoutSeconds": "use timeoutSeconds under webhookConfiguration",
    "spec.schemaValidation": "remove it",
    "spec.generateExisting": "use the one under each rule's generate",
    "spec.generateExistingOnPolicyUpdate": "use generateExisting under each rule's generate",
    "spec.mutateExistingOnPolicyUpdate": "use the one under each rule's mutate",
    "spec.rules[].match.resources": "put it under any or all",
    "spec.rules[].exclude.resources": "put it under any or all",
    "spec.rules[].match.resources.name": _NAMES,
    "spec.rules[].exclude.resources.name": _NAMES,
    **{f"spec.rules[].{place}[].resources.name": _NAMES for place in _ANY_OR_ALL},
    "spec.rules[].validate.assert": "remove it: it has no effect since 1.19",
    f"spec.rules[].validate.manifests.{_ATTESTOR_KEYS}": "use signatureAlgorithm of the attestor",
    f"spec.rules[].verifyImages[].{_ATTESTOR_KEYS}": "use signatureAlgorithm of the attestor",
    f"spec.rules[].verifyImages[].attestations[].{_ATTESTOR_KEYS}": "use signatureAlgorithm of the attestor",
    "spec.rules[].verifyImages[].attestations[].predicateType": "use type",
    "spec.rules[].verifyImages[].additionalExtensions": "remove it",
    "spec.rules[].verifyImages[].annotations": "use annotations of each attestor",
    "spec.rules[].verifyImages[].image": "use imageReferences",
    "spec.rules[].verifyImages[].issuer": "use a keyless attestor",
    "spec.rules[].verifyImages[].key": "use a static key attestor",
    "spec.rules[].verifyImages[].roots": "use a keyless attestor",
    "spec.rules[].verifyImages[].subject": "use a keyless attestor",
}
#: The same of the clean-up policies and of kyverno.io's PolicyException.
MATCH_FIELDS: Final[Mapping[str, str]] = {f"spec.{place}[].resources.name": _NAMES for place in _ANY_OR_ALL}


def judge(policies: Iterable[Policy], live: Live | None = None) -> Verdict:
    """Warn of what these policies use that is deprecated.

    Of the version that a cluster stores, the cluster's own words count: what it said when it was listed.
    """
    return Verdict(findings=tuple(finding for policy in policies for finding in _findings(policy, live)))


def of_version(api_version: str, kind: str) -> str:
    """What Kyverno 1.19 says of that kind in that version, "" when it is not deprecated."""
    group, _, version = api_version.rpartition("/")
    if group == KYVERNO and kind in _REPLACEMENTS:
        return (
            f"{api_version} {kind} is deprecated and will be removed in a future release; "
            f"migrate to {_REPLACEMENTS[kind]} ({POLICIES}), see {_GUIDE}"
        )
    if group == KYVERNO and (kind, version) == ("GlobalContextEntry", "v2alpha1"):
        return f"{api_version} {kind} is deprecated; use {KYVERNO}/v2 {kind}"
    if group == POLICIES and version == "v1alpha1" and find(group, kind):
        return f"{api_version} {kind} is deprecated"
    return ""


def fields(policy: Policy) -> Mapping[str, str]:
    """The deprecated fields of its kind, and what to do instead."""
    kind = policy.identity.kind
    if kind.group != KYVERNO or kind.name not in _REPLACEMENTS:
        return {}
    return RULE_FIELDS if kind.name in _RULE_KINDS else MATCH_FIELDS


def _findings(policy: Policy, live: Live | None) -> Iterator[Finding]:
    for text in _of_kind(policy, live):
        yield _warning(policy, text, "apiVersion")
    for pattern, advice in fields(policy).items():
        for path in _places(policy.body, pattern.replace("[]", ".[]").split(".")):
            yield _warning(policy, f"is deprecated: {advice}", *path)


def _of_kind(policy: Policy, live: Live | None) -> Iterable[str]:
    kind = policy.identity.kind
    resource = live.resources.get(kind) if live else None
    if live and resource and resource.api_version == policy.api_version:
        return live.warnings.get(kind, ())
    return filter(None, [of_version(policy.api_version, kind.name)])


def _places(value: Json, pattern: list[str], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths at which something stands where the pattern points."""
    if not pattern:
        if value is not None:
            yield path
        return
    first, rest = pattern[0], pattern[1:]
    if first == "[]" and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, rest, (*path, index))
    elif isinstance(value, dict) and first in value:
        yield from _places(value[first], rest, (*path, first))


def _warning(policy: Policy, message: str, *path: str | int) -> Finding:
    problem = policy.problem(message, *path)
    return Finding(policy=policy.identity, layer=Layer.DEPRECATION, problem=problem, warning=True)
