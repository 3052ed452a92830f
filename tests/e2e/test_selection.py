"""--only, --exclude and --prune on a real API server."""

from __future__ import annotations

import pytest

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_policy, answer, cluster_policy, exception
from tests.support.programs import CLUSTER, Programs

pytestmark = pytest.mark.cluster

#: The server refuses it, so whoever asks finds out.
INVALID = cluster_policy("invalid")
INVALID["spec"]["unknown"] = True


@pytest.fixture
def without_cli(programs: Programs) -> Programs:
    return programs.with_(VALIDATE_POLICIES="false")


def publish(programs: Programs, insights: InsightsStandIn, *bodies: JsonObject) -> str:
    insights.publish(CLUSTER, answer(*bodies))
    assert programs.run("insights-renderer", "render", "--out", "snapshot").returncode == 0
    return str(programs.directory / "snapshot")


def applier(programs: Programs, *command: str, expect: int = 0) -> str:
    done = programs.run("insights-applier", *command)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def live(cluster: ControlPlane) -> set[str]:
    adapter = KubernetesCluster(Connection.open(kubeconfig=str(cluster.kubeconfig)))
    return set(map(str, adapter.observe().objects))


def test_what_is_selected_is_applied_and_the_rest_stays_and_is_not_validated(
    without_cli: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    snapshot = publish(without_cli, insights, cluster_policy("a"), admission_policy("b"), INVALID, exception("c"))
    applier(without_cli, "apply", snapshot, expect=ExitCode.INVALID_POLICY)
    assert live(cluster) == set()
    planned = applier(without_cli, "plan", snapshot, "--only", "clusterpolicies/?", expect=ExitCode.CHANGES)
    assert planned.startswith("1 to create, 0 unchanged on https://")
    by_variable = without_cli.with_(INSIGHTS_ONLY="ClusterPolicy/a PolicyException/default/c")
    assert "Applied 2, Updated 0" in applier(by_variable, "apply", snapshot)
    assert "Applied 1, Updated 0" in applier(without_cli, "apply", snapshot, "--exclude", "*/invalid")

    snapshot = publish(without_cli, insights, cluster_policy("new"))
    assert "Applied 1, Updated 0, Removed 0" in applier(without_cli, "apply", snapshot, "--prune=false")
    assert "Removed 1" in applier(without_cli, "apply", snapshot, "--only", "ClusterPolicy/a")
    assert live(cluster) == {
        "ClusterPolicy/new",
        "ValidatingAdmissionPolicy/b",
        "PolicyException.policies.kyverno.io/default/c",
    }


def test_a_slip_is_told(without_cli: Programs, insights: InsightsStandIn) -> None:
    snapshot = publish(without_cli, insights, cluster_policy("a"))
    shown = applier(without_cli, "plan", snapshot, "--only", "ClusterPolicy/b", expect=ExitCode.USAGE)
    assert "--only ClusterPolicy/b: no such policy is wanted, and none is there." in shown
    shown = applier(without_cli, "plan", snapshot, "--exclude", "ClusterPolicy/b", expect=ExitCode.CHANGES)
    assert "Note: --exclude ClusterPolicy/b means no policy that is wanted or there." in shown
    assert "Pod/a" in applier(without_cli, "plan", snapshot, "--only", "Pod/a", expect=ExitCode.USAGE)
    settings = without_cli.directory / "settings.yaml"
    for text in ("only: ClusterPolicy/a", "only: [ClusterPolicy/a]"):
        settings.write_text(text)
        planned = applier(without_cli, "plan", snapshot, "--config", str(settings), expect=ExitCode.CHANGES)
        assert planned.startswith("1 to create")
