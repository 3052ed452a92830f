"""Who goes first: one job of a type at a time, schedules, restarts, and two runners at once."""

from __future__ import annotations

import pytest

from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import Fault, InsightsStandIn
from tests.support.jobs import HELD, JobsBed, RunnerProgram, cron_job, until

pytestmark = pytest.mark.jobs

SUCCEEDED = {"phase": "Succeeded"}


def scheduled_job(owner: JsonObject, name: str) -> JsonObject:
    """A Job as the CronJob's own schedule makes it, whose pod the test holds."""
    reference = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": AGENT_NAMESPACE, "ownerReferences": [reference]},
        "spec": owner["spec"]["jobTemplate"]["spec"],
    }


def test_one_of_a_type_at_a_time_and_no_type_holds_up_another(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy", pod=HELD))
    jobs_bed.apply(cron_job("kyverno-policy-sync"))
    first, second = insights.enqueue_job("trivy"), insights.enqueue_job("trivy")
    other = insights.enqueue_job("kyverno-policy-sync")
    with runner.with_(MAX_CONCURRENT_JOBS="2").start():
        until(lambda: insights.job_statuses[other] == ["running", "completed"], "the other type is done")
        until(lambda: insights.job_statuses[first] == ["running"], "the first runs")
        assert insights.job_statuses[second] == []
        assert f"trivy-on-demand-{second}" not in jobs_bed.jobs()
        jobs_bed.set_pod_status(f"trivy-on-demand-{first}", SUCCEEDED)
        until(lambda: insights.job_statuses[first] == ["running", "completed"], "the first is done")
        until(lambda: insights.job_statuses[second] == ["running"], "the second runs")
    job = jobs_bed.jobs()[f"kyverno-policy-sync-on-demand-{other}"]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 600)


def test_waits_for_the_schedules_own_job(runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed) -> None:
    owner = jobs_bed.apply(cron_job("trivy", pod=HELD))
    scheduled = jobs_bed.apply(scheduled_job(owner, "trivy-29000000"))
    reference = {"kind": "Job", "apiVersion": "batch/v1", "name": "trivy-29000000", "namespace": AGENT_NAMESPACE}
    active = {"status": {"active": [{**reference, "uid": scheduled["metadata"]["uid"]}]}}
    jobs_bed.patch("cronjobs/trivy/status", active)
    job_id = insights.enqueue_job("trivy")
    with runner.start() as running:
        running.wait_for("A job waits for its CronJob's own Job", id=job_id, job="trivy-29000000")
        assert insights.job_statuses[job_id] == []
        jobs_bed.set_pod_status("trivy-29000000", SUCCEEDED)
        until(lambda: insights.job_statuses[job_id] == ["running"], "it runs")
        jobs_bed.patch("cronjobs/trivy/status", {"status": {"lastScheduleTime": "2100-01-01T00:00:00Z"}})
        jobs_bed.set_pod_status(f"trivy-on-demand-{job_id}", SUCCEEDED)
        until(lambda: insights.job_statuses[job_id] == ["running", "completed"], "it is done")
        fired = "The CronJob's own schedule fired while its on-demand Job ran, so two ran at once; "
        running.wait_for(f"{fired}a schedule can't be held back from here", id=job_id)


