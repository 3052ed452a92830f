"""A snapshot's writer may die at any step, and kubectl reads the folder as it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.errors import ExitCode
from renderer.render import Source, render
from tests.support.programs import Programs
from tests.support.tools import tool

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "policies"


@pytest.mark.parametrize("way", ["exchange", "in-place"])
def test_killed_at_any_step_the_directory_is_as_before_or_as_after(tmp_path: Path, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.interrupted_writes", str(tmp_path), way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted = re.fullmatch(r"(\d+) kills, (\d+) refused until rendered again\n", done.stdout)
    assert counted
    assert int(counted[1]) > 20
    assert (int(counted[2]) > 0) is (way == "in-place")


@pytest.mark.cluster
def test_kubectl_accepts_the_folder(cluster: ControlPlane, tmp_path: Path) -> None:
    done = subprocess.run(
        [tool("kubectl"), "apply", "-k", str(BASELINE / "snapshot"), "--dry-run=server", "-o", "name"],
        # kubectl keeps what the server publishes below HOME.
        env={"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    missing = [line for line in done.stderr.splitlines() if "namespaces" not in line and "Warning" not in line]
    assert done.returncode == 0, missing
    assert len(done.stdout.splitlines()) == len(snapshot.read(BASELINE / "snapshot").policies)


def test_the_committed_baseline_is_what_a_recorded_answer_renders_byte_for_byte() -> None:
    recorded = (Path(__file__).parent / "data" / "baseline-answer.yaml").read_bytes()
    files = snapshot.render_files(
        render([Source(name="Insights", data=recorded)]), organization="acme", cluster="baseline"
    )
    committed = {
        path.relative_to(BASELINE / "snapshot").as_posix(): path.read_bytes()
        for path in (BASELINE / "snapshot").rglob("*")
        if path.is_file()
    }
    assert committed == dict(files.contents)


def test_the_committed_baseline_is_what_its_sources_render() -> None:
    sources = [Source(name=str(path), data=path.read_bytes()) for path in (BASELINE / "sources").rglob("*.yaml")]
    files = snapshot.render_files(render(sources), organization="acme", cluster="baseline")
    assert files.digest == snapshot.read(BASELINE / "snapshot").digest


def test_check_names_what_is_wrong_and_show_lists_what_is_there(offline: Programs) -> None:
    directory = offline.directory / "snapshot"
    shutil.copytree(BASELINE / "snapshot", directory)
    checked = offline.run("insights-renderer", "check", str(directory))
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("47 policies for cluster baseline of acme")
    shown = offline.run("insights-renderer", "show", str(directory)).stdout.splitlines()
    assert shown[0].split() == ["KIND", "NAMESPACE", "NAME", "ENFORCES", "TITLE"]
    assert len(shown) == 1 + 47 + 1
    (row,) = [line for line in shown if " pod-security-restricted " in line]
    assert row.split(maxsplit=3) == ["ClusterPolicy", "pod-security-restricted", "yes", "Restricted pods on request"]
    (directory / "clusterpolicies.kyverno.io" / "pod-security-restricted.yaml").write_text("a: 1\n")
    (directory / "extra.yaml").write_text("a: 1\n")
    for command in ("check", "show"):
        done = offline.run("insights-renderer", command, str(directory))
        assert done.returncode == ExitCode.INPUT
        assert "pod-security-restricted.yaml: was edited" in done.stderr
        assert "extra.yaml: is not listed" in done.stderr
