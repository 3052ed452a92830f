"""What stands in a run's way on a real server: a finalizer that never goes, and policies that block the run itself."""

from __future__ import annotations

import pytest

from applier.cluster.policies import KubernetesCluster
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_binding, admission_policy, cluster_policy, identity_of
from tests.support.programs import Programs
from tests.support.proxy import Proxy, Request, call
from tests.support.workflow import applier, collection, contents, edit, render, until

pytestmark = pytest.mark.cluster

CONFIG_MAPS = f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps"
PROBE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": AGENT_NAMESPACE}}


@pytest.fixture
def through(programs: Programs, proxy: Proxy) -> Programs:
    """The programs behind the proxy, one write at a time, without the kyverno CLI."""
    return programs.with_(
        KUBECONFIG=str(proxy.write_kubeconfig(programs.directory / "proxy.kubeconfig")),
        VALIDATE_POLICIES="false",
        INSIGHTS_CONCURRENCY="1",
        INSIGHTS_ALLOW_WEAKEN="true",
    )


def blocks(group: str, resource: str, *operations: str) -> tuple[JsonObject, JsonObject]:
    """A policy of the server's own that admits no such request, and its binding."""
    policy, binding = admission_policy("blocks"), admission_binding("blocks", policy="blocks")
    policy["spec"]["matchConstraints"]["resourceRules"] = [
        {"apiGroups": [group], "apiVersions": ["*"], "operations": list(operations), "resources": [resource]}
    ]
    policy["spec"]["validations"] = [{"expression": "false", "message": "Nobody may."}]
    binding["spec"]["validationActions"] = ["Deny"]
    return policy, binding


def test_a_finalizer_that_never_goes_is_named_and_once_it_is_gone_recover_makes_all_as_it_was(
    through: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    held = cluster_policy("withdrawn")
    applier(through, "apply", render(through, insights, cluster_policy("changed"), held))
    edit(cluster.api, held, [{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/never"]}])
    before = contents(adapter)
    snapshot = render(through, insights, cluster_policy("changed", message="Other."), cluster_policy("new"))
    patience = ("--delete-timeout", "1s", "--grace", "1s")
    shown = applier(through, "apply", snapshot, *patience, expect=ExitCode.ROLLBACK_INCOMPLETE)
    assert "finalizers: example.com/never" in shown
    assert "its deletion can't be taken back while its finalizers hold it" in shown
    assert contents(adapter) == before
    applier(through, "apply", snapshot, *patience, expect=ExitCode.ROLLBACK_INCOMPLETE)
    applier(through, "recover", *patience, expect=ExitCode.ROLLBACK_INCOMPLETE)
    edit(cluster.api, held, [{"op": "remove", "path": "/metadata/finalizers"}])
    assert adapter.read(identity_of(held)) is None
    applier(through, "recover")
    assert contents(adapter) == before
    edit(cluster.api, held, [{"op": "remove", "path": "/metadata/finalizers"}])


def test_a_policy_that_blocks_the_journal_keeps_it_for_recover_which_takes_all_back(
    through: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster, proxy: Proxy
) -> None:
    applier(through, "apply", render(through, insights, cluster_policy("one")))
    before = contents(adapter)
    cluster.api.call("POST", CONFIG_MAPS, PROBE)
    snapshot = render(through, insights, cluster_policy("one", message="New."), *blocks("", "configmaps", "UPDATE"))
    applier(through, "apply", snapshot, expect=ExitCode.BLOCKS_ITSELF)
    assert contents(adapter) == before

    def in_force(_: Request) -> None:
        until(lambda: not cluster.api.ask("PUT", f"{CONFIG_MAPS}/probe", PROBE, params={"dryRun": "All"}).ok)

    # The head is marked when all is written.
    proxy.plan(
        call(in_force, when="before"),
        matching=lambda request: request.method == "PUT" and request.resource == "configmaps",
    )
    shown = applier(through, "apply", snapshot, "--allow-self-block", expect=ExitCode.ROLLBACK_INCOMPLETE)
    assert "Everything is written, but the journal could not be closed" in shown
    assert contents(adapter) != before
    applier(through, "recover")
    assert contents(adapter) == before


def test_a_policy_that_blocks_the_writes_after_it_is_taken_back_first_and_then_the_rest(
    through: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster, proxy: Proxy
) -> None:
    changed = cluster_policy("changed")
    applier(through, "apply", render(through, insights, changed))
    before = contents(adapter)
    guard = blocks("kyverno.io", "clusterpolicies", "CREATE", "UPDATE", "DELETE")
    snapshot = render(through, insights, cluster_policy("changed", message="New."), cluster_policy("new"), *guard)
    applier(through, "apply", snapshot, expect=ExitCode.BLOCKS_ITSELF)

    def in_force(_: Request) -> None:
        path = f"{collection(changed)}/changed"
        until(lambda: not cluster.api.ask("DELETE", path, {"dryRun": ["All"]}).ok)

    proxy.plan(
        call(in_force, when="before"),
        matching=lambda request: request.method == "PATCH" and not request.dry_run,
    )
    shown = applier(through, "apply", snapshot, "--allow-self-block", expect=ExitCode.ROLLED_BACK)
    assert "Nobody may." in shown
    assert contents(adapter) == before
    # Whoever comes next in this cluster is not to meet a policy that is still going out of force.
    probe = cluster_policy("probe")
    until(lambda: cluster.api.ask("POST", collection(probe), probe, params={"dryRun": "All"}).ok)
