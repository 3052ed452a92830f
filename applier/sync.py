"""Fetch, render, plan, apply and report as one process: what runs in the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from applier import pipeline, statuses, summary
from applier.guards.refusals import Allowed
from applier.history.revisions import Keeper
from applier.journal.key import Key
from applier.lock import LockSettings
from applier.pipeline import Checks, Prepared
from applier.recovery import Journalling, forewarn
from applier.run_end import RunEnd, RunObserver
from applier.transaction.writes import WriteSettings
from renderer import logs
from renderer.errors import ExitCode, Failure, InvalidPolicies, interrupted
from renderer.insights.config import InsightsConfig
from renderer.insights.policies import fetch_policies
from renderer.insights.transport import Transport
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster
    from renderer.insights.status import PolicyStatus

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """All that a sync needs.

    `keeper` gives what keeps a revision of the policies once they are in place; `show` gets the line that ends it,
    and `observer` is told of it.
    """

    insights: InsightsConfig
    connect: Callable[[], KubernetesCluster]
    checks: Checks
    allowed: Allowed
    locking: LockSettings
    writing: WriteSettings
    journalling: Callable[[KubernetesCluster], Journalling]
    keeper: Callable[[KubernetesCluster, Key | None, PolicySet], Keeper]
    dry_run: bool
    show: Callable[[JsonObject], None]
    observer: RunObserver


class _Run:
    """One sync: what is known of it when it ends, however it ends."""

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._prepared: Prepared | None = None
        self._statuses: list[PolicyStatus] = []
        self._standing: frozenset[Identity] = frozenset()
        self._started = time.monotonic()
        #: Whether a signal arrived, even when the work was done by then.
        self.signalled = False

    def run(self) -> ExitCode:
        """Sync once, tell Insights, and show the line that ends it."""
        self._settings.observer.began()
        try:
            line, code = self._synced()
        except Failure as error:
            line, code = summary.of_failure(error, seconds=self._seconds()), error.code
            self.signalled = isinstance(error.__cause__, KeyboardInterrupt)
        except KeyboardInterrupt as error:
            self.signalled = True
            ended = interrupted(error)
            line, code = summary.of_failure(ended, seconds=self._seconds()), ended.code
        try:
            self._report()
        except (Failure, KeyboardInterrupt) as error:
            # The cluster's outcome stands, and so do its lists.
            self.signalled = self.signalled or isinstance(error, KeyboardInterrupt)
            told = str(error) if isinstance(error, Failure) else "It was ended before Insights was told."
            log.error("Insights was not told", reason=told)
            if code is ExitCode.OK:
                line, code = {**line, "level": "error", "error": told}, ExitCode.NOT_REPORTED
        self._settings.show(line if self._settings.checks.validator else summary.without_cli(line))
        self._settings.observer.ended(
            RunEnd(
                code=code,
                seconds=self._seconds(),
                summary=line["summary"],
                error=line.get("error", ""),
                plan=self._prepared.plan if self._prepared else None,
                standing=self._standing,
                dry_run=self._settings.dry_run,
            )
        )
        return code

    def _synced(self) -> tuple[JsonObject, ExitCode]:
        settings = self._settings
        with Transport(settings.insights) as transport:
            desired = self._fetch(transport)
        cluster = settings.connect()

        def prepare() -> Prepared:
            self._prepared = pipeline.prepare(
                cluster,
                desired,
                allowed=settings.allowed,
                checks=settings.checks,
            )
            return self._prepared

        try:
            if settings.dry_run:
                forewarn(settings.journalling(cluster).store)
                prepared = prepare()
                pipeline.announce(prepared)
                refused = pipeline.left_out(prepared, settings.writing.on_failure)
                line = summary.of_dry_run(prepared.plan, failed=refused, seconds=self._seconds())
                return line, ExitCode.PARTLY_APPLIED if refused else ExitCode.OK
            journalling = settings.journalling(cluster)
            outcome = pipeline.apply(
                cluster,
                cluster,
                prepare,
                locking=settings.locking,
                writing=settings.writing,
                journalling=journalling,
                afterwards=settings.keeper(cluster, journalling.key, desired).keep,
            )
        except InvalidPolicies as error:
            return self._invalid(error), error.code
        self.signalled = outcome.signalled
        self._standing = outcome.standing
        if self._prepared is not None:
            self._statuses = statuses.of_outcome(self._prepared.plan, outcome, at=datetime.now(UTC))
        return summary.of_outcome(outcome, seconds=self._seconds()), outcome.code

    def _report(self) -> None:
        if self._statuses:
            with Transport(self._settings.insights, limits=statuses.LIMITS) as transport:
                statuses.send(transport, self._settings.insights, self._statuses)

    def _fetch(self, transport: Transport) -> PolicySet:
        data = fetch_policies(transport, self._settings.insights)
        desired = render([Source(name="Insights", data=data)])
        log.info("Policies fetched", policies=len(desired), bytes=len(data))
        return desired

    def _invalid(self, error: InvalidPolicies) -> JsonObject:
        prepared = self._prepared
        if prepared is None:
            return summary.of_failure(error, seconds=self._seconds())
        if not self._settings.dry_run:
            self._statuses = statuses.of_invalid(prepared.plan, prepared.verdict, at=datetime.now(UTC))
        failed = {finding.policy for finding in prepared.verdict.errors}
        return summary.of_failure(error, failed=failed, seconds=self._seconds())

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def sync_once(settings: SyncSettings) -> ExitCode:
    """Sync once; the code says how it ended."""
    return _Run(settings).run()


def watch_interval(settings: SyncSettings, seconds: float) -> ExitCode:
    """Sync, wait, and sync again until a signal arrives; a failed sync is tried again in its turn.

    Gives 0 when the signal found it waiting, else how the sync that it met ended.
    """
    while True:
        logs.new_run()
        run = _Run(settings)
        code = run.run()
        if run.signalled:
            return code
        try:
            log.info("Waiting for the next sync", seconds=seconds)
            time.sleep(seconds)
        except KeyboardInterrupt:
            log.info("Stopped while waiting")
            return ExitCode.OK
