"""Watches the runs of a command: counts them, keeps its health, and announces a sync's outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from applier.lock import LEASE
from applier.telemetry.events import Event, Events
from applier.telemetry.health import Health
from renderer.errors import ExitCode, Failure

if TYPE_CHECKING:
    from applier.cluster.connection import Connection
    from applier.run_end import RunEnd
    from applier.telemetry.metrics import Metrics

#: Ends that say more of the way to Insights and the cluster than of the policies.
_UNREACHED: Final = frozenset(
    {
        ExitCode.DEFECT,
        ExitCode.UNAVAILABLE,
        ExitCode.NOT_PERMITTED,
        ExitCode.CONFIGURATION,
        ExitCode.NOT_REPORTED,
    }
)
#: Beyond what its settings allow it, a run is given so long.
_SLACK_SECONDS: Final = 300
_LEASE_SECONDS: Final = 5


class WatchedRuns:
    """`RunObserver` of one command; each of its parts is told what it needs to know."""

    def __init__(
        self,
        command: str,
        *,
        metrics: Metrics | None = None,
        health: Health | None = None,
        announce: Callable[[RunEnd], None] | None = None,
        publish: Callable[[], None] | None = None,
        run_seconds: float = 0.0,
        pause_seconds: float = 0.0,
    ) -> None:
        """A run may take `run_seconds`, and the next one begins `pause_seconds` after its end.

        `announce` is told of what changed something or failed, `publish` is called when a run has been counted.
        """
        self._command = command
        self._metrics = metrics
        self._health = health
        self._announce = announce
        self._publish = publish
        self._run_seconds = run_seconds
        self._pause_seconds = pause_seconds

    def began(self) -> None:
        """See `RunObserver`."""
        if self._health:
            self._health.expect(self._run_seconds + _SLACK_SECONDS)

    def ended(self, end: RunEnd) -> None:
        """See `RunObserver`."""
        if self._metrics:
            self._metrics.run_ended(self._command, end)
        if self._publish:
            self._publish()
        if self._health:
            self._health.turned(reached=end.code not in _UNREACHED)
        if self._announce and not end.dry_run and (end.error or end.standing):
            self._announce(end)
        if self._health:
            self._health.expect(self._pause_seconds + _SLACK_SECONDS)


def announced(end: RunEnd, lease: dict[str, str]) -> Event:
    """The Event of a sync: it is about the Lease that every sync takes, the one object that each account can name."""
    works = end.code is ExitCode.OK
    return Event(
        regarding={"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease},
        reason="PolicySyncCompleted" if works else "PolicySyncFailed",
        action="PolicySync",
        note=f"{end.summary}. {end.error}" if end.error else end.summary,
        type="Normal" if works else "Warning",
    )


def announcer(connect: Callable[[], Connection], namespace: str) -> Callable[[RunEnd], None]:
    """What announces the end of a sync in that namespace, over a connection that is made then."""

    def announce(end: RunEnd) -> None:
        try:
            connection = connect()
        except Failure:
            return  # the run said so
        Events(connection, namespace).create(announced(end, _lease(connection, namespace)))

    return announce


def _lease(connection: Connection, namespace: str) -> dict[str, str]:
    """Its name, and its UID, by which kubectl finds the Events of an object."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"
    try:
        found = connection.get(path, seconds=_LEASE_SECONDS, attempts=1)
    except Failure:
        found = None
    uid = found["metadata"]["uid"] if isinstance(found, dict) else ""
    return {"name": LEASE, "uid": uid} if uid else {"name": LEASE}