def test_a_job_is_taken_up_by_the_next_runner(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy", pod=HELD))
    first, second = insights.enqueue_job("trivy"), insights.enqueue_job("trivy")
    with runner.start() as killed:
        until(lambda: insights.job_statuses[first] == ["running"], "it runs")
        killed.process.kill()
    jobs_bed.set_pod_status(f"trivy-on-demand-{first}", SUCCEEDED)
    with runner.start() as following:
        until(lambda: insights.job_statuses[first][-1:] == ["completed"], "it is told by the next")
        until(lambda: insights.job_statuses[second] == ["running"], "what waited runs")
        assert following.terminate() == 0
        assert following.said("Stopped; what runs goes on, and is the next runner's", jobs_running=1)
    jobs_bed.set_pod_status(f"trivy-on-demand-{second}", SUCCEEDED)
    with runner.start() as last:
        # It need not wait for a silence: the one before has left.
        until(lambda: insights.job_statuses[second] == ["running", "completed"], "it is told by the last")
        assert not last.said("Another runner works; this one waits")
    assert len(jobs_bed.jobs()) == 2


def test_of_two_runners_one_works(runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed) -> None:
    jobs_bed.apply(cron_job("trivy"))
    patient = runner.with_(INSIGHTS_LEAD_TIMEOUT="10m")
    with patient.start() as old:
        old.wait_for("This runner works now")
        with patient.start() as new:
            new.wait_for("Another runner works; this one waits")
            job_id = insights.enqueue_job("trivy")
            until(lambda: insights.job_statuses[job_id] == ["running", "completed"], "the old one runs it")
            assert not new.said("Job claimed")
            assert old.terminate() == 0
            new.wait_for("This runner works now")
            job_id = insights.enqueue_job("trivy")
            until(lambda: insights.job_statuses[job_id] == ["running", "completed"], "the new one runs it")


def test_the_same_claim_twice_makes_one_job(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    job_id = insights.enqueue_job("trivy")
    with runner.start():
        until(lambda: insights.job_statuses[job_id] == ["running", "completed"], "it is done")
        insights.enqueue_job("trivy", id=job_id)
        until(lambda: insights.job_statuses[job_id] == ["running", "completed"] * 2, "it is told again")
    assert set(jobs_bed.jobs()) == {f"trivy-on-demand-{job_id}"}


def test_a_lost_answer_to_a_claim_is_told_and_not_asked_for_again(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    lost = insights.enqueue_job("trivy")
    insights.fail(Fault.LOST_ANSWER, call="claim")
    with runner.start() as running:
        running.wait_for("No job could be claimed; any that the answer held stay claimed in Insights")
        job_id = insights.enqueue_job("trivy")
        until(lambda: insights.job_statuses[job_id] == ["running", "completed"], "the next one runs")
    assert insights.job_statuses[lost] == []


@pytest.mark.usefixtures("more_rights")
def test_a_watch_tells_of_an_end_long_before_the_next_poll(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy", pod=HELD))
    job_id = insights.enqueue_job("trivy")
    # Within the test's patience nothing but the watch can wake it.
    with runner.with_(POLL_INTERVAL="10m", INSIGHTS_LEAD_TIMEOUT="30m").start() as running:
        until(lambda: insights.job_statuses[job_id] == ["running"], "it is seen to run")
        jobs_bed.set_pod_status(f"trivy-on-demand-{job_id}", SUCCEEDED)
        until(lambda: insights.job_statuses[job_id] == ["running", "completed"], "it is seen to end")
        assert running.terminate() == 0


class TestOnce:
    def test_one_job_runs_and_the_exit_code_tells_how(self, runner: RunnerProgram, jobs_bed: JobsBed) -> None:
        jobs_bed.apply(cron_job("trivy"))
        done = runner.with_(JOB_TYPE="trivy", JOB_NAME="By hand").programs.run("on-demand-job-runner")
        assert done.returncode == 0, done.stderr
        assert set(jobs_bed.jobs()) == {"trivy-on-demand-by-hand"}

    def test_the_reason_of_a_failure_is_told(self, runner: RunnerProgram, jobs_bed: JobsBed) -> None:
        jobs_bed.apply(cron_job("trivy", pod=HELD, activeDeadlineSeconds=1))
        done = runner.with_(JOB_TYPE="trivy").programs.run("on-demand-job-runner")
        assert (done.returncode, "DeadlineExceeded" in done.stderr) == (ExitCode.JOB_FAILED, True), done.stderr

    @pytest.mark.usefixtures("jobs_bed")
    def test_a_missing_cron_job_is_named(self, runner: RunnerProgram) -> None:
        done = runner.with_(JOB_TYPE="pluto").programs.run("on-demand-job-runner")
        assert done.returncode == ExitCode.CONFIGURATION
        assert "there is no CronJob pluto in this namespace" in done.stderr
