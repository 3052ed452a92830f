"""Runs many on-demand jobs on a real control plane while runners are killed, stopped and followed by others."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ci.testbed.controlplane import ControlPlane
from ci.testbed.paths import ROOT
from renderer.errors import Failure
from renderer.job_manifest import LABEL_REQUEST, LABEL_TYPE
from renderer.manifest.jsontypes import JsonObject
from renderer.report_types import REPORT_TYPES
from tests.support.insights import InsightsStandIn

NAMESPACE: Final = "insights-agent"

#: What the chart grants the runner, and nothing else.
CHART_RULES: Final[list[JsonObject]] = [
    {"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["get"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "create"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]},
]

_RBAC: Final = "rbac.authorization.k8s.io"
_TOKEN: Final = "soak-token"  # noqa: S105 - of the stand-in
_BATCH: Final = f"/apis/batch/v1/namespaces/{NAMESPACE}"
#: Types whose Jobs fail, and one that has no CronJob.
_FAILING: Final = frozenset({"falco", "kube-bench", "nova", "gonogo"})
_MISSING: Final = "kube-hunter"
_UNKNOWN: Final = "unheard-of"
_POLL_SECONDS: Final = 0.2
#: Silence of so long is the end of a soak that goes on no more.
_STUCK_SECONDS: Final = 180.0
_LOOK_SECONDS: Final = 0.1
#: A runner is left at work for so many jobs at most.
_MOST: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How it went. `wrong` holds a line for each job that was not told as it ended, or ran twice, or beside its like.

    `unknown` are the ids of claims whose answer died with the process: nobody can know of them.
    """

    jobs: int
    lost: tuple[int, ...]
    doubled: tuple[str, ...]
    wrong: tuple[str, ...]
    unknown: tuple[int, ...]
    killed: int
    terminated: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether every job was told as it ended, once run."""
        return not (self.lost or self.doubled or self.wrong)

    def lines(self) -> Iterator[str]:
        """The result for people; the last line sums it up."""
        yield from self.wrong
        yield from self.doubled
        if self.lost:
            yield f"lost: {', '.join(map(str, self.lost))}"
        yield (
            f"{self.killed} runners killed, {self.terminated} terminated, in {self.seconds:.0f} s; "
            f"claims whose answer died with the process: {len(self.unknown)}"
        )
        yield f"{self.jobs} jobs, {len(self.lost)} lost, {len(self.doubled)} doubled"


@dataclass(slots=True)
class _Seen:
    """The Jobs that were ever seen, by name, and what was wrong with them."""

    uids: dict[str, set[str]] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)

    def look(self, jobs: list[JsonObject]) -> None:
        running: dict[str, list[str]] = {}
        for job in jobs:
            name, labels = job["metadata"]["name"], job["metadata"]["labels"]
            self.uids.setdefault(name, set()).add(job["metadata"]["uid"])
            if not any(condition["type"] in ("Complete", "Failed") for condition in _conditions(job)):
                running.setdefault(labels[LABEL_TYPE], []).append(name)
        self.beside |= {f"at once: {', '.join(sorted(names))}" for names in running.values() if len(names) > 1}


def soak(
    plane: ControlPlane,
    *,
    jobs: int,
    seed: int,
    directory: Path,
    most: int = _MOST,
    report: Callable[[str], None] = lambda _line: None,
) -> Result:
    """Run so many jobs, by runners with no more rights than the chart grants; their logs go to `directory`.

    One is ended, in one way or another, when it has told of `most` jobs at the latest. Raises Failure when nothing goes
    on any more.
    """
    chance = random.Random(seed)  # noqa: S311 - a soak that can be run again
    for document in _cron_jobs():
        plane.api.apply(document)
    started = time.monotonic()
    with (
        granted(plane, "soak", CHART_RULES),
        InsightsStandIn(token=_TOKEN, organization="acme", clusters=["prod"]) as insights,
    ):
        kinds = [*REPORT_TYPES, *sorted(_FAILING), _MISSING, _UNKNOWN]
        types = {insights.enqueue_job(name): name for name in chance.choices(kinds, k=jobs)}
        runners = _Runners(insights.url, plane.directory.kubeconfig_of("worker"), directory)
        seen = _Seen()
        with _watched(plane, seen):
            ends = _work(plane, insights, runners, chance, most, report)
        told = insights.job_statuses
    unknown = tuple(job_id for job_id in types if not told[job_id] and not _was_made(types[job_id], job_id, seen))
    return _judged(types, told, seen, unknown, ends=ends, seconds=time.monotonic() - started)


@dataclass(slots=True)
class _Ends:
    """How runners were ended."""

    killed: int = 0
    terminated: int = 0

    def end(self, process: subprocess.Popen[bytes], *, kill: bool) -> None:
        """End one, and wait until it is gone."""
        if kill:
            self.killed += 1
            process.kill()
        else:
            self.terminated += 1
            process.terminate()
        process.wait()


def _work(
    plane: ControlPlane,
    insights: InsightsStandIn,
    runners: _Runners,
    chance: random.Random,
    most: int,
    report: Callable[[str], None],
) -> _Ends:
    """Start runner after runner until all is done."""
    ends = _Ends()
    running = [runners.start()]
    try:
        while not _goes_on_until(plane, insights, chance.randint(1, most)):
            # Wherever in its turn it is by then.
            time.sleep(chance.uniform(0, 2 * _POLL_SECONDS))
            report(f"{_told(insights)} jobs told, {ends.killed} runners killed, {ends.terminated} terminated")
            # Sometimes the next one is there first, as in a rolling update.
            overlaps = chance.random() < 0.5
            if overlaps:
                running.append(runners.start())
            ends.end(running.pop(0), kill=chance.random() < 0.5)
            if not overlaps:
                running.append(runners.start())
    finally:
        for process in running:
            process.kill()
            process.wait()
    return ends


def _goes_on_until(plane: ControlPlane, insights: InsightsStandIn, more: int) -> bool:
    """Wait until so many more jobs are told of, however slow the machine is; True when all are done."""
    goal = _told(insights) + more
    told, since = -1, time.monotonic()
    while not _is_done(plane, insights):
        if _told(insights) >= goal:
            return False
        if _told(insights) != told:
            told, since = _told(insights), time.monotonic()
        if time.monotonic() - since > _STUCK_SECONDS:
            raise Failure(f"Nothing happened for {_STUCK_SECONDS:.0f} s; {told} jobs were told.")
        time.sleep(_LOOK_SECONDS)
    return True


def _told(insights: InsightsStandIn) -> int:
    return sum(bool(_final(statuses)) for statuses in insights.job_statuses.values())


def _is_done(plane: ControlPlane, insights: InsightsStandIn) -> bool:
    """Whether nothing waits in Insights, and nothing is on record."""
    if insights.waiting_jobs:
        return False
    answer = plane.api.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/on-demand-job-runner-record")
    return answer.ok and '"id"' not in answer.json()["data"]["record.json"]


def _judged(
    types: dict[int, str],
    told: dict[int, list[str]],
    seen: _Seen,
    unknown: tuple[int, ...],
    *,
    ends: _Ends,
    seconds: float,
) -> Result:
    lost = tuple(job_id for job_id in types if job_id not in unknown and not _final(told[job_id]))
    wrong = [
        f"job {job_id} ({types[job_id]}) was told {statuses}"
        for job_id, statuses in told.items()
        if job_id not in unknown and set(_final(statuses)) - {_expected(types[job_id])}
    ]
    doubled = [f"made twice: {name}" for name, uids in seen.uids.items() if len(uids) > 1]
    return Result(
        jobs=len(types),
        lost=lost,
        doubled=(*doubled, *sorted(seen.beside)),
        wrong=tuple(wrong),
        unknown=unknown,
        killed=ends.killed,
        terminated=ends.terminated,
        seconds=seconds,
    )


def _final(statuses: list[str]) -> list[str]:
    return [status for status in statuses if status != "running"]


def _expected(report_type: str) -> str:
    return "failed" if report_type in _FAILING | {_MISSING, _UNKNOWN} else "completed"


def _was_made(report_type: str, job_id: int, seen: _Seen) -> bool:
    return f"{report_type}-on-demand-{job_id}" in seen.uids


class _Runners:
    """Starts runners, each with a log of its own."""

    def __init__(self, url: str, kubeconfig: Path, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "KUBECONFIG": str(kubeconfig),
            "HOST": url,
            "ORGANIZATION": "acme",
            "CLUSTER": "prod",
            "TOKEN": _TOKEN,
            "NAMESPACE": NAMESPACE,
            "POLL_INTERVAL": f"{_POLL_SECONDS}s",
            "MAX_CONCURRENT_JOBS": "17",
            "INSIGHTS_LEAD_TIMEOUT": "1s",
        }

    def start(self) -> subprocess.Popen[bytes]:
        """A new one."""
        path = self.directory / f"runner-{next(self._numbers)}.log"
        with path.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "applier.entrypoint"],
                cwd=self.directory,
                env={**self._environment, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def _watched(plane: ControlPlane, seen: _Seen) -> Iterator[None]:
    """Look at the Jobs until the block ends, and once more then: none goes before its TTL of minutes is over."""
    ended = threading.Event()

    def look() -> None:
        answer = plane.api.call("GET", f"{_BATCH}/jobs", params={"labelSelector": LABEL_REQUEST})
        seen.look(answer["items"])

    def watch() -> None:
        while not ended.wait(1.0):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    look()


@contextmanager
def granted(plane: ControlPlane, name: str, rules: list[JsonObject]) -> Iterator[None]:
    """Within the block the account `worker` may do that in the namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    plane.api.apply({"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    binding = {
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": "worker"}],
    }
    plane.api.apply({"apiVersion": f"{_RBAC}/v1", "kind": "RoleBinding", "metadata": metadata, **binding})
    yield
    for plural in ("rolebindings", "roles"):
        plane.api.call("DELETE", f"/apis/{_RBAC}/v1/namespaces/{NAMESPACE}/{plural}/{name}")


def _cron_jobs() -> Iterator[JsonObject]:
    for name in REPORT_TYPES:
        if name != _MISSING:
            yield cron_job(name, fails=name in _FAILING)


def cron_job(name: str, *, fails: bool = False) -> JsonObject:
    """A CronJob whose schedule never fires, and whose Jobs complete, or fail."""
    stage = "pod-container-running-failed.stage.kwok.x-k8s.io"
    metadata = {
        "labels": {"app": name, **({stage: "true"} if fails else {})},
        "annotations": {f"{stage}/delay": "20ms", f"{stage}/jitter-delay": "30ms"} if fails else {},
    }
    container = {"name": name, "image": "example.invalid/none:1"}
    pod = {"metadata": metadata, "spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"schedule": "0 0 31 2 *", "jobTemplate": {"spec": {"backoffLimit": 0, "template": pod}}},
    }


def _conditions(job: JsonObject) -> list[JsonObject]:
    return [one for one in job["status"].get("conditions") or () if one["status"] == "True"]
