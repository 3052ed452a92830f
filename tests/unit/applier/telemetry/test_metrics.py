"""What is counted, as Prometheus reads it: by its own parser."""

from __future__ import annotations

from pathlib import Path

import pytest

from applier.change import Action, Change, Plan
from applier.run_end import RunEnd
from applier.telemetry.metrics import Metrics
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.metrics import LAST_SUCCESS, samples
from tests.support.policies import cluster_policy, identity_of


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    body, content_type = metrics.exposition("")
    assert content_type.startswith("text/plain")
    return samples(body.decode())


def test_a_run_is_counted_by_how_it_ended_and_its_changes_by_what_stands() -> None:
    metrics = Metrics()
    made, failed = cluster_policy("made"), cluster_policy("failed")

    def created(body: JsonObject) -> Change:
        return Change(identity=identity_of(body), action=Action.CREATE)

    drifted = Change(
        identity=identity_of(cluster_policy("drifted")), action=Action.UPDATE, drifted_by=("kubectl-edit",)
    )
    plan = Plan(changes=(created(made), created(failed), drifted))
    standing = frozenset({identity_of(made)})
    metrics.run_ended("sync", RunEnd(code=ExitCode.PARTLY_APPLIED, seconds=3, summary="", plan=plan, standing=standing))
    metrics.run_ended("sync", RunEnd(code=ExitCode.LOCKED, seconds=3, summary=""))
    found = scraped(metrics)
    assert found["insights_applier_runs_total", "sync", "failed"] == 2
    assert found["insights_applier_failures_total", "sync", "partly_applied"] == 1
    assert found["insights_applier_failures_total", "sync", "locked"] == 1
    assert found["insights_applier_changes_total", "create"] == 1
    assert found["insights_applier_planned_changes", "create"] == 2
    assert found["insights_applier_planned_changes", "update"] == 1
    assert found["insights_applier_drifted_policies",] == 1
    assert found["insights_applier_run_duration_seconds_sum", "sync"] == 6
    assert (LAST_SUCCESS, "sync") not in found


def test_what_insights_may_call_a_report_type_makes_no_series_without_end() -> None:
    metrics = Metrics()
    for number in range(3):
        metrics.job_ended(f"made-up-{number}", "failed", None)
    metrics.job_ended("trivy", "completed", 12)
    found = scraped(metrics)
    assert found["insights_runner_jobs_total", "failed", "unknown"] == 3
    assert found["insights_runner_jobs_total", "completed", "trivy"] == 1
    assert found["insights_runner_job_duration_seconds_sum", "trivy"] == 12


def test_a_file_keeps_the_last_success_of_an_earlier_run(tmp_path: Path) -> None:
    file = tmp_path / "sync.prom"
    succeeded, failed = Metrics(), Metrics()
    succeeded.run_ended("sync", RunEnd(code=ExitCode.OK, seconds=1, summary=""))
    succeeded.write(file)
    moment = samples(file.read_text())[LAST_SUCCESS, "sync"]
    failed.run_ended("sync", RunEnd(code=ExitCode.UNAVAILABLE, seconds=1, summary=""))
    failed.write(file)
    found = samples(file.read_text())
    assert found[LAST_SUCCESS, "sync"] == moment > 0
    assert found["insights_applier_failures_total", "sync", "unavailable"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["sync.prom"]


@pytest.mark.parametrize("content", ["nonsense {", "\x00", f"{LAST_SUCCESS} 3\n"])
def test_a_file_that_makes_no_sense_is_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "sync.prom"
    file.write_text(content)
    metrics = Metrics()
    metrics.run_ended("sync", RunEnd(code=ExitCode.OK, seconds=1, summary=""))
    metrics.write(file)
    assert samples(file.read_text())[LAST_SUCCESS, "sync"] > 0


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    Metrics().write(tmp_path / "nowhere" / "sync.prom")
