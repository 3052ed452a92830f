"""The runs that are made to fail: here, or in a child that is killed; with shortened durations.

`python -m tests.faults.runs` is where children run; `tests.support.killed_runs.Runs` is its handle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import stamina

from applier import pipeline, recover_command
from applier.cluster.config_maps import KubernetesConfigMaps
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.guards.refusals import Allowed, MaxDelete
from applier.journal import format as journal_format
from applier.journal.configmaps import ConfigMapStore
from applier.journal.key import Key
from applier.journal.store import DirectoryStore, Store
from applier.lock import LockSettings
from applier.lock.elector import Durations
from applier.ports import NoJournal
from applier.recover_command import RecoverSettings
from applier.recovery import Journalling, Recovery
from applier.transaction.execution import Outcome
from applier.transaction.writes import OnFailure, WriteSettings
from renderer.errors import Failure
from renderer.manifest.jsontypes import Json, JsonObject
from tests.faults import lines
from tests.faults.policies import AFTER
from tests.faults.requests import Point, address
from tests.support import killed_runs
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.policies import desired
from tests.support.proxy import Request

#: How long a client waits for a request that is stalled, and how long the server may be at work at it, at first.
STALLED_SECONDS: Final = 0.2
#: For everything else the limits are never reached, also where the machine is slow.
_PATIENCE_SECONDS: Final = 60.0
#: The Lease is renewed in every run, and free a second after its holder died.
LEASE_SECONDS: Final = 1.0
#: The same where a run gives up unless it is renewed in time: long enough for a machine that is busy.
VIGILANT_SECONDS: Final = 3.0
_DURATIONS: Final = Durations(lease=LEASE_SECONDS, renew=0.1, deadline=60.0, write=0.2, poll=0.1)
#: So that the journal of a small plan has several chunks.
CHUNK_BYTES: Final = 1000
_KEY: Final = Key(b"the key of these runs")
_ALLOWED: Final = Allowed(empty=True, weaken=True, max_delete=MaxDelete.of("100%"))


class ImpatientConnection(Connection):
    """A connection that waits shortly for the answer to one request, if any, and long for all others."""

    hurried: Point | None = None
    stalled = STALLED_SECONDS
    patience = _PATIENCE_SECONDS
    _seen = 0

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Json = None,
        *,
        content_type: str = "application/json",
        seconds: float = 0.0,
        accept: str = "application/json",
    ) -> Json:
        """See `Connection`."""
        limit = self.stalled if self._is_hurried(method, path, query, body) else max(seconds, self.patience)
        return super().send(method, path, query, body, content_type=content_type, seconds=limit, accept=accept)

    def _is_hurried(self, method: str, path: str, query: Mapping[str, Any] | None, body: Json) -> bool:
        if self.hurried is None:
            return False
        asked = {name: [str(value)] for name, value in (query or {}).items()}
        data = b"" if body is None else json.dumps(body).encode()
        request = Request(method=method, path=path.partition("?")[0], query=asked, headers={}, body=data)
        if address(request) != self.hurried.address:
            return False
        self._seen += 1
        return self._seen == self.hurried.nth


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run through the proxy, with a journal or without; for the answer to `hurried` it waits `stalled` seconds.

    With `vigilant` it stops working in time when the Lease is not renewed; others have it for as long as nobody takes
    it, for the machine may be slow. `patience` and `grace` are in seconds. With `files` the journal is in that
    directory, and the run is killed before the `dies_at`-th line that touches it. In `pid_file` a child says whom to
    kill.
    """

    kubeconfig: str
    directory: str
    mode: str = OnFailure.ROLLBACK.value
    concurrency: int = 1
    hurried: Point | None = None
    stalled: float = STALLED_SECONDS
    journalled: bool = True
    vigilant: bool = False
    patience: float = _PATIENCE_SECONDS
    grace: float = 20.0
    files: str = ""
    dies_at: int = 0

    @property
    def pid_file(self) -> Path:
        """Where the child writes its process id."""
        return Path(self.directory) / killed_runs.PID_FILE

    def with_(self, **different: Any) -> Run:
        """The same run but for that."""
        return replace(self, **different)

    def apply(self, bodies: Sequence[JsonObject] = AFTER) -> Outcome:
        """Make the cluster hold these policies. Raises what the program would show."""
        wanted = desired(*bodies)
        with self._cluster() as (cluster, journalling):
            return pipeline.apply(
                cluster,
                cluster,
                lambda: pipeline.prepare(cluster, wanted, allowed=_ALLOWED),
                locking=self._locking(),
                writing=self._writing(),
                journalling=journalling,
            )

    def recover(self) -> int:
        """Take back what dead runs left; gives the exit code. Raises what the program would show."""
        with self._cluster() as (cluster, journalling):
            settings = RecoverSettings(
                locking=self._locking(), journalling=journalling, writing=self._writing(), echo=lambda _: None
            )
            return int(recover_command.recover(cluster, cluster, settings))

    @contextmanager
    def _cluster(self) -> Iterator[tuple[KubernetesCluster, Journalling]]:
        """The cluster, where GETs are repeated at once; nothing of the connection is left."""
        connection = ImpatientConnection.open(kubeconfig=self.kubeconfig, write_seconds=self.patience)
        assert isinstance(connection, ImpatientConnection)
        connection.hurried, connection.stalled, connection.patience = self.hurried, self.stalled, self.patience
        cluster = KubernetesCluster(connection, cache=Path(self.directory) / "cache")
        store: Store = ConfigMapStore(KubernetesConfigMaps(connection), AGENT_NAMESPACE)
        if self.files:
            store = DirectoryStore(Path(self.files))
        try:
            with stamina.set_testing(True, attempts=5, cap=True):
                yield cluster, Journalling(store=store, key=_KEY)
        finally:
            connection._pool.connection_from_url(connection.server).close()

    def _locking(self) -> LockSettings:
        durations = Durations.of(VIGILANT_SECONDS) if self.vigilant else _DURATIONS
        # A run that was frozen has its file locked.
        file = Path(self.directory) / ("vigilant" if self.vigilant else "lock")
        return LockSettings(namespace=AGENT_NAMESPACE, wait=60, hold=600, file=file, durations=durations)

    def _writing(self) -> WriteSettings:
        return WriteSettings(
            on_failure=OnFailure(self.mode),
            concurrency=self.concurrency,
            grace=self.grace,
            delete_timeout=_PATIENCE_SECONDS,
            unsettled=self.stalled,
        )


def _child(run: dict[str, Any]) -> int:
    made = Run(**run)
    journal_format.CHUNK_BYTES = CHUNK_BYTES  # type: ignore[misc]
    if not made.journalled:
        Recovery.journal = lambda *_: NoJournal()  # type: ignore[assignment,method-assign]
    if made.files:
        lines.count(Path(made.directory), kill_at=made.dies_at)
    try:
        return int(made.apply().code)
    except Failure as failure:
        return int(failure.code)


if __name__ == "__main__":
    killed_runs.serve(_child)
