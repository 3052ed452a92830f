"""The files of the pipeline stages by themselves: schemas, lints, and the rights and secrets of each job."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forges import PROJECT, REPOSITORY
from tests.support.pipelines import ACTION, STAGES, TEMPLATE, WORKFLOW, Names, matches, read
from tests.support.tools import tool

_USES = re.compile(r"(?m)^\s*(?:- )?uses: (.*)$")
_PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def checked(name: str | Path, *arguments: str | Path) -> None:
    """Run a linter, of the environment unless it is a path; it must find nothing."""
    program = Path(sys.executable).parent / name
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_files_are_what_their_schemas_say() -> None:
    builtin = ("check-jsonschema", "--builtin-schema")
    checked(*builtin, "vendor.github-workflows", WORKFLOW)
    checked(*builtin, "custom.github-workflows-require-timeout", WORKFLOW)
    checked(*builtin, "vendor.github-actions", ACTION)
    checked(*builtin, "vendor.gitlab-ci", TEMPLATE)


@pytest.mark.tool
def test_actionlint_finds_nothing_in_any_workflow() -> None:
    # The commit of the workflow that was called is newer than this linter.
    newer = r'property "workflow_(repository|sha)" is not defined'
    workflows = sorted(WORKFLOW.parent.glob("*.y*ml"))
    assert {"ci.yml", "policies.yml", "release.yml"} <= {path.name for path in workflows}
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked(tool("actionlint"), f"-shellcheck={shellcheck}", "-ignore", newer, *workflows)


@pytest.mark.tool
def test_actionlint_reads_scripts_too(tmp_path: Path) -> None:
    workflow = tmp_path / "wrong.yml"
    workflow.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: echo $HOME}]}}\n")
    shellcheck = Path(sys.executable).with_name("shellcheck")
    ended = subprocess.run(
        [tool("actionlint"), f"-shellcheck={shellcheck}", workflow], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "SC2086" in ended.stdout


def test_shellcheck_finds_nothing() -> None:
    checked("shellcheck", STAGES / "insights-stage")


def test_every_action_is_pinned_by_its_commit() -> None:
    uses = [found for file in (WORKFLOW, ACTION) for found in _USES.findall(file.read_text())]
    assert len(uses) > 6
    for one in uses:
        assert one.startswith("./.insights-stage/") or _PINNED.fullmatch(one), one
    # One version of each, wherever it is used.
    assert len({one for one in uses if "actions/checkout@" in one}) == 1


def test_no_script_holds_an_expression_and_no_secret_leaves_the_environment() -> None:
    for step in [*read(ACTION)["runs"]["steps"], *(s for job in read(WORKFLOW)["jobs"].values() for s in job["steps"])]:
        assert "${{" not in step.get("run", "")
    for job in read(TEMPLATE).values():
        assert not [line for line in job.get("script", []) if re.search(r"\$(?!\{?STAGE_)", line)]


def test_each_job_has_the_rights_it_uses_and_no_more() -> None:
    workflow = read(WORKFLOW)
    assert list(workflow["on"]) == ["workflow_call"]
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "render": {"contents": "write", "pull-requests": "write"},
        "plan": {"contents": "read", "pull-requests": "write"},
        "apply": {"actions": "read", "contents": "read", "pull-requests": "read"},
    }
    secrets = {name: set(re.findall(r"secrets\.([\w-]+)", json.dumps(job))) for name, job in workflow["jobs"].items()}
    assert secrets == {
        "render": {"insights-token", "forge-token"},
        "plan": {"plan-kubeconfig"},
        "apply": {"apply-kubeconfig", "journal-key"},
    }
    for job in workflow["jobs"].values():
        assert job["concurrency"]["group"]
        checkouts = [step for step in job["steps"] if step["uses"].startswith("actions/checkout@")]
        assert {step["with"]["persist-credentials"] for step in checkouts} == {"false"}
    for name, job in read(TEMPLATE).items():
        if name.startswith("insights-"):
            assert job["timeout"], name
            assert job["environment"]["name"] == name, "so that no job gets the secrets of another"


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_a_fork_starts_nothing(name: str) -> None:
    if name == "github":
        pull = {"head": {"repo": {"full_name": "mallory/policies"}}}
        names = Names(
            values={"github": {"event_name": "pull_request", "repository": REPOSITORY, "event": {"pull_request": pull}}}
        )
        assert not [job for job in read(WORKFLOW)["jobs"].values() if names.holds(job)]
    else:
        variables = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_PROJECT_ID": PROJECT}
        variables["CI_MERGE_REQUEST_SOURCE_PROJECT_ID"] = "8"
        jobs = [job for job in read(TEMPLATE).values() if "rules" in job]
        assert not [job for job in jobs if any(matches(rule["if"], variables) for rule in job["rules"])]
