"""Pure: which job may start, how many to claim, and what a Job's status means."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from applier.jobs.record import REMARK_CHARACTERS, Entry, Record, State
from renderer.job_manifest import TTL_SECONDS
from renderer.manifest.jsontypes import JsonObject
from renderer.on_demand import Claim, JobStatus
from renderer.report_types import REPORT_TYPES

#: So many jobs that wait their turn are kept; no more are claimed until there are fewer.
WAITING_MAX: Final = 200
#: A Job that is asked for and not there within this time was never made: none is deleted before its TTL is over.
_CERTAIN_SECONDS: Final = TTL_SECONDS - 60
#: What keeps a Job from being made for so long is taken for final.
_TROUBLE_SECONDS: Final = 600
#: How long after its deadline a Job's end may take to show: its pods are given time to end.
_LATE_SECONDS: Final = 120
#: A status that Insights does not take for so long is given up.
REPORT_SECONDS: Final = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """What a Job's status says. `outcome` is None while it is not over; `reason` is why it failed, "" else.

    `has_pods` says whether any pod was ever made for it, `is_ready` whether one is ready now.
    """

    uid: str
    outcome: JobStatus | None
    reason: str
    has_pods: bool
    is_ready: bool
    is_suspended: bool
    deadline_seconds: int

    @classmethod
    def of(cls, job: JsonObject) -> JobView:
        """Read a Job."""
        status = job.get("status") or {}
        conditions = {
            condition["type"]: condition
            for condition in status.get("conditions") or ()
            if condition.get("status") == "True"
        }
        outcome: JobStatus | None = "completed" if "Complete" in conditions else None
        reason = ""
        if "Failed" in conditions:
            outcome = "failed"
            reason = _condition_text(conditions["Failed"])
        return cls(
            uid=job["metadata"]["uid"],
            outcome=outcome,
            reason=reason,
            has_pods=any(status.get(count) for count in ("active", "succeeded", "failed")),
            is_ready=bool(status.get("ready")),
            is_suspended=bool((job.get("spec") or {}).get("suspend")),
            deadline_seconds=int((job.get("spec") or {}).get("activeDeadlineSeconds") or 0),
        )


def entries_of(claim: Claim, *, now: float) -> tuple[Entry, ...]:
    """What was claimed, as entries of the record; what can't be run is over already, with the reason."""
    entries = [Entry(id=job.id, report_type=job.report_type, options=job.options, claimed_at=now) for job in claim.jobs]
    unreadable = [
        Entry(id=job.id, report_type="unknown", claimed_at=now).finished(
            "failed", f"Insights' request makes no sense: {job.problem}.", now=now
        )
        for job in claim.unreadable
    ]
    return (*(_known(entry, now=now) for entry in entries), *unreadable)


def _known(entry: Entry, *, now: float) -> Entry:
    if entry.report_type in REPORT_TYPES:
        return entry
    known = ", ".join(sorted(REPORT_TYPES))
    return entry.finished("failed", f"The report type {entry.report_type!r} is not known; known are {known}.", now=now)


def startable(record: Record, *, most: int, busy: Collection[str] = ()) -> tuple[Entry, ...]:
    """The jobs that wait and may start now: first come, first served, one of a type, `most` at a time.

    One whose type is taken, by a job of ours or (`busy`) by its own schedule, holds nobody else up.
    """
    taken = {entry.report_type for entry in record.entries if entry.is_active} | set(busy)
    free = most - sum(entry.is_active for entry in record.entries)
    chosen: list[Entry] = []
    for entry in record.entries:
        if len(chosen) >= free:
            break
        if entry.state is State.WAITING and entry.report_type not in taken:
            taken.add(entry.report_type)
            chosen.append(entry)
    return tuple(chosen)


def starting(record: Record, *, most: int, busy: Collection[str] = (), now: float) -> Record:
    """The record in which the jobs that may start now are starting: to be kept before any Job is made."""
    for entry in startable(record, most=most, busy=busy):
        record = record.with_entry(replace(entry, state=State.STARTING, started_at=now))
    return record


