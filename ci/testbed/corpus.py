"""Kyverno's own policies, read from its module's source when a demo, a test or a measurement runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.ports import ServerRefused, Validator
from ci.testbed import paths, toolchain
from renderer.manifest import yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.render import Source, read_policies

#: Where policies lie in the source; the rest is code, resources and expected results.
FOLDERS = ("test/cli", "test/conformance", "test/policy", "charts")


def files(source: Path) -> Iterator[Path]:
    """Every YAML file of those folders, sorted; Helm's templates are no YAML and are left out."""
    for folder in FOLDERS:
        for directory, subfolders, names in os.walk(source / folder):
            subfolders[:] = sorted(name for name in subfolders if name != "templates")
            for name in sorted(names):
                if name.endswith((".yaml", ".yml")):
                    yield Path(directory) / name


def policies(source: Path) -> Iterator[Policy]:
    """Every policy document there that we read as one, in the order of the files; names do recur."""
    for path in files(source):
        documents, _ = yamlio.load_documents(path.read_bytes(), source=path.relative_to(source).as_posix())
        for document in documents:
            policy, _ = parse(document)
            if policy is not None:
                yield policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The policies that a rule chose, and how many each judge refused on the way."""

    policies: tuple[Policy, ...]
    refused_by_server: int
    refused_by_cli: int


def choose(cluster: KubernetesCluster, connection: Connection, validator: Validator | None, *, per_kind: int) -> Choice:
    """The first so many of each kind, ours before Kyverno's, that a strict server dry run and any validator accept.

    The namespaces that they need are made.
    """
    chosen: dict[Identity, Policy] = {}
    count: Counter[str] = Counter()
    refused = 0
    for policy in candidates():
        kind = policy.identity.kind
        if policy.identity in chosen or count[kind.resource] == per_kind or not _is_served(policy, cluster):
            continue
        if policy.identity.namespace:
            ensure_namespace(connection, policy.identity.namespace)
        body = {**content(policy.body, kind), "apiVersion": cluster.resources()[kind].api_version}
        try:
            cluster.create(body, policy.identity, dry_run=True)
        except ServerRefused:
            refused += 1
            continue
        chosen[policy.identity] = policy
        count[kind.resource] += 1
    invalid = {finding.policy for finding in validator.validate(list(chosen.values())).errors} if validator else set()
    return Choice(
        policies=tuple(policy for identity, policy in chosen.items() if identity not in invalid),
        refused_by_server=refused,
        refused_by_cli=len(invalid),
    )


def _is_served(policy: Policy, cluster: KubernetesCluster) -> bool:
    resource = cluster.resources().get(policy.identity.kind)
    return resource is not None and policy.api_version.rpartition("/")[2] in resource.served


def candidates() -> Iterator[Policy]:
    """The project's own policies, then Kyverno's, without those that only a controller may make."""
    own = sorted((paths.ROOT / "policies" / "sources").rglob("*.yaml"))
    found, _ = read_policies(Source(name=str(path), data=path.read_bytes()) for path in own)
    yield from found
    yield from policies(toolchain.kyverno_source())


def ensure_namespace(connection: Connection, name: str) -> None:
    """Make the namespace if it is not there."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    try:
        connection.send("POST", "/api/v1/namespaces", body=body)
    except ServerRefused as error:
        if error.status.code != 409:
            raise


def answer(chosen: Iterable[Policy]) -> str:
    """The policies as Insights would send them."""
    return "---\n".join(yamlio.dump({**policy.body, "metadata": _metadata(policy)}) for policy in chosen)


def _metadata(policy: Policy) -> JsonObject:
    namespace = {"namespace": policy.identity.namespace} if policy.identity.namespace else {}
    return {**policy.body["metadata"], **namespace}
