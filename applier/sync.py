"""Fetch, render, plan, apply and report as one process: what runs in the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from applier import pipeline, statuses, summary
from applier.guards import Allowed
from applier.pipeline import LockSettings, Prepared
from applier.ports import Validator
from renderer import logs
from renderer.commandline import interrupted
from renderer.errors import ExitCode, Failure, InvalidPolicies
from renderer.insights.config import InsightsConfig
from renderer.insights.policies import fetch_policies
from renderer.insights.transport import Transport
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render

if TYPE_CHECKING:
    from applier.cluster import KubernetesCluster
    from renderer.insights.status import PolicyStatus

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """All that a sync needs; `show` gets the line that ends it."""

    insights: InsightsConfig
    connect: Callable[[], KubernetesCluster]
    validator: Validator | None
    allowed: Allowed
    locking: LockSettings
    delete_timeout: float
    dry_run: bool
    show: Callable[[JsonObject], None]


class _Run:
    """One sync: what is known of it when it ends, however it ends."""

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._prepared: Prepared | None = None
        self._statuses: list[PolicyStatus] = []
        self._started = time.monotonic()

    def run(self) -> ExitCode:
        """Sync once and show the line that ends it."""
        try:
            with Transport(self._settings.insights) as transport:
                line, code = self._synced(transport)
                try:
                    statuses.send(transport, self._settings.insights, self._statuses)
                except Failure as error:
                    log.error("Insights was not told", reason=error.message)
                    if code is ExitCode.OK:
                        code = error.code
                        line = {**line, "level": "error", "error": str(error)}
        except Failure as error:
            line, code = summary.of_failure(error, seconds=self._seconds()), error.code
        except KeyboardInterrupt as error:
            ended = interrupted(error)
            line, code = summary.of_failure(ended, seconds=self._seconds()), ended.code
        self._settings.show(line)
        return code

    def _synced(self, transport: Transport) -> tuple[JsonObject, ExitCode]:
        settings = self._settings
        desired = self._fetch(transport)
        cluster = settings.connect()

        def prepare() -> Prepared:
            self._prepared = pipeline.prepare(cluster, desired, allowed=settings.allowed, validator=settings.validator)
            return self._prepared

        try:
            if settings.dry_run:
                prepared = prepare()
                pipeline.require_allowed(prepared)
                return summary.of_dry_run(prepared.plan, seconds=self._seconds()), ExitCode.OK
            outcome = pipeline.apply(
                cluster, cluster, prepare, locking=settings.locking, delete_timeout=settings.delete_timeout
            )
        except InvalidPolicies as error:
            return self._invalid(error), error.code
        if self._prepared is not None:
            self._statuses = statuses.of_outcome(self._prepared.plan, outcome, at=datetime.now(UTC))
        return summary.of_outcome(outcome, seconds=self._seconds()), outcome.code

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


def watch_interval(settings: SyncSettings, seconds: float) -> int:
    """Sync, wait, and sync again until a signal ends it while it waits; a failed sync is tried again in its turn."""
    while True:
        code = sync_once(settings)
        if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
            return int(code)
        try:
            log.info("Waiting for the next sync", seconds=seconds)
            time.sleep(seconds)
        except KeyboardInterrupt:
            log.info("Stopped while waiting")
            return int(ExitCode.OK)
