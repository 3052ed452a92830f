"""Plan, validate, apply and sync against a real API server, with the real kyverno CLI."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from applier import lock
from applier.cluster.policies import KubernetesCluster
from ci.testbed.api import Api
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.ownership import OWNED_BY, is_owned
from tests.support.cluster import allowed, with_plugin
from tests.support.insights import Fault, InsightsStandIn, Request
from tests.support.policies import (
    admission_binding,
    admission_policy,
    answer,
    cluster_policy,
    exception,
    identity_of,
    validating_policy,
)
from tests.support.programs import CLUSTER, TOKEN, Programs
from tests.support.proxy import Proxy, call, to
from tests.support.workflow import applier, by_hand, collection, contents, edit, render

pytestmark = pytest.mark.cluster

DENIED = "denied-by-the-server"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/insights-agent/leases"
SET = (cluster_policy("one"), validating_policy("two"), admission_policy("three"), exception("four"))


def test_from_nothing_to_in_sync_to_drift_to_in_sync(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    foreign = cluster_policy("foreign")
    by_hand(cluster.api, foreign)
    snapshot = render(programs, insights, *SET)
    assert "4 to create" in applier(programs, "plan", snapshot, expect=ExitCode.CHANGES)
    assert applier(programs, "plan", snapshot, "--exit-zero").startswith("4 to create")
    assert not any(is_owned(body) for body in contents(adapter).values())
    assert "4 of 4 policies are valid" in applier(programs, "validate", snapshot)
    assert "Applied 4, Updated 0, Removed 0, Failed 0" in applier(programs, "apply", snapshot)
    assert applier(programs, "plan", snapshot).startswith("No changes: 4 unchanged")

    edit(cluster.api, SET[0], [{"op": "replace", "path": "/spec/rules/0/validate/message", "value": "By hand."}])
    edit(cluster.api, SET[1], [{"op": "add", "path": "/metadata/labels", "value": {"team": "platform"}}])
    shown = applier(programs, "plan", snapshot, expect=ExitCode.CHANGES)
    assert "~ update ClusterPolicy/one  (spec also written by kubectl-edit)" in shown
    assert "message: By hand." in shown
    assert shown.count("@@") == 2  # one hunk: the defaults of the server are no drift, nor is the foreign label
    assert "Applied 0, Updated 1, Removed 0, Failed 0" in applier(programs, "apply", snapshot)
    assert adapter.observe().objects[identity_of(SET[1])]["metadata"]["labels"] == {"team": "platform"}
    assert applier(programs, "plan", snapshot).startswith("No changes")

    snapshot = render(programs, insights, *SET[1:])
    assert "- delete ClusterPolicy/one" in applier(programs, "plan", snapshot, expect=ExitCode.CHANGES)
    assert "Applied 0, Updated 0, Removed 1, Failed 0" in applier(programs, "apply", snapshot)
    assert identity_of(foreign) in contents(adapter)
    assert OWNED_BY not in (contents(adapter)[identity_of(foreign)]["metadata"].get("annotations") or {})


def test_sync_reports_each_policy_to_insights_and_says_nothing_when_nothing_changed(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    insights.publish(CLUSTER, answer(*SET))
    for expected in ("Applied 4, Updated 0, Removed 0, Failed 0", "Applied 0, Updated 0, Removed 0, Failed 0"):
        done = programs.run("insights-applier", "sync")
        assert done.returncode == 0, done.stdout
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert list(lines[-1]) == [
            "level", "msg", "success", "duration", "summary", "applied", "updated", "removed", "failed", "run_id",
        ]  # fmt: skip
        assert {line["run_id"] for line in lines} == {lines[-1]["run_id"]}
        assert lines[-1]["summary"] == expected
    told = {status["policyName"]: status for status in insights.statuses}
    assert told.keys() == {"one", "two", "three", "four"}
    assert {(status["action"], status["status"]) for status in told.values()} == {("apply", "success")}
    assert len(insights.statuses) == 4
    assert all(is_owned(body) for body in adapter.observe().objects.values())


def test_insights_is_told_of_no_policy_before_all_are_in_place(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    in_place: list[int] = []

    def look(request: Request) -> None:
        if request.call == "apply-status":
            in_place.append(len(contents(adapter)))

    insights._on_request = look
    insights.publish(CLUSTER, answer(*SET))
    assert programs.run("insights-applier", "sync").returncode == 0
    assert in_place == [len(SET)] * len(SET)


def test_when_insights_cannot_be_told_the_cluster_stands_and_the_run_says_so(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    insights.publish(CLUSTER, answer(SET[0]))
    insights.fail(Fault.FORBIDDEN, times=10, call="apply-status")
    done = programs.run("insights-applier", "sync")
    assert done.returncode == ExitCode.NOT_REPORTED
    assert "Insights was not told of 1 of 1" in done.stdout
    assert identity_of(SET[0]) in contents(adapter)


def test_when_insights_is_away_the_others_are_not_tried_one_by_one(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    insights.publish(CLUSTER, answer(*(cluster_policy(f"p{number:02}") for number in range(40))))
    insights.fail(Fault.SERVER_ERROR, times=1000, call="apply-status")
    done = programs.with_(VALIDATE_POLICIES="false").run("insights-applier", "sync")
    assert done.returncode == ExitCode.NOT_REPORTED
    assert json.loads(done.stdout.splitlines()[-1])["summary"].startswith("Applied 40, Updated 0, Removed 0, Failed 0")
    assert len(contents(adapter)) == 40
    asked = sum(request.method == "PUT" for request in insights.requests)
    assert asked < 40


def test_a_dry_run_takes_no_lock_and_writes_nothing(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    insights.publish(CLUSTER, answer(*SET))
    done = programs.with_(DRY_RUN="true").run("insights-applier", "sync")
    line = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, line["dryRun"], len(line["applied"])) == (0, True, 4)
    assert contents(adapter) == {}
    assert cluster.api.ask("GET", f"{LEASES}/{lock.LEASE}").status_code == 404
    assert insights.statuses == []


def test_an_empty_answer_deletes_nothing(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    applier(programs, "apply", render(programs, insights, *SET))
    before = contents(adapter)
    insights.publish(CLUSTER, "")
    assert "--allow-empty" in applier(programs, "sync", expect=ExitCode.EMPTY_SET)
    assert contents(adapter) == before
    applier(programs, "sync", "--allow-empty")
    assert contents(adapter) == {}


def test_a_policy_of_the_same_name_that_is_not_owned_is_left_alone_unless_adopted(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    by_hand(cluster.api, cluster_policy("one", message="Ours."))
    before = contents(adapter)
    snapshot = render(programs, insights, *SET)
    for command in ("plan", "apply"):
        assert "ClusterPolicy/one" in applier(programs, command, snapshot, expect=ExitCode.NOT_OWNED)
    assert contents(adapter) == before
    assert "1 to adopt" in applier(programs, "plan", snapshot, "--adopt", expect=ExitCode.CHANGES)
    applier(programs, "apply", snapshot, "--adopt")
    assert is_owned(adapter.observe().objects[identity_of(SET[0])])


def test_an_invalid_policy_keeps_everything_from_being_written(
    programs: Programs, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    by_schema, by_cli, by_server = cluster_policy("by-schema"), cluster_policy("by-cli"), admission_policy("by-server")
    by_schema["spec"]["unknownField"] = True
    by_cli["spec"]["rules"][0]["validate"]["message"] = "{{ nonsense( }}"
    by_server["spec"]["matchConstraints"]["resourceRules"][0]["operations"] = []
    snapshot = render(programs, insights, *SET, by_schema, by_cli, by_server)
    shown = applier(programs, "apply", snapshot, expect=ExitCode.INVALID_POLICY)
    for layer, named in (
        ("schema", "ClusterPolicy/by-schema spec.unknownField"),
        ("kyverno CLI", "ClusterPolicy/by-cli"),
        ("server", "ValidatingAdmissionPolicy/by-server"),
    ):
        assert [line for line in shown.splitlines() if f"[{layer}]" in line and named in line], (layer, shown)
    # Neither server nor CLI repeats what the schema says.
    assert len([line for line in shown.splitlines() if line.lstrip().startswith("[") and "by-schema" in line]) == 1
    assert contents(adapter) == {}
    assert "4 of 7 policies are valid" in applier(programs, "validate", snapshot, expect=ExitCode.INVALID_POLICY)
    insights.publish(CLUSTER, answer(*SET, by_server))
    done = programs.run("insights-applier", "sync")
    line = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, line["failed"]) == (ExitCode.INVALID_POLICY, ["by-server"])
    assert {status["status"] for status in insights.statuses} == {"failed"}


def test_without_the_kyverno_cli_only_that_layer_can_be_left_out(programs: Programs, insights: InsightsStandIn) -> None:
    snapshot = render(programs, insights, *SET)
    missing = programs.with_(PATH="/nonexistent")
    assert "VALIDATE_POLICIES=false" in applier(missing, "apply", snapshot, expect=ExitCode.CONFIGURATION)
    # A plan does without; not so without the one that it is told to take.
    assert "4 to create" in applier(missing, "plan", snapshot, expect=ExitCode.CHANGES)
    named = applier(missing, "plan", snapshot, "--kyverno", "nowhere", expect=ExitCode.CONFIGURATION)
    assert "nowhere" in named
    skipping = missing.with_(VALIDATE_POLICIES="false")
    assert "was not asked" in applier(skipping, "validate", snapshot)
    applier(skipping, "apply", snapshot)


@contextmanager
def writes_denied(api: Api, *, dry_runs_too: bool = False, reason: str = "Invalid") -> Iterator[None]:
    """A policy of the server itself that denies the write of one policy, and lets a dry run of it through."""
    spared = "false" if dry_runs_too else "request.dryRun"
    guard = admission_policy("test-guard")
    guard["spec"] = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": ["*"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE"],
                    "resources": ["*"],
                    "resourceNames": [],
                }
            ]
        },
        "validations": [
            {"expression": f"{spared} || request.name != '{DENIED}'", "message": "denied", "reason": reason}
        ],
    }
    binding = admission_binding("test-guard", policy="test-guard")
    binding["spec"]["validationActions"] = ["Deny"]
    for body in (guard, binding):
        by_hand(api, body)
    probe = cluster_policy(DENIED)
    end = time.monotonic() + 30
    while api.ask("POST", collection(probe), probe).status_code not in (403, 422):
        api.ask("DELETE", f"{collection(probe)}/{DENIED}")
        assert time.monotonic() < end, "the guard never came into force"
    try:
        yield
    finally:
        for body in (binding, guard):
            api.call("DELETE", f"{collection(body)}/test-guard")


def test_an_admission_that_forbids_is_no_missing_right_and_hides_no_other_finding(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    broken = cluster_policy("broken")
    broken["spec"]["unknownField"] = True
    snapshot = render(programs, insights, cluster_policy(DENIED), broken, exception("lost", namespace="nowhere"))
    with writes_denied(cluster.api, dry_runs_too=True, reason="Forbidden"):
        before = contents(adapter)
        shown = applier(programs, "apply", snapshot, expect=ExitCode.INVALID_POLICY)
        assert f"ClusterPolicy/{DENIED}" in shown
        assert "unknownField" in shown
        assert "its namespace nowhere does not exist" in shown
        assert contents(adapter) == before


def test_a_write_that_the_server_refuses_undoes_those_before_it(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    applier(programs, "apply", render(programs, insights, *SET))
    with writes_denied(cluster.api):
        before = contents(adapter)
        # A created exception, an updated policy, a deletion; the write that is denied comes last of the creates.
        changed = cluster_policy("one", message="Other.")
        wanted = (changed, SET[1], exception("five"), cluster_policy("a-new-one"), cluster_policy(DENIED))
        snapshot = render(programs, insights, *wanted)
        assert "3 to create, 1 to update, 2 to delete" in applier(
            programs, "plan", snapshot, "--no-diff", expect=ExitCode.CHANGES
        )
        shown = applier(programs, "apply", snapshot, expect=ExitCode.ROLLED_BACK)
        assert "Applied 0, Updated 0, Removed 0, Failed 1" in shown
        assert f"ClusterPolicy/{DENIED}" in shown
        assert contents(adapter) == before
        insights.publish(CLUSTER, answer(*wanted))
        done = programs.run("insights-applier", "sync")
        assert json.loads(done.stdout.splitlines()[-1])["failed"] == [DENIED]
        assert contents(adapter) == before
        assert {status["status"] for status in insights.statuses} == {"failed"}
        told = {status["policyName"]: status["output"] for status in insights.statuses}
        assert "rolled back" in told["five"]
        assert "denied" in told[DENIED]
    assert "Applied 3, Updated 1, Removed 2, Failed 0" in applier(programs, "apply", snapshot)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_a_signal_in_the_middle_undoes_what_was_written(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster, proxy: Proxy,
    number: signal.Signals, code: ExitCode,
) -> None:  # fmt: skip
    applier(programs, "apply", render(programs, insights, *SET))
    before = contents(adapter)
    snapshot = render(programs, insights, *SET, *(cluster_policy(f"p{index:03}") for index in range(50)))
    kubeconfig = proxy.write_kubeconfig(programs.directory / "proxy.kubeconfig")
    unvalidated = programs.with_(VALIDATE_POLICIES="false", KUBECONFIG=str(kubeconfig))
    running: list[subprocess.Popen[str]] = []
    proxy.plan(call(lambda _: running[0].send_signal(number), when="after"), at=20, matching=to("clusterpolicies"))
    with unvalidated.start("insights-applier", "apply", snapshot) as process:
        running.append(process)
        shown, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "restored ClusterPolicy/p000" in shown
    assert contents(adapter) == before
    lease = cluster.api.call("GET", f"{LEASES}/{lock.LEASE}")
    assert lease["spec"]["holderIdentity"] == ""


def test_a_dry_run_of_a_delete_deletes_nothing(cluster: ControlPlane, adapter: KubernetesCluster) -> None:
    body = cluster_policy()
    by_hand(cluster.api, body)
    found = adapter.read(identity_of(body))
    assert found is not None
    adapter.delete(identity_of(body), uid=found["metadata"]["uid"], dry_run=True)
    assert adapter.read(identity_of(body)) == found


def test_another_runs_lease_is_waited_for_and_respected(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    snapshot = render(programs, insights, *SET)
    now = "2026-01-01T00:00:00.000000Z"
    held = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": lock.LEASE, "namespace": "insights-agent"},
        "spec": {"holderIdentity": "incumbent-pod", "leaseDurationSeconds": 3, "acquireTime": now, "renewTime": now},
    }
    cluster.api.call("POST", LEASES, held)
    shown = applier(programs, "apply", snapshot, "--lock-wait", "1s", expect=ExitCode.LOCKED)
    assert "incumbent-pod" in shown
    assert contents(adapter) == {}
    # Its holder is dead: the record stands still for as long as it is good for.
    assert "Waiting for the lock" in applier(programs, "apply", snapshot, "--lock-wait", "60s")
    lease = cluster.api.call("GET", f"{LEASES}/{lock.LEASE}")["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("", 1)


def test_a_missing_lock_namespace_is_named(programs: Programs, insights: InsightsStandIn) -> None:
    snapshot = render(programs, insights, *SET)
    shown = applier(programs, "apply", snapshot, "--lock-namespace", "nowhere", expect=ExitCode.CONFIGURATION)
    assert "nowhere" in shown
    assert "--lock-namespace" in shown


READ: list[JsonObject] = [
    {"apiGroups": ["kyverno.io", "policies.kyverno.io"], "resources": ["*"], "verbs": ["get", "list"]}
]


def test_a_plan_needs_no_right_to_write_and_says_what_it_lacks(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    with allowed(cluster, "viewer", *READ):
        viewing = programs.with_(KUBECONFIG=str(Path(cluster.kubeconfig).with_name("viewer.kubeconfig")))
        snapshot = render(programs, insights, *SET[:2])
        shown = applier(viewing, "plan", snapshot, expect=ExitCode.CHANGES)
        assert "not dry-run" in shown
        assert "2 of 2 policies are valid" in applier(viewing, "validate", snapshot)  # the CLI judged them
        unasked = applier(viewing, "validate", snapshot, "--no-validate-policies", expect=ExitCode.INVALID_POLICY)
        assert "unchecked ClusterPolicy/one" in unasked
        assert "0 of 2 policies are valid" in unasked
        assert "validatingadmissionpolicies.admissionregistration.k8s.io: this account may not list it" in shown
        assert "admissionregistration" in applier(
            viewing, "plan", render(programs, insights, *SET), expect=ExitCode.KIND_UNAVAILABLE
        )
        assert "leases" in applier(viewing, "apply", snapshot, expect=ExitCode.NOT_PERMITTED)


def test_several_kubeconfigs_and_a_context_as_with_kubectl(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    first = programs.directory / "first"
    first.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: away\n"
        "clusters: [{name: away, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: [{name: nobody, user: {}}]\ncontexts: [{name: away, context: {cluster: away, user: nobody}}]\n"
    )
    both = programs.with_(KUBECONFIG=f"{first}:{cluster.kubeconfig}")
    snapshot = render(programs, insights, *SET)
    context = _current_context(Path(cluster.kubeconfig))
    applier(both, "plan", snapshot, "--context", context, expect=ExitCode.CHANGES)
    assert "127.0.0.1:1" in applier(both, "plan", snapshot, expect=ExitCode.UNAVAILABLE)


def test_exec_credentials_are_used(programs: Programs, insights: InsightsStandIn, cluster: ControlPlane) -> None:
    config, given = with_plugin(programs.directory, cluster.kubeconfig, cluster.admin_token)
    snapshot = render(programs, insights, *SET)
    planned = applier(programs.with_(KUBECONFIG=str(config)), "plan", snapshot, expect=ExitCode.CHANGES)
    assert "4 to create" in planned
    assert "KUBERNETES_EXEC_INFO=" in given.read_text()
    assert TOKEN not in given.read_text()


def _current_context(kubeconfig: Path) -> str:
    import yaml

    return str(yaml.safe_load(kubeconfig.read_text())["current-context"])


def test_sync_watches_until_it_is_told_to_stop(programs: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(*SET))
    # So long that the signal meets the pause and not the next sync, on a machine that is busy, too.
    with programs.start("insights-applier", "sync", "--watch", "--sync-interval", "10s") as process:
        assert process.stdout is not None
        finished = 0
        for line in process.stdout:
            finished += json.loads(line)["msg"] == "Policy sync completed"
            if finished == 2:
                break
        for line in process.stdout:
            if json.loads(line)["msg"].startswith("Waiting"):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
