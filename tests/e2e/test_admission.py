"""The applier where Kyverno's own admission controller answers every write."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from applier import rehearsal
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.verdict import Layer
from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import ADMISSION, KINDS
from renderer.manifest.normalize import content
from renderer.manifest.ownership import is_generated, is_owned
from tests.support.bad_policies import BAD
from tests.support.cluster import AGENT_NAMESPACE, wipe
from tests.support.insights import InsightsStandIn
from tests.support.policies import answer, cluster_policy, desired, generating_rule, validating_policy
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


def contents(plane: ControlPlane) -> dict[Identity, JsonObject]:
    objects = KubernetesCluster(Connection.open(kubeconfig=str(plane.kubeconfig))).observe().objects
    return {identity: content(body, identity.kind) for identity, body in objects.items()}


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
        for command in ("validate", "apply"):
            told = guarded.run("insights-applier", command, written(guarded, cluster_policy("fine")))
            assert told.returncode == ExitCode.UNAVAILABLE
            assert "Kyverno's admission controller does not answer" in told.stderr
        assert owned(kyverno_plane) == 0
    finally:
        kyverno_plane.restart("kyverno-controller")
    assert guarded.run("insights-applier", "sync").returncode == 0


def test_a_generate_rule_that_cannot_be_changed_is_replaced_only_where_that_is_allowed(
    guarded: Programs, insights: InsightsStandIn, kyverno_plane: ControlPlane
) -> None:
    quick = guarded.with_(VALIDATE_POLICIES="false", DRY_RUN="false")
    insights.publish(CLUSTER, answer(generating_rule(), cluster_policy("other")))
    assert quick.run("insights-applier", "sync").returncode == 0
    insights.publish(CLUSTER, answer(generating_rule(selects="squad-*"), cluster_policy("other", message="New.")))
    assert quick.run("insights-renderer", "render", "--out", "snapshot").returncode == 0
    before = contents(kyverno_plane)
    for command in (("sync",), ("plan", "snapshot"), ("apply", "snapshot")):
        done = quick.run("insights-applier", *command)
        shown = done.stdout + done.stderr
        assert done.returncode == ExitCode.NEEDS_REPLACING, shown
        assert "ClusterPolicy/defaults: what it generated would be deleted with it." in shown
        assert "immutable fields" in shown
        assert "--allow-replace (INSIGHTS_ALLOW_REPLACE=true)" in shown
        assert contents(kyverno_plane) == before
    planned = quick.run("insights-applier", "plan", "snapshot", "--allow-replace")
    assert (planned.returncode, "± replace ClusterPolicy/defaults" in planned.stdout) == (2, True), planned.stdout
    done = quick.with_(INSIGHTS_ALLOW_REPLACE="true").run("insights-applier", "sync")
    line = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, line["updated"]) == (0, ["defaults", "other"]), line
    assert quick.run("insights-applier", "plan", "snapshot").returncode == 0


def test_what_was_replaced_is_as_it_was_when_a_later_write_fails(
    guarded: Programs, insights: InsightsStandIn, kyverno_plane: ControlPlane
) -> None:
    quick = guarded.with_(VALIDATE_POLICIES="false")
    insights.publish(CLUSTER, answer(generating_rule(), cluster_policy("withdrawn", finalizers=["example.com/held"])))
    assert quick.run("insights-applier", "sync").returncode == 0
    before = {identity: body["spec"] for identity, body in contents(kyverno_plane).items()}
    insights.publish(CLUSTER, answer(generating_rule(selects="squad-*")))
    done = quick.run("insights-applier", "sync", "--allow-replace", "--delete-timeout", "1s", "--grace", "1s")
    assert done.returncode == ExitCode.ROLLBACK_INCOMPLETE, done.stdout
    assert {identity: body["spec"] for identity, body in contents(kyverno_plane).items()} == before


def test_a_policy_of_kyvernos_that_would_deny_our_own_journal_is_refused_before_anything_is_written(
    guarded: Programs, insights: InsightsStandIn, kyverno_plane: ControlPlane
) -> None:
    blocking = cluster_policy("everything-has-a-team")
    blocking["spec"] = {
        "background": False,
        "rules": [
            {
                "name": "team",
                "match": {"any": [{"resources": {"kinds": ["ConfigMap"], "namespaces": [AGENT_NAMESPACE]}}]},
                "validate": {
                    "failureAction": "Enforce",
                    "message": "Set the label team.",
                    "pattern": {"metadata": {"labels": {"team": "?*"}}},
                },
            }
        ],
    }
    insights.publish(CLUSTER, answer(cluster_policy("fine")))
    assert guarded.run("insights-applier", "sync").returncode == 0
    # What a journal is made of; of a Lease that is there already, Kyverno takes renewals all the same.
    path = f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps"
    journal = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "insights-journal-x"}}
    # First, that it does block whoever keeps a journal, and soon.
    policies = "/apis/kyverno.io/v1/clusterpolicies"
    kyverno_plane.api.call("POST", policies, blocking)
    end = time.monotonic() + 60
    while (denied := kyverno_plane.api.ask("POST", path, journal, params={"dryRun": "All"})).ok:
        assert time.monotonic() < end, "the policy never came into force"
    assert "Set the label team." in denied.text
    kyverno_plane.api.call("DELETE", f"{policies}/everything-has-a-team")
    while not kyverno_plane.api.ask("POST", path, journal, params={"dryRun": "All"}).ok:
        assert time.monotonic() < end, "the policy never went out of force"

    insights.publish(CLUSTER, answer(cluster_policy("fine", message="New."), blocking))
    before = contents(kyverno_plane)
    done = guarded.run("insights-applier", "sync")
    line = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == ExitCode.BLOCKS_ITSELF, done.stdout
    assert f"it would deny ConfigMap/{AGENT_NAMESPACE}/insights-journal-" in line["error"]
    assert contents(kyverno_plane) == before
    blocking["spec"]["rules"][0]["exclude"] = {"any": [{"subjects": [{"kind": "User", "name": "admin"}]}]}
    insights.publish(CLUSTER, answer(cluster_policy("fine", message="New."), blocking))
    done = guarded.run("insights-applier", "sync")
    assert done.returncode == 0, done.stdout
    # And now that it is in force, we are excluded indeed.
    insights.publish(CLUSTER, answer(cluster_policy("fine")))
    assert guarded.run("insights-applier", "sync").returncode == 0


def written(programs: Programs, *bodies: JsonObject) -> str:
    """A snapshot of these policies, in the working directory of the programs."""
    files = snapshot.render_files(desired(*bodies), organization="acme", cluster=CLUSTER)
    snapshot.write(programs.directory / "written", files)
    return "written"


def test_what_schema_and_cli_accept_the_webhook_refuses_before_anything_is_written(
    guarded: Programs, kyverno_plane: ControlPlane
) -> None:
    refused = validating_policy("refused")
    refused["spec"]["matchConstraints"] = {"resourceRules": []}
    directory = written(guarded, validating_policy("fine"), refused)
    found = json.loads(guarded.run("insights-applier", "validate", directory, "-o", "json").stdout)
    errors = [(f["policy"], f["layer"]) for f in found["findings"] if f["severity"] == "error"]
    assert errors == [("ValidatingPolicy/refused", "server")]
    done = guarded.run("insights-applier", "apply", directory)
    assert done.returncode == ExitCode.INVALID_POLICY
    assert owned(kyverno_plane) == 0


def test_the_kinds_that_kyverno_does_not_watch_are_known(guarded: Programs, kyverno_plane: ControlPlane) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    watched = {
        f"{plural}.{group}"
        for configuration in kyverno_plane.api.call("GET", path)["items"]
        for webhook in configuration.get("webhooks", ())
        for rule in webhook.get("rules", ())
        for group in rule["apiGroups"]
        for plural in rule["resources"]
    }
    # Those of the older clean-up policies are the clean-up controller's, which is not part of the test bed.
    theirs = {kind for kind in KINDS if kind.group != ADMISSION and "Cleanup" not in kind.name}
    assert {kind.name for kind in theirs if kind.resource not in watched} == rehearsal.UNWATCHED

    case = next(case for case in BAD if case.kind in rehearsal.UNWATCHED and case.layer is Layer.CLI)
    skipping = guarded.with_(VALIDATE_POLICIES="false")
    done = skipping.run("insights-applier", "apply", written(guarded, case.body), "--dry-run")
    assert done.returncode == 0, "Kyverno finds it by now"
    assert f"does not check {case.policy.identity}" in done.stdout
