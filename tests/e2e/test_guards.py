"""Every guard on a real API server: what it refuses, with which code, and the flag and variable that allow it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator

import pytest

from applier import lock
from applier.cluster.policies import KubernetesCluster
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_binding, admission_policy, answer, cluster_policy, identity_of
from tests.support.programs import CLUSTER, Programs
from tests.support.workflow import applier, contents, render

pytestmark = pytest.mark.cluster


@pytest.fixture
def quick(programs: Programs) -> Programs:
    """The programs without the kyverno CLI, which has no part in these guards."""
    return programs.with_(VALIDATE_POLICIES="false")


def enforcing(name: str) -> JsonObject:
    body = copy.deepcopy(cluster_policy(name))
    body["spec"]["validationFailureAction"] = "Enforce"
    return body


def test_apply_takes_no_protection_away_unless_allowed_and_plan_says_what_it_would_take(
    quick: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    applier(quick, "apply", render(quick, insights, enforcing("kept"), enforcing("loosened"), enforcing("withdrawn")))
    before = contents(adapter)
    snapshot = render(quick, insights, enforcing("kept"), cluster_policy("loosened"))
    shown = applier(quick, "plan", snapshot, expect=ExitCode.CHANGES)
    assert "`apply` needs --allow-weaken (INSIGHTS_ALLOW_WEAKEN=true) for ClusterPolicy/loosened, " in shown
    assert "--allow-weaken" not in applier(quick, "plan", snapshot, "--allow-weaken", expect=ExitCode.CHANGES)
    for command in (("apply", snapshot), ("apply", snapshot, "--dry-run")):
        shown = applier(quick, *command, expect=ExitCode.WEAKENS)
        assert "ClusterPolicy/loosened: rule team no longer denies requests (Deny → Audit)" in shown
        assert "ClusterPolicy/withdrawn: rule team no longer denies requests (Deny → Off): it is removed" in shown
        assert "ClusterPolicy/kept" not in shown
        assert "--allow-weaken (INSIGHTS_ALLOW_WEAKEN=true)" in shown
        assert contents(adapter) == before
    shown = applier(quick.with_(INSIGHTS_ALLOW_WEAKEN="true"), "apply", snapshot)
    assert "Applied 0, Updated 1, Removed 1, Failed 0" in shown
    assert contents(adapter).keys() == {identity_of(enforcing("kept")), identity_of(cluster_policy("loosened"))}


def test_in_a_sync_insights_decides_what_is_enforced(quick: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(enforcing("kept"), enforcing("withdrawn")))
    applier(quick, "sync")
    insights.publish(CLUSTER, answer(cluster_policy("kept")))
    assert "Updated 1, Removed 1" in applier(quick, "sync")


def lease_guard() -> tuple[JsonObject, JsonObject]:
    """A policy of the server's own that takes no Lease without labels, and its binding."""
    policy, binding = admission_policy("lease-labels"), admission_binding("lease-labels", policy="lease-labels")
    policy["spec"] = {
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["leases"],
                }
            ],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": AGENT_NAMESPACE}},
        },
        "validations": [{"expression": "has(object.metadata.labels)", "message": "A Lease needs labels."}],
    }
    binding["spec"]["validationActions"] = ["Deny"]
    return policy, binding


