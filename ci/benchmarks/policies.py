"""Real policies in any number: Kyverno's own ClusterPolicies, multiplied with changed names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from applier.cluster.policies import KubernetesCluster
from applier.kyverno_cli import KyvernoCli
from applier.ports import ServerRefused
from ci.testbed import corpus, paths
from renderer.manifest import yamlio
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render


def accepted(
    cluster: KubernetesCluster, *, fits: Callable[[Policy], bool] = lambda _: True, most: int | None = None
) -> list[Policy]:
    """Kyverno's own ClusterPolicies that fit and that a strict dry run and the kyverno CLI accept, each name once.

    Those that judge what an applier writes besides policies are left out: a guard would refuse them. No more
    than `most` are asked about.
    """
    found: dict[Identity, Policy] = {}
    for policy in corpus.candidates():
        if policy.identity.kind.name != "ClusterPolicy" or policy.identity in found or _meddles(policy):
            continue
        if not fits(policy):
            continue
        if most is not None and len(found) >= most:
            break
        try:
            cluster.create(content(policy.body, policy.identity.kind), policy.identity, dry_run=True)
        except ServerRefused:
            continue
        found[policy.identity] = policy
    cli = KyvernoCli(KyvernoCli.find(str(paths.BINARIES / "kyverno")))
    refused = {finding.policy for finding in cli.validate(list(found.values())).errors}
    return [policy for identity, policy in found.items() if identity not in refused]


def multiplied(policies: list[Policy], count: int) -> PolicySet:
    """So many of them, over and over, each with a name of its own."""
    return PolicySet(_multiplied(policies, count))


def _multiplied(policies: list[Policy], count: int) -> Iterator[Policy]:
    for number in range(count):
        policy = policies[number % len(policies)]
        metadata = {**policy.body["metadata"], "name": f"p{number:05}-{policy.identity.name}"[:63].rstrip("-.")}
        yield from render([Source(name="bench", data=yamlio.dump({**policy.body, "metadata": metadata}).encode())])


def _meddles(policy: Policy) -> bool:
    """Whether one of its rules is for ConfigMaps, Leases, policies or everything."""
    return any(
        kind.rpartition("/")[2] in ("*", "ConfigMap", "Lease", "ClusterPolicy", "Policy")
        for rule in policy.body.get("spec", {}).get("rules", [])
        for kind in _kinds(rule.get("match", {}))
    )


def _kinds(match: JsonObject) -> Iterator[str]:
    for part in (match, *match.get("any", []), *match.get("all", [])):
        yield from part.get("resources", {}).get("kinds", [])
