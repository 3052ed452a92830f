"""What the runner needs of the world: Kubernetes, Insights, time, and somebody who watches it work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from applier.jobs.record import Entry
from renderer.manifest.jsontypes import JsonObject
from renderer.on_demand import Claim, JobStatus


class JobsApi(Protocol):
    """CronJobs, Jobs and the record, in the runner's namespace. Every call raises as `Connection.send` does."""

    def cron_job(self, name: str) -> JsonObject | None:
        """The CronJob, or None when there is none."""
        ...

    def job(self, name: str) -> JsonObject | None:
        """The Job, or None when there is none."""
        ...

    def jobs(self, names: Sequence[str]) -> Mapping[str, JsonObject]:
        """Those of the named Jobs that are there, with as few requests as the account's rights allow."""
        ...

    def create_job(self, job: JsonObject) -> JsonObject:
        """Create it; the answer is the Job as stored. ServerRefused with 409 when one of its name is there."""
        ...

    def watch(self) -> None:
        """See to it that the runner's sleep ends when there is news of a Job, where the account may watch."""
        ...

    def remarks(self, job: JsonObject) -> str:
        """What pods and events say is in the Job's way, as far as the account may read them; else ""."""
        ...

    def read_record(self) -> JsonObject | None:
        """The ConfigMap that holds the record, or None when there is none."""
        ...

    def write_record(self, config_map: JsonObject) -> JsonObject:
        """Create it, or replace the one whose resourceVersion it carries (409 when another was faster)."""
        ...


class Insights(Protocol):
    """Insights' side of on-demand jobs, for one cluster. Calls raise as `Transport.send` does."""

    def claim(self, limit: int) -> Claim:
        """Claim up to so many jobs; never sent twice."""
        ...

    def report(self, job_id: int, status: JobStatus, *, seconds: float) -> None:
        """Tell a job's status, within so many seconds."""
        ...


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        ...

    def now(self) -> float:
        """Seconds of the wall clock, which outlive the process."""
        ...


class Observer(Protocol):
    """Somebody who is told what the runner does, and has no say in it. No method may raise or block."""

    def turned(self, *, leads: bool, reached_insights: bool, reached_cluster: bool, waiting: int, running: int) -> None:
        """One turn is over: whether this process is the one that works, who answered, and how many jobs are open."""
        ...

    def finished(self, entry: Entry) -> None:
        """What became of it is known: `outcome`, and why in `remark`."""
        ...
