"""A simulated cluster, Insights and clock for the runner of on-demand jobs, in which any call may fail."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from applier.jobs.ports import Insights, Observer
from applier.jobs.record import Entry, Record, loaded
from applier.jobs.runner import Runner, RunnerSettings
from applier.jobs.store import RecordStore
from applier.ports import ServerRefused, Status
from renderer.http import PassingError
from renderer.manifest.jsontypes import JsonObject
from renderer.on_demand import Claim, ClaimedJob, JobStatus
from renderer.report_types import REPORT_TYPES

T = TypeVar("T")


class Nobody:
    """Nobody watches."""

    def turned(self, *, leads: bool, reached_insights: bool, reached_cluster: bool, waiting: int, running: int) -> None:
        """See `Observer`."""

    def finished(self, entry: Entry) -> None:
        """See `Observer`."""


ORGANIZATION: Final = "acme"
CLUSTER: Final = "prod"
LEAD_SECONDS: Final = 60.0
POLL_SECONDS: Final = 15.0
#: What the server takes in one.
CONFIG_MAP_BYTES: Final = 1_048_576


class Dead(BaseException):
    """The process was killed: nothing that it would still do happens."""


class Fault(Enum):
    """What becomes of one call."""

    KILLED_BEFORE = "the process is killed before the call"
    KILLED_AFTER = "the process is killed when the call was acted on"
    REFUSED = "nothing is done, and the call fails"
    LOST = "it is done, and the answer gets lost"


class World:
    """What outlives a process. `fault_at` is the number of the call that has `fault`, from 1."""

    def __init__(self, *, fault: Fault = Fault.REFUSED, fault_at: int = 0) -> None:
        """There is a CronJob for each report type, and nothing waits."""
        self.time = 1_800_000_000.0
        self.cron_jobs: dict[str, JsonObject] = {name: cron_job(name) for name in REPORT_TYPES}
        self.live: dict[str, JsonObject] = {}
        self.config_map: JsonObject | None = None
        self.waiting: list[ClaimedJob] = []
        self.told: dict[int, list[JobStatus]] = {}
        #: The ids of claims whose answer nobody got.
        self.lost: set[int] = set()
        self.created: list[str] = []
        self.most_of_a_type = 0
        self.outcomes: dict[str, JobStatus] = {}
        self.ended: dict[str, JobStatus] = {}
        self.calls: list[str] = []
        #: A claim gives at least so many, whatever was asked for.
        self.generous = 0
        #: The ids of jobs of which Insights never takes a status, and whether the cluster answers nobody.
        self.deaf_to: set[int] = set()
        self.is_down = False
        self._fault, self._fault_at = fault, fault_at
        self._versions = itertools.count(1)
        self._runners = itertools.count(1)

    # The world goes on ------------------------------------------------------------------------------------------

    def enqueue(self, report_type: str, *, outcome: JobStatus = "completed", **options: str) -> int:
        """A job waits in Insights; its Job, if it gets one, will end so."""
        job_id = len(self.told) + 1
        self.told[job_id] = []
        self.waiting.append(ClaimedJob(id=job_id, report_type=report_type, options=options))
        self.outcomes[f"{report_type}-on-demand-{job_id}"] = outcome
        return job_id

    def pass_time(self, seconds: float = POLL_SECONDS) -> None:
        """Jobs get a pod in one step and end in the next; those whose TTL is over go."""
        self.time += seconds
        for name, job in list(self.live.items()):
            status = job["status"]
            if job.get("held"):
                continue
            if not status:
                status["active"] = 1
            elif "conditions" not in status:
                self.end(name, self.outcomes.get(name, "completed"))
            elif self.time - job["ended"] > job["spec"].get("ttlSecondsAfterFinished", 10**9):
                del self.live[name]

    def end(self, name: str, outcome: JobStatus) -> None:
        """The Job ends so."""
        job = self.live[name]
        kind = "Complete" if outcome == "completed" else "Failed"
        condition = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded" if kind == "Failed" else ""}
        job["status"] = {"succeeded" if kind == "Complete" else "failed": 1, "conditions": [condition]}
        job["ended"] = self.time
        self.ended[name] = outcome

    def runner(
        self,
        *,
        most: int = 10,
        poll_seconds: float = POLL_SECONDS,
        grace_seconds: float = 0.0,
        insights: Insights | None = None,
        observer: Observer | None = None,
    ) -> Runner:
        """A new process."""
        settings = RunnerSettings(
            organization=ORGANIZATION,
            cluster=CLUSTER,
            most=most,
            poll_seconds=poll_seconds,
            grace_seconds=grace_seconds,
        )
        return Runner(
            settings,
            api=SimulatedApi(self),
            insights=insights or SimulatedInsights(self),
            store=self.store(),
            clock=self,
            observer=observer or Nobody(),
        )

    def store(self, *, organization: str = ORGANIZATION) -> RecordStore:
        """The store of a new process."""
        return RecordStore(
            SimulatedApi(self),
            identity=f"runner-{next(self._runners)}",
            organization=organization,
            cluster=CLUSTER,
            clock=self,
            lead_seconds=LEAD_SECONDS,
        )

    def work(self, turns: int = 30) -> None:
        """Turn after turn; a process that is killed is followed by another, once it is taken for dead."""
        runner = self.runner()
        for _ in range(turns):
            try:
                runner.turn()
            except Dead:
                runner = self.runner()
            self.pass_time()

    def record(self) -> Record:
        """What is kept."""
        assert self.config_map is not None
        return loaded(self.config_map["data"]["record.json"], source="the record")

    # ports.Clock ------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """See `ports.Clock`."""
        return self.time

    def now(self) -> float:
        """See `ports.Clock`."""
        return self.time

    # What the ports below do ------------------------------------------------------------------------------------

    def call(self, name: str, act: Callable[[], T], *, undelivered: Callable[[T], None] = lambda _: None) -> T:
        """One call, with its fault if it is the one; `undelivered` hears of an answer that nobody got."""
        self.calls.append(name)
        fault = self._fault if len(self.calls) == self._fault_at else None
        if fault is Fault.KILLED_BEFORE:
            self._forget()
            raise Dead
        if fault is Fault.REFUSED:
            raise PassingError("The call failed.")
        answer = act()
        if fault is Fault.KILLED_AFTER:
            undelivered(answer)
            self._forget()
            raise Dead
        if fault is Fault.LOST:
            undelivered(answer)
            raise PassingError("The answer got lost.")
        return copy.deepcopy(answer)

    def _forget(self) -> None:
        """The process that claimed dies: what is not on record by then nobody knows of."""
        kept = self.record().ids() if self.config_map else frozenset()
        claimed = self.told.keys() - {job.id for job in self.waiting}
        self.lost |= {job_id for job_id in claimed if job_id not in kept and not self.told[job_id]}

    def put(self, body: JsonObject) -> JsonObject:
        """Store the ConfigMap, with the server's rules."""
        if sum(len(text.encode()) for text in body["data"].values()) > CONFIG_MAP_BYTES:
            raise refused(422)
        expected = body["metadata"].get("resourceVersion")
        found = self.config_map["metadata"]["resourceVersion"] if self.config_map else None
        if expected != found:
            raise refused(404 if found is None else 409)
        self.config_map = copy.deepcopy(body)
        self.config_map["metadata"]["resourceVersion"] = str(next(self._versions))
        return self.config_map

    def make(self, job: JsonObject) -> JsonObject:
        """Create the Job, and see whether another of its type runs."""
        name = job["metadata"]["name"]
        if name in self.live:
            raise refused(409)
        made = {**copy.deepcopy(job), "status": {}}
        made["metadata"]["uid"] = f"uid-{next(self._versions)}"
        self.live[name] = made
        self.created.append(name)
        owner = job["metadata"]["ownerReferences"][0]["name"]
        running = [
            other
            for other in self.live.values()
            if other["metadata"]["ownerReferences"][0]["name"] == owner and "conditions" not in other["status"]
        ]
        self.most_of_a_type = max(self.most_of_a_type, len(running))
        return made


