"""Fixtures that give tests a real control plane; loaded as a pytest plugin."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from ci.testbed.api import group_path
from ci.testbed.controlplane import ControlPlane, Part
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS

#: Where every test may assume a namespace for what the applier keeps in the cluster.
AGENT_NAMESPACE = "insights-agent"
_NOT_OURS = {"kube-system", "kube-public", "kube-node-lease", "kyverno"}
_STATE = {"v1": "configmaps", "coordination.k8s.io/v1": "leases"}
_ROOT_CA = "kube-root-ca.crt"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, apiserver and Kyverno's CRDs, shared by the tests of one worker."""
    yield from _session(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="session")
def kyverno_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same with Kyverno's admission controller in the path of every write."""
    yield from _session(tmp_path_factory.mktemp("kyverno"), Part.KYVERNO)


@pytest.fixture(scope="session")
def jobs_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same as `control_plane` with controllers, scheduler and a node on which Jobs complete."""
    yield from _session(tmp_path_factory.mktemp("jobs"), Part.JOBS)


@pytest.fixture
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """`control_plane` without any policy, Lease or ConfigMap that an earlier test made."""
    wipe(control_plane)
    return control_plane


def _session(directory: Path, *parts: Part) -> Iterator[ControlPlane]:
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
