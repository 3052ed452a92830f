"""CronJobs to run on demand, the runner's account with the chart's rights, and the runner as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pytest

from ci.soak import CHART_RULES, granted
from ci.testbed.controlplane import ControlPlane
from renderer.manifest.jsontypes import JsonObject
from renderer.report_types import REPORT_TYPES
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.programs import CLUSTER, ORGANIZATION, TOKEN, Programs, measured

SECONDS: Final = 60.0
#: What it can use beyond that.
MORE_RULES: Final[list[JsonObject]] = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]},
]
_BATCH: Final = f"/apis/batch/v1/namespaces/{AGENT_NAMESPACE}"
_CORE: Final = f"/api/v1/namespaces/{AGENT_NAMESPACE}"
#: No node has it, so that a test decides how such a pod goes.
HELD: Final = {"nodeSelector": {"held": "by-the-test"}}


def cron_job(name: str, *, pod: Mapping[str, Any] | None = None, **job: Any) -> JsonObject:
    """A CronJob whose schedule never fires; `pod` and `job` are more of its pod's and its Job's spec."""
    container = {
        "name": name,
        "image": "example.invalid/none:1",
        "env": [{"name": "FIRST", "value": "1"}, {"name": "SECOND", "value": "2"}],
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [container], **(pod or {})}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": AGENT_NAMESPACE},
        "spec": {
            "schedule": "0 0 31 2 *",
            "jobTemplate": {"metadata": {"labels": {"app": name}}, "spec": {"template": template, **job}},
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsBed:
    """A control plane on which Jobs run, with the namespace of the chart."""

    plane: ControlPlane

    def apply(self, document: JsonObject) -> JsonObject:
        """Create or replace it."""
        self.plane.api.apply(document)
        return self.plane.api.call("GET", self.plane.api.path_of(document))

    def jobs(self) -> dict[str, JsonObject]:
        """All Jobs by name."""
        return {job["metadata"]["name"]: job for job in self.plane.api.call("GET", f"{_BATCH}/jobs")["items"]}

    def pods_of(self, job: str) -> list[JsonObject]:
        """The Job's pods."""
        selector = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        return list(self.plane.api.call("GET", f"{_CORE}/pods", params=selector)["items"])

    def set_pod_status(self, job: str, status: JsonObject) -> None:
        """Have the only pod of a held Job be as the kubelet would say it is."""
        (pod,) = until(lambda: self.pods_of(job), f"a pod of {job}")
        path = f"{_CORE}/pods/{pod['metadata']['name']}/status"
        self.plane.api.call("PATCH", path, {"status": status}, content_type="application/merge-patch+json")

    def patch(self, path: str, body: JsonObject) -> JsonObject:
        """A merge patch to something of batch/v1 in the namespace, say jobs/NAME/status."""
        content = "application/merge-patch+json"
        return self.plane.api.call("PATCH", f"{_BATCH}/{path}", body, content_type=content)

    def delete_job(self, name: str) -> None:
        """Delete it with its pods."""
        self.plane.api.call("DELETE", f"{_BATCH}/jobs/{name}", params={"propagationPolicy": "Background"})

    def record(self) -> JsonObject:
        """What the runner keeps; empty when there is nothing."""
        answer = self.plane.api.ask("GET", f"{_CORE}/configmaps/on-demand-job-runner-record")
        document: JsonObject = json.loads(answer.json()["data"]["record.json"]) if answer.ok else {}
        return document

    def wipe(self) -> None:
        """Delete all that a test may have made."""
        for path in (f"{_BATCH}/cronjobs", f"{_BATCH}/jobs", f"{_CORE}/pods", f"{_CORE}/resourcequotas"):
            self.plane.api.call("DELETE", path, params={"propagationPolicy": "Background"})
        self.plane.api.ask("DELETE", f"{_CORE}/configmaps/on-demand-job-runner-record")
        until(lambda: not self.jobs(), "the Jobs are gone")


def until(found: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Ask until the answer is true, and give it; it fails when that takes unreasonably long."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"not seen within {seconds:.0f} s: {what}"
        time.sleep(0.05)
    return answer


@pytest.fixture
def jobs_bed(jobs_plane: ControlPlane) -> JobsBed:
    """`jobs_plane` without CronJobs, Jobs and record."""
    bed = JobsBed(plane=jobs_plane)
    bed.wipe()
    return bed


@pytest.fixture
def all_cron_jobs(jobs_bed: JobsBed) -> JobsBed:
    """The same with a CronJob for each report type, whose pods complete."""
    for name in REPORT_TYPES:
        jobs_bed.apply(cron_job(name))
    return jobs_bed


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerProgram:
    """The runner as the image runs it, with the chart's environment and account."""

    programs: Programs
    bed: JobsBed

    def with_(self, **variables: str) -> RunnerProgram:
        """The same with more variables, or others."""
        return RunnerProgram(programs=self.programs.with_(**variables), bed=self.bed)

    def without(self, *names: str) -> RunnerProgram:
        """The same without those variables."""
        return RunnerProgram(programs=self.programs.without(*names), bed=self.bed)

    def start(self) -> Running:
        """Start it; `Running` ends it as a context manager."""
        return Running(self.programs)


class Running:
    """A program that stays, the runner unless told otherwise: its log is read from a file, so that it never blocks."""

    def __init__(self, programs: Programs, *command: str) -> None:
        number = len(list(programs.directory.glob("runner-*.log")))
        self.path = programs.directory / f"runner-{number}.log"
        with self.path.open("w") as log:
            self.process = programs.start(*(command or ("on-demand-job-runner",)), stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if kind:
            print(self.path.read_text())
        shown = self.path.read_text()
        assert "Traceback" not in shown, shown
        assert TOKEN not in shown, shown

    def lines(self) -> list[JsonObject]:
        """What it logged so far, whole lines only."""
        whole = self.path.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def said(self, message: str, **values: Any) -> JsonObject | None:
        """The first line with that message and those values, if it was logged."""
        for line in self.lines():
            if line["msg"] == message and all(line.get(name) == value for name, value in values.items()):
                return line
        return None

    def wait_for(self, message: str, **values: Any) -> JsonObject:
        """Wait until such a line is logged."""
        line: JsonObject = until(lambda: self.said(message, **values), f"{message} {values}")
        return line

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@pytest.fixture
def runner(
    jobs_plane: ControlPlane, jobs_bed: JobsBed, insights: InsightsStandIn, tmp_path: Path, offline: Programs
) -> Iterator[RunnerProgram]:
    """The runner, with exactly the chart's rights; it polls often."""
    environment = {name: offline.environment[name] for name in ("PATH", "HOME", "PYTHONPATH", "PYTHONWARNINGS")}
    programs = Programs(
        directory=tmp_path,
        environment={
            **environment,
            **measured(),
            "KUBECONFIG": str(jobs_plane.directory.kubeconfig_of("worker")),
            "HOST": insights.url,
            "ORGANIZATION": ORGANIZATION,
            "CLUSTER": CLUSTER,
            "TOKEN": TOKEN,
            "POLL_INTERVAL": "200ms",
            "NAMESPACE": AGENT_NAMESPACE,
            "INSIGHTS_LEAD_TIMEOUT": "2s",
        },
    )
    with granted(jobs_plane, "runner", CHART_RULES):
        yield RunnerProgram(programs=programs, bed=jobs_bed)


@pytest.fixture
def more_rights(jobs_plane: ControlPlane) -> Iterator[None]:
    """The account may also list and watch Jobs, and list pods and events."""
    with granted(jobs_plane, "runner-more", MORE_RULES):
        yield
