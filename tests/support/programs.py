"""Runs our programs as users do: as processes of their own, with an environment that is told whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from ci.testbed.controlplane import ControlPlane
from tests.support.insights import InsightsStandIn
from tests.support.tools import TOOLCHAIN

TOKEN = "tok-5f3e9a-never-shown"
ORGANIZATION = "acme"
CLUSTER = "prod"
_SECONDS = 240
_MODULES = {
    "insights-renderer": "renderer",
    "insights-applier": "applier",
    "on-demand-job-runner": "applier.entrypoint",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs, with the variables that they get."""

    environment: dict[str, str]
    directory: Path

    def with_(self, **variables: str) -> Programs:
        """The same with more variables, or others."""
        return Programs(environment={**self.environment, **variables}, directory=self.directory)

    def without(self, *names: str) -> Programs:
        """The same without those variables."""
        kept = {name: value for name, value in self.environment.items() if name not in names}
        return Programs(environment=kept, directory=self.directory)

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run to the end; whatever happens, no traceback and no token may be shown."""
        done = subprocess.run(
            self._command(command),
            env=self.environment,
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        shown = done.stdout + done.stderr
        assert "Traceback" not in shown, shown
        assert TOKEN not in shown, shown
        return done

    def start(
        self, *command: str, stdout: int | IO[str] = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start it, with pipes for what it prints unless told otherwise."""
        return subprocess.Popen(
            self._command(command),
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )

    def _command(self, command: tuple[str, ...]) -> list[str]:
        package = _MODULES[command[0]]
        return [sys.executable, "-m", package, *command[1:]]


def measured() -> dict[str, str]:
    """The variables by which a process takes part in measuring branches; none when nothing is measured."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


@pytest.fixture
def insights() -> Iterator[InsightsStandIn]:
    """A stand-in for Insights that knows one organization and one cluster."""
    with InsightsStandIn(token=TOKEN, organization=ORGANIZATION, clusters=[CLUSTER]) as server:
        yield server


@pytest.fixture
def offline(tmp_path: Path, insights: InsightsStandIn) -> Programs:
    """The programs with a stand-in for Insights and no cluster."""
    root = str(Path(__file__).resolve().parents[2])
    return Programs(
        directory=tmp_path,
        environment={
            "PATH": f"{TOOLCHAIN / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(tmp_path),
            "PYTHONPATH": root,
            "PYTHONWARNINGS": "error",
            "FAIRWINDS_INSIGHTS_HOST": insights.url,
            "FAIRWINDS_TOKEN": TOKEN,
            "FAIRWINDS_ORG": ORGANIZATION,
            "FAIRWINDS_CLUSTER": CLUSTER,
            **measured(),
        },
    )


@pytest.fixture
def programs(offline: Programs, cluster: ControlPlane) -> Programs:
    """The programs with a stand-in for Insights and an empty real cluster."""
    # Two workers share a machine, and so its lock file; the Lease of each cluster keeps runs on it apart.
    return offline.with_(KUBECONFIG=str(cluster.kubeconfig), INSIGHTS_LOCK_FILE=str(offline.directory / "sync.lock"))
