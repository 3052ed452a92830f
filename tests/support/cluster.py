"""Fixtures that give tests a real control plane; loaded as a pytest plugin."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from ci.testbed.api import Api, group_path
from ci.testbed.controlplane import ControlPlane, Part
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from tests.support.proxy import Proxy

#: Where every test may assume a namespace for what the applier keeps in the cluster.
AGENT_NAMESPACE = "insights-agent"
_NOT_OURS = {"kube-system", "kube-public", "kube-node-lease", "kyverno"}
_STATE = {"v1": "configmaps", "coordination.k8s.io/v1": "leases"}
_ROOT_CA = "kube-root-ca.crt"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, apiserver and Kyverno's CRDs, shared by the tests of one worker."""
    with running(tmp_path_factory.mktemp("cluster")) as plane:
        yield plane


@pytest.fixture(scope="session")
def kyverno_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same with Kyverno's admission controller in the path of every write."""
    with running(tmp_path_factory.mktemp("kyverno"), Part.KYVERNO) as plane:
        yield plane


@pytest.fixture(scope="session")
def jobs_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same as `control_plane` with controllers, scheduler and a node on which Jobs complete."""
    with running(tmp_path_factory.mktemp("jobs"), Part.JOBS) as plane:
        yield plane


@pytest.fixture
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """`control_plane` without any policy, Lease or ConfigMap that an earlier test made."""
    wipe(control_plane)
    return control_plane


_WRITE = ["get", "list", "create", "update", "patch", "delete"]
#: What the chart grants, and nothing else.
CHART_RULES: dict[str, list[JsonObject]] = {
    "ClusterRole": [
        {
            "apiGroups": ["kyverno.io"],
            "resources": ["clusterpolicies", "policies", "clustercleanuppolicies", "policyexceptions"],
            "verbs": _WRITE,
        },
        {
            "apiGroups": ["policies.kyverno.io"],
            "resources": [
                "validatingpolicies",
                "mutatingpolicies",
                "generatingpolicies",
                "deletingpolicies",
                "namespacedvalidatingpolicies",
                "imagevalidatingpolicies",
            ],
            "verbs": _WRITE,
        },
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingadmissionpolicies"],
            "verbs": _WRITE,
        },
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": _WRITE},
    ],
    "Role": [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "list", "watch", "create", "update", "patch"],
        }
    ],
}


@pytest.fixture
def adapter(cluster: ControlPlane) -> KubernetesCluster:
    """The applier's adapter on `cluster`, as its administrator."""
    return KubernetesCluster(Connection.open(kubeconfig=str(cluster.kubeconfig)))


@pytest.fixture
def proxy(cluster: ControlPlane) -> Iterator[Proxy]:
    """A proxy before `cluster` that can refuse, hold and spoil requests."""
    with Proxy(cluster) as running:
        yield running


@pytest.fixture
def chart_account(cluster: ControlPlane) -> Iterator[str]:
    """The token of an account that may do what the chart grants."""
    rbac = "rbac.authorization.k8s.io"
    made: list[JsonObject] = []
    for kind, rules in CHART_RULES.items():
        common = {
            "apiVersion": f"{rbac}/v1",
            "metadata": {"name": "chart"} | ({"namespace": AGENT_NAMESPACE} if kind == "Role" else {}),
        }
        made.append({**common, "kind": kind, "rules": rules})
        bound = {
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": "chart"},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": "worker"}],
        }
        made.append({**common, "kind": f"{kind}Binding", **bound})
    for body in made:
        cluster.api.apply(body)
    yield cluster.tokens["worker"]
    for body in made:
        scope = f"/namespaces/{AGENT_NAMESPACE}" if "namespace" in body["metadata"] else ""
        cluster.api.call("DELETE", f"/apis/{rbac}/v1{scope}/{body['kind'].lower()}s/chart")


@contextmanager
def allowed(plane: ControlPlane, user: str, *rules: JsonObject) -> Iterator[None]:
    """Give a user these rights in the whole cluster, and take them again; the server knows of them within the block."""
    rbac = "rbac.authorization.k8s.io"
    name = f"test-{user}"
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
    }
    for body in (role, binding):
        plane.api.apply(body)
    try:
        theirs = Api(plane.server, token=plane.tokens[user], authority=plane.credentials.authority)
        while not all(_knows(theirs, rule) for rule in rules):
            pass
        yield
    finally:
        for body in (binding, role):
            plane.api.call("DELETE", plane.api.path_of(body))


def _knows(api: Api, rule: JsonObject) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "group": rule["apiGroups"][-1],
                "resource": rule["resources"][0],
                "verb": rule["verbs"][0],
                "name": rule.get("resourceNames", [""])[0],
                "namespace": "kube-system",
            }
        },
    }
    answered = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answered["status"]["allowed"])


def with_plugin(place: Path, kubeconfig: Path, token: str) -> tuple[Path, Path]:
    """A kubeconfig whose user has that token from a credential plugin, and where the plugin notes its environment."""
    plugin, given, config = place / "plugin", place / "given", place / "plugin.kubeconfig"
    version = "client.authentication.k8s.io/v1"
    credential = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}
    plugin.write_text(f"#!/bin/sh\nenv >'{given}'\necho '{json.dumps(credential)}'\n")
    plugin.chmod(0o700)
    document = yaml.safe_load(kubeconfig.read_text())
    document["users"][0]["user"] = {"exec": {"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"}}
    config.write_text(yaml.safe_dump(document))
    return config, given


@contextmanager
def running(directory: Path, *parts: Part) -> Iterator[ControlPlane]:
    """A control plane with AGENT_NAMESPACE."""
    with ControlPlane.start(directory, parts=parts) as plane:
        plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENT_NAMESPACE}})
        yield plane


def wipe(plane: ControlPlane) -> None:
    """Delete every policy of every managed kind, and each Lease and ConfigMap but the system's own."""
    versions = _versions(plane)
    for kind in KINDS:
        _delete_all(plane, versions[kind.resource], kind.plural)
    for version, resource in _STATE.items():
        _delete_all(plane, version, resource, spared=_NOT_OURS)


def _versions(plane: ControlPlane) -> dict[str, str]:
    """A group and version that serves each resource, by `<plural>.<group>`."""
    return {
        f"{resource['name']}.{group['name']}": version["groupVersion"]
        for group in plane.api.call("GET", "/apis")["groups"]
        if group["name"] in {kind.group for kind in KINDS}
        for version in group["versions"]
        for resource in plane.api.resources(version["groupVersion"]).values()
    }


def _delete_all(plane: ControlPlane, version: str, resource: str, *, spared: Collection[str] = ()) -> None:
    for found in plane.api.call("GET", f"{group_path(version)}/{resource}")["items"]:
        metadata = found["metadata"]
        if metadata.get("namespace") not in spared and metadata["name"] != _ROOT_CA:
            _delete(plane, version, resource, metadata)


def _delete(plane: ControlPlane, version: str, resource: str, metadata: JsonObject) -> None:
    scope = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    path = f"{group_path(version)}{scope}/{resource}/{metadata['name']}"
    if metadata.get("finalizers"):
        body = {"metadata": {"finalizers": None}}
        plane.api.call("PATCH", path, body, content_type="application/merge-patch+json")
    answer = plane.api.ask("DELETE", path)
    assert answer.status_code in (200, 202, 404), f"DELETE {path}: HTTP {answer.status_code}: {answer.text}"
