"""Somebody edits live policies anyhow: an apply brings the spec back, and leaves alone what others added."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Final

import pytest

from applier.cluster.connection import JSON_PATCH, Connection
from applier.cluster.policies import KubernetesCluster
from applier.ports import ServerRefused
from ci.testbed import corpus
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import ADMISSION
from renderer.manifest.normalize import content
from tests.support.insights import InsightsStandIn
from tests.support.mutation import mutate
from tests.support.policies import answer, cluster_policy, identity_of
from tests.support.programs import CLUSTER, Programs

pytestmark = pytest.mark.cluster

PER_KIND: Final = 8
ATTEMPTS: Final = 20
THEIRS: Final = {"example.com/theirs": "kept"}


@pytest.fixture
def connection(cluster: ControlPlane) -> Connection:
    return Connection.open(kubeconfig=str(cluster.kubeconfig))


@pytest.fixture
def adapter(connection: Connection) -> KubernetesCluster:
    return KubernetesCluster(connection)


def edit(connection: Connection, identity: Identity, live: JsonObject, operations: list[Json]) -> None:
    namespace = f"/namespaces/{identity.namespace}" if identity.namespace else ""
    path = f"/apis/{live['apiVersion']}{namespace}/{identity.kind.plural}/{identity.name}"
    connection.send("PATCH", path, {"fieldManager": "kubectl-edit"}, operations, content_type=JSON_PATCH)


def edited(connection: Connection, identity: Identity, live: JsonObject, chance: Random) -> bool:
    """Change the spec until the server takes it, and add a label, an annotation and a finalizer."""
    metadata = [
        {"op": "add", "path": "/metadata/labels", "value": (live["metadata"].get("labels") or {}) | THEIRS},
        {"op": "add", "path": "/metadata/annotations", "value": live["metadata"]["annotations"] | THEIRS},
        {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/theirs"]},
    ]
    for _ in range(ATTEMPTS):
        spec = copy.deepcopy(live["spec"])
        mutate(chance, spec)
        try:
            edit(connection, identity, live, [*metadata, {"op": "replace", "path": "/spec", "value": spec}])
        except ServerRefused:
            continue
        return True
    return False


def test_what_was_edited_anyhow_is_brought_back(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster, connection: Connection
) -> None:
    chosen = {
        policy.identity: policy
        for policy in corpus.choose(adapter, connection, None, per_kind=PER_KIND).policies
        # In force at once, and edited by chance, these might stop the test itself.
        if policy.identity.kind.group != ADMISSION
    }
    insights.publish(CLUSTER, corpus.answer(chosen.values()))
    offline = programs.with_(VALIDATE_POLICIES="false")
    assert offline.run("insights-applier", "sync").returncode == 0
    was = adapter.observe().objects
    assert was.keys() == chosen.keys()

    chance = Random(7)
    drifted = {identity for identity, live in was.items() if edited(connection, identity, live, chance)}
    assert len(drifted) > 0.9 * len(was)
    now = adapter.observe().objects
    changed = {identity for identity in drifted if now[identity]["spec"] != was[identity]["spec"]}
    assert len(changed) > 0.5 * len(was)

    done = offline.run("insights-applier", "sync")
    assert json.loads(done.stdout.splitlines()[-1])["updated"], done.stdout
    for identity, live in adapter.observe().objects.items():
        before = content(was[identity], identity.kind)
        if identity in drifted:
            metadata = before["metadata"]
            metadata["labels"] = metadata.get("labels", {}) | THEIRS
            metadata["annotations"] |= THEIRS
            metadata["finalizers"] = ["example.com/theirs"]
        assert content(live, identity.kind) == before
    assert offline.run("insights-renderer", "render", "--out", "snapshot").returncode == 0
    assert offline.run("insights-applier", "plan", "snapshot").returncode == ExitCode.OK


def test_more_changes_than_one_patch_may_hold(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    def huge(value: str) -> JsonObject:
        body = cluster_policy("huge")
        body["spec"]["rules"][0]["validate"]["pattern"] = {f"k{number}": value for number in range(10_500)}
        return body

    offline = programs.with_(VALIDATE_POLICIES="false")
    for value in ("before", "after"):
        insights.publish(CLUSTER, answer(huge(value)))
        done = offline.run("insights-applier", "sync")
        assert done.returncode == 0, done.stdout
    (stored,) = adapter.observe().objects.values()
    assert stored["spec"]["rules"][0]["validate"]["pattern"] == huge("after")["spec"]["rules"][0]["validate"]["pattern"]
    assert list(adapter.observe().objects) == [identity_of(huge("after"))]
