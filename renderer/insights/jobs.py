"""Insights' on-demand jobs: claiming those that wait, and reporting what became of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from renderer.errors import RemoteError
from renderer.on_demand import Claim, ClaimedJob, JobStatus, UnreadableJob

#: A report type is the name of a CronJob, which is shorter.
_TYPE_MAX: Final = 63

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig
    from renderer.insights.transport import Transport
    from renderer.manifest.jsontypes import Json


def claim_jobs(transport: Transport, config: InsightsConfig, limit: int) -> Claim:
    """Claim up to `limit` jobs (at least 1). Never sent twice: what a lost answer held would be lost too.

    One unreadable job does not take the others down: it is given beside them, and one that has no id to report
    it by at least as a problem. Raises RemoteError for an answer that is no list of jobs, and what Transport.send
    raises.
    """
    from renderer.insights.transport import Call

    if limit < 1:
        raise ValueError("limit must be at least 1")
    purpose = f"claim on-demand jobs for {config.subject}"
    answer = transport.send(
        Call(
            method="POST",
            url=config.url("reports/on-demand-jobs/claim"),
            params={"limit": str(limit)},
            purpose=purpose,
            missing=config.subject,
            repeatable=False,
        )
    )
    if answer.status == 204:
        return Claim()
    try:
        return parse_claim(answer.body)
    except ValueError as error:
        raise RemoteError(
            f"Could not {purpose}: the answer is no list of jobs ({error}).",
            hint=f"Check {config.names.host}, and whether a proxy answers for it.",
        ) from error


def report_job(
    transport: Transport, config: InsightsConfig, job_id: int, status: JobStatus, *, seconds: float | None = None
) -> None:
    """Report a claimed job's status; sent again if need be, since the last report counts.

    `seconds` is how long it may take in all, where that is less than the transport's own limit. Raises what
    Transport.send raises.
    """
    from renderer.insights.transport import Call

    transport.send(
        Call(
            method="PATCH",
            url=config.url(f"reports/on-demand-jobs/{job_id}/status"),
            payload={"status": status},
            purpose=f"report on-demand job {job_id} as {status}",
            missing=f"job {job_id} for {config.subject}",
            repeatable=True,
        ),
        seconds=seconds,
    )


def parse_claim(body: bytes) -> Claim:
    """Read a claim's answer; `null` is an empty list. Raises ValueError, which never shows the body."""
    try:
        entries: Json = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if entries is None:
        return Claim()
    if not isinstance(entries, list):
        raise ValueError(f"it is {_kind(entries)}, not a list")
    parsed: list[ClaimedJob | UnreadableJob] = []
    nameless: list[str] = []
    for index, entry in enumerate(entries, start=1):
        try:
            parsed.append(_parse_job(entry, place=f"item {index}"))
        except ValueError as error:
            nameless.append(str(error))
    if nameless and not parsed:
        raise ValueError(nameless[0])
    return Claim(
        nameless=tuple(nameless),
        jobs=tuple(job for job in parsed if isinstance(job, ClaimedJob)),
        unreadable=tuple(job for job in parsed if isinstance(job, UnreadableJob)),
    )


def _parse_job(entry: Json, *, place: str) -> ClaimedJob | UnreadableJob:
    if not isinstance(entry, dict):
        raise ValueError(f"{place} is {_kind(entry)}, not an object")
    job_id = entry.get("id")
    if not isinstance(job_id, int) or isinstance(job_id, bool) or job_id < 0:
        raise ValueError(f"{place}: id is {_kind(job_id)}, not a number that counts jobs")
    report_type = entry.get("reportType")
    if not isinstance(report_type, str) or not report_type:
        return UnreadableJob(id=job_id, problem=f"reportType is {_kind(report_type)}, not a name")
    if len(report_type) > _TYPE_MAX or not _is_text(report_type):
        return UnreadableJob(id=job_id, problem=f"reportType is {_shown(report_type)}, which can't be a name")
    options = entry.get("options")
    if options is None:
        options = {}
    if not isinstance(options, dict):
        return UnreadableJob(id=job_id, problem=f"options is {_kind(options)}, not an object")
    for name, value in options.items():
        if not isinstance(value, str):
            return UnreadableJob(id=job_id, problem=f"options.{_shown(name)} is {_kind(value)}, not a string")
        if not _is_text(name) or not _is_text(value):
            return UnreadableJob(id=job_id, problem=f"options.{_shown(name)} has half a character (a lone surrogate)")
    return ClaimedJob(id=job_id, report_type=report_type, options=options)


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: JSON may hold a half of a pair of surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(name: str) -> str:
    """A name as far as it is fit for a message."""
    short = name if len(name) <= _TYPE_MAX else f"{name[:_TYPE_MAX]}…"
    return short if short.isprintable() else ascii(short)


def _kind(value: Json) -> str:
    """Name what a JSON value is, without showing it."""
    match value:
        case None:
            return "missing or null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string" if value else "empty"
        case list():
            return "a list"
        case _:
            return "an object"
