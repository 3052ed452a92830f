"""What tells how the programs are doing: metrics, probes, Events and the run's id, of real processes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from ci.soak import granted
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.jobs import JobsBed, RunnerProgram, Running, cron_job, until
from tests.support.metrics import LAST_SUCCESS, samples
from tests.support.policies import answer, cluster_policy
from tests.support.programs import CLUSTER, Programs
from tests.support.workflow import applier, edit, render

EVENTS = f"/apis/events.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/events"
MAY_CREATE_EVENTS: list[JsonObject] = [{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}]

#: So long that a signal meets the pause and not the next sync, on a machine that is busy, too.
PAUSE = "10s"


def ours(plane: ControlPlane) -> list[JsonObject]:
    found = plane.api.call("GET", EVENTS)["items"]
    return [
        event for event in found if event.get("reportingController") == "insights.fairwinds.com/on-demand-job-runner"
    ]


@pytest.mark.cluster
def test_a_sync_leaves_its_metrics_in_a_file_and_an_event_on_its_lease(
    programs: Programs, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    cluster.api.call("DELETE", EVENTS)
    file = programs.directory / "sync.prom"
    measured = programs.with_(VALIDATE_POLICIES="false", INSIGHTS_METRICS_FILE=str(file))
    policy = cluster_policy("one")
    insights.publish(CLUSTER, answer(policy))
    first = json.loads(measured.run("insights-applier", "sync").stdout.splitlines()[-1])
    found = samples(file.read_text())
    assert found["insights_applier_runs_total", "sync", "succeeded"] == 1
    assert found["insights_applier_changes_total", "create"] == 1
    assert found["insights_applier_lock_wait_seconds_count",] == 1
    moment = found[LAST_SUCCESS, "sync"]

    assert measured.run("insights-applier", "sync").returncode == 0  # in sync: no Event
    edit(cluster.api, policy, [{"op": "replace", "path": "/spec/rules/0/validate/message", "value": "By hand."}])
    assert measured.run("insights-applier", "sync", "--dry-run").returncode == 0  # nor here
    assert samples(file.read_text())["insights_applier_drifted_policies",] == 1
    insights.publish(CLUSTER, "")
    assert measured.run("insights-applier", "sync").returncode == ExitCode.EMPTY_SET
    found = samples(file.read_text())
    assert found["insights_applier_failures_total", "sync", "empty_set"] == 1
    assert found[LAST_SUCCESS, "sync"] >= moment

    events = sorted(ours(cluster), key=lambda event: str(event["eventTime"]))
    lease = cluster.api.call(
        "GET", f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/kyverno-policy-sync-lock"
    )
    assert {event["regarding"]["uid"] for event in events} == {lease["metadata"]["uid"]}
    assert [(event["reason"], event["type"]) for event in events] == [
        ("PolicySyncCompleted", "Normal"),
        ("PolicySyncFailed", "Warning"),
    ]
    assert "Applied 1" in events[0]["note"]
    assert "--allow-empty" in events[1]["note"]
    assert events[0]["metadata"]["annotations"]["insights.fairwinds.com/run-id"] == first["run_id"]
    assert f"_{first['run_id']}_" in applier(programs, "history", "-o", "json")


@pytest.mark.cluster
def test_an_apply_leaves_its_metrics_in_a_file_however_it_ends(programs: Programs, insights: InsightsStandIn) -> None:
    file = programs.directory / "apply.prom"
    snapshot = render(programs, insights, cluster_policy("one"))
    unvalidated = programs.with_(VALIDATE_POLICIES="false")
    applier(unvalidated, "apply", snapshot, "--metrics-file", str(file))
    found = samples(file.read_text())
    assert found["insights_applier_runs_total", "apply", "succeeded"] == 1
    assert found["insights_applier_changes_total", "create"] == 1
    (Path(snapshot) / "snapshot.lock").write_text("{}")
    applier(unvalidated, "apply", snapshot, "--metrics-file", str(file), expect=ExitCode.INPUT)
    found = samples(file.read_text())
    assert found["insights_applier_failures_total", "apply", "input"] == 1
    assert found[LAST_SUCCESS, "apply"] > 0


def url(running: Running) -> str:
    return f"http://127.0.0.1:{running.wait_for('Health and metrics are served')['port']}"


def state(url: str, path: str) -> int:
    return requests.get(f"{url}/{path}", timeout=30).status_code


@contextmanager
def watching(programs: Programs) -> Iterator[Running]:
    with Running(programs, "insights-applier", "sync", "--watch", "--sync-interval", PAUSE) as running:
        yield running


@pytest.mark.cluster
def test_a_sync_that_stays_is_ready_while_insights_and_the_cluster_answer(
    programs: Programs, insights: InsightsStandIn
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy("one")))
    served = programs.with_(VALIDATE_POLICIES="false", INSIGHTS_METRICS_ADDRESS="127.0.0.1:0")
    with watching(served.with_(FAIRWINDS_TOKEN="another")) as running:
        assert running.wait_for("Policy sync failed")
        assert (state(url(running), "readyz"), state(url(running), "healthz")) == (503, 200)
    with watching(served) as running:
        # Two ends, two runs: the first is counted by the time that the second one begins.
        until(lambda: len(runs(running)) >= 2, "two syncs")
        assert (state(url(running), "readyz"), state(url(running), "healthz")) == (200, 200)
        found = samples(requests.get(f"{url(running)}/metrics", timeout=30).text)
        assert found["insights_applier_runs_total", "sync", "succeeded"] >= 1
        assert found["process_resident_memory_bytes",] > 0
        assert running.terminate() == 0


def runs(running: Running) -> set[str]:
    return {line["run_id"] for line in running.lines() if line["msg"] == "Policy sync completed"}


def announced_by(bed: JobsBed) -> dict[tuple[str, str], JsonObject]:
    return {(event["regarding"]["kind"], event["regarding"]["name"]): event for event in ours(bed.plane)}


@pytest.mark.jobs
def test_the_runner_counts_its_jobs_and_announces_them_where_it_may(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.plane.api.call("DELETE", EVENTS)
    jobs_bed.apply(cron_job("trivy"))
    served = runner.with_(INSIGHTS_METRICS_ADDRESS="127.0.0.1:0", LOG_LEVEL="debug")
    refused = insights.enqueue_job("trivy")
    with served.start() as running:
        until(lambda: insights.job_statuses.get(refused) == ["running", "completed"], "the job is reported")
        assert running.wait_for("Events are not created")
        assert len({line["run_id"] for line in running.lines()}) == 1
    assert ours(jobs_bed.plane) == []
    with granted(jobs_bed.plane, "events", MAY_CREATE_EVENTS), served.start() as running:
        done, failed = insights.enqueue_job("trivy"), insights.enqueue_job("nova")
        until(
            lambda: [(insights.job_statuses.get(job) or [""])[-1] for job in (done, failed)] == ["completed", "failed"],
            "both are reported",
        )
        until(lambda: state(url(running), "readyz") == 200, "it is ready")
        found = samples(requests.get(f"{url(running)}/metrics", timeout=30).text)
        assert found["insights_runner_jobs_total", "completed", "trivy"] == 1
        assert found["insights_runner_jobs_total", "failed", "nova"] == 1
        assert found["insights_runner_leads",] == 1
        until(lambda: len(announced_by(jobs_bed)) == 2, "both are announced")
        assert running.terminate() == 0
    announced = announced_by(jobs_bed)
    assert announced["Job", f"trivy-on-demand-{done}"]["reason"] == "OnDemandJobCompleted"
    assert "There is no CronJob nova" in announced["CronJob", "nova"]["note"]


@pytest.mark.jobs
def test_a_port_that_is_taken_stops_no_runner(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    job = insights.enqueue_job("trivy")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with runner.with_(INSIGHTS_METRICS_ADDRESS=address).start() as running:
            until(lambda: insights.job_statuses.get(job) == ["running", "completed"], "the job is reported")
            assert running.said("Health and metrics can't be served; everything else goes on")
