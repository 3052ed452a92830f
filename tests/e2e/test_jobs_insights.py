"""The runner and odd answers of Insights: no job is lost or made twice, and each oddity is told once and clearly."""

from __future__ import annotations

import json

import pytest

from renderer.manifest.jsontypes import Json
from tests.support.insights import Fault, InsightsStandIn
from tests.support.jobs import JobsBed, RunnerProgram, cron_job, until
from tests.support.programs import TOKEN

pytestmark = pytest.mark.jobs

_COMPLAINT = "No job could be claimed; any that the answer held stay claimed in Insights"
_IS_DONE = ["running", "completed"]


def test_odd_jobs_in_one_claim_hold_up_nobody(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    jobs_bed.apply(cron_job("polaris"))
    twice = insights.enqueue_job("trivy")
    insights.enqueue_job("trivy", id=twice)
    unknown = insights.enqueue_job("no-such-report")
    typeless = insights.enqueue_job("trivy", reportType=None)
    insights.enqueue_job("trivy", id=None)
    insights.enqueue_job("polaris", id=10**60)
    last = insights.enqueue_job("polaris")
    with runner.start() as running:
        until(lambda: insights.job_statuses[last] == _IS_DONE, "the last one is done")
        until(lambda: insights.job_statuses[twice] == _IS_DONE, "the one that came twice is done")
        for job_id in (unknown, typeless):
            until(lambda: insights.job_statuses[job_id] == ["failed"], f"job {job_id} is told")  # noqa: B023 - at once
        assert "'no-such-report' is not known" in running.wait_for("Job failed", id=unknown)["why"]
        assert "reportType is missing or null" in running.wait_for("Job failed", id=typeless)["why"]
        until(lambda: running.said("Job completed", id=10**60) or running.said("Job failed", id=10**60), "it ends")
        assert running.terminate() == 0
        nameless = "Insights gave a job that nobody can report, for want of its id"
        for message in ("Insights gave a job again that is here already", nameless):
            assert [line["msg"] for line in running.lines()].count(message) == 1
    assert insights.job_statuses[twice] == _IS_DONE
    assert {f"trivy-on-demand-{twice}", f"polaris-on-demand-{last}"} <= set(jobs_bed.jobs())
    assert len([name for name in jobs_bed.jobs() if name.startswith("trivy")]) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.UNAUTHORIZED, "401"),
        (Fault.FORBIDDEN, "403"),
        (Fault.NOT_FOUND, "404"),
        (Fault.CONFLICT, "409"),
        (Fault.TOO_MANY_REQUESTS, "429"),
        (Fault.SERVER_ERROR, "500"),
        (Fault.UNAVAILABLE, "503"),
        (Fault.TRUNCATED, ""),
        (Fault.HTML_PAGE, ""),
        (Fault.STALL, ""),
        (Fault.REDIRECT, "elsewhere.example"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_claim_that_fails_is_told_once_and_the_next_one_works(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed, fault: Fault, said: str
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    job_id = insights.enqueue_job("trivy")
    # A silent one costs the whole time limit, the others are met again and again.
    times = 1 if fault is Fault.STALL else 3
    insights.fail(fault, times=times, call="claim", retry_after="1" if fault is Fault.TOO_MANY_REQUESTS else None)
    with runner.start() as running:
        until(lambda: insights.job_statuses[job_id] == _IS_DONE, "it is done")
        assert running.terminate() == 0
        complaints = [line for line in running.lines() if line["msg"] == _COMPLAINT]
    assert len(complaints) == 1
    assert said in complaints[0]["why"]
    assert list(jobs_bed.jobs()) == [f"trivy-on-demand-{job_id}"]
    assert sum(request.call == "claim" and request.fault is fault for request in insights.requests) == times


def test_a_redirect_gets_neither_token_nor_claim(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    job_id = insights.enqueue_job("trivy")
    with InsightsStandIn(token=TOKEN) as elsewhere:
        insights.fail(Fault.REDIRECT, call="claim", location=f"{elsewhere.url}/v0/claim")
        insights.fail(Fault.REDIRECT, call="job-status", location=f"{elsewhere.url}/v0/status")
        with runner.start():
            until(lambda: insights.job_statuses[job_id][-1:] == ["completed"], "it is done")
    assert elsewhere.requests == []


@pytest.mark.parametrize("answer", [{"jobs": []}, "text", 7, [7]], ids=str)
def test_an_answer_that_is_no_list_of_jobs_is_told(
    runner: RunnerProgram, insights: InsightsStandIn, jobs_bed: JobsBed, answer: Json
) -> None:
    jobs_bed.apply(cron_job("trivy"))
    job_id = insights.enqueue_job("trivy")
    insights.fail(Fault.HTML_PAGE, call="claim", body=json.dumps(answer))
    with runner.start() as running:
        assert running.wait_for(_COMPLAINT)["hint"]
        until(lambda: insights.job_statuses[job_id] == _IS_DONE, "it is done")
