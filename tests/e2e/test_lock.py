"""Two runs never work at once on a real API server, and neither does a run beside an elector of client-go."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from applier import lock
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.lock import LockSettings
from applier.lock.elector import Durations, Held
from applier.lock.flock import file_lock
from applier.stop import Stop
from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.errors import ExitCode, Locked, NotPermitted
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from tests.support import proxy as proxies
from tests.support.cluster import AGENT_NAMESPACE, allowed
from tests.support.electors import LEASE, RETRY, elector
from tests.support.freezing import freeze
from tests.support.policies import cluster_policy, desired, identity_of
from tests.support.programs import Programs
from tests.support.proxy import Proxy, Request, call, not_to, refuse, to
from tests.support.workflow import contents

pytestmark = pytest.mark.cluster

LEASE_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/{lock.LEASE}"
#: Short, and long enough for a machine that is busy.
SHORT = Durations.of(6.0)
policy_writes = not_to("leases", "configmaps")


@pytest.fixture
def through(proxy: Proxy, tmp_path: Path) -> KubernetesCluster:
    """The adapter behind the proxy."""
    config = proxy.write_kubeconfig(tmp_path / "through.kubeconfig")
    return KubernetesCluster(Connection.open(kubeconfig=str(config)))


@pytest.fixture
def quick(programs: Programs, proxy: Proxy) -> Programs:
    """The programs behind the proxy, one write at a time, without the kyverno CLI, with a short Lease."""
    return programs.with_(
        KUBECONFIG=str(proxy.write_kubeconfig(programs.directory / "proxy.kubeconfig")),
        VALIDATE_POLICIES="false",
        INSIGHTS_CONCURRENCY="1",
        INSIGHTS_LEASE_DURATION="6s",
        INSIGHTS_LOCK_WAIT="100s",
    )


@contextmanager
def held(cluster: KubernetesCluster, file: Path, *, wait: float = 0, stop: Stop | None = None) -> Iterator[Held]:
    settings = LockSettings(namespace=AGENT_NAMESPACE, wait=wait, hold=600, file=file, durations=SHORT)
    with lock.locked(cluster, settings, stop or Stop()) as one:
        yield one


@contextmanager
def started(programs: Programs, *command: str) -> Iterator[subprocess.Popen[str]]:
    """The applier at work; it is killed in the end, for nobody waits for a frozen one."""
    with programs.start("insights-applier", *command) as process:
        try:
            yield process
        finally:
            process.kill()


def spec(cluster: ControlPlane) -> JsonObject:
    found: JsonObject = cluster.api.call("GET", LEASE_PATH)["spec"]
    return found


def written(directory: Path, *bodies: JsonObject) -> str:
    snapshot.write(directory, snapshot.render_files(desired(*bodies), organization="acme", cluster="prod"))
    return str(directory)


def policies(prefix: str, count: int = 12) -> list[JsonObject]:
    return [cluster_policy(f"{prefix}{number:02}") for number in range(count)]


def names(bodies: list[JsonObject]) -> set[Identity]:
    return {identity_of(body) for body in bodies}


def until(true: Callable[[], object]) -> None:
    """Wait for what another process or thread does."""
    waiting, end = threading.Event(), time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        waiting.wait(0.02)


def test_while_an_elector_leads_ours_waits_and_names_it_until_it_releases(
    cluster: ControlPlane, adapter: KubernetesCluster, tmp_path: Path
) -> None:
    with elector(cluster.kubeconfig) as other:
        other.says("leading")
        with pytest.raises(Locked, match=rf"{AGENT_NAMESPACE}/{lock.LEASE}: incumbent since 20\S+Z"):
            held(adapter, tmp_path / "lock").__enter__()
        other.release()
        with held(adapter, tmp_path / "lock", wait=60) as one:
            assert (one.transitions, one.taken_over) == (1, False)
            other.says("stopped")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_elector_that_is_killed_or_frozen_is_followed_after_its_lease(
    cluster: ControlPlane, adapter: KubernetesCluster, tmp_path: Path, how: signal.Signals
) -> None:
    with elector(cluster.kubeconfig) as other:
        other.says("leading")
        if how is signal.SIGSTOP:
            freeze(other.process.pid)
        else:
            other.process.send_signal(how)
        with pytest.raises(Locked, match=f"A dead run's Lease is free after {LEASE} s"):
            held(adapter, tmp_path / "lock").__enter__()
        with held(adapter, tmp_path / "lock", wait=60) as one:
            assert (one.transitions, one.taken_over) == (1, True)
            if how is signal.SIGSTOP:
                other.process.send_signal(signal.SIGCONT)
                other.says("stopped")
                assert spec(cluster)["leaseTransitions"] == one.transitions
    assert (spec(cluster)["holderIdentity"], spec(cluster)["leaseTransitions"]) == ("", 1)


def test_while_ours_is_held_an_elector_does_not_lead_and_when_it_is_released_it_does(
    cluster: ControlPlane, adapter: KubernetesCluster, proxy: Proxy, tmp_path: Path
) -> None:
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig")
    with ExitStack() as stack:
        with held(adapter, tmp_path / "lock"):
            holder = spec(cluster)["holderIdentity"]
            other = stack.enter_context(elector(config))
            other.says(f"leader {holder}")
            # It looks for longer than the Lease is good for without a renewal.
            until(lambda: proxy.count(looks) > SHORT.lease / RETRY)
            assert proxy.count(to("leases")) == 0
        other.says("leading")
        assert (spec(cluster)["holderIdentity"], spec(cluster)["leaseTransitions"]) == ("incumbent", 1)


def test_when_ours_is_killed_an_elector_follows_after_the_lease_and_ours_after_it(
    cluster: ControlPlane, adapter: KubernetesCluster, quick: Programs, proxy: Proxy, tmp_path: Path
) -> None:
    runs: list[subprocess.Popen[str]] = []
    proxy.plan(call(lambda _: runs[0].kill(), when="before"), at=2, matching=policy_writes)
    with quick.start("insights-applier", "apply", written(tmp_path / "snapshot", *policies("a"))) as run:
        runs.append(run)
        run.communicate(timeout=100)
    assert run.returncode == -signal.SIGKILL
    holder = spec(cluster)["holderIdentity"]
    assert f"_{run.pid}_" in holder
    with elector(cluster.kubeconfig) as other:
        other.says(f"leader {holder}")
        other.says("leading")
        other.release()
        other.says("stopped")
    with held(adapter, tmp_path / "lock", wait=60) as one:
        assert one.transitions == 2


def test_when_ours_is_frozen_an_elector_follows_and_ours_neither_writes_nor_undoes_over_it(
    cluster: ControlPlane, adapter: KubernetesCluster, quick: Programs, proxy: Proxy, tmp_path: Path
) -> None:
    runs: list[subprocess.Popen[str]] = []
    proxy.plan(call(lambda _: freeze(runs[0].pid), when="after"), at=3, matching=policy_writes)
    # One write at a time: a second one could be frozen between its check and its last byte, which nothing can fence.
    with started(quick, "apply", written(tmp_path / "snapshot", *policies("a")), "--concurrency=1") as frozen:
        runs.append(frozen)
        until(lambda: proxy.count(policy_writes) == 3)
        with elector(cluster.kubeconfig) as other:
            other.says("leading")
            before = contents(adapter)
            frozen.send_signal(signal.SIGCONT)
            shown, log = frozen.communicate(timeout=100)
            assert frozen.returncode == ExitCode.ROLLBACK_INCOMPLETE, shown + log
            assert proxy.count(policy_writes) == 3
            assert contents(adapter) == before
            assert spec(cluster)["holderIdentity"] == "incumbent"
            other.release()
            other.says("stopped")
    assert spec(cluster)["leaseTransitions"] == 1


def test_a_holder_that_is_frozen_for_longer_than_its_lease_writes_and_undoes_nothing_over_its_follower(
    adapter: KubernetesCluster, quick: Programs, proxy: Proxy, cluster: ControlPlane, tmp_path: Path
) -> None:
    runs: list[subprocess.Popen[str]] = []
    proxy.plan(call(lambda _: freeze(runs[0].pid), when="after"), at=3, matching=policy_writes)
    first = written(tmp_path / "first", *policies("a"))
    # One write at a time: a second one could be frozen between its check and its last byte, which nothing can fence.
    with started(quick, "apply", first, "--concurrency=1") as frozen:
        runs.append(frozen)
        until(lambda: proxy.count(policy_writes) == 3)
        # As from another machine: another lock file, and not through the proxy.
        elsewhere = quick.with_(KUBECONFIG=str(cluster.kubeconfig), INSIGHTS_LOCK_FILE=str(tmp_path / "elsewhere.lock"))
        follower = elsewhere.run(
            "insights-applier",
            "apply",
            written(tmp_path / "second", *policies("b")),
            "--max-delete=100%",
            "--allow-weaken",
        )
        assert follower.returncode == 0, follower.stdout + follower.stderr
        assert "Waiting for the lock" in follower.stderr
        after = contents(adapter)
        assert after.keys() == names(policies("b"))
        frozen.send_signal(signal.SIGCONT)
        shown, log = frozen.communicate(timeout=100)
    assert frozen.returncode == ExitCode.ROLLBACK_INCOMPLETE, shown + log
    assert proxy.count(policy_writes) == 3
    assert contents(adapter) == after
    assert spec(cluster)["holderIdentity"] == ""


def test_a_run_of_the_same_machine_is_named_by_the_file_before_the_cluster_is_asked(
    quick: Programs, proxy: Proxy, tmp_path: Path
) -> None:
    file = Path(quick.environment["INSIGHTS_LOCK_FILE"])
    with file_lock(file, identity="other_1", until=0, poll=0):
        done = quick.run(
            "insights-applier", "apply", written(tmp_path / "snapshot", *policies("a", 1)), "--lock-wait=1s"
        )
    assert done.returncode == ExitCode.LOCKED, done.stdout + done.stderr
    assert f"holds {file}: other_1, pid {os.getpid()} on " in done.stderr
    assert proxy.count(looks) == 0


def test_two_runs_at_once_write_one_after_the_other(
    adapter: KubernetesCluster, quick: Programs, proxy: Proxy, cluster: ControlPlane, tmp_path: Path
) -> None:
    """The one run shows a token and the other none, so that the proxy tells their writes apart."""
    token = proxy.write_kubeconfig(tmp_path / "token.kubeconfig", token=cluster.admin_token)
    both = [
        quick.with_(INSIGHTS_LOCK_FILE=str(tmp_path / "one.lock")),
        quick.with_(INSIGHTS_LOCK_FILE=str(tmp_path / "two.lock"), KUBECONFIG=str(token)),
    ]
    flags = ("--max-delete=100%", "--allow-weaken", "--concurrency=8")
    runs = [
        one.start("insights-applier", "apply", written(tmp_path / name, *policies(name)), *flags)
        for one, name in zip(both, "ab", strict=True)
    ]
    for run in runs:
        shown, log = run.communicate(timeout=100)
        assert run.returncode == 0, shown + log
    authors = ["authorization" in request.headers for request in proxy.requests(policy_writes)]
    assert len([now for before, now in pairwise(authors) if before != now]) == 1
    assert contents(adapter).keys() == names(policies("b" if authors[-1] else "a"))


def test_lost_answers_neither_lose_the_lease_nor_leave_it_behind(
    cluster: ControlPlane, through: KubernetesCluster, proxy: Proxy, tmp_path: Path
) -> None:
    stop = Stop()
    for number in (1, 3, 4, 6):
        proxy.plan(proxies.reset_after, at=number, matching=to("leases"))
    with held(through, tmp_path / "lock", stop=stop):
        until(lambda: proxy.count(to("leases")) >= 8)
        assert not stop.is_set()
    assert (spec(cluster)["holderIdentity"], spec(cluster)["leaseTransitions"]) == ("", 0)


def test_a_lease_that_somebody_deletes_is_lost(
    cluster: ControlPlane, adapter: KubernetesCluster, tmp_path: Path
) -> None:
    stop = Stop()
    with held(adapter, tmp_path / "lock", stop=stop):
        cluster.api.call("DELETE", LEASE_PATH)
        until(lambda: stop.lost)
    assert "deleted the Lease" in stop.reason
    assert cluster.api.ask("GET", LEASE_PATH).status_code == 404


def test_who_may_read_leases_and_not_write_them_is_told_so(cluster: ControlPlane, proxy: Proxy, tmp_path: Path) -> None:
    config = proxy.write_kubeconfig(tmp_path / "worker.kubeconfig", token=cluster.tokens["worker"])
    worker = KubernetesCluster(Connection.open(kubeconfig=str(config)))
    reading = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}
    with (
        allowed(cluster, "worker", reading),
        pytest.raises(NotPermitted, match="may not use the Lease") as refused,
        held(worker, tmp_path / "lock"),
    ):
        pass
    assert "create and update on leases" in refused.value.hint


def test_a_run_that_may_hold_the_lock_no_longer_takes_all_back(
    adapter: KubernetesCluster, quick: Programs, proxy: Proxy, cluster: ControlPlane, tmp_path: Path
) -> None:
    renewed = call(lambda _: until(lambda: proxy.count(to("leases")) >= 2), when="before")
    proxy.plan(renewed, at=3, matching=policy_writes)
    snapshot_ = written(tmp_path / "snapshot", *policies("a"))
    done = quick.run("insights-applier", "apply", snapshot_, "--lock-timeout=0")
    assert done.returncode == ExitCode.ROLLED_BACK, done.stdout + done.stderr
    assert "LOCK_TIMEOUT" in done.stdout + done.stderr
    assert contents(adapter) == {}
    assert spec(cluster)["holderIdentity"] == ""


def test_a_run_whose_lease_cannot_be_renewed_stops_and_takes_all_back_when_it_can(
    adapter: KubernetesCluster, quick: Programs, proxy: Proxy, cluster: ControlPlane, tmp_path: Path
) -> None:
    refused = int(SHORT.deadline / SHORT.poll) + 4
    writing = threading.Event()
    proxy.plan(refuse(503), times=refused, matching=lambda request: writing.is_set() and to("leases")(request))

    def slow(_: Request) -> None:
        writing.set()
        tried = proxy.count(to("leases"))
        until(lambda: proxy.count(to("leases")) > tried)

    proxy.plan(call(slow, when="after"), times=None, matching=creates)
    done = quick.run("insights-applier", "apply", written(tmp_path / "snapshot", *policies("a", 60)))
    assert done.returncode == ExitCode.ROLLED_BACK, done.stdout + done.stderr
    assert "the Lease could not be renewed in time" in done.stdout + done.stderr
    assert 0 < proxy.count(creates) < 60
    assert contents(adapter) == {}
    assert spec(cluster)["holderIdentity"] == ""


def test_a_run_whose_lease_another_takes_leaves_what_it_wrote_to_that_one(
    quick: Programs, proxy: Proxy, cluster: ControlPlane, tmp_path: Path
) -> None:
    def steal(_: Request) -> None:
        body = {"spec": {"holderIdentity": "thief", "leaseTransitions": 9}}
        cluster.api.call("PATCH", LEASE_PATH, body, content_type="application/merge-patch+json")
        asked = proxy.count(looks)
        until(lambda: proxy.count(looks) > asked)

    proxy.plan(call(steal, when="before"), at=3, matching=policy_writes)
    done = quick.run("insights-applier", "apply", written(tmp_path / "snapshot", *policies("a", 40)))
    assert done.returncode == ExitCode.ROLLBACK_INCOMPLETE, done.stdout + done.stderr
    assert "another run took the Lease: thief" in done.stdout + done.stderr
    assert not [request for request in proxy.requests(policy_writes) if request.method == "DELETE"]
    assert spec(cluster)["holderIdentity"] == "thief"


def looks(request: Request) -> bool:
    return request.method == "GET" and request.resource == "leases"


def creates(request: Request) -> bool:
    return policy_writes(request) and request.method == "POST"
