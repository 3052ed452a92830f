"""On-demand jobs on a real control plane: claimed, made from their CronJobs, run and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.soak import soak
from renderer.report_types import REPORT_TYPES
from tests.support.insights import InsightsStandIn
from tests.support.jobs import JobsBed, RunnerProgram, until

pytestmark = pytest.mark.jobs


@pytest.mark.usefixtures("all_cron_jobs")
def test_every_report_type_runs_and_is_reported(runner: RunnerProgram, insights: InsightsStandIn) -> None:
    ids = {insights.enqueue_job(name): name for name in REPORT_TYPES}
    with runner.start() as running:
        until(
            lambda: all(statuses[-1:] == ["completed"] for statuses in insights.job_statuses.values()), "all are done"
        )
        assert running.terminate() == 0
    assert insights.job_statuses == {job_id: ["running", "completed"] for job_id in ids}
    assert set(runner.bed.jobs()) == {f"{name}-on-demand-{job_id}" for job_id, name in ids.items()}
    assert runner.bed.record()["jobs"] == []
    assert runner.bed.record()["leader"] == ""


def test_soak_with_runners_that_are_killed_and_followed(jobs_bed: JobsBed, tmp_path: Path) -> None:
    result = soak(jobs_bed.plane, jobs=100, seed=1, directory=tmp_path, most=30)
    assert result.is_good, "\n".join(result.lines())
    assert result.jobs == 100
