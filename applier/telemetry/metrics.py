"""The metrics of both programs, for Prometheus: in a registry of their own, written in its text format."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from applier.change import Action
from renderer import logs
from renderer.errors import ExitCode
from renderer.report_types import REPORT_TYPES

if TYPE_CHECKING:
    from applier.run_end import RunEnd

log = logs.get_logger()

_LAST_SUCCESS: Final = "insights_applier_last_success_timestamp_seconds"
#: From the sync of a cluster that is in sync to one that runs as long as LOCK_TIMEOUT lets it.
_RUN_SECONDS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_JOB_SECONDS: Final = (5, 15, 30, 60, 120, 300, 600, 1200, 1800)
_WAIT_SECONDS: Final = (0.1, 0.5, 1, 5, 15, 30, 60, 300)
_WORKS: Final = (ExitCode.OK, ExitCode.CHANGES)
_EFFECTIVE: Final = (Action.CREATE, Action.UPDATE, Action.ADOPT, Action.REPLACE, Action.DELETE)


class Metrics:
    """All that is counted. Methods may be called by any thread."""

    def __init__(self) -> None:
        """Everything is zero."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        command = ["command"]
        self._runs = Counter(
            "insights_applier_runs", "Runs, by how they ended.", [*command, "outcome"], registry=registry
        )
        self._failures = Counter(
            "insights_applier_failures",
            "Runs that failed, by the name of their exit code.",
            [*command, "kind"],
            registry=registry,
        )
        self._changes = Counter(
            "insights_applier_changes", "Changes of policies that were made and stand.", ["action"], registry=registry
        )
        self._planned = Gauge(
            "insights_applier_planned_changes",
            "Policies that the latest plan found other than wanted.",
            ["action"],
            registry=registry,
        )
        self._drifted = Gauge(
            "insights_applier_drifted_policies",
            "Policies of the latest plan that somebody else has written to, too.",
            registry=registry,
        )
        self._run_seconds = Histogram(
            "insights_applier_run_duration_seconds", "How long runs took.", command, buckets=_RUN_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._last_success = Gauge(_LAST_SUCCESS, "When a run last succeeded (Unix time).", command, registry=registry)
        self._lock_wait = Histogram(
            "insights_applier_lock_wait_seconds",
            "How long runs waited for the lock, until they had it or gave up.",
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self._jobs = Counter(
            "insights_runner_jobs", "On-demand jobs that are over.", ["type", "outcome"], registry=registry
        )
        self._job_seconds = Histogram(
            "insights_runner_job_duration_seconds",
            "How long on-demand jobs took, from their start.",
            ["type"],
            buckets=_JOB_SECONDS,
            registry=registry,
        )
        self._open_jobs = Gauge(
            "insights_runner_open_jobs", "On-demand jobs that are not over.", ["state"], registry=registry
        )
        self._unreached = Counter(
            "insights_runner_unreached", "Turns of the runner in which somebody did not answer.", ["who"],
            registry=registry,
        )  # fmt: skip
        self._leads = Gauge("insights_runner_leads", "Whether this runner is the one that works.", registry=registry)

    def run_ended(self, command: str, end: RunEnd) -> None:
        """Count a run of the command."""
        works = end.code in _WORKS
        self._runs.labels(command, "succeeded" if works else "failed").inc()
        self._run_seconds.labels(command).observe(end.seconds)
        if works:
            self._last_success.labels(command).set(time.time())
        else:
            self._failures.labels(command, end.code.name.lower()).inc()
        if end.plan is None:
            return
        for action in _EFFECTIVE:
            changes = end.plan.of(action)
            self._planned.labels(action.value).set(len(changes))
            self._changes.labels(action.value).inc(sum(change.identity in end.standing for change in changes))
        self._drifted.set(sum(bool(change.drifted_by) for change in end.plan.effective))

    def lock_waited(self, seconds: float) -> None:
        """Count a wait for the lock."""
        self._lock_wait.observe(seconds)

    def job_ended(self, report_type: str, outcome: str, seconds: float | None) -> None:
        """Count a job that is over; None means that it never ran."""
        # What Insights may ask for has no end; what is counted has.
        known = report_type if report_type in REPORT_TYPES else "unknown"
        self._jobs.labels(known, outcome).inc()
        if seconds is not None:
            self._job_seconds.labels(known).observe(seconds)

    def runner_turned(self, *, leads: bool, open_jobs: Mapping[str, int], unreached: Mapping[str, bool]) -> None:
        """Count a turn of the runner."""
        self._leads.set(leads)
        for state, count in open_jobs.items():
            self._open_jobs.labels(state).set(count)
        for who, is_so in unreached.items():
            self._unreached.labels(who).inc(is_so)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """What a scraper gets that sends that Accept header, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def write(self, path: Path) -> None:
        """Write them for the textfile collector, whole or not at all; what is wrong with that is only logged.

        The time of the last success outlives a run that fails: it is taken from the file that was there.
        """
        for command, moment in _last_successes(path).items():
            if (command,) not in _children(self._last_success):
                self._last_success.labels(command).set(moment)
        try:
            write_to_textfile(str(path), self._registry)
        except OSError as error:
            log.warning("The metrics can't be written", file=str(path), why=error.strerror or str(error))


def _children(gauge: Gauge) -> set[tuple[str, ...]]:
    return {tuple(sample.labels.values()) for family in gauge.collect() for sample in family.samples}


def _last_successes(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    # Another's file, or one that was cut off, has nothing to say.
    with suppress(OSError, ValueError, KeyError):
        for family in text_string_to_metric_families(path.read_text()):
            if family.name == _LAST_SUCCESS:
                found = {sample.labels["command"]: sample.value for sample in family.samples}
    return found
