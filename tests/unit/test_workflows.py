"""The project's own workflows and forms by themselves: their schemas, pins and rights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
_GITHUB: Final = ROOT / ".github"
_WORKFLOWS: Final = ("ci.yml", "release.yml")
_USES: Final = re.compile(r"(?m)^\s*(?:- )?uses: (.*)$")
_PINNED: Final = re.compile(r"([\w-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+")
#: Every right beyond reading the source, and who needs it.
_RIGHTS: Final = {
    "ci.yml": {"test": {}, "oldest": {}, "audit": {}},
    "release.yml": {
        "build": {},
        "attest": {"id-token": "write", "attestations": "write"},
        "image": {"id-token": "write", "attestations": "write"},
        "publish": {"id-token": "write"},
        "announce": {"contents": "write"},
    },
}


def read(name: str) -> dict[str, Any]:
    # As 1.2 reads it: `on` is a word.
    text = (_GITHUB / "workflows" / name).read_text()
    document: dict[str, Any] = yaml.safe_load(text.replace("\non:", '\n"on":'))
    return document


def checked(schema: str, *files: Path) -> None:
    """Validate by a schema that the checker carries."""
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([program, "--builtin-schema", schema, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_are_what_their_schemas_say() -> None:
    files = [_GITHUB / "workflows" / name for name in _WORKFLOWS]
    checked("vendor.github-workflows", *files)
    checked("custom.github-workflows-require-timeout", *files)
    checked("vendor.dependabot", _GITHUB / "dependabot.yml")


def test_every_action_is_pinned_by_its_commit_and_everywhere_by_the_same() -> None:
    pins: dict[str, set[str]] = {}
    for file in sorted(_GITHUB.rglob("*.yml")):
        for used in _USES.findall(file.read_text()):
            if used.startswith("./"):
                continue
            found = _PINNED.fullmatch(used)
            assert found, f"{file.name}: {used}"
            pins.setdefault(found[1], set()).add(found[2])
    assert pins
    assert {action for action, commits in pins.items() if len(commits) > 1} == set()


@pytest.mark.parametrize("name", _WORKFLOWS)
def test_each_job_has_the_rights_that_it_uses_and_no_more(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] == {}
    rights = {job: dict(body["permissions"]) for job, body in workflow["jobs"].items()}
    for held in rights.values():
        if held.get("contents") == "read":
            del held["contents"]
    assert rights == _RIGHTS[name]


@pytest.mark.parametrize("name", _WORKFLOWS)
def test_no_script_holds_an_expression_and_no_checkout_leaves_its_token(name: str) -> None:
    for job in read(name)["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_what_dependabot_looks_at_is_there() -> None:
    updates = yaml.safe_load((_GITHUB / "dependabot.yml").read_text())["updates"]
    for update in updates:
        for directory in update["directories"]:
            wanted = {"gomod": "go.mod", "github-actions": ".github" if directory == "/" else "action.yml"}
            assert (ROOT / directory.strip("/") / wanted[update["package-ecosystem"]]).exists(), directory
    assert {path.parent.name for path in (ROOT / "ci/toolchain").glob("*/go.mod")} == {
        directory.rpartition("/")[2] for directory in updates[1]["directories"]
    }


def test_the_hooks_run_what_is_there() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert programs == {".venv/bin/ruff", ".venv/bin/lint-imports", "ci/check"}
    for program in programs:
        assert (Path(sys.executable).parent / Path(program).name).exists() or (ROOT / program).exists()


def test_a_release_of_another_version_is_refused(tmp_path: Path) -> None:
    def refused(version: str) -> str:
        command = [str(ROOT / "ci/release"), str(tmp_path / "dist"), version]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 64, done.stdout + done.stderr
        return done.stderr

    assert refused("v99.0.0") == "Error: 99.0.0 is not the version in pyproject.toml.\n"
    assert not (tmp_path / "dist").exists()