class SimulatedApi:
    """`ports.JobsApi` over a world."""

    def __init__(self, world: World) -> None:
        """It keeps nothing itself."""
        self._world = world

    def _call(self, name: str, act: Callable[[], T]) -> T:
        if self._world.is_down:
            self._world.calls.append(name)
            raise PassingError("Nobody answers.")
        return self._world.call(name, act)

    def cron_job(self, name: str) -> JsonObject | None:
        """See `ports.JobsApi`."""
        return self._call("cron_job", lambda: self._world.cron_jobs.get(name))

    def job(self, name: str) -> JsonObject | None:
        """See `ports.JobsApi`."""
        return self._call("job", lambda: self._world.live.get(name))

    def jobs(self, names: Sequence[str]) -> Mapping[str, JsonObject]:
        """See `ports.JobsApi`."""
        found = {name: self.job(name) for name in names}
        return {name: job for name, job in found.items() if job is not None}

    def create_job(self, job: JsonObject) -> JsonObject:
        """See `ports.JobsApi`."""
        return self._call("create_job", lambda: self._world.make(job))

    def watch(self) -> None:
        """See `ports.JobsApi`."""

    def remarks(self, job: JsonObject) -> str:
        """See `ports.JobsApi`."""
        return str(job.get("remark", ""))

    def read_record(self) -> JsonObject | None:
        """See `ports.JobsApi`."""
        return self._call("read_record", lambda: self._world.config_map)

    def write_record(self, config_map: JsonObject) -> JsonObject:
        """See `ports.JobsApi`."""
        return self._call("write_record", lambda: self._world.put(config_map))


class SimulatedInsights:
    """`ports.Insights` over a world."""

    def __init__(self, world: World) -> None:
        """It keeps nothing itself."""
        self._world = world

    def claim(self, limit: int) -> Claim:
        """See `ports.Insights`."""

        def act() -> Claim:
            count = max(limit, self._world.generous)
            given, self._world.waiting = self._world.waiting[:count], self._world.waiting[count:]
            return Claim(jobs=tuple(given))

        return self._world.call("claim", act, undelivered=self._lose)

    def _lose(self, claim: Claim) -> None:
        self._world.lost |= {job.id for job in claim.jobs}

    def report(self, job_id: int, status: JobStatus, *, seconds: float) -> None:  # noqa: ARG002 - the port's
        """See `ports.Insights`."""
        if job_id in self._world.deaf_to:
            raise PassingError("Insights answered 500.")
        self._world.call("report", lambda: self._world.told[job_id].append(status))


def refused(code: int) -> ServerRefused:
    """The server's refusal with that code."""
    return ServerRefused(Status(code=code, reason="", message=f"refused with {code}"))


def cron_job(name: str, **status: Any) -> JsonObject:
    """A CronJob as the server gives it."""
    pod = {"containers": [{"name": name}]}
    return {
        "metadata": {"name": name, "namespace": "insights-agent", "uid": f"uid-of-{name}"},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}},
        "status": status,
    }
