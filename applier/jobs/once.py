"""One Job of one report type, made from its CronJob and waited for: what JOB_TYPE asks for."""

from __future__ import annotations

import re
from collections.abc import Callable

from applier.jobs import decisions
from applier.jobs.ports import Clock, JobsApi
from applier.jobs.record import Entry, State
from applier.ports import Forbidden, ServerRefused
from renderer import logs
from renderer.errors import ConfigurationError, ExitCode, Failure, JobFailed, NotPermitted, RemoteError
from renderer.http import PassingError
from renderer.job_manifest import JobRequest, is_job_of, render_job
from renderer.manifest.jsontypes import JsonObject
from renderer.report_types import ReportType

log = logs.get_logger()

_KEY_MAX = 30


def key_of(name: str) -> str:
    """A part of a Job's name, made of any name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[-_KEY_MAX:].strip("-")


def run_once(
    api: JobsApi, report_type: ReportType, *, key: str, clock: Clock, wait: Callable[[float], None], poll_seconds: float
) -> ExitCode:
    """Make the Job, unless `key` has one already, and wait for its end.

    Raises ConfigurationError when there is no such CronJob, JobFailed with the reason when the Job fails, and what the
    API raises; the Job goes on when the wait is interrupted.
    """
    request = JobRequest(key=key, report_type=report_type)
    cron_job = api.cron_job(report_type.name)
    if cron_job is None:
        raise ConfigurationError(
            f"JOB_TYPE: there is no CronJob {report_type.name} in this namespace.",
            hint="Enable that report in the chart, or name another.",
        )
    job: JsonObject | None = _made(api, render_job(cron_job, request), request)
    log.info("Job made", report_type=report_type.name, job=request.job_name)
    entry = Entry(id=0, report_type=report_type.name, state=State.STARTING, started_at=clock.now())
    while True:
        remark = ""
        if job and decisions.wants_remarks(job):
            remark = _remark(api, job)
        entry = decisions.observed(entry, job, remark=remark, now=clock.now())
        if entry.outcome == "completed":
            log.info("Job completed", report_type=report_type.name, job=request.job_name)
            return ExitCode.OK
        if entry.outcome or job is None:
            raise JobFailed(f"The Job {request.job_name} failed: {entry.remark or 'it has gone.'}")
        wait(poll_seconds)
        try:
            job = api.job(request.job_name)
        except RemoteError as error:
            log.warning("The Job can't be looked at; it is tried again", why=error.message)


def _made(api: JobsApi, job: JsonObject, request: JobRequest) -> JsonObject:
    try:
        return api.create_job(job)
    except Forbidden as error:
        raise NotPermitted(f"The Job is refused: {error.status.message}", hint=error.hint) from error
    except ServerRefused as error:
        existing = api.job(request.job_name) if error.status.code == 409 else None
        if existing is None:
            raise
        if not is_job_of(existing, request):
            raise ConfigurationError(
                f"JOB_NAME: another Job has the name {request.job_name}.", hint="Choose another JOB_NAME."
            ) from error
        return existing
    except PassingError:
        # The answer may be lost, and the Job be there.
        existing = api.job(request.job_name)
        if existing is None or not is_job_of(existing, request):
            raise
        return existing


def _remark(api: JobsApi, job: JsonObject) -> str:
    try:
        return api.remarks(job)
    except Failure:
        return ""
