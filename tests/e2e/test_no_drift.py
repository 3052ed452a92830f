"""Every policy of Kyverno's source that the server takes: applied, it is in sync; with Kyverno at work, it stays so."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
import stamina

from applier import pipeline
from applier.change import Action, Change
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.guards.refusals import Allowed
from applier.ports import ServerRefused
from ci.testbed import corpus, toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.errors import RemoteError
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.kinds import ADMISSION, KINDS
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render
from tests.support.cluster import wipe

THREADS = 4
#: Policies that are in force at once get into each other's way, so only so many are there at a time.
BATCH = 50
#: What Kyverno writes a status for by itself, within a moment of their creation.
REPORTED = {"ClusterPolicy", "Policy", "ValidatingPolicy", "MutatingPolicy", "ImageValidatingPolicy"}
#: As long as nothing new was reported.
STATUS_SECONDS = 5.0


def corpus_set(adapter: KubernetesCluster) -> list[Policy]:
    """Every policy document of the source in a version that is served, as Insights would send it.

    Names recur in the source, so each gets one of its own.
    """
    renamed = []
    for number, policy in enumerate(corpus.policies(toolchain.kyverno_source())):
        resource = adapter.resources()[policy.identity.kind]
        if policy.api_version.rpartition("/")[2] not in resource.served:
            continue
        name = f"{policy.identity.name[:40].rstrip('.-')}-{number:04}"
        body = {**policy.body, "metadata": {**policy.body["metadata"], "name": name}}
        renamed.append(replace(policy, identity=replace(policy.identity, name=name), body=body))
    return list(render([Source(name="Insights", data=corpus.answer(renamed).encode())]))


@stamina.retry(on=RemoteError, attempts=5, timeout=120)
def planned(adapter: KubernetesCluster, policies: list[Policy]) -> pipeline.Prepared:
    """The plan, made once the admission controller has time for all its dry runs."""
    return pipeline.prepare(adapter, PolicySet(policies), allowed=Allowed())


def create(adapter: KubernetesCluster, change: Change) -> None:
    """Create it, if what is in force already lets it; some of that is slow."""
    with suppress(ServerRefused, RemoteError):
        adapter.create(change.after or {}, change.identity)


def batches(policies: list[Policy]) -> Iterator[list[Policy]]:
    """Batches of one group at a time, since Kyverno's kinds and the built-in ones are in force differently."""
    for _, group in itertools.groupby(policies, key=lambda policy: policy.identity.kind.group == ADMISSION):
        members = list(group)
        yield from (members[start : start + BATCH] for start in range(0, len(members), BATCH))


class Run:
    """Applies batches and plans them again, and counts what happened."""

    def __init__(self, plane: ControlPlane, *, with_status: bool) -> None:
        self.plane = plane
        self.with_status = with_status
        self.connection = Connection.open(kubeconfig=str(plane.kubeconfig))
        self.adapter = KubernetesCluster(self.connection)
        self.counts: Counter[str] = Counter()
        self.drifting: list[Change] = []

    def whole_corpus(self) -> None:
        policies = sorted(corpus_set(self.adapter), key=lambda policy: policy.identity.kind.group == ADMISSION)
        for namespace in {policy.identity.namespace for policy in policies if policy.identity.namespace}:
            corpus.ensure_namespace(self.connection, namespace)
        denied = [policy for batch in batches(policies) for policy in self.batch(batch)]
        # Those that another one of their batch denied, each for itself.
        for policy in denied:
            self.counts["denied by itself"] += len(self.batch([policy]))
        print(f"{self.applied} policies applied, {len(self.drifting)} drift: {dict(self.counts)}")

    def batch(self, policies: list[Policy]) -> list[Policy]:
        """Apply them, plan them again, and delete them; give those that were denied though their dry run was not."""
        prepared = planned(self.adapter, policies)
        refused = {finding.policy for finding in prepared.verdict.errors}
        self.counts["refused by a dry run"] += len(refused)
        wanted = [change for change in prepared.plan.of(Action.CREATE) if change.identity not in refused]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda change: create(self.adapter, change), wanted))
        there = {change.identity for change in wanted} & self.adapter.observe().objects.keys()
        self.counts.update(identity.kind.resource for identity in there)
        if self.with_status:
            self.counts["with a status"] += wait_for_status(self.adapter, there)
        again = planned(self.adapter, [policy for policy in policies if policy.identity in there]).plan
        assert len(again.changes) == len(there)
        self.drifting += [change for change in again.changes if change.action is not Action.UNCHANGED]
        wipe(self.plane)
        denied = {change.identity for change in wanted} - there
        return [policy for policy in policies if policy.identity in denied]

    @property
    def applied(self) -> int:
        return sum(self.counts[kind.resource] for kind in KINDS)

    def check(self, *, at_least: int) -> None:
        assert [(change.identity, change.patch) for change in self.drifting] == []
        assert {kind for kind in KINDS if not self.counts[kind.resource]} == set()
        assert self.applied >= at_least


def wait_for_status(adapter: KubernetesCluster, identities: set[Identity]) -> int:
    """Wait while Kyverno reports on more of those that it reports on; give how many have a status."""
    expected = {identity for identity in identities if identity.kind.name in REPORTED}
    reported: set[Identity] = set()
    end = time.monotonic() + STATUS_SECONDS
    while reported != expected and time.monotonic() < end:
        objects = adapter.observe().objects
        now = {identity for identity in expected if objects.get(identity, {}).get("status")}
        if now != reported:
            reported, end = now, time.monotonic() + STATUS_SECONDS
        time.sleep(0.2)
    return len(reported)


@pytest.mark.cluster
def test_whatever_the_server_takes_is_in_sync_once_applied(cluster: ControlPlane) -> None:
    run = Run(cluster, with_status=False)
    run.whole_corpus()
    run.check(at_least=1500)


@pytest.mark.kyverno
@pytest.mark.timeout(900)
def test_with_kyverno_at_work_it_stays_in_sync(kyverno_plane: ControlPlane) -> None:
    wipe(kyverno_plane)
    run = Run(kyverno_plane, with_status=True)
    run.whole_corpus()
    run.check(at_least=1200)
    assert run.counts["with a status"] >= 800
