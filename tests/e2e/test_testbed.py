"""The embedded control plane: that it is what tests take it for, and that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ci.testbed import components, paths, ports, processes, store
from ci.testbed.controlplane import ControlPlane, Part, down
from ci.testbed.directory import ClusterDirectory, State
from ci.testbed.processes import Process
from ci.testbed.supervisor import Supervisor
from renderer.errors import ConfigurationError, ExitCode, Locked, RemoteError
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from tests.support.cluster import AGENT_NAMESPACE, wipe

_PATIENCE_S = 120
_CLI = [sys.executable, "-P", "-m", "ci.testbed.cli", "cluster"]
_BASE_LINE = "etcd, kube-apiserver and CRDs ready"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(paths.ROOT), "PYTHONUNBUFFERED": "1"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_CLI, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
    )


def is_gone(process: Process) -> bool:
    """Wait for that very process to end."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return not processes.is_running(process) or bool(poll.poll(_PATIENCE_S * 1000))
    finally:
        os.close(descriptor)


def state_of(directory: Path) -> State:
    state = ClusterDirectory(directory).read()
    assert state
    return state


def uids(plane: ControlPlane) -> list[str]:
    """What a cluster is known by."""
    identities = (
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        "/api/v1/namespaces/default",
        "/api/v1/namespaces/kyverno",
    )
    return [plane.api.call("GET", path)["metadata"]["uid"] for path in identities]


def policy(name: str) -> JsonObject:
    return {
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": name, "finalizers": ["example.com/never"]},
        "spec": {
            "rules": [
                {
                    "name": "named",
                    "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                    "validate": {"message": "m", "pattern": {"metadata": {"name": "?*"}}},
                }
            ]
        },
    }


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster that these tests may break."""
    with ControlPlane.start(tmp_path_factory.mktemp("own"), audit=True) as plane:
        yield plane


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a test puts a cluster that it may fail to end."""
    place = tmp_path / "c"
    yield place
    with contextlib.suppress(ConfigurationError):
        ClusterDirectory(place).end()


