"""Nothing bad passes and nothing good is refused, where Kyverno's own admission controller has the last word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import stamina

from applier import pipeline
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.guards.refusals import Allowed
from applier.kyverno_cli import KyvernoCli
from applier.ports import ServerRefused
from applier.verdict import Layer
from ci.testbed import corpus
from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.errors import ExitCode, RemoteError
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.kinds import KINDS, Kind
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet
from tests.support import bad_policies
from tests.support.bad_policies import BAD, GOOD
from tests.support.cluster import wipe
from tests.support.policies import desired
from tests.support.programs import CLUSTER, Programs
from tests.support.tools import tool

pytestmark = pytest.mark.kyverno

_CONCURRENCY = 4
LAYERS = [layer.value for layer in Layer]


@pytest.fixture
def adapter(kyverno_plane: ControlPlane) -> KubernetesCluster:
    wipe(kyverno_plane)
    return KubernetesCluster(Connection.open(kubeconfig=str(kyverno_plane.kubeconfig)))


def test_the_policies_in_which_mistakes_are_made_are_good(adapter: KubernetesCluster) -> None:
    policies = desired(*(bad_policies.good(kind, "good") for kind in GOOD))
    assert {policy.identity.kind for policy in policies} == set(KINDS)
    checks = pipeline.Checks(validator=KyvernoCli(tool("kyverno")))
    errors = pipeline.prepare(adapter, policies, allowed=Allowed(), checks=checks).verdict.errors
    assert [str(finding.problem) for finding in errors] == []


def test_every_mistake_is_caught_before_any_write(
    adapter: KubernetesCluster, kyverno_plane: ControlPlane, offline: Programs
) -> None:
    assert len(BAD) >= 60
    assert {case.policy.identity.kind for case in BAD} == set(KINDS)
    programs = offline.with_(
        KUBECONFIG=str(kyverno_plane.kubeconfig), INSIGHTS_LOCK_FILE=str(offline.directory / "sync.lock")
    )
    files = snapshot.render_files(bad_policies.all_bad(), organization="acme", cluster=CLUSTER)
    snapshot.write(programs.directory / "bad", files)
    found = json.loads(programs.run("insights-applier", "validate", "bad", "-o", "json").stdout)
    layers: dict[str, set[str]] = {}
    for finding in found["findings"]:
        if finding["severity"] == "error":
            layers.setdefault(finding["policy"], set()).add(finding["layer"])
    rows = [(case, sorted(layers.get(str(case.policy.identity), ()), key=LAYERS.index)) for case in BAD]
    print(f"\n{len(BAD)} mistakes, and who finds them:")
    for case, by in rows:
        print(f"  {case.kind:34} {case.mistake:36} {', '.join(by)}")
    print(" ", dict(Counter(by[0] for _, by in rows if by)), "were the first")
    wrong = [(case.name, by) for case, by in rows if by[:1] != [case.layer.value]]
    assert wrong == []

    applied = programs.run("insights-applier", "apply", "bad")
    assert applied.returncode == ExitCode.INVALID_POLICY
    assert f"{len(BAD)} policies are not valid; nothing was written." in applied.stderr
    assert adapter.observe().objects == {}


class ReadOnly(KubernetesCluster):
    """The same cluster for an account that may write nothing: the schemas and the CLI judge alone."""

    def may_write(self, kinds: Sequence[Kind]) -> frozenset[Kind]:  # noqa: ARG002 - none of them
        return frozenset()


@pytest.mark.timeout(900)
def test_nothing_that_kyverno_accepts_is_refused(adapter: KubernetesCluster, kyverno_plane: ControlPlane) -> None:
    connection = Connection.open(kubeconfig=str(kyverno_plane.kubeconfig))
    policies = [policy for policy in distinct(corpus.candidates()) if is_served(adapter, policy)]
    for namespace in {policy.identity.namespace for policy in policies} - {""}:
        corpus.ensure_namespace(connection, namespace)
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        refusals = list(pool.map(lambda policy: refusal_of(adapter, policy), policies))
    refused = [(policy, refusal) for policy, refusal in zip(policies, refusals, strict=True) if refusal]
    accepted = [policy for policy, refusal in zip(policies, refusals, strict=True) if not refusal]
    print(f"\n{len(policies)} policies of Kyverno's source and of this repository; Kyverno refuses {len(refused)}:")
    for policy, refusal in refused:
        print(f"  {policy.source}: {policy.identity}: {refusal[:160]!r}")
    assert [str(policy.identity) for policy, _ in refused if "policies/sources" in policy.source] == []
    assert len(accepted) > 1000

    checks = pipeline.Checks(validator=KyvernoCli(tool("kyverno")))
    prepared = pipeline.prepare(
        ReadOnly(connection), PolicySet(accepted), allowed=Allowed(), checks=checks, writes=False
    )
    print(f"{len(accepted)} are accepted; of {len(prepared.verdict.unjudged)} the kyverno CLI can't tell")
    assert [f"[{finding.layer.value}] {finding.problem}" for finding in prepared.verdict.errors] == []


def distinct(policies: Iterable[Policy]) -> Iterator[Policy]:
    """Each once, however many folders hold a copy of it; others of its name get a number, so that all can be wanted."""
    seen: set[str] = set()
    count: Counter[Identity] = Counter()
    for policy in policies:
        text = f"{policy.identity} {json.dumps(policy.body, sort_keys=True)}"
        if text in seen:
            continue
        seen.add(text)
        count[policy.identity] += 1
        number = count[policy.identity]
        yield policy if number == 1 else renamed(policy, f"{policy.identity.name[:50]}-v{number}")


def renamed(policy: Policy, name: str) -> Policy:
    body = {**policy.body, "metadata": {**policy.body["metadata"], "name": name}}
    return replace(policy, identity=replace(policy.identity, name=name), body=body)


def is_served(adapter: KubernetesCluster, policy: Policy) -> bool:
    resource = adapter.resources().get(policy.identity.kind)
    return resource is not None and policy.api_version.rpartition("/")[2] in resource.served


# A busy machine may be too slow for the ten seconds that the webhook has.
@stamina.retry(on=RemoteError, attempts=5)
def refusal_of(adapter: KubernetesCluster, policy: Policy) -> str:
    """Why the server refuses the policy as it was written, "" when it does not."""
    kind = policy.identity.kind
    body = {**content(policy.body, kind), "apiVersion": adapter.resources()[kind].api_version}
    try:
        adapter.create(body, policy.identity, dry_run=True)
    except ServerRefused as error:
        return error.message
    return ""
