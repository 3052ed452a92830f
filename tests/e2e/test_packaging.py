"""The distributions: a wheel that is whole by itself, the same bytes from the tree and from the sdist."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Some moment, so that the archives hold no other.
_EPOCH: Final = "1700000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A wheel and the sdist beside it."""

    wheel: Path
    sdist: Path


def build(source: Path, out: Path, *targets: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(
        [*command, *(word for target in targets for word in ("-t", target))],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
        capture_output=True,
        check=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "sdist", "wheel")
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel=wheel, sdist=sdist)


def test_the_sdist_builds_the_same_wheel_to_the_byte(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "dist", "wheel")
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert (again.name, again.read_bytes()) == (built.wheel.name, built.wheel.read_bytes())


def test_the_wheel_holds_the_packages_whole_and_nothing_of_ci_or_tests(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    ours = {path for top in ("renderer", "applier") for path in (ROOT / top).rglob("*") if path.is_file()}
    wanted = {str(path.relative_to(ROOT)) for path in ours if "__pycache__" not in path.parts}
    assert wanted - names == set()
    tops = {name.partition("/")[0] for name in names - wanted}
    assert {top.partition("-")[0] for top in tops} == {"on_demand_job_runner"}
    licences = {name.rpartition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "applier/schemas/NOTICE"}


def test_it_runs_where_nothing_else_of_the_project_is(built: Built, tmp_path: Path) -> None:
    """Beside its dependencies, which ci/package installs by their pins: see test_image.py."""
    place = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", place, built.wheel], check=True, timeout=120)
    saved = tmp_path / "answer.yaml"
    saved.write_text(
        "".join(f"---\n{path.read_text()}" for path in sorted((ROOT / "policies/sources/images").glob("*.yaml")))
    )

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [place / "bin" / program, *arguments],
            env={"PYTHONPATH": str(place), "PATH": os.defpath, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for program in _PROJECT["scripts"]:
        assert run(program, "--version") == f"{program} {_PROJECT['version']}\n"
    names = ("--organization", "acme", "--cluster", "prod")
    run("insights-renderer", "render", "--from", str(saved), "--out", "snapshot", *names)
    run("insights-renderer", "check", "snapshot")
    settings = [f"--set={text}" for text in ("image=a:1", "organization=acme", "cluster=prod")]
    assert "kind: CronJob" in run("insights-renderer", "deploy", *settings)
    page = ("--report", "html=page.html", "--exit-zero")
    run("insights-applier", "plan", "snapshot", "--against", "snapshot", *page)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    offline = ("--offline", "--allow-unchecked", "--no-validate-policies")
    run("insights-applier", "validate", "snapshot", *offline)
    origin = subprocess.run(
        [sys.executable, "-P", "-c", "import applier, renderer; print(applier.__file__, renderer.__file__)"],
        env={"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert origin.stdout.count(str(place)) == 2, "what ran was the installed one"
