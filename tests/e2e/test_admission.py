"""The applier where Kyverno's own admission controller answers every write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from applier.cluster import KubernetesCluster
from applier.connection import Connection
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.ownership import is_generated, is_owned
from tests.support.cluster import wipe
from tests.support.insights import InsightsStandIn
from tests.support.policies import answer, cluster_policy, validating_policy
from tests.support.programs import CLUSTER, Programs

pytestmark = pytest.mark.kyverno

BASELINE = Path(__file__).resolve().parents[2] / "policies" / "snapshot"


@pytest.fixture
def guarded(offline: Programs, kyverno_plane: ControlPlane) -> Programs:
    wipe(kyverno_plane)
    lock = str(offline.directory / "sync.lock")
    return offline.with_(KUBECONFIG=str(kyverno_plane.kubeconfig), INSIGHTS_LOCK_FILE=lock)


def owned(plane: ControlPlane) -> int:
    """How many policies are Insights' own; Kyverno makes some objects of its own from them."""
    objects = KubernetesCluster(Connection.open(kubeconfig=str(plane.kubeconfig))).observe().objects
    return sum(is_owned(body) and not is_generated(body) for body in objects.values())


def test_the_baseline_is_applied_and_what_kyverno_writes_is_no_drift(
    guarded: Programs, kyverno_plane: ControlPlane
) -> None:
    done = guarded.run("insights-applier", "apply", str(BASELINE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert owned(kyverno_plane) == 47
    adapter = KubernetesCluster(Connection.open(kubeconfig=str(kyverno_plane.kubeconfig)))
    assert any("status" in body for body in adapter.observe().objects.values())
    planned = guarded.run("insights-applier", "plan", str(BASELINE))
    assert (planned.returncode, planned.stdout.startswith("No changes: 47 unchanged")) == (0, True), planned.stdout


def test_what_only_the_webhook_refuses_is_refused_before_anything_is_written(
    guarded: Programs, insights: InsightsStandIn, kyverno_plane: ControlPlane
) -> None:
    refused = validating_policy("refused")
    refused["spec"]["matchConstraints"] = {"resourceRules": []}
    insights.publish(CLUSTER, answer(cluster_policy("fine"), refused))
    done = guarded.run("insights-applier", "sync")
    line = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, line["failed"]) == (ExitCode.INVALID_POLICY, ["refused"]), line
    assert "[server]" in line["error"]
    assert owned(kyverno_plane) == 0


def test_a_webhook_that_does_not_answer_is_told_plainly_and_nothing_is_written(
    guarded: Programs, insights: InsightsStandIn, kyverno_plane: ControlPlane
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy("fine")))
    kyverno_plane.kill("kyverno-controller")
    try:
        done = guarded.run("insights-applier", "sync")
        line = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == ExitCode.UNAVAILABLE
        assert "Kyverno's admission controller does not answer" in line["error"]
        assert "webhook.kyverno.io/managed-by=kyverno" in line["error"]
        assert owned(kyverno_plane) == 0
    finally:
        kyverno_plane.restart("kyverno-controller")
    assert guarded.run("insights-applier", "sync").returncode == 0
