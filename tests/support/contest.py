"""Applies its own set of policies again and again against another that does so too; run as a program, two at once.

    python -m tests.support.contest KUBECONFIG LOCK_FILE NAME ROUNDS PEER

PEER is the number of its end of a socket between the two; `contend` starts both. Each round both begin at once, and
each takes one turn: who is inside first stays there until the other has found the lock held, so that they meet in every
round, whoever wins it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Final

from applier import lock, pipeline
from applier.cluster.config_maps import KubernetesConfigMaps
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.guards.refusals import Allowed, MaxDelete
from applier.journal.configmaps import ConfigMapStore
from applier.journal.key import Key
from applier.lock.elector import Durations
from applier.pipeline import Prepared
from applier.recovery import Journalling
from applier.transaction.writes import WriteSettings
from ci.testbed.controlplane import ControlPlane
from renderer import logs
from renderer.manifest.jsontypes import JsonObject
from tests.support import audit
from tests.support.audit import Act, Term
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.policies import admission_policy, cluster_policy, desired, exception, validating_policy

#: Who contends; the log tells them apart by their accounts.
ACCOUNTS: Final = ("viewer", "worker")
#: Nobody dies here, and the machine may be slow: who waits looks often, and nobody is ever taken for dead.
DURATIONS: Final = Durations(lease=120.0, deadline=110.0, poll=0.02)
_WAITS, _DONE = b"w", b"d"


def contend(plane: ControlPlane, directory: Path, rounds: int) -> None:
    """Let the two take so many turns each, as from two machines: with a lock file and an account of its own."""
    rbac = "rbac.authorization.k8s.io"
    plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENT_NAMESPACE}})
    plane.api.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "contestants"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": name} for name in ACCOUNTS],
        }
    )
    contestants: list[subprocess.Popen[bytes]] = []
    try:
        for name, end in zip(ACCOUNTS, socket.socketpair(), strict=True):
            with end:
                kubeconfig, file = plane.directory.kubeconfig_of(name), directory / f"{name}.lock"
                command = ["-m", "tests.support.contest", str(kubeconfig), str(file), name, str(rounds)]
                inherited = [end.fileno()]
                contestants.append(subprocess.Popen([sys.executable, *command, str(end.fileno())], pass_fds=inherited))
        assert [one.wait() for one in contestants] == [0, 0]
    finally:
        for one in contestants:
            one.kill()
            one.wait()


def judge(acts: list[Act], rounds: int) -> list[Term]:
    """Insist that they met in every round, and that never both were inside; gives the terms."""
    terms = audit.terms(acts)
    assert len(terms) == 2 * rounds
    assert audit.strays(acts, terms) == []
    assert [act for term in terms for act in audit.intruders(acts, term)] == []
    for first, second in zip(terms[::2], terms[1::2], strict=True):
        assert {first.taken.who, second.taken.who} == set(ACCOUNTS)
        looks = [act for act in acts if act.verb == "get" and act.who == second.taken.who and first.saw(act)]
        assert looks, "who came second never found the lock held"
    for before, now in pairwise(terms):
        idle = not any(act.is_policy and now.saw(act) for act in acts)
        assert not idle or before.taken.who == now.taken.who, "there was something to change, and nothing was"
    return terms


def policies(name: str) -> list[JsonObject]:
    """What the contestant of that name wants: two policies that the other does not, and two otherwise."""
    return [
        cluster_policy("shared", message=f"As {name} says."),
        validating_policy("shared", expression=f"object.metadata.name != '{name}'"),
        admission_policy(f"of-{name}"),
        exception(f"of-{name}"),
    ]


class _Watched:
    """The Leases; once a turn it tells the other that this one waits."""

    def __init__(self, leases: KubernetesCluster, peer: socket.socket) -> None:
        self._leases, self._peer = leases, peer
        self.waits = False
        self.inside = False

    def read_lease(self, namespace: str, name: str) -> JsonObject | None:
        found = self._leases.read_lease(namespace, name)
        if found and found["spec"]["holderIdentity"] and not (self.inside or self.waits):
            self.waits = True
            self._peer.sendall(_WAITS)
        return found

    def write_lease(self, lease: JsonObject, *, seconds: float) -> JsonObject:
        return self._leases.write_lease(lease, seconds=seconds)


def _heard(peer: socket.socket) -> bytes:
    said = peer.recv(1)
    if not said:
        sys.exit("The other contestant is gone.")
    return said


def main() -> None:
    """Take a turn in so many rounds."""
    kubeconfig, file, name, rounds, number = sys.argv[1:]
    logs.configure(sys.stderr, "error")
    connection = Connection.open(kubeconfig=kubeconfig)
    cluster = KubernetesCluster(connection)
    store = ConfigMapStore(KubernetesConfigMaps(connection), AGENT_NAMESPACE)
    wanted = desired(*policies(name))
    allowed = Allowed(weaken=True, max_delete=MaxDelete.of("100%"))
    with socket.socket(fileno=int(number)) as peer:
        for _ in range(int(rounds)):
            leases = _Watched(cluster, peer)
            first: list[bool] = []

            def inside(leases: _Watched = leases, first: list[bool] = first) -> Prepared:
                leases.inside = True
                first.append(_heard(peer) == _WAITS)
                return pipeline.prepare(cluster, wanted, allowed=allowed)

            outcome = pipeline.apply(
                cluster,
                leases,
                inside,
                locking=lock.LockSettings(
                    namespace=AGENT_NAMESPACE, wait=200, hold=200, file=Path(file), durations=DURATIONS
                ),
                writing=WriteSettings(),
                journalling=Journalling(store=store, key=Key(b"one secret for both")),
            )
            if not outcome.success:
                sys.exit(f"{name}: {outcome.reason}")
            peer.sendall(_DONE)
            if first == [True] and _heard(peer) != _DONE:
                sys.exit("The other contestant had a turn too many.")


if __name__ == "__main__":
    main()
