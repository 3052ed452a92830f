"""Watches the runner of on-demand jobs: counts its jobs, keeps its health, and announces outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from applier.jobs.record import Entry
from applier.telemetry.events import Event
from applier.telemetry.health import Health
from renderer.job_manifest import JobRequest
from renderer.report_types import REPORT_TYPES

if TYPE_CHECKING:
    from applier.telemetry.metrics import Metrics

#: Every request of a turn is limited in time, and so is what a turn asks for; beyond this it hangs.
TURN_SECONDS: Final = 300


class WatchedJobs:
    """`jobs.ports.Observer`: tells metrics, health and Events."""

    def __init__(
        self,
        *,
        health: Health,
        metrics: Metrics | None,
        announce: Callable[[Event], None],
        poll_seconds: float,
    ) -> None:
        """A turn begins every `poll_seconds`."""
        self._health = health
        self._metrics = metrics
        self._announce = announce
        self._within = poll_seconds + TURN_SECONDS

    def turned(self, *, leads: bool, reached_insights: bool, reached_cluster: bool, waiting: int, running: int) -> None:
        """See `Observer`."""
        self._health.turned(reached=reached_insights and reached_cluster)
        self._health.expect(self._within)
        if self._metrics:
            self._metrics.runner_turned(
                leads=leads,
                open_jobs={"waiting": waiting, "running": running},
                unreached={"insights": not reached_insights, "cluster": not reached_cluster},
            )

    def finished(self, entry: Entry) -> None:
        """See `Observer`."""
        if self._metrics:
            seconds = entry.finished_at - entry.started_at if entry.started_at else None
            self._metrics.job_ended(entry.report_type, entry.outcome or "failed", seconds)
        if event := _event(entry):
            self._announce(event)


def _event(entry: Entry) -> Event | None:
    """The Event of a job that is over: about its Job, or, if it never had one, about its CronJob."""
    report_type = REPORT_TYPES.get(entry.report_type)
    if report_type is None:
        return None
    completed = entry.outcome == "completed"
    if entry.job_uid:
        name = JobRequest(key=str(entry.id), report_type=report_type).job_name
        regarding = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": entry.job_uid}
    else:
        regarding = {"apiVersion": "batch/v1", "kind": "CronJob", "name": report_type.name}
    subject = f"The on-demand job {entry.id} ({entry.report_type})"
    return Event(
        regarding=regarding,
        reason="OnDemandJobCompleted" if completed else "OnDemandJobFailed",
        action="RunOnDemandJob",
        note=f"{subject} has completed." if completed else f"{subject} has failed: {entry.remark}",
        type="Normal" if completed else "Warning",
    )
