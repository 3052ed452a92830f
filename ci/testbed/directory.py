"""The directory of one cluster: what lies in it, who may use it, and what is known of its processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ci.testbed import processes
from ci.testbed.processes import Process
from renderer.errors import ConfigurationError, Locked

#: All that a cluster ever writes into its directory, so that nothing else is removed with it.
_CONTENTS: Final = (
    "etcd",
    "pki",
    "kubeconfig",
    "viewer.kubeconfig",
    "worker.kubeconfig",
    "kube-controller-manager.kubeconfig",
    "kube-scheduler.kubeconfig",
    "kyverno.kubeconfig",
    "kwok.yaml",
    "audit-policy.yaml",
    "audit.log",
    "sigstore",
)
_LOGS: Final = "logs"
_STATE: Final = "state.json"
_GONE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of a cluster: its mark, its address once it has one, its processes in starting order."""

    mark: str
    server: str = ""
    parts: tuple[str, ...] = ()
    ready: bool = False
    processes: tuple[Process, ...] = ()


class ClusterDirectory:
    """Paths, lock and state of the cluster in `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / _LOGS
        self.etcd = self.path / "etcd"
        self.pki = self.path / "pki"
        self.kubeconfig = self.path / "kubeconfig"
        self.audit_log = self.path / "audit.log"
        self._state = self.path / _STATE

    def log(self, name: str) -> Path:
        """The file that holds all that one process printed."""
        return self.logs / f"{name}.log"

    def kubeconfig_of(self, user: str) -> Path:
        """The kubeconfig of a user other than the administrator."""
        return self.path / f"{user}.kubeconfig"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other command away from this directory; the kernel frees the lock when we die.

        Raises Locked when another command is at work, ConfigurationError when the directory can't be read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:  # none: it was removed while we took the lock
                    yield
                    return
            raise Locked(
                f"{self.path}: another command is starting or ending this cluster.",
                hint="Wait for it, or choose another directory.",
            )
        finally:
            os.close(descriptor)

    def create(self) -> None:
        """Make the directory, readable by its owner only; ConfigurationError when that is impossible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def claim(self, mark: str) -> State:
        """Take the directory for a new cluster, called with the lock; what a crashed one left is removed.

        Raises Locked when a cluster runs there, ConfigurationError when anything else lies there or it
        can't be written.
        """
        left = self.read()
        if left and left.ready and any(map(processes.is_running, left.processes)):
            raise Locked(
                f"{self.path}: a cluster is up there already.",
                hint=f"End it with `ci/cluster down --dir {self.path}`, or choose another directory.",
            )
        self.end()
        self.remove()
        foreign = sorted(entry.name for entry in self.path.iterdir())
        if foreign:
            raise ConfigurationError(
                f"{self.path}: the directory is not empty and holds no cluster ({foreign[0]}).",
                hint="Choose a new or an empty directory.",
            )
        state = State(mark=mark)
        try:
            self.write(state)
            self.logs.mkdir()
        except OSError as error:
            raise _unusable(self.path, error) from error
        return state

    def read(self) -> State | None:
        """The state that the last `up` left here, or None; ConfigurationError when it can't be understood."""
        try:
            document = json.loads(self._state.read_bytes())
            found = tuple(Process(**process) for process in document.pop("processes"))
            return State(**{**document, "parts": tuple(document["parts"]), "processes": found})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._state}: this is not a cluster's state ({type(error).__name__}: {error}).",
                hint="Choose another directory; nothing was changed in this one.",
            ) from error

    def write(self, state: State) -> None:
        """Replace the state in one step, so that a crash leaves the old one or the new one."""
        temporary = self._state.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(state), indent=2) + "\n")
        temporary.replace(self._state)

    def end(self) -> int:
        """Kill every process of the cluster and no other; returns how many ran.

        SIGKILL, because nothing in a test cluster is worth waiting for an orderly end.
        """
        state = self.read()
        if state is None:
            return 0
        known = {process.pid: process for process in state.processes}
        unknown = [process for process in processes.marked(state.mark) if process.pid not in known]
        running = [process for process in [*unknown, *reversed(known.values())] if processes.is_running(process)]
        for process in running:
            processes.send(process, signal.SIGKILL, wait_s=_GONE_S)
        return len(running)

    def remove(self, *, keep_logs: bool = False) -> None:
        """Remove what the cluster wrote, and nothing else; the directory itself stays.

        Logs that are kept still belong to a cluster that was: the state stays with them to say so.
        """
        if not self._state.exists():
            return
        for name in (*_CONTENTS, *(() if keep_logs else (_LOGS,))):
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        self._state.with_suffix(".tmp").unlink(missing_ok=True)
        if not keep_logs:
            self._state.unlink()


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: can't be used for a cluster: {error.strerror}.",
        hint="Choose a directory that this account can create and write.",
    )