@pytest.mark.cluster
class TestBase:
    def test_serves_every_managed_kind(self, cluster: ControlPlane) -> None:
        served = {
            f"{resource['name']}.{group['name']}"
            for group in cluster.api.call("GET", "/apis")["groups"]
            for version in group["versions"]
            for resource in cluster.api.call("GET", f"/apis/{version['groupVersion']}")["resources"]
        }
        assert {kind.resource for kind in KINDS} <= served
        assert cluster.api.answers(f"/api/v1/namespaces/{AGENT_NAMESPACE}")

    def test_each_test_begins_without_policies_leases_and_configmaps(self, cluster: ControlPlane) -> None:
        metadata = {"name": "left-over", "namespace": AGENT_NAMESPACE}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        made = [policy("left-over"), lease, settings]
        for document in made:
            cluster.api.apply(document)
        wipe(cluster)
        answers = [cluster.api.ask("GET", cluster.api.path_of(document)).status_code for document in made]
        assert answers == [404, 404, 404]

    def test_two_clusters_at_once_are_never_taken_for_one(self, cluster: ControlPlane, own_plane: ControlPlane) -> None:
        assert not set(uids(cluster)) & set(uids(own_plane))
        assert not set(cluster.tokens.values()) & set(own_plane.tokens.values())
        own_plane.api.apply(policy("only-here"))
        assert cluster.api.ask("GET", cluster.api.path_of(policy("only-here"))).status_code == 404

    def test_accounts_have_the_rights_that_they_should(self, cluster: ControlPlane) -> None:
        kubectl = str(paths.BINARIES / "kubectl")
        outcomes = {}
        for name in ("kubeconfig", "viewer.kubeconfig", "worker.kubeconfig"):
            file = cluster.directory.path / name
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            outcomes[name] = subprocess.run(
                [kubectl, f"--kubeconfig={file}", "auth", "can-i", "delete", "namespaces"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.strip()
        assert outcomes == {"kubeconfig": "yes", "viewer.kubeconfig": "no", "worker.kubeconfig": "no"}

    def test_audit_log_has_every_request_once_it_is_answered(self, own_plane: ControlPlane) -> None:
        own_plane.api.ask("GET", "/api/v1/namespaces/audited-by-this-test")
        entries = [json.loads(line) for line in own_plane.audit_log.read_text().splitlines()]
        (entry,) = [entry for entry in entries if "audited-by-this-test" in entry["requestURI"]]
        assert (entry["verb"], entry["user"]["username"]) == ("get", "admin")

    def test_killed_store_comes_back_with_its_data(self, own_plane: ControlPlane) -> None:
        own_plane.api.apply(policy("kept"))
        own_plane.kill("etcd")
        assert run("status", "--dir", str(own_plane.directory.path)).returncode == ExitCode.UNAVAILABLE
        own_plane.restart("etcd")
        assert own_plane.api.answers(own_plane.api.path_of(policy("kept")))


@pytest.mark.jobs
def test_job_completes(jobs_plane: ControlPlane) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example.invalid/none:1"}]}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "one", "namespace": AGENT_NAMESPACE},
        "spec": {"template": template},
    }
    jobs_plane.api.apply(job)
    waited = subprocess.run(
        [
            str(paths.BINARIES / "kubectl"),
            f"--kubeconfig={jobs_plane.kubeconfig}",
            f"--namespace={AGENT_NAMESPACE}",
            "wait",
            "--for=condition=Complete",
            f"--timeout={_PATIENCE_S}s",
            "job/one",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert waited.returncode == 0, waited.stderr


@pytest.mark.kyverno
def test_admission_controller_judges_policies(kyverno_plane: ControlPlane) -> None:
    good, bad = policy("judged-good"), policy("judged-bad")
    bad["spec"]["rules"][0]["mutate"] = {"patchStrategicMerge": {"metadata": {"labels": {"a": "b"}}}}
    kyverno_plane.api.apply(good)
    with pytest.raises(RemoteError, match=r"validate-policy\.kyverno\.svc.* denied"):
        kyverno_plane.api.apply(bad)
    wipe(kyverno_plane)


@pytest.mark.cluster
class TestEnding:
    def test_command_line_leaves_a_cluster_up_and_takes_all_of_it_down(self, directory: Path) -> None:
        up = run("up", "--dir", str(directory))
        assert (up.returncode, up.stderr) == (0, "")
        state = state_of(directory)
        assert run("status", "--dir", str(directory)).returncode == 0
        again = run("up", "--dir", str(directory))
        assert (again.returncode, "already" in again.stderr) == (ExitCode.LOCKED, True)
        assert all(map(processes.is_running, state.processes))
        assert run("down", "--dir", str(directory)).returncode == 0
        assert not any(map(processes.is_running, state.processes))
        assert not list(processes.marked(state.mark))
        assert not directory.exists()
        assert run("status", "--dir", str(directory)).returncode == ExitCode.UNAVAILABLE
        assert run("down", "--dir", str(directory)).returncode == 0

    def test_killed_up_is_cleaned_by_down(self, directory: Path) -> None:
        state = self._break_off(directory, signal.SIGKILL, expected=-signal.SIGKILL)
        assert list(processes.marked(state.mark))
        assert down(directory)
        assert not list(processes.marked(state.mark))

    def test_killed_up_is_cleaned_by_the_next_up(self, directory: Path) -> None:
        state = self._break_off(directory, signal.SIGKILL, expected=-signal.SIGKILL)
        with ControlPlane.start(directory) as plane:
            assert not list(processes.marked(state.mark))
            assert plane.api.answers("/readyz")

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
    )
    def test_interrupted_up_leaves_nothing_running(self, directory: Path, number: signal.Signals, code: int) -> None:
        state = self._break_off(directory, number, expected=code)
        assert not list(processes.marked(state.mark))

    def _break_off(self, directory: Path, number: signal.Signals, *, expected: int) -> State:
        """Stop an `up` with a signal in its middle; returns the state as it was then."""
        with subprocess.Popen(
            [*_CLI, "up", "--dir", str(directory), "--with", "jobs"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as child:
            assert child.stdout
            assert child.stdout.readline().startswith(_BASE_LINE)
            state = state_of(directory)
            child.send_signal(number)
            child.send_signal(number)  # as impatient people do
            assert child.wait(_PATIENCE_S) == expected
        assert len(state.processes) >= 2
        return state

    def test_cluster_of_a_test_dies_with_the_test(self, directory: Path) -> None:
        script = (
            "import sys, pathlib\n"
            "from ci.testbed.controlplane import ControlPlane\n"
            "plane = ControlPlane.start(pathlib.Path(sys.argv[1]))\n"
            "print('up', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-P", "-c", script, str(directory)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout
            assert child.stdout.readline() == "up\n"
            state = state_of(directory)
            assert all(map(processes.is_running, state.processes))
            child.kill()
        assert all(map(is_gone, state.processes))

    def test_process_that_got_a_dead_ones_pid_is_spared(self, directory: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
            known = next(
                Process(name="etcd", pid=stranger.pid, started=started, executable=executable)
                for started, executable in [identity(stranger.pid)]
            )
            impostors = [
                Process(name="etcd", pid=known.pid, started=known.started - 1, executable=known.executable),
                Process(name="etcd", pid=known.pid, started=known.started, executable="/nowhere/etcd"),
            ]
            for impostor in impostors:
                place = ClusterDirectory(directory)
                place.create()
                place.write(State(mark="nobody", ready=True, processes=(impostor,)))
                assert down(directory) == 0
                assert stranger.poll() is None
            assert processes.is_running(known)
            stranger.communicate(b"\n")


def identity(pid: int) -> tuple[int, str]:
    _, started = processes.stat_fields(Path(f"/proc/{pid}/stat").read_text())
    return started, str(Path(f"/proc/{pid}/exe").readlink())


class TestRefusals:
    def test_directory_with_other_peoples_files(self, directory: Path) -> None:
        directory.mkdir()
        precious = directory / "kubeconfig"
        precious.write_text("mine")
        with pytest.raises(ConfigurationError, match=r"not empty and holds no cluster \(kubeconfig\)"):
            ControlPlane.start(directory)
        down(directory)
        assert precious.read_text() == "mine"

    def test_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="Not a directory"):
            ControlPlane.start(tmp_path / "file" / "c")

    def test_state_that_is_not_a_state(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "state.json").write_text("[]")
        with pytest.raises(ConfigurationError, match="not a cluster's state"):
            down(directory)

    def test_two_commands_on_one_directory(self, directory: Path) -> None:
        place = ClusterDirectory(directory)
        place.create()
        with place.locked(), pytest.raises(Locked, match="another command"):
            down(directory)

    def test_missing_tool_says_what_to_run(self, directory: Path, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match=r"is not built[\s\S]*Run `ci/tools`"):
            ControlPlane.start(directory, binaries=tmp_path)

    @pytest.mark.parametrize("arguments", [("up",), ("up", "--dir", "/tmp/x", "--with", "nonsense"), ("what",)])
    def test_wrong_usage(self, arguments: tuple[str, ...]) -> None:
        assert run(*arguments).returncode == ExitCode.USAGE


class Stranger(BaseHTTPRequestHandler):
    """Says yes to everything, on a port that is not its own to answer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.mark.cluster
def test_stranger_on_the_port_is_not_taken_for_ours(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        chosen = iter([(stranger.server_port,), ports.free(1)])
        monkeypatch.setattr(ports, "free", lambda _count: next(chosen))  # a race can't be lost on demand
        place = ClusterDirectory(directory)
        place.create()
        supervisor = Supervisor(place, place.claim("strangers"), paths.BINARIES)
        try:
            etcd = supervisor.spawn(components.etcd(place.etcd))
            assert store.etcd_answers(stranger.server_port)
            supervisor.wait(etcd, lambda: store.etcd_answers(etcd.ports[0]))
            assert etcd.ports[0] != stranger.server_port
            assert processes.listens(etcd.process, etcd.ports[0])
        finally:
            place.end()
            supervisor.reap()
            stranger.shutdown()
            thread.join()


def test_listening_is_told_from_connecting() -> None:
    started, executable = identity(os.getpid())
    ourselves = Process(name="test", pid=os.getpid(), started=started, executable=executable)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert not processes.listens(ourselves, port)
        server.listen()
        assert processes.listens(ourselves, port)


@pytest.mark.cluster
def test_parts_are_named_in_the_state(jobs_plane: ControlPlane) -> None:
    assert state_of(jobs_plane.directory.path).parts == (Part.JOBS.value,)
