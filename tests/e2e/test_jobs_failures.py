"""What can go wrong with an on-demand job on a real control plane: Insights and the log are told, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import Fault, InsightsStandIn
from tests.support.jobs import HELD, JobsBed, RunnerProgram, cron_job, until

pytestmark = pytest.mark.jobs

EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
NO_IMAGE = {
    "phase": "Pending",
    "containerStatuses": [
        {
            "name": "trivy",
            "image": "example.invalid/none:1",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}},
        }
    ],
}


def is_told(insights: InsightsStandIn, job_id: int, *statuses: str) -> Callable[[], bool]:
    return lambda: insights.job_statuses[job_id] == list(statuses)


def quota(name: str, hard: dict[str, str]) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": AGENT_NAMESPACE},
        "spec": {"hard": hard},
    }


def test_what_can_not_start_fails_with_the_reason_and_stops_nobody(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply({**cron_job("polaris"), "spec": {**cron_job("polaris")["spec"], "suspend": True}})
    reasons = {
        insights.enqueue_job("trivy"): "There is no CronJob trivy in this namespace.",
        insights.enqueue_job("trivvy"): "The report type 'trivvy' is not known",
        insights.enqueue_job("polaris", options={"a=b": "c"}): "The option 'a=b' can't be a variable.",
        insights.enqueue_job("nova", options=["no", "object"]): "Insights' request makes no sense: options is a list",  # type: ignore[arg-type] # as a defect of Insights would be
    }
    suspended = insights.enqueue_job("polaris", options={"imagesToScan": "a,b"})
    with runner.start() as running:
        until(is_told(insights, suspended, "running", "completed"), "the suspended CronJob's Job runs")
        for job_id, reason in reasons.items():
            until(is_told(insights, job_id, "failed"), f"job {job_id} is told")
            assert running.wait_for("Job failed", id=job_id)["why"].startswith(reason)
    (job,) = jobs_bed.jobs().values()
    environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert environment == [
        {"name": "FIRST", "value": "1"},
        {"name": "SECOND", "value": "2"},
        {"name": "IMAGES_TO_SCAN", "value": "a,b"},
    ]
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], "controller" in owner) == ("CronJob", "polaris", False)
    spec = job["spec"]
    assert (spec["ttlSecondsAfterFinished"], spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (600, 300, 6)


@pytest.mark.parametrize("rights", [[], ["more_rights"]], ids=["chart", "more"])
@pytest.mark.parametrize(
    "case",
    [
        (EVICTED, {"backoffLimit": 0}, "BackoffLimitExceeded", "Evicted: The node was low on resource: memory"),
        (
            NO_IMAGE,
            {"backoffLimit": 0, "activeDeadlineSeconds": 4},
            "DeadlineExceeded: Job was active longer than specified deadline. Its pod was never seen ready",
            "container trivy waits: ImagePullBackOff: Back-off pulling image",
        ),
    ],
    ids=["evicted", "image"],
)
def test_what_its_pods_meet_is_told(
    request: pytest.FixtureRequest,
    runner: RunnerProgram,
    insights: InsightsStandIn,
    jobs_bed: JobsBed,
    rights: list[str],
    case: tuple[JsonObject, dict[str, Any], str, str],
) -> None:
    pod_status, more, without_rights, with_rights = case
    for name in rights:
        request.getfixturevalue(name)
    jobs_bed.apply(cron_job("trivy", pod=HELD, **more))
    job_id = insights.enqueue_job("trivy")
    with runner.start() as running:
        jobs_bed.set_pod_status(f"trivy-on-demand-{job_id}", pod_status)
        why = running.wait_for("Job failed", id=job_id)["why"]
        until(lambda: insights.job_statuses[job_id][-1:] == ["failed"], "it is told")
    assert (with_rights if rights else without_rights) in why


@pytest.mark.usefixtures("more_rights")
def test_a_quota_on_pods_is_told_from_the_jobs_events(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy", activeDeadlineSeconds=4))
    _apply_quota(jobs_bed, quota("no-pods", {"pods": "0"}))
    job_id = insights.enqueue_job("trivy")
    with runner.start() as running:
        why = running.wait_for("Job failed", id=job_id)["why"]
        until(is_told(insights, job_id, "failed"), "it is told, and never that it runs")
    assert "DeadlineExceeded" in why
    assert "exceeded quota: no-pods" in why


def test_a_quota_on_jobs_is_told(runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed) -> None:
    jobs_bed.apply(cron_job("trivy"))
    _apply_quota(jobs_bed, quota("no-jobs", {"count/jobs.batch": "0"}))
    job_id = insights.enqueue_job("trivy")
    with runner.start() as running:
        assert "exceeded quota: no-jobs" in running.wait_for("Job failed", id=job_id)["why"]
        until(is_told(insights, job_id, "failed"), "it is told")


def _apply_quota(bed: JobsBed, document: JsonObject) -> None:
    until(lambda: bed.apply(document).get("status", {}).get("hard"), "the quota counts")


def test_a_job_that_somebody_deletes_has_failed(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy", pod=HELD))
    job_id = insights.enqueue_job("trivy")
    with runner.start() as running:
        until(is_told(insights, job_id, "running"), "it runs")
        jobs_bed.delete_job(f"trivy-on-demand-{job_id}")
        assert "somebody deleted it" in running.wait_for("Job failed", id=job_id)["why"]
        until(is_told(insights, job_id, "running", "failed"), "it is told")


def test_a_status_that_could_not_be_sent_is_sent_later_by_whoever_works_then(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    job_id = insights.enqueue_job("trivy")
    insights.fail(Fault.SERVER_ERROR, call="job-status", times=10_000)
    with runner.start() as running:
        running.wait_for("Job completed", id=job_id)
        until(lambda: jobs_bed.record()["jobs"][0].get("outcome") == "completed", "the outcome is on record")
        running.process.kill()
    jobs_bed.delete_job(f"trivy-on-demand-{job_id}")
    insights.forgive()
    with runner.start():
        until(lambda: insights.job_statuses[job_id][-1:] == ["completed"], "it is told though its Job has gone")


def test_without_the_right_to_keep_a_record_nothing_is_claimed(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/roles/runner"
    rules = [{"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": ["get", "create"]}]
    jobs_bed.plane.api.call("PATCH", role, {"rules": rules}, content_type="application/merge-patch+json")
    insights.enqueue_job("trivy")
    with runner.start() as running:
        assert running.process.wait(60) == ExitCode.NOT_PERMITTED
        assert "This account may not keep the record of on-demand jobs" in running.path.read_text()
    assert insights.waiting_jobs == [1]
