"""A real control plane on the loopback, in parts, as a value that tests and commands hold."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ci.testbed import components, kyverno, paths, pki, processes, store, toolchain
from ci.testbed.api import Api
from ci.testbed.directory import ClusterDirectory
from ci.testbed.pki import Credentials
from ci.testbed.supervisor import Component, Running, Supervisor
from ci.testbed.watcher import Watcher
from renderer.errors import RemoteError
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS

_POLL_S: Final = 0.025
_RIGHTS_S: Final = 60.0
_GROUPS: Final = frozenset(kind.group for kind in KINDS)
_NODE_NAME: Final = "kwok-0"
_NODE: Final[JsonObject] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": _NODE_NAME,
        "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
        "labels": {
            "type": "kwok",
            "kubernetes.io/hostname": _NODE_NAME,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        },
    },
}


class Part(Enum):
    """What a control plane has beyond etcd, the apiserver and Kyverno's CRDs."""

    JOBS = "jobs"  # controller-manager, scheduler, and kwok with one fake node
    KYVERNO = "kyverno"  # the admission controller, and controller-manager, which fills its rights


class ControlPlane:
    """One running cluster. Use `start` as a context manager, or call `stop`."""

    def __init__(self, directory: ClusterDirectory, supervisor: Supervisor, credentials: Credentials) -> None:
        self.directory = directory
        self.credentials = credentials
        self.kubeconfig = directory.kubeconfig
        self.server = ""
        self.api: Api
        self._supervisor = supervisor
        self._ready: dict[str, Callable[[], bool]] = {}
        self._watcher: Watcher | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        parts: Collection[Part] = (),
        audit: bool = False,
        outlive: bool = False,
        binaries: Path = paths.BINARIES,
        report: Callable[[str], None] = lambda _line: None,
    ) -> ControlPlane:
        """Start a cluster in `directory` (new, empty or a former cluster's); return once all of it answers.

        The cluster ends with this process, also when that is killed, unless it is to `outlive` it. `audit`
        writes every request to `directory`/audit.log. `report` gets a line for each part that answers.
        Whatever fails, nothing is left running. Raises RemoteError (a tool is missing, or a part does not
        come up), Locked (a cluster is there) or ConfigurationError (the directory can't be used).
        """
        source = toolchain.kyverno_source()
        prepared = store.prepared(binaries, source)
        place = ClusterDirectory(directory)
        place.create()
        with place.locked():
            state = place.claim(uuid.uuid4().hex)
            plane = cls(place, Supervisor(place, state, binaries), pki.create(place.pki))
            try:
                if not outlive:
                    plane._watcher = Watcher(place, state.mark)
                plane._bring_up(prepared, source, frozenset(parts), audit=audit, report=report)
            except BaseException:
                with processes.uninterrupted():
                    plane._end()
                    place.remove(keep_logs=True)
                raise
        return plane

    def _bring_up(
        self,
        prepared: Path,
        source: Path,
        parts: frozenset[Part],
        *,
        audit: bool,
        report: Callable[[str], None],
    ) -> None:
        timer = _Timer(report)
        self._start_base(prepared, audit=audit)
        timer.done("etcd, kube-apiserver and CRDs")
        if parts:
            manager = self._spawn_controller_manager()
            if Part.JOBS in parts:
                self._start_jobs(manager)
            else:
                self._wait(manager, self._controllers_run)
            timer.done("controller-manager, scheduler and kwok" if Part.JOBS in parts else "controller-manager")
        if Part.KYVERNO in parts:
            self._start_kyverno(source)
            timer.done("Kyverno's admission controller")
        names = tuple(part.value for part in Part if part in parts)
        self._supervisor.update(replace(self._supervisor.state, parts=names, server=self.server, ready=True))

    def _start_base(self, prepared: Path, *, audit: bool) -> None:
        store.copy(prepared, self.directory.etcd)
        etcd = self._supervisor.spawn(components.etcd(self.directory.etcd))
        self._wait(etcd, lambda: store.etcd_answers(etcd.ports[0]))
        self._start_apiserver(components.apiserver(etcd.ports[0], self.credentials, self._audit(wanted=audit)))
        self._write_kubeconfigs()
        for namespace in ("default", kyverno.NAMESPACE):
            self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def _audit(self, *, wanted: bool) -> dict[str, Path] | None:
        if not wanted:
            return None
        policy = self.directory.path / "audit-policy.yaml"
        policy.write_text(components.AUDIT_POLICY)
        return {"policy": policy, "log": self.directory.audit_log}

    def _start_apiserver(self, component: Component) -> None:
        apiserver = self._supervisor.spawn(component)

        def ready() -> bool:
            server = f"https://{components.LOOPBACK}:{apiserver.ports[0]}"
            if server != self.server:
                token, authority = self.credentials.tokens["admin"], self.credentials.authority
                self.server, self.api = server, Api(server, token=token, authority=authority)
            if not (self.api.answers("/readyz") and self._knows_every_group()):
                return False
            return all(self.api.answers(path) for path in self.api.collections(_GROUPS))

        self._wait(apiserver, ready)

    def _knows_every_group(self) -> bool:
        """True once discovery has the managed kinds' groups and OpenAPI each version; `readyz` says nothing of CRDs."""
        groups = [group for group in self.api.call("GET", "/apis")["groups"] if group["name"] in _GROUPS]
        versions = {version["groupVersion"] for group in groups for version in group["versions"]}
        described = {path.removeprefix("apis/") for path in self.api.call("GET", "/openapi/v3")["paths"]}
        return len(groups) == len(_GROUPS) and versions <= described

    def _write_kubeconfigs(self) -> None:
        authority = self.credentials.authority.read_bytes()
        users = {
            self.directory.kubeconfig_of(name): pki.token_user(self.credentials.tokens[name])
            for name in ("viewer", "worker")
        }
        for name in ("kube-controller-manager", "kube-scheduler"):
            users[self.directory.kubeconfig_of(name)] = pki.certificate_user(self.credentials, name)
        users[self.kubeconfig] = pki.certificate_user(self.credentials, "admin")
        for path, user in users.items():
            pki.write_private(path, pki.kubeconfig(self.server, authority, user))

    def _wait(self, running: Running, ready: Callable[[], bool]) -> None:
        self._ready[running.component.name] = ready
        self._supervisor.wait(running, ready)

    def _serves_health(self, running: Running) -> Callable[[], bool]:
        def ready() -> bool:
            server = f"https://{components.LOOPBACK}:{running.ports[0]}"
            probe = Api(server, token="", authority=self.credentials.authority)
            with contextlib.closing(probe):
                return probe.answers("/healthz")

        return ready

    def _spawn_controller_manager(self) -> Running:
        kubeconfig = self.directory.kubeconfig_of("kube-controller-manager")
        return self._supervisor.spawn(components.controller_manager(kubeconfig, self.credentials))

    def _start_jobs(self, manager: Running) -> None:
        """The rest of the jobs part, all at once, for they don't wait for one another."""
        stages = self.directory.path / "kwok.yaml"
        stages.write_text(toolchain.kwok_stages())
        self.api.apply(_NODE)
        kubeconfig = self.directory.kubeconfig_of("kube-scheduler")
        scheduler = self._supervisor.spawn(components.scheduler(kubeconfig, self.credentials))
        kwok = self._supervisor.spawn(components.kwok(self.kubeconfig, stages))
        self._wait(manager, self._controllers_run)
        self._wait(scheduler, self._serves_health(scheduler))
        self._wait(kwok, self._node_takes_pods)

    def _controllers_run(self) -> bool:
        """True once a controller has done something; controller-manager calls itself healthy well before."""
        return self.api.answers("/api/v1/namespaces/default/serviceaccounts/default")

    def _node_takes_pods(self) -> bool:
        node = self.api.call("GET", f"/api/v1/nodes/{_NODE_NAME}")
        conditions = node.get("status", {}).get("conditions", [])
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return ready and not node["spec"].get("taints")

    def _start_kyverno(self, source: Path) -> None:
        kyverno.install(self.api, source)
        deadline = time.monotonic() + _RIGHTS_S
        while not kyverno.has_its_rights(self.api):
            if time.monotonic() > deadline:
                raise RemoteError("Kyverno's ClusterRole was not filled: is kube-controller-manager well?")
            time.sleep(_POLL_S)
        kubeconfig = self.directory.kubeconfig_of("kyverno")
        user = pki.token_user(kyverno.token(self.api))
        authority = self.credentials.authority.read_bytes()
        pki.write_private(kubeconfig, pki.kubeconfig(self.server, authority, user))
        component = components.kyverno(kubeconfig, self.directory.path / "sigstore")
        self._wait(self._supervisor.spawn(component), lambda: kyverno.denies(self.api))

    @property
    def tokens(self) -> Mapping[str, str]:
        """The tokens by user: admin, viewer, worker."""
        return self.credentials.tokens

    @property
    def admin_token(self) -> str:
        """The administrator's token."""
        return self.credentials.tokens["admin"]

    @property
    def audit_log(self) -> Path:
        """What the apiserver was asked, one JSON object a line, if `audit` was wanted."""
        return self.directory.audit_log

    def kill(self, name: str) -> None:
        """SIGKILL one process by its binary's name; returns when it is gone."""
        self._supervisor.kill(name)

    def restart(self, name: str) -> None:
        """Start a killed process again, on its old ports and data; returns when it answers."""
        self._supervisor.restart(name, self._ready[name])

    def stop(self, *, keep_logs: bool = False) -> None:
        """End the cluster and remove what it wrote; safe to call twice."""
        with self.directory.locked():
            state = self.directory.read()
            if state and state.mark == self._supervisor.state.mark:
                self._end()
                self.directory.remove(keep_logs=keep_logs)

    def _end(self) -> None:
        if self._watcher:
            self._watcher.dismiss()
        self.directory.end()
        self._supervisor.reap()
        if self.server:
            self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Timer:
    """Reports what answers, and how long that took."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._since = time.monotonic()

    def done(self, what: str) -> None:
        """One part is up."""
        now = time.monotonic()
        self._report(f"{what} ready in {now - self._since:.1f} s")
        self._since = now


def down(path: Path, *, keep_logs: bool = False) -> int:
    """End the cluster in `path` and remove what it wrote, also after a crash; returns how many processes ran.

    Raises Locked when another command is at work there.
    """
    directory = ClusterDirectory(path)
    if not directory.path.exists():
        return 0
    with directory.locked():
        ended = directory.end()
        directory.remove(keep_logs=keep_logs)
    with contextlib.suppress(OSError):
        directory.path.rmdir()
    return ended
