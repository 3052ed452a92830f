"""Every managed kind, with Kyverno's own policies: create, no drift, one leaf of drift, repair, rehearse, delete."""

from __future__ import annotations

import json

import pytest

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.kyverno_cli import KyvernoCli
from ci.testbed import corpus, drift, toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.local import Local, read_sources
from renderer.manifest.kinds import KINDS
from tests.support.insights import InsightsStandIn
from tests.support.programs import CLUSTER, Programs
from tests.support.tools import tool

pytestmark = pytest.mark.cluster


def sync(programs: Programs) -> str:
    done = programs.run("insights-applier", "sync")
    assert done.returncode == 0, done.stdout
    return str(json.loads(done.stdout.splitlines()[-1])["summary"])


def test_create_drift_repair_and_delete(programs: Programs, insights: InsightsStandIn, cluster: ControlPlane) -> None:
    connection = Connection.open(kubeconfig=str(cluster.kubeconfig))
    adapter = KubernetesCluster(connection)
    chosen = corpus.choose(adapter, connection, KyvernoCli(tool("kyverno")), per_kind=2).policies
    assert {policy.identity.kind for policy in chosen} == set(KINDS)
    insights.publish(CLUSTER, corpus.answer(chosen))
    assert sync(programs) == f"Applied {len(chosen)}, Updated 0, Removed 0, Failed 0"
    assert sync(programs) == "Applied 0, Updated 0, Removed 0, Failed 0"

    drifted = {}
    for identity, body in adapter.observe().objects.items():
        if identity.kind not in drifted and drift.change_a_leaf(connection, identity, body):
            drifted[identity.kind] = identity
    assert drifted.keys() == set(KINDS)
    assert programs.run("insights-renderer", "render", "--out", "snapshot").returncode == 0
    planned = programs.run("insights-applier", "plan", "snapshot", "--no-diff")
    assert planned.returncode == ExitCode.CHANGES
    assert planned.stdout.startswith(f"{len(KINDS)} to update, {len(chosen) - len(KINDS)} unchanged")
    assert all(
        f"~ update {identity}  (spec also written by {drift.HAND})" in planned.stdout for identity in drifted.values()
    )
    assert sync(programs) == f"Applied 0, Updated {len(KINDS)}, Removed 0, Failed 0"
    assert sync(programs) == "Applied 0, Updated 0, Removed 0, Failed 0"

    # A dry run of a deletion leaves each of them there, to the byte.
    held = adapter.observe().objects
    for identity, body in held.items():
        adapter.delete(identity, uid=body["metadata"]["uid"], dry_run=True)
    assert adapter.observe().objects == held

    insights.publish(CLUSTER, "")
    done = programs.run("insights-applier", "sync", "--allow-empty")
    assert (
        json.loads(done.stdout.splitlines()[-1])["summary"] == f"Applied 0, Updated 0, Removed {len(chosen)}, Failed 0"
    )
    assert adapter.observe().objects == {}


def test_kyvernos_braces_pass_through_our_templates(programs: Programs) -> None:
    directory = programs.directory / "templates"
    directory.mkdir()
    originals = {}
    for number, path in enumerate(corpus.files(toolchain.kyverno_source())):
        data = path.read_bytes()
        # Ours are the only delimiters; a policy that holds them by chance would have to be plain YAML.
        if b"{{" in data and not any(mark in data for mark in (b"[[", b"[%", b"[#")):
            name = f"{number:05}.yaml.j2"
            (directory / name).write_bytes(data)
            originals[name] = data.replace(b"\r\n", b"\n")
    assert len(originals) > 100
    rendered = {s.name.rpartition("/")[2]: s.data for s in read_sources(Local(directory=directory, values={}))}
    assert rendered == originals
