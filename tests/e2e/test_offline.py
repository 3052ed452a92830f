"""The shipped schemas are what the pinned server publishes, and judge policies with no cluster at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from applier import offline_schemas
from ci import schemas
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.insights import InsightsStandIn
from tests.support.policies import admission_binding, answer, cluster_policy, validating_policy
from tests.support.programs import CLUSTER, Programs

BAD = cluster_policy("bad")
BAD["spec"]["rules"][0]["validat"] = BAD["spec"]["rules"][0].pop("validate")
BAD_JMESPATH = cluster_policy("by-cli", message="{{ nonsense( }}")


@pytest.fixture
def unplugged(offline: Programs) -> Programs:
    """No kubeconfig and no network: whoever asks a server anything gets an error that the tests would see."""
    proxy = "http://127.0.0.1:9"
    return offline.with_(KUBECONFIG="/nonexistent", HTTPS_PROXY=proxy, HTTP_PROXY=proxy, NO_PROXY="")


def snapshot_of(programs: Programs, insights: InsightsStandIn, *bodies: JsonObject) -> str:
    insights.publish(CLUSTER, answer(*bodies))
    assert programs.run("insights-renderer", "render", "--out", "snapshot").returncode == ExitCode.OK
    return "snapshot"


@pytest.mark.cluster
def test_what_is_shipped_is_what_the_pinned_server_publishes(control_plane: ControlPlane) -> None:
    made = schemas.published(control_plane.kubeconfig)
    assert offline_schemas.text(offline_schemas.load()) == offline_schemas.text(made), "run ci/schemas"
    assert (schemas.DIRECTORY / "NOTICE").read_text() == schemas.notice()


@pytest.mark.tool
def test_every_layer_but_the_server_judges_with_no_cluster(
    offline: Programs, unplugged: Programs, insights: InsightsStandIn
) -> None:
    snapshot = snapshot_of(offline, insights, cluster_policy(), validating_policy(), BAD, BAD_JMESPATH)
    done = unplugged.run("insights-applier", "validate", snapshot, "--offline", "-o", "json")
    assert done.returncode == ExitCode.INVALID_POLICY, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"]["valid"] == 2
    assert any("the schemas of Kyverno 1.19" in note for note in found["notes"])
    errors = {(each["policy"], each["layer"], each["field"], each["line"]) for each in found["findings"]}
    lines = (offline.directory / "snapshot/clusterpolicies.kyverno.io/bad.yaml").read_text().splitlines()
    line = 1 + next(number for number, text in enumerate(lines) if "validat:" in text)
    assert ("ClusterPolicy/bad", "schema", "spec.rules[0].validat", line) in errors
    assert {layer for policy, layer, *_ in errors if policy == "ClusterPolicy/bad"} == {"schema", "deprecation"}
    assert {layer for policy, layer, *_ in errors if policy == "ClusterPolicy/by-cli"} == {"kyverno CLI", "deprecation"}


@pytest.mark.tool
def test_what_only_a_server_could_judge_fails_unless_that_is_allowed(
    offline: Programs, unplugged: Programs, insights: InsightsStandIn
) -> None:
    snapshot = snapshot_of(offline, insights, validating_policy(), admission_binding())
    command = ("insights-applier", "validate", snapshot, "--offline")
    strict = unplugged.run(*command)
    assert strict.returncode == ExitCode.INVALID_POLICY
    assert "unchecked ValidatingAdmissionPolicyBinding/no-bare-pods" in strict.stdout
    assert "1 of 2 policies are valid." in strict.stdout
    allowed = unplugged.run(*command, "--allow-unchecked")
    assert allowed.returncode == ExitCode.OK
    assert "--allow-unchecked lets 1 unchecked ones pass" in allowed.stdout
    without_cli = unplugged.with_(VALIDATE_POLICIES="false", INSIGHTS_OFFLINE="true")
    nobody = without_cli.run("insights-applier", "validate", snapshot)
    assert nobody.returncode == ExitCode.INVALID_POLICY
    assert "0 of 2 policies are valid." in nobody.stdout


@pytest.mark.cluster
def test_the_schemas_of_a_cluster_are_kept_and_used_without_it(
    programs: Programs, unplugged: Programs, insights: InsightsStandIn
) -> None:
    snapshot = snapshot_of(programs, insights, cluster_policy(), BAD)
    command = ("insights-applier", "validate", snapshot, "--schema-cache", "kept")
    assert unplugged.run(*command, "--offline").returncode == ExitCode.INPUT
    assert programs.run(*command).returncode == ExitCode.INVALID_POLICY
    kept = programs.directory / "kept" / offline_schemas.FILE
    once = kept.read_bytes()
    assert programs.run(*command).returncode == ExitCode.INVALID_POLICY
    assert kept.read_bytes() == once

    done = unplugged.run(*command, "--offline")
    assert done.returncode == ExitCode.INVALID_POLICY
    assert "the schemas that were kept" in done.stdout
    assert "spec.rules[0].validat: is not a known field; did you mean validate?" in done.stdout
    assert "1 of 2 policies are valid." in done.stdout

    kept.write_bytes(once[:-100])
    broken = unplugged.run(*command, "--offline")
    assert broken.returncode == ExitCode.INPUT
    assert f"{Path('kept') / offline_schemas.FILE}: these schemas can't be used" in broken.stderr
