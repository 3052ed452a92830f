"""Runs that are killed at a request of the test's choice; `python -m tests.support.killed_runs` is where they run.

The program forks one child per run, which is quick and safe, for it has a single thread; `Runs` is its handle.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self

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
from applier.recover_command import RecoverSettings
from applier.recovery import Journalling
from applier.transaction.writes import OnFailure, WriteSettings
from renderer import logs
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    desired,
    exception,
    namespaced_policy,
    validating_policy,
)
from tests.support.programs import TOKEN

KEY: Final = Key(TOKEN.encode())
#: A Lease is free a second after its holder died. One that lives keeps it for longer here than is safe, for nobody else
#: wants it, and the machine may be slow.
DURATIONS: Final = Durations(lease=1.0, renew=0.2, deadline=60.0, write=0.2, poll=0.1)
_WRITE_SECONDS: Final = 20.0
#: Where a child writes its process id, in its run's directory.
PID_FILE: Final = "pid"

BEFORE: Final = (
    cluster_policy("same"),
    cluster_policy("changed"),
    cluster_policy("withdrawn"),
    namespaced_policy("changed"),
    namespaced_policy("withdrawn"),
    validating_policy("changed"),
    validating_policy("withdrawn"),
    admission_policy("changed"),
    admission_policy("withdrawn"),
    admission_binding("withdrawn", policy="withdrawn"),
    exception("withdrawn"),
)
AFTER: Final = (
    cluster_policy("same"),
    cluster_policy("changed", message="Other."),
    cluster_policy("new"),
    namespaced_policy("changed", message="Other."),
    validating_policy("changed", expression="true"),
    validating_policy("new"),
    {**admission_policy("changed"), "spec": {**admission_policy()["spec"], "failurePolicy": "Ignore"}},
    admission_policy("new"),
    admission_binding("new", policy="new"),
    exception("new"),
)
CHANGES: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run that makes the cluster hold AFTER, or BEFORE; in `pid_file` it says whom to kill.

    With `recovers` it takes back what an earlier one left, instead. `kinds` are those it knows of; none means all.
    """

    kubeconfig: str
    directory: str
    after: bool = True
    concurrency: int = 1
    chunk_bytes: int = 1000
    on_failure: str = "rollback"
    journal: str = ""
    secret: str = TOKEN
    recovers: bool = False
    kinds: Sequence[str] = ()

    @property
    def pid_file(self) -> Path:
        """Where the child writes its process id."""
        return Path(self.directory) / PID_FILE

    def locking(self) -> LockSettings:
        """The lock, in small."""
        return LockSettings(
            namespace=AGENT_NAMESPACE, wait=30, hold=60, file=Path(self.directory) / "lock", durations=DURATIONS
        )

    def writing(self) -> WriteSettings:
        """How it writes."""
        return WriteSettings(
            concurrency=self.concurrency,
            on_failure=OnFailure(self.on_failure),
            grace=2.0,
            delete_timeout=30.0,
            unsettled=0.2,
        )

    def connect(self) -> Connection:
        """The cluster, through the proxy perhaps."""
        return Connection.open(kubeconfig=self.kubeconfig, write_seconds=_WRITE_SECONDS)

    def store(self, connection: Connection) -> Store:
        """Where its journal is."""
        if self.journal:
            return DirectoryStore(Path(self.journal))
        return ConfigMapStore(KubernetesConfigMaps(connection), AGENT_NAMESPACE)

    def make(self) -> int:
        """Make the cluster hold AFTER or BEFORE; gives the exit code."""
        connection = self.connect()
        cluster = KubernetesCluster(connection, cache=Path(self.directory) / "cache")
        known = [body for body in (AFTER if self.after else BEFORE) if not self.kinds or body["kind"] in self.kinds]
        wanted = desired(*known)
        allowed = Allowed(empty=True, weaken=True, max_delete=MaxDelete.of("100%"))
        outcome = pipeline.apply(
            cluster,
            cluster,
            lambda: pipeline.prepare(cluster, wanted, allowed=allowed),
            locking=self.locking(),
            writing=self.writing(),
            journalling=self._journalling(connection),
        )
        return int(outcome.code)

    def recover(self) -> int:
        """Take back what is left of earlier runs; gives the exit code."""
        connection = self.connect()
        cluster = KubernetesCluster(connection, cache=Path(self.directory) / "cache")
        settings = RecoverSettings(
            locking=self.locking(),
            journalling=self._journalling(connection),
            writing=self.writing(),
            echo=lambda lines: sys.stderr.writelines(f"{line}\n" for line in lines),
        )
        return int(recover_command.recover(cluster, cluster, settings))

    def _journalling(self, connection: Connection) -> Journalling:
        return Journalling(store=self.store(connection), key=Key(self.secret.encode()))

    def with_(self, **different: object) -> Run:
        """The same run but for that."""
        return replace(self, **different)  # type: ignore[arg-type] # names are checked at run time


class Killable(Protocol):
    """What a run has to have: a dataclass that says where its child writes its process id."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def pid_file(self) -> Path:
        """See `Run`."""
        ...


class Runs:
    """The program that forks runs, this one by default; a context manager."""

    def __init__(self, program: str = "tests.support.killed_runs") -> None:
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", program],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, run: Killable) -> int:
        """Run it to its end: its exit code, or the signal that killed it as a negative number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(run)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def kill(run: Killable) -> None:
    """SIGKILL to the run."""
    os.kill(int(run.pid_file.read_text()), signal.SIGKILL)


def _child(described: dict[str, Any]) -> int:
    run = Run(**described)
    journal_format.CHUNK_BYTES = run.chunk_bytes  # type: ignore[misc] # so that there are several
    return run.recover() if run.recovers else run.make()


def serve(child: Callable[[dict[str, Any]], int]) -> None:
    """Fork a child for each line, which describes a run, and say how it ended."""
    for line in sys.stdin:
        described = json.loads(line)
        process = os.fork()
        if process == 0:
            code = 1
            try:
                (Path(described["directory"]) / PID_FILE).write_text(str(os.getpid()))
                logs.configure(sys.stderr, "error")
                code = child(described)
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


if __name__ == "__main__":
    serve(_child)
