"""Pure: what the runner must not forget, and how it is written down: who leads, and the jobs that were claimed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from renderer.errors import InputError
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.on_demand import JobStatus

FORMAT_VERSION: Final = 1
#: A ConfigMap holds 1,048,576 bytes; the rest is for its metadata.
RECORD_BYTES: Final = 900_000
#: So much is kept of the reason of a failure, which a webhook may have written.
REMARK_CHARACTERS: Final = 1_000


class State(StrEnum):
    """Where a claimed job is on its way."""

    WAITING = "waiting"  # it has no Job yet
    STARTING = "starting"  # its Job may be there, or not
    RUNNING = "running"  # its Job was there
    FINISHED = "finished"  # what became of it is known, and Insights has to be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One claimed job. Times are seconds of the wall clock, 0 where there is none.

    `options` are kept until its Job is there. `has_run` says that its Job ever had a pod, `was_ready` that one was
    seen ready. `remark` is what is known to be in its way, and at last why it failed. `troubled_since` is when its Job
    first could not be made. `outcome` is set when it is finished; `reported` is the last status that Insights took.
    """

    id: int
    report_type: str
    options: Mapping[str, str] = field(default_factory=dict)
    state: State = State.WAITING
    claimed_at: float = 0.0
    started_at: float = 0.0
    troubled_since: float = 0.0
    finished_at: float = 0.0
    job_uid: str = ""
    has_run: bool = False
    was_ready: bool = False
    outcome: JobStatus | None = None
    remark: str = ""
    reported: JobStatus | None = None

    @property
    def is_active(self) -> bool:
        """Whether its type is taken by it: its Job is there, or may be."""
        return self.state in (State.STARTING, State.RUNNING)

    @property
    def due(self) -> tuple[JobStatus, ...]:
        """The statuses that Insights has yet to be told, in their order."""
        statuses: list[JobStatus] = []
        if self.has_run and self.reported is None:
            statuses.append("running")
        if self.outcome is not None and self.reported != self.outcome:
            statuses.append(self.outcome)
        return tuple(statuses)

    def finished(self, outcome: JobStatus, remark: str, *, now: float) -> Entry:
        """The same, over: with that outcome, and the reason of it."""
        remark = remark if len(remark) <= REMARK_CHARACTERS else f"{remark[:REMARK_CHARACTERS]}…"
        return replace(self, state=State.FINISHED, outcome=outcome, remark=remark, finished_at=now, options={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that outlives the process. `leader` is who works, or "" when nobody does.

    `renewed` is the leader's own mark, another one with each write. Entries are in the order of their claims.
    """

    organization: str = ""
    cluster: str = ""
    leader: str = ""
    renewed: str = ""
    entries: tuple[Entry, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether any job has a Job, or may have one."""
        return any(entry.is_active for entry in self.entries)

    def ids(self) -> frozenset[int]:
        """The ids of all entries."""
        return frozenset(entry.id for entry in self.entries)

    def with_entry(self, entry: Entry) -> Record:
        """The same with that entry in the place of the one with its id."""
        return replace(self, entries=tuple(entry if old.id == entry.id else old for old in self.entries))

    def with_added(self, entries: Iterable[Entry]) -> Record:
        """The same with the entries at its end whose ids it has not: claimed twice is claimed once."""
        added = {entry.id: entry for entry in entries if entry.id not in self.ids()}
        return replace(self, entries=(*self.entries, *added.values()))

    def without(self, ids: Iterable[int]) -> Record:
        """The same without the entries of those ids."""
        gone = frozenset(ids)
        return replace(self, entries=tuple(entry for entry in self.entries if entry.id not in gone))


def merged(base: Record, ours: Record, theirs: Record) -> Record:
    """Our record with what another process added to the one that we both began with."""
    known = base.ids() | ours.ids()
    return ours.with_added(entry for entry in theirs.entries if entry.id not in known)


def fitting(record: Record, *, now: float, limit: int = RECORD_BYTES) -> Record:
    """The record, small enough to be kept: of jobs that wait, those with the largest options fail until it is."""
    excess = _bytes(dumped(record)) - limit
    if excess <= 0:
        return record
    waiting = [entry for entry in record.entries if entry.state is State.WAITING and entry.options]
    failed: dict[int, Entry] = {}
    for entry in sorted(waiting, key=_entry_bytes, reverse=True):
        if excess <= 0:
            break
        failed[entry.id] = entry.finished("failed", "Its options are too large to be kept.", now=now)
        excess -= _entry_bytes(entry) - _entry_bytes(failed[entry.id])
    return replace(record, entries=tuple(failed.get(entry.id, entry) for entry in record.entries))


def _entry_bytes(entry: Entry) -> int:
    return _bytes(json.dumps(_entry_json(entry), ensure_ascii=False))


def _bytes(text: str) -> int:
    return len(text.encode())


def dumped(record: Record) -> str:
    """The record as JSON, one line for each entry, so that people can read it."""
    head = {
        "formatVersion": FORMAT_VERSION,
        "organization": record.organization,
        "cluster": record.cluster,
        "leader": record.leader,
        "renewed": record.renewed,
    }
    entries = ",\n  ".join(json.dumps(_entry_json(entry), ensure_ascii=False) for entry in record.entries)
    return json.dumps(head, ensure_ascii=False)[:-1] + f', "jobs": [\n  {entries}\n]}}\n'


def loaded(text: str, *, source: str) -> Record:
    """Read a record. Raises InputError that names `source` when somebody made something else of it."""
    try:
        document = json.loads(text)
        if document["formatVersion"] != FORMAT_VERSION:
            raise InputError(
                f"{source} has format {document['formatVersion']!r}, which this version does not know.",
                hint="Use the version that wrote it, or a later one.",
            )
        return Record(
            organization=_text(document["organization"]),
            cluster=_text(document["cluster"]),
            leader=_text(document["leader"]),
            renewed=_text(document["renewed"]),
            entries=tuple(_entry(entry) for entry in document["jobs"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{source} is no record of on-demand jobs: somebody changed it.",
            hint="Delete the ConfigMap to begin anew; the jobs that it held stay as Insights has them.",
        ) from error


def _entry_json(entry: Entry) -> JsonObject:
    fields: JsonObject = {
        "id": entry.id,
        "reportType": entry.report_type,
        "state": str(entry.state),
        "options": dict(entry.options),
        "claimedAt": entry.claimed_at,
        "startedAt": entry.started_at,
        "troubledSince": entry.troubled_since,
        "finishedAt": entry.finished_at,
        "jobUid": entry.job_uid,
        "hasRun": entry.has_run,
        "wasReady": entry.was_ready,
        "outcome": entry.outcome,
        "remark": entry.remark,
        "reported": entry.reported,
    }
    return {name: value for name, value in fields.items() if value or name == "id"}


def _entry(document: JsonObject) -> Entry:
    return Entry(
        id=_id(document["id"]),
        report_type=_text(document["reportType"]),
        state=State(document["state"]),
        options={_text(name): _text(value) for name, value in document.get("options", {}).items()},
        claimed_at=_seconds(document.get("claimedAt", 0)),
        started_at=_seconds(document.get("startedAt", 0)),
        troubled_since=_seconds(document.get("troubledSince", 0)),
        finished_at=_seconds(document.get("finishedAt", 0)),
        job_uid=_text(document.get("jobUid", "")),
        has_run=bool(document.get("hasRun", False)),
        was_ready=bool(document.get("wasReady", False)),
        outcome=_status(document.get("outcome")),
        remark=_text(document.get("remark", "")),
        reported=_status(document.get("reported")),
    )


def _id(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no id")
    return value


def _seconds(value: Json) -> float:
    """A time; one that no clock ever shows would keep a job from its end."""
    if not math.isfinite(seconds := float(value)):
        raise ValueError("no time")
    return seconds


def _status(value: Json) -> JobStatus | None:
    match value:
        case None | "running" | "completed" | "failed":
            return value
        case _:
            raise ValueError("no status")


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
