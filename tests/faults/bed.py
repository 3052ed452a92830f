"""The cluster on which runs fail: what it holds before and after, what is left of a run, and how it is set back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.lock import LEASE
from applier.transaction.execution import Outcome
from ci.testbed.controlplane import ControlPlane
from renderer.errors import Failure
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content
from renderer.manifest.ownership import is_owned
from tests.faults.policies import AFTER, BEFORE, FOREIGN
from tests.faults.requests import Point, points
from tests.faults.runs import Run
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.policies import identity_of
from tests.support.proxy import Proxy

_LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/{LEASE}"
_CONFIG_MAPS: Final = f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps"
_KINDS: Final[tuple[Kind, ...]] = tuple(sorted({identity_of(body).kind for body in (*BEFORE, *AFTER)}))

#: The content of each policy.
State = Mapping[Identity, JsonObject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: its exit code and what it told. Without an outcome it failed before its first write."""

    code: int
    outcome: Outcome | None = None
    said: str = ""


def _same(body: JsonObject) -> JsonObject:
    return body


def without_status(body: JsonObject) -> JsonObject:
    """All of an object that is not Kyverno's to write."""
    metadata = {
        key: value for key, value in body["metadata"].items() if key not in ("resourceVersion", "managedFields")
    }
    return {**body, "metadata": metadata, "status": None}


@dataclass(slots=True, kw_only=True)
class Bed:
    """A cluster that holds BEFORE and FOREIGN, and a proxy through which a `run` makes it hold AFTER.

    `before` and `after` are those two states; `direct` reaches the cluster past the proxy; `kept` is what of the
    policies of others must be as ever.
    """

    plane: ControlPlane
    proxy: Proxy
    run: Run
    direct: KubernetesCluster
    before: State = field(default_factory=dict)
    after: State = field(default_factory=dict)
    foreign: Mapping[Identity, JsonObject] = field(default_factory=dict)
    kept: Callable[[JsonObject], JsonObject] = _same
    _known: dict[str, list[Point]] = field(default_factory=dict)

    @classmethod
    def made(
        cls, plane: ControlPlane, proxy: Proxy, directory: Path, kept: Callable[[JsonObject], JsonObject] = _same
    ) -> Bed:
        """Make it on an empty cluster."""
        kubeconfig = proxy.write_kubeconfig(directory / "kubeconfig")
        bed = cls(
            plane=plane,
            proxy=proxy,
            run=Run(kubeconfig=str(kubeconfig), directory=str(directory)),
            direct=KubernetesCluster(Connection.open(kubeconfig=str(plane.kubeconfig)), cache=directory / "cache"),
            kept=kept,
        )
        for body in FOREIGN:
            bed.direct.create(body, identity_of(body))
        bed.foreign = {identity: found for identity, found in bed.objects().items() if not is_owned(found)}
        assert len(bed.foreign) == len(FOREIGN)
        assert bed.run.apply(AFTER).success
        bed.after = bed.state()
        assert bed.run.apply(BEFORE).success
        bed.before = bed.state()
        return bed

    def objects(self) -> dict[Identity, JsonObject]:
        """Every policy of the plan's kinds."""
        return dict(self.direct.observe(_KINDS).objects)

    def state(self) -> State:
        """What it holds but for the policies of others, which must be as ever."""
        found = self.objects()
        for identity, body in self.foreign.items():
            assert self.kept(found[identity]) == self.kept(body)
        return {
            identity: content(body, identity.kind) for identity, body in found.items() if identity not in self.foreign
        }

    def reset(self) -> None:
        """Make it hold BEFORE, with no journal, and nobody at work."""
        self.proxy.clear()
        found = self.objects()
        for identity in sorted((found.keys() - self.foreign.keys()) | self.before.keys()):
            live, wanted = found.get(identity), self.before.get(identity)
            if live is not None and content(live, identity.kind) != wanted:
                self.direct.delete(identity, uid=live["metadata"]["uid"])
                live = None
            if live is None and wanted is not None:
                self.direct.create(wanted, identity)
        for name in self.journals():
            self.plane.api.call("DELETE", f"{_CONFIG_MAPS}/{name}")
        if self.is_locked():
            lease = self.plane.api.call("GET", _LEASE)
            lease["spec"]["holderIdentity"] = ""
            self.plane.api.call("PUT", _LEASE, lease)

    def apply(self, run: Run) -> Ended:
        """Run it, and tell how it ended, as the program does."""
        try:
            outcome = run.apply()
        except Failure as failure:
            return Ended(code=failure.code, said=str(failure))
        return Ended(code=outcome.code, outcome=outcome, said=outcome.reason)

    def recover(self, run: Run | None = None) -> Ended:
        """Recover, past the proxy unless a run is given, and tell how that ended."""
        try:
            return Ended(code=(run or self.run.with_(kubeconfig=str(self.plane.kubeconfig))).recover())
        except Failure as failure:
            return Ended(code=failure.code, said=str(failure))

    def points(self, what: str, run: Callable[[], Ended], prepare: Callable[[], object] = lambda: None) -> list[Point]:
        """The points of that run from BEFORE on, in the order of its requests; it is run when first asked about."""
        if what not in self._known:
            self.reset()
            prepare()
            start = len(self.proxy.exchanges)
            run()
            self._known[what] = points(exchange.request for exchange in self.proxy.exchanges[start:])
        return self._known[what]

    def points_of_apply(self) -> list[Point]:
        """The points of an apply in which nothing fails."""
        return self.points("apply", lambda: self.apply(self.run))

    def journals(self) -> list[str]:
        """The names of what is left of journals."""
        names = [item["metadata"]["name"] for item in self.plane.api.call("GET", _CONFIG_MAPS)["items"]]
        return [name for name in names if name.startswith("insights-journal-")]

    def is_locked(self) -> bool:
        """Whether the Lease has a holder."""
        return bool(self.plane.api.call("GET", _LEASE)["spec"]["holderIdentity"])
