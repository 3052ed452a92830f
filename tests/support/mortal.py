"""Runs against a simulated cluster that die at a write of the test's choice, and what recovers them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from applier import pipeline
from applier.change import Change
from applier.guards.refusals import Allowed, MaxDelete
from applier.journal.configmaps import ConfigMapStore
from applier.journal.key import Key
from applier.lock.elector import Held
from applier.recovery import Journalling, Recovery
from applier.stop import Stop
from applier.transaction.execution import Outcome, execute
from applier.transaction.writes import OnFailure, WriteSettings
from renderer.manifest.jsontypes import JsonObject
from tests.support.journals import SimulatedConfigMaps
from tests.support.policies import desired
from tests.support.simulator import SimulatedCluster

KEY = Key(b"the token of Insights")
ALLOWED = Allowed(empty=True, weaken=True, replace=True, max_delete=MaxDelete.of("100%"))
SETTINGS = WriteSettings(concurrency=1, grace=0.0, delete_timeout=0.2, unsettled=0.0)


class Dead(BaseException):
    """The process was killed: nothing that it would still do arrives."""


class World:
    """A cluster and the ConfigMaps on it; `die_at` counts the writes to both that the present process makes."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        """Nobody is at work."""
        self.cluster = cluster
        self.config_maps = SimulatedConfigMaps()
        self.store = ConfigMapStore(self.config_maps, "here")
        self.stop = Stop()
        self.writes = 0
        self._transitions = itertools.count(1)
        self._die_at: int | None = None
        cluster.before_write = lambda _number: self._live_or_die()
        self.config_maps.before_write = self._live_or_die

    def _live_or_die(self) -> None:
        self.writes += 1
        if self._die_at is not None and self.writes >= self._die_at:
            raise Dead

    def held(self, *, taken_over: bool = False, quiet_at: float = 0.0) -> Held:
        """The Lease, in the hands of a new process."""
        transitions = next(self._transitions)
        return Held(
            holder=f"h{transitions}", uid="lease-uid", transitions=transitions, taken_over=taken_over, quiet_at=quiet_at
        )

    def recovery(
        self,
        *,
        die_at: int | None = None,
        key: Key | None = KEY,
        supersede: bool = False,
        held: Held | None = None,
        on_failure: OnFailure = OnFailure.ROLLBACK,
    ) -> Recovery:
        """A new process that holds the lock; it dies at that write, if at all."""
        self.writes, self._die_at, self.stop = 0, die_at, Stop()
        return Recovery(
            cluster=self.cluster,
            journalling=Journalling(store=self.store, key=key, supersede=supersede),
            held=held or self.held(),
            stop=self.stop,
            settings=WriteSettings(concurrency=1, grace=0.0, delete_timeout=0.2, unsettled=0.0, on_failure=on_failure),
        )

    def planned(self, *bodies: JsonObject) -> tuple[Change, ...]:
        """The plan that makes the cluster hold these policies."""
        prepared = pipeline.prepare(self.cluster, desired(*bodies), allowed=ALLOWED)
        assert not prepared.plan.refusals
        return prepared.plan.effective

    def run(self, changes: Sequence[Change], process: Recovery, *, supersedes: Sequence[str] = ()) -> Outcome | None:
        """Execute the plan in that process; None when it dies."""
        try:
            return execute(
                self.cluster, changes, self.stop, journal=process.journal(supersedes), settings=process.settings
            )
        except Dead:
            return None

    def recovered(self, *, die_at: int | None = None) -> bool:
        """Take back what dead runs left; False when that dies, too."""
        try:
            assert self.recovery(die_at=die_at).before_a_run() == ()
        except Dead:
            return False
        return True