def claimable(record: Record, *, most: int, busy: Collection[str] = ()) -> int:
    """How many jobs to claim: as many as types could start now, so that what can't run stays for another runner.

    Insights does not say of which types jobs wait, so that one may have to wait here all the same.
    """
    open_entries = [entry for entry in record.entries if entry.state is not State.FINISHED]
    if sum(entry.state is State.WAITING for entry in open_entries) >= WAITING_MAX:
        return 0
    taken = {entry.report_type for entry in open_entries} | set(busy)
    free_slots = most - sum(entry.is_active for entry in open_entries) - len(startable(record, most=most, busy=busy))
    return max(0, min(free_slots, len(REPORT_TYPES.keys() - taken)))


def observed(entry: Entry, job: JsonObject | None, *, remark: str = "", now: float) -> Entry:
    """What is known of an active job after a look at its Job; None means that it is not there.

    `remark` is what pods and events say is in its way.
    """
    if job is None:
        return _without_job(entry, now=now)
    view = JobView.of(job)
    if entry.job_uid and entry.job_uid != view.uid:
        return entry.finished("failed", "Its Job has gone, and another one has its name.", now=now)
    found = replace(
        entry,
        state=State.RUNNING,
        job_uid=view.uid,
        options={},
        has_run=entry.has_run or view.has_pods or view.outcome == "completed",
        was_ready=entry.was_ready or view.is_ready or view.outcome == "completed",
        remark=remark or ("" if view.is_ready else entry.remark),
        troubled_since=0.0,
        started_at=entry.started_at or now,
    )
    if view.outcome == "completed":
        return found.finished("completed", "", now=now)
    if view.outcome == "failed":
        return found.finished("failed", _joined(view.reason, found.remark or _guessed(found, view)), now=now)
    if view.deadline_seconds and now > found.started_at + view.deadline_seconds + _LATE_SECONDS:
        return found.finished("failed", _joined(_overdue(view), found.remark), now=now)
    return found


def _without_job(entry: Entry, *, now: float) -> Entry:
    if entry.state is State.RUNNING:
        return entry.finished("failed", "Its Job has gone before its result was read: somebody deleted it.", now=now)
    if now - entry.started_at <= _CERTAIN_SECONDS:
        return replace(entry, state=State.WAITING, started_at=0.0)
    return entry.finished(
        "failed", "Its Job is not there. It may have run and gone: no runner was at work for too long to know.", now=now
    )


def _guessed(entry: Entry, view: JobView) -> str:
    """What the Job's own status lets one suppose of why its time was not enough; "" when it had a pod that ran."""
    if not view.reason.startswith("DeadlineExceeded") or entry.was_ready:
        return ""
    if not entry.has_run:
        return "No pod was made for it: a quota, or an admission webhook?"
    return "Its pod was never seen ready: can its image be pulled, and is there room for it?"


def wants_remarks(job: JsonObject) -> bool:
    """Whether to ask what is in its way: it has failed, or none of its pods is ready."""
    view = JobView.of(job)
    return view.outcome == "failed" or (view.outcome is None and not view.is_ready)


def _overdue(view: JobView) -> str:
    if view.is_suspended:
        return f"Its Job was suspended for longer than its {view.deadline_seconds} s."
    return f"Its Job has not ended though its {view.deadline_seconds} s are over. Is kube-controller-manager well?"


def troubled(entry: Entry, reason: str, *, now: float) -> Entry:
    """A job whose Job could not be made, for a reason that may pass; when that lasts, it has failed."""
    since = entry.troubled_since or now
    if now - since > _TROUBLE_SECONDS:
        return entry.finished("failed", reason, now=now)
    return replace(entry, troubled_since=since, remark=reason[:REMARK_CHARACTERS])


def scheduled_since(cron_job: JsonObject, entry: Entry) -> bool:
    """Whether the CronJob's own schedule fired after the job's Job was asked for."""
    fired = timestamp((cron_job.get("status") or {}).get("lastScheduleTime") or "")
    return bool(entry.started_at) and fired > entry.started_at


def timestamp(text: str) -> float:
    """A Kubernetes time as seconds of the wall clock; 0 for none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _condition_text(condition: JsonObject) -> str:
    return ": ".join(part for part in (condition.get("reason") or "", condition.get("message") or "") if part)


def _joined(reason: str, remark: str) -> str:
    sentences = (part if part.endswith(("?", "!")) else f"{part.rstrip('.')}." for part in (reason, remark) if part)
    return " ".join(sentences)
