"""The steps that tests of the two programs share: render a snapshot, run the applier, see what the cluster holds."""

from __future__ import annotations

import time
from collections.abc import Callable

from applier.cluster.policies import KubernetesCluster
from ci.testbed.api import Api
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from tests.support.insights import InsightsStandIn
from tests.support.policies import answer, identity_of
from tests.support.programs import CLUSTER, Programs


def render(programs: Programs, insights: InsightsStandIn, *bodies: JsonObject) -> str:
    """Render these policies, as Insights sends them, and give the snapshot's directory."""
    insights.publish(CLUSTER, answer(*bodies))
    done = programs.run("insights-renderer", "render", "--out", "snapshot", "--allow-empty")
    assert done.returncode == 0, done.stderr
    return str(programs.directory / "snapshot")


def applier(programs: Programs, *command: str, expect: int = 0) -> str:
    """Run the applier, insist on its exit code, and give all that it printed."""
    done = programs.run("insights-applier", *command)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def contents(adapter: KubernetesCluster) -> dict[Identity, JsonObject]:
    """What the cluster holds of policies, without what only the server knows."""
    return {identity: content(body, identity.kind) for identity, body in adapter.observe().objects.items()}


def by_hand(api: Api, body: JsonObject) -> None:
    """Create the policy as a person would."""
    api.call("POST", f"{collection(body)}?fieldManager=kubectl-create", body)


def collection(body: JsonObject) -> str:
    """The path under which objects such as this one are made."""
    identity = identity_of(body)
    namespace = f"/namespaces/{identity.namespace}" if identity.namespace else ""
    return f"/apis/{body['apiVersion']}{namespace}/{identity.kind.plural}"


def edit(api: Api, body: JsonObject, operations: list[JsonObject]) -> None:
    """Change the policy as a person would."""
    path = f"{collection(body)}/{body['metadata']['name']}?fieldManager=kubectl-edit"
    api.call("PATCH", path, operations, content_type="application/json-patch+json")


def until(true: Callable[[], bool]) -> None:
    """Wait for what the server does by itself, such as to put a policy in force."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
