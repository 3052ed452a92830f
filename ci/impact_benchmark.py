"""Times `plan --impact` beside a bare `kyverno apply` of the same documents, and weighs the memory of both."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from applier.change import Action, Change, Plan
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.impact import versions
from applier.verdict import Verdict
from ci.benchmarks import policies as real
from ci.testbed import paths
from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.errors import ExitCode, Failure
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import JsonObject
from tests.support import workloads as shapes

TOOLS: Final = ("etcd", "kube-apiserver", "kyverno")
POLICIES: Final = 60
_BARE: Final = "kyverno apply"
_NAMESPACES: Final = 50
_SAMPLE_SECONDS: Final = 0.05
_KYVERNO: Final = paths.BINARIES / "kyverno"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: its wall clock, and the most memory that it had at once, of which that of the kyverno CLI."""

    seconds: float
    peak_mb: float
    kyverno_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The runs by what was run; the first is the bare kyverno CLI."""

    workloads: int
    policies: int
    runs: Mapping[str, Sequence[Run]]

    def lines(self) -> Iterator[str]:
        """The figures for people."""
        yield f"{self.workloads} workloads × {self.policies} policies, {os.cpu_count()} cores"
        yield f"  {'':<24} {'median':>8} {'min':>8} {'max':>8} {'ratio':>6} {'peak':>8} {'kyverno':>8}"
        floor = _median(next(iter(self.runs.values())))
        for name, found in self.runs.items():
            seconds = [one.seconds for one in found]
            peak, kyverno = max(one.peak_mb for one in found), max(one.kyverno_mb for one in found)
            yield (
                f"  {name:<24} {_median(found):7.1f}s {min(seconds):7.1f}s {max(seconds):7.1f}s "
                f"{_median(found) / floor:6.2f} {peak:5.0f} MB {kyverno:5.0f} MB"
            )


def _median(found: Sequence[Run]) -> float:
    return statistics.median(one.seconds for one in found)


def measure(directory: Path, *, workloads: int, runs: int) -> Figures:
    """Evaluate new policies on so many workloads: in a directory, and in a cluster of its own.

    Raises Failure when a run does not end as it should, or leaves something out.
    """
    bodies = list(_workloads(workloads))
    _write_all(directory / "manifests", [*_namespaces(), *bodies], per_file=500)
    # The bare CLI gets them as one file.
    _write_all(directory / "together", bodies, per_file=len(bodies))
    (directory / "nothing.json").write_text('{"apiVersion": "v1", "kind": "List", "items": []}\n')
    with ControlPlane.start(directory / "cluster") as plane:
        adapter = KubernetesCluster(Connection.open(kubeconfig=str(plane.kubeconfig)))
        wanted = real.multiplied(real.accepted(adapter, fits=_is_evaluated, most=POLICIES), POLICIES)
        snapshot.write(directory / "snapshot", snapshot.render_files(wanted, organization="acme", cluster="bench"))
        for body in _namespaces():
            plane.api.apply(body)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(plane.api.apply, bodies))
        found: dict[str, list[Run]] = {}
        for _ in range(runs):
            for name, command in _commands(directory).items():
                found.setdefault(name, []).append(_timed(name, command, directory, plane.kubeconfig, workloads))
    return Figures(workloads=workloads, policies=POLICIES, runs=found)


def _commands(directory: Path) -> dict[str, list[str]]:
    """What takes turns; the bare CLI first."""
    files = sorted((directory / "snapshot" / "clusterpolicies.kyverno.io").glob("*.yaml"))
    bare = [str(_KYVERNO), "apply", *map(str, files), "--resource", str(directory / "together" / "0.yaml")]
    plan = [str(Path(sys.executable).parent / "insights-applier"), "plan", "snapshot", "-q", "-o", "json"]
    plan += ["--impact-timeout=2h"]
    return {
        _BARE: [*bare, "--policy-report", "--output-format=json"],
        "plan --impact=DIR": [*plan, "--against=nothing.json", "--impact=manifests"],
        "plan --impact": [*plan, "--impact=cluster"],
    }


def _timed(name: str, command: Sequence[str], directory: Path, kubeconfig: Path, workloads: int) -> Run:
    environment = {
        "PATH": f"{paths.BINARIES}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(directory),
        "KUBECONFIG": str(kubeconfig),
        "INSIGHTS_VALIDATION_CACHE": "false",
    }
    printed = directory / "printed"
    started = time.perf_counter()
    with (
        printed.open("wb") as stdout,
        subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE
        ) as program,
    ):
        weighed = _Weighed(program.pid)
        _, complaints = program.communicate()
        seconds = time.perf_counter() - started
        peak, kyverno = weighed.end()
    # With 1, the bare CLI says that something fails.
    if program.returncode not in ((0, 1) if name == _BARE else (ExitCode.CHANGES,)):
        raise Failure(f"{name} exited with {program.returncode}: {complaints.decode()[-600:]}")
    if name != _BARE:
        _require_whole(name, json.loads(printed.read_bytes())["impact"], workloads)
    return Run(seconds=seconds, peak_mb=peak, kyverno_mb=kyverno)


def _require_whole(name: str, impact: JsonObject, workloads: int) -> None:
    """Raise Failure unless something was found on all of the workloads: less work takes less time."""
    if impact["resources"] < workloads or not impact["affected"]:
        raise Failure(f"{name} evaluated {impact['resources']} resources of {workloads}: {impact['notEvaluated']}")


class _Weighed:
    """The most memory that a process and its children had at once, looked at until the end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = self._kyverno = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            used = {pid: _resident_mb(pid) for pid in (self._pid, *_children(self._pid))}
            self._peak = max(self._peak, sum(used.values()))
            self._kyverno = max(self._kyverno, sum(mb for pid, mb in used.items() if _is_kyverno(pid)))

    def end(self) -> tuple[float, float]:
        """MB of all of it, and of the kyverno CLI."""
        self._ended.set()
        self._thread.join()
        return self._peak, self._kyverno


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _resident_mb(pid: int) -> float:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0


def _is_kyverno(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "kyverno"
    return False


# --- what is evaluated -----------------------------------------------------------------------------


def _is_evaluated(policy: Policy) -> bool:
    """Whether all of the policy can be evaluated, by nothing but the kyverno CLI."""
    made = Change(identity=policy.identity, action=Action.CREATE, after=policy.body)
    found = versions.of_plan(Plan(changes=(made,)), {}, Verdict())
    return bool(found.changed) and not found.not_evaluated


def _namespaces() -> Iterator[JsonObject]:
    for number in range(_NAMESPACES):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns-{number:02}"}}


def _workloads(count: int) -> Iterator[JsonObject]:
    """So many, good and bad, of kinds that every policy for Pods looks at."""
    kinds = ("Pod", "Deployment", "CronJob")
    made = [one for one in shapes.workloads() if one["kind"] in kinds and one["metadata"]["namespace"] == "shop"]
    for number in range(count):
        body = made[number % len(made)]
        names = {"name": f"{body['metadata']['name']}-{number:05}", "namespace": f"ns-{number % _NAMESPACES:02}"}
        yield {**body, "metadata": {**body["metadata"], **names}}


def _write_all(directory: Path, bodies: Sequence[JsonObject], *, per_file: int) -> None:
    directory.mkdir()
    for number, start in enumerate(range(0, len(bodies), per_file)):
        documents = (json.dumps(body) for body in bodies[start : start + per_file])
        (directory / f"{number}.yaml").write_text("\n---\n".join(documents) + "\n")
