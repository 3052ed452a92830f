"""The runner: in each turn it looks at its Jobs, keeps what it knows, starts what may start, claims, and reports.

Nothing waits for anything in here: what has not come by the end of a turn is looked at in the next one. What must not
be forgotten is in the record before it is acted upon, so that a turn may be cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from applier.jobs import decisions
from applier.jobs.ports import Clock, Insights, JobsApi, Observer
from applier.jobs.record import Entry, Record, State, fitting
from applier.jobs.store import RecordStore
from applier.ports import Forbidden, ServerRefused, Unauthenticated
from renderer import logs
from renderer.errors import Failure, InputError, NotPermitted, RemoteError
from renderer.http import PassingError
from renderer.job_manifest import TTL_SECONDS, JobRequest, is_job_of, render_job
from renderer.manifest.jsontypes import JsonObject
from renderer.on_demand import JobStatus
from renderer.report_types import REPORT_TYPES, ReportType

log = logs.get_logger()

#: A server may ask to be left alone for so long, and no longer.
_RETRY_AFTER_MAX_SECONDS: Final = 900.0
#: After a report that Insights refuses, its next try; doubled each time, up to the second figure.
_REPORT_AGAIN_SECONDS: Final = (30.0, 900.0)
#: How often one turn claims: those of a type that runs already must not hold up what Insights has behind them.
_CLAIMS: Final = 5
#: No Job is begun to be made after so many seconds of one turn: a server that is slow has the other turns.
_START_SECONDS: Final = 20.0
#: Nor is a status told after so many: what a turn keeps is the leader's sign of life.
_REPORT_SECONDS: Final = 20.0
#: While Jobs run they are looked at so often, however rarely jobs are claimed: once its TTL is over, one has gone.
_LOOK_SECONDS: Final = TTL_SECONDS / 4
#: Before the record is tried to be kept again at the end.
_KEEP_AGAIN_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """What the runner is told: whose jobs, how many at once, how often to look, and how long an end may take."""

    organization: str
    cluster: str
    most: int
    poll_seconds: float
    grace_seconds: float = 10.0


class Runner:
    """One runner. It works while it leads; `observer` is told, and has no say."""

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        api: JobsApi,
        insights: Insights,
        store: RecordStore,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """Nothing is asked yet."""
        self._settings = settings
        self._api = api
        self._insights = insights
        self._store = store
        self._clock = clock
        self._observer = observer
        #: What this runner knows; None while another one works.
        self._record: Record | None = None
        #: Types whose own schedule runs at the moment, with the Job's name; of this turn.
        self._busy: dict[str, str] = {}
        #: Jobs whose end the runner before this one may have told already, though the record does not say so.
        self._inherited: frozenset[int] = frozenset()
        self._claim_after = 0.0
        self._report_after: dict[int, tuple[float, float]] = {}
        #: How often each status could not be told: one that never can be is tried last.
        self._untold: dict[int, int] = {}
        self._reached_cluster = True
        self._said: dict[str, str] = {}

    def run(self, *, stopped: Callable[[], bool], wait: Callable[[float], None]) -> None:
        """Work until `stopped`; `wait` waits for so many seconds, or until it is to look at once."""
        log.info(
            "On-demand jobs are claimed",
            organization=self._settings.organization,
            cluster=self._settings.cluster,
            poll_seconds=self._settings.poll_seconds,
            max_concurrent_jobs=self._settings.most,
        )
        try:
            while not stopped():
                began = self._clock.monotonic()
                self.turn(stopped=stopped)
                if not stopped():
                    wait(max(0.0, began + self._pause() - self._clock.monotonic()))
        except Failure:
            self._give_back(self._clock.monotonic() + self._settings.grace_seconds)
            raise
        self.close(wait=wait)

    def _pause(self) -> float:
        """From one turn's beginning to the next one's, in seconds."""
        poll = self._settings.poll_seconds
        return min(poll, _LOOK_SECONDS) if self._record and self._record.is_active else poll

    def turn(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Do all that can be done now.

        Raises only what no later turn could mend: InputError when the record can't be read, Forbidden when the account
        may not do what the runner needs.
        """
        self._reached_cluster, claimed = True, None
        self._busy = {}
        try:
            if self._leads():
                self._observe()
                if self._begin(stopped):
                    claimed = self._claim(stopped)
        except (RemoteError, Unauthenticated, ServerRefused) as error:
            self._reached_cluster = False
            self._complain("cluster", "The cluster does not do what is asked of it", error)
        else:
            self._relent("cluster", "The cluster answers again")
        told = self._report(until=self._clock.monotonic() + _REPORT_SECONDS, stopped=stopped)
        entries = self._record.entries if self._record else ()
        running = sum(entry.is_active for entry in entries)
        if running:
            self._api.watch()
        self._observer.turned(
            leads=self._record is not None,
            # A claim that was answered says more than a report that was not: that may be due to its job.
            reached_insights=told if claimed is None else claimed,
            reached_cluster=self._reached_cluster,
            waiting=sum(entry.state is State.WAITING for entry in entries),
            running=running,
        )

    def close(self, *, wait: Callable[[float], None] = lambda _: None) -> None:
        """Report what is finished, and leave the rest to the next runner, which may begin at once.

        It takes little more than `grace_seconds`, whoever does not answer.
        """
        if self._record is None:
            return
        until = self._clock.monotonic() + self._settings.grace_seconds
        if self._reached_cluster:  # else that would take the time of what is known already
            with suppress(Failure):
                self._observe()
        self._report(until=until)
        running = sum(entry.is_active for entry in self._record.entries)
        while True:
            try:
                self._keep(leave=True)
                break
            except Failure as error:
                self._complain("cluster", "The record could not be kept", error)
                if self._clock.monotonic() >= until:
                    self._give_back(until + self._settings.grace_seconds / 2)
                    break
                wait(_KEEP_AGAIN_SECONDS)
        log.info("Stopped; what runs goes on, and is the next runner's", jobs_running=running)

    def _leads(self) -> bool:
        if self._record is not None:
            return True
        self._record = self._store.lead()
        if self._record is None:
            self._say("leader", "Another runner works; this one waits", leader=self._store.leader)
            return False
        self._inherited = self._record.ids()
        self._say("leader", "This runner works now", jobs_taken_over=len(self._inherited))
        return True

    # Looking ----------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Look at the Jobs of all that may have one."""
        record = self._known()
        active = [entry for entry in record.entries if entry.is_active]
        jobs = self._api.jobs([_request(entry, self._settings).job_name for entry in active])
        for entry in active:
            request = _request(entry, self._settings)
            job = jobs.get(request.job_name)
            if job and not entry.job_uid and not is_job_of(job, request):
                job = None  # somebody else's: to make ours says so
            remark = self._remark(job) if job and decisions.wants_remarks(job) else ""
            seen = decisions.observed(entry, job, remark=remark, now=self._clock.now())
            if job and seen.state is State.RUNNING and seen.remark and seen.remark != entry.remark:
                log.warning("Something is in a Job's way", **_named(seen), job=job["metadata"]["name"], why=seen.remark)
            self._update(entry, seen)
            if job and seen.outcome:
                self._look_for_schedule(entry)

    def _remark(self, job: JsonObject) -> str:
        # The outcome matters more than the words about it.
        with suppress(Failure):
            return self._api.remarks(job)
        return ""

    def _look_for_schedule(self, entry: Entry) -> None:
        """Say so when the CronJob's own schedule fired while the Job ran: it can't be stopped from here."""
        with suppress(Failure):
            cron_job = self._api.cron_job(entry.report_type)
            if cron_job and (decisions.scheduled_since(cron_job, entry) or self._scheduled(cron_job)):
                log.warning(
                    "The CronJob's own schedule fired while its on-demand Job ran, so two ran at once; "
                    "a schedule can't be held back from here",
                    **_named(entry),
                )

    def _scheduled(self, cron_job: JsonObject) -> str:
        """The Job that the CronJob's own schedule has running, or ""."""
        for reference in (cron_job.get("status") or {}).get("active") or ():
            job = self._api.job(reference["name"])
            # The list may be older than the Job's end.
            if job and job["metadata"]["uid"] == reference.get("uid") and not decisions.JobView.of(job).outcome:
                return str(reference["name"])
        return ""

    # Keeping ----------------------------------------------------------------------------------------------------

    def _keep(self, *, mark: bool = False, leave: bool = False) -> bool:
        """Keep the record, with `mark` what may start now marked as starting. False: another runner works now."""
        known = self._known()
        # Before any is marked as starting: its options are needed from then on.
        for before, after in zip(known.entries, fitting(known, now=self._clock.now()).entries, strict=True):
            self._update(before, after)
        if mark:
            self._record = self._marked()
        self._record = self._store.save(self._known(), leave=leave)
        if self._record is None:
            log.warning("Another runner has taken over; this one waits", leader=self._store.leader)
        return self._record is not None

    def _marked(self) -> Record:
        return decisions.starting(self._known(), most=self._settings.most, busy=self._busy, now=self._clock.now())

    # Starting ---------------------------------------------------------------------------------------------------

    def _begin(self, stopped: Callable[[], bool]) -> bool:
        """Keep what is known, and start what may start. False: another runner works now.

        A type whose own schedule turns out to run gives its place to another, so that it holds up nobody.
        """
        until = self._clock.monotonic() + _START_SECONDS
        while self._keep(mark=True):
            self._start(lambda: stopped() or self._clock.monotonic() >= until)
            is_over = stopped() or self._clock.monotonic() >= until
            if is_over or not decisions.startable(self._known(), most=self._settings.most, busy=self._busy):
                return True
        return False

    def _start(self, is_over: Callable[[], bool]) -> None:
        """Make the Jobs of all that are marked as starting; the record says so already."""
        failure: PassingError | None = None
        for entry in self._known().entries:
            if entry.state is State.STARTING and not is_over():
                try:
                    self._update(entry, self._started(entry))
                except PassingError as error:
                    # Whether the Job was made shows in the next turn; that one fails need not stop the others.
                    self._update(entry, decisions.troubled(entry, error.message, now=self._clock.now()))
                    failure = error
        if failure:
            raise failure

    def _started(self, entry: Entry) -> Entry:
        now = self._clock.now()
        request = _request(entry, self._settings)
        try:
            cron_job = self._api.cron_job(entry.report_type)
            if cron_job is None:
                return entry.finished("failed", f"There is no CronJob {entry.report_type} in this namespace.", now=now)
            if scheduled := self._scheduled(cron_job):
                self._busy[entry.report_type] = scheduled
                self._say(f"busy {entry.id}", "A job waits for its CronJob's own Job", **_named(entry), job=scheduled)
                return replace(entry, state=State.WAITING, started_at=0.0)
            job = self._made(render_job(cron_job, request))
        except InputError as error:
            return entry.finished("failed", " ".join(filter(None, (error.message, error.hint))), now=now)
        except (Forbidden, ServerRefused) as error:
            why = " ".join(filter(None, (error.status.message, error.hint)))
            return entry.finished("failed", f"Its Job is refused: {why}", now=now)
        if not is_job_of(job, request):
            return entry.finished("failed", f"Another Job has its name already: {request.job_name}.", now=now)
        log.info("Job made", **_named(entry), job=request.job_name)
        return decisions.observed(entry, job, now=now)

    def _made(self, job: JsonObject) -> JsonObject:
        """The Job as it is on the cluster, made now or before."""
        try:
            return self._api.create_job(job)
        except ServerRefused as error:
            if error.status.code != 409:
                raise
            if existing := self._api.job(job["metadata"]["name"]):
                return existing
            raise PassingError("A Job of its name was there and has gone.") from error

    # Claiming and reporting -------------------------------------------------------------------------------------

    def _claim(self, stopped: Callable[[], bool]) -> bool | None:
        """Claim what could run now, keep it, and start it. Whether Insights answered; None when it was not asked."""
        answered: bool | None = None
        for _ in range(_CLAIMS):
            limit = 0
            if self._record is not None and self._clock.monotonic() >= self._claim_after and not stopped():
                limit = decisions.claimable(self._record, most=self._settings.most, busy=self._busy)
            if not limit:
                return answered
            try:
                claim = self._insights.claim(limit)
            except Failure as error:
                asked = getattr(error, "retry_after_seconds", None) or 0.0
                self._claim_after = self._clock.monotonic() + min(asked, _RETRY_AFTER_MAX_SECONDS)
                self._complain(
                    "claim", "No job could be claimed; any that the answer held stay claimed in Insights", error
                )
                return False
            answered = True
            self._relent("claim", "Insights gives jobs again")
            for problem in claim.nameless:
                log.error("Insights gave a job that nobody can report, for want of its id", problem=problem)
            entries = decisions.entries_of(claim, now=self._clock.now())
            if entries:
                self._take(entries, stopped)
            if len(entries) < limit:
                break
        return answered

    def _take(self, entries: Sequence[Entry], stopped: Callable[[], bool]) -> None:
        """Keep what was claimed, and start what may start."""
        known = self._known()
        seen = set(known.ids())
        for entry in entries:
            if entry.id in seen:
                log.warning("Insights gave a job again that is here already", **_named(entry))
                continue
            seen.add(entry.id)
            log.info("Job claimed", **_named(entry), options=sorted(entry.options))
            if entry.outcome:
                self._tell_finished(entry)
        self._record = known.with_added(entries)
        self._begin(stopped)

    def _report(self, *, until: float, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Tell Insights until then what it does not know yet; False when it does not answer."""
        entries = self._record.entries if self._record else ()
        for entry in sorted(entries, key=lambda entry: self._untold.get(entry.id, 0)):
            for status in self._due(entry):
                now = self._clock.monotonic()
                if now >= until or stopped():
                    return True
                if now < self._report_after.get(entry.id, (0.0, 0.0))[0]:
                    break
                try:
                    self._insights.report(entry.id, status, seconds=until - now)
                except (PassingError, NotPermitted) as error:
                    # The others would meet the same, or this one comes after them next time.
                    self._untold[entry.id] = self._untold.get(entry.id, 0) + 1
                    self._complain("report", "Insights could not be told of a job; it is tried again", error)
                    return False
                except Failure as error:
                    self._refused(entry, status, error)
                    break
                self._told(entry, status)
                entry = self._entry(entry.id) or entry  # noqa: PLW2901 - the same one, as it is now
        self._relent("report", "Insights takes reports again")
        return True

    def _due(self, entry: Entry) -> tuple[JobStatus, ...]:
        """What to tell Insights of it: never that it runs when its end may have been told."""
        if entry.outcome and entry.id in self._inherited:
            return entry.due[-1:]
        return entry.due

    def _told(self, entry: Entry, status: JobStatus) -> None:
        log.info("Insights was told", **_named(entry), status=status)
        self._report_after.pop(entry.id, None)
        self._untold.pop(entry.id, None)
        self._put(replace(self._entry(entry.id) or entry, reported=status))

    def _refused(self, entry: Entry, status: JobStatus, error: Failure) -> None:
        """Insights has that report, and does not want it: try less and less often, and give up in the end."""
        first, longest = _REPORT_AGAIN_SECONDS
        pause = min(longest, 2 * self._report_after.get(entry.id, (0.0, first / 2))[1])
        self._report_after[entry.id] = (self._clock.monotonic() + pause, pause)
        log.warning("Insights refuses a job's status", **_named(entry), status=status, why=error.message)
        if status == "running":
            self._put(replace(entry, reported=status))  # what it ends as matters more
        elif self._clock.now() - entry.finished_at > decisions.REPORT_SECONDS:
            log.error("A job's status is given up, since Insights never took it", **_named(entry), status=status)
            self._put(replace(entry, reported=status))

    def _give_back(self, until: float) -> None:
        """Report as failed what was claimed and could not be kept: no later runner would know of it."""
        for entry in self._record.entries if self._record else ():
            if not self._store.has_kept(entry) and entry.outcome is None:
                reason = "The runner was stopped before it could keep the job."
                lost = entry.finished("failed", reason, now=self._clock.now())
                self._update(entry, lost)
        self._report(until=until)

    # What is known ----------------------------------------------------------------------------------------------

    def _known(self) -> Record:
        assert self._record is not None, "only who leads knows"  # noqa: S101 - a defect of ours otherwise
        return self._record

    def _entry(self, job_id: int) -> Entry | None:
        return next((entry for entry in self._known().entries if entry.id == job_id), None)

    def _update(self, before: Entry, after: Entry) -> None:
        """Take over what is known now of an entry, and tell when it is over."""
        self._record = self._known().with_entry(after)
        if after.outcome and not before.outcome:
            self._tell_finished(after)

    def _put(self, entry: Entry) -> None:
        """The same for what Insights was told; one that is over and told of is forgotten."""
        record = self._known()
        done = entry.outcome is not None and not entry.due
        self._record = record.without([entry.id]) if done else record.with_entry(entry)

    def _tell_finished(self, entry: Entry) -> None:
        if entry.outcome == "completed":
            log.info("Job completed", **_named(entry))
        else:
            log.error("Job failed", **_named(entry), why=entry.remark)
        self._observer.finished(entry)

    # Saying things once -----------------------------------------------------------------------------------------

    def _say(self, topic: str, message: str, **values: object) -> None:
        text = f"{message} {values}"
        if self._said.get(topic) != text:
            self._said[topic] = text
            log.info(message, **values)

    def _complain(self, topic: str, message: str, error: Failure) -> None:
        if self._said.get(topic) != error.message:
            self._said[topic] = error.message
            log.error(message, why=error.message, hint=error.hint)

    def _relent(self, topic: str, message: str) -> None:
        if self._said.pop(topic, None) is not None:
            log.info(message)


def _request(entry: Entry, settings: RunnerSettings) -> JobRequest:
    return JobRequest(
        key=str(entry.id),
        # A later version may have kept one that this one does not know.
        report_type=REPORT_TYPES.get(entry.report_type) or ReportType(name=entry.report_type),
        options=entry.options,
        organization=settings.organization,
        cluster=settings.cluster,
    )


def _named(entry: Entry) -> dict[str, object]:
    return {"id": entry.id, "report_type": entry.report_type}