def test_a_policy_that_would_deny_our_own_lease_is_refused_before_anything_is_written(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    applier(programs, "apply", render(programs, insights, cluster_policy("one")))
    lease_path = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/{lock.LEASE}"
    lease = cluster.api.call("GET", lease_path)
    guard = lease_guard()
    # First, that it does block whoever renews the Lease, and soon.
    for body in guard:
        cluster.api.call("POST", f"/apis/{body['apiVersion']}/{identity_of(body).kind.plural}", body)
    end = time.monotonic() + 30
    while (answer_to := cluster.api.ask("PUT", lease_path, lease, params={"dryRun": "All"})).ok:
        assert time.monotonic() < end, "the policy never came into force"
    assert "A Lease needs labels." in answer_to.text
    for body in reversed(guard):
        cluster.api.call("DELETE", f"/apis/{body['apiVersion']}/{identity_of(body).kind.plural}/lease-labels")
    while not cluster.api.ask("PUT", lease_path, lease, params={"dryRun": "All"}).ok:
        assert time.monotonic() < end, "the policy never went out of force"

    snapshot = render(programs, insights, cluster_policy("one", message="New."), *guard)
    before = contents(adapter)
    commands = [("plan", snapshot), ("apply", snapshot), ("sync",)]
    for command in commands:
        shown = applier(programs, *command, expect=ExitCode.BLOCKS_ITSELF)
        assert (
            "ValidatingAdmissionPolicy/lease-labels: it would deny "
            f"Lease/{AGENT_NAMESPACE}/{lock.LEASE}: A Lease needs labels." in shown
        )
        assert "--allow-self-block (INSIGHTS_ALLOW_SELF_BLOCK=true)" in shown
        assert contents(adapter) == before
    unasked = programs.with_(VALIDATE_POLICIES="false")
    assert "it may deny" in applier(unasked, "apply", snapshot, expect=ExitCode.BLOCKS_ITSELF)
    assert contents(adapter) == before
    assert "2 to create, 1 to update" in applier(
        programs, "plan", snapshot, "--allow-self-block", expect=ExitCode.CHANGES
    )
    elsewhere = [copy.deepcopy(body) for body in guard]
    elsewhere[0]["spec"]["matchConstraints"]["namespaceSelector"] = {
        "matchLabels": {"kubernetes.io/metadata.name": "default"}
    }
    assert "Applied 2, Updated 1" in applier(
        programs, "apply", render(programs, insights, cluster_policy("one", message="New."), *elsewhere)
    )


def test_what_blocks_its_own_writes_goes_on_where_that_is_allowed(quick: Programs, insights: InsightsStandIn) -> None:
    policy, binding = lease_guard()
    # Only what this test writes last: a run that went on would lose its Lease.
    policy["spec"]["matchConstraints"]["resourceRules"][0] |= {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "operations": ["DELETE"],
    }
    policy["spec"]["validations"][0]["expression"] = "oldObject.metadata.name != 'somebody-elses'"
    snapshot = render(quick, insights, policy, binding)
    assert "it may deny ConfigMap/" in applier(quick, "apply", snapshot, expect=ExitCode.BLOCKS_ITSELF)
    applier(quick.with_(INSIGHTS_ALLOW_SELF_BLOCK="true"), "apply", snapshot)


def test_more_deletions_than_ordinary_are_refused_unless_so_many_are_allowed(
    quick: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    policies = [cluster_policy(f"p{number}") for number in range(8)]
    applier(quick, "apply", render(quick, insights, *policies))
    snapshot = render(quick, insights, *policies[:2])
    for command in (("plan", snapshot), ("apply", snapshot), ("sync",)):
        shown = applier(quick, *command, expect=ExitCode.TOO_MANY_DELETIONS)
        assert "6 of 8 owned policies would be deleted" in shown
        assert "--max-delete 6 (INSIGHTS_MAX_DELETE=6)" in shown
        assert len(contents(adapter)) == 8
    assert "Removed 6" in applier(quick.with_(INSIGHTS_MAX_DELETE="6"), "apply", snapshot)


def test_what_is_being_deleted_is_not_written(
    quick: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    held = cluster_policy("held", finalizers=["example.com/held"])
    applier(quick, "apply", render(quick, insights, held))
    path = "/apis/kyverno.io/v1/clusterpolicies/held"
    cluster.api.call("DELETE", path)
    before = contents(adapter)
    snapshot = render(quick, insights, cluster_policy("held", message="New."), cluster_policy("new"))
    for command in (("plan", snapshot), ("apply", snapshot), ("sync",)):
        shown = applier(quick, *command, expect=ExitCode.TERMINATING)
        assert "ClusterPolicy/held" in shown
        assert "would go with them" in shown
        assert contents(adapter) == before
    assert "! refused ClusterPolicy/held  (it is being deleted" in applier(
        quick, "plan", snapshot, expect=ExitCode.TERMINATING
    )
    body = {"metadata": {"finalizers": None}}
    cluster.api.call("PATCH", path, body, content_type="application/merge-patch+json")
    assert "Applied 2" in applier(quick, "apply", snapshot)


def test_what_a_controller_keeps_is_never_taken_over(
    quick: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    kept = cluster_policy("kept", labels={"app.kubernetes.io/managed-by": "kyverno"})
    cluster.api.call("POST", "/apis/kyverno.io/v1/clusterpolicies", kept)
    before = contents(adapter)
    snapshot = render(quick, insights, cluster_policy("kept", message="Ours."))
    shown = applier(quick, "apply", snapshot, "--adopt", expect=ExitCode.NOT_OWNED)
    assert "ClusterPolicy/kept" in shown
    assert "Rename" in shown
    assert contents(adapter) == before


@pytest.fixture
def without_contexts(cluster: ControlPlane) -> Iterator[None]:
    """The cluster serves no GlobalContextEntry, as an older Kyverno leaves it."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = "globalcontextentries.kyverno.io"
    before = cluster.api.call("GET", f"{path}/{name}")
    cluster.api.call("DELETE", f"{path}/{name}")
    _wait_until(lambda: cluster.api.ask("GET", f"{path}/{name}").status_code == 404)
    _wait_until(lambda: not _served(cluster))
    yield
    metadata = {key: before["metadata"][key] for key in ("name", "labels", "annotations") if key in before["metadata"]}
    cluster.api.call("POST", path, {**before, "metadata": metadata, "status": {}})
    _wait_until(lambda: _served(cluster))


def _served(plane: ControlPlane) -> bool:
    groups = plane.api.call("GET", "/apis/kyverno.io/v2beta1")["resources"]
    listed = any(resource["name"] == "globalcontextentries" for resource in groups)
    return listed and plane.api.ask("GET", "/apis/kyverno.io/v2beta1/globalcontextentries").status_code == 200


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.usefixtures("without_contexts")
def test_a_kind_that_the_cluster_does_not_serve_is_named(
    quick: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    context = {
        "apiVersion": "kyverno.io/v2beta1",
        "kind": "GlobalContextEntry",
        "metadata": {"name": "deployments"},
        "spec": {"kubernetesResource": {"group": "apps", "version": "v1", "resource": "deployments"}},
    }
    snapshot = render(quick, insights, cluster_policy("one"), context)
    for command in (("plan", snapshot), ("apply", snapshot), ("sync",)):
        shown = applier(quick, *command, expect=ExitCode.KIND_UNAVAILABLE)
        assert "GlobalContextEntry/deployments: the cluster does not serve it" in shown
        assert "Install a Kyverno that serves the kind" in shown
        assert contents(adapter) == {}
