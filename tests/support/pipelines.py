"""Runs the very steps of the pipeline stages, as GitHub, GitLab and a plain shell run them, on this machine.

What a forge does by itself (checkout, artifacts, variables) is done here, and all else by the lines in the files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from tests.support.forges import PROJECT, REPOSITORY, Artifact, ForgeStandIn, Request, files_of
from tests.support.git_http import SECRET, USER, GitServer
from tests.support.programs import CLUSTER, ORGANIZATION, TOKEN, Programs
from tests.support.repositories import git

ROOT: Final = Path(__file__).parents[2]
STAGES: Final = ROOT / "ci" / "stages"
ACTION: Final = ROOT / ".github" / "actions" / "policies" / "action.yml"
WORKFLOW: Final = ROOT / ".github" / "workflows" / "policies.yml"
TEMPLATE: Final = STAGES / "gitlab.yml"
OUT: Final = "policies/prod"
_SECONDS: Final = 120
Json = Any


def read(path: Path) -> Json:
    """A file of YAML 1.2, as forges read it: `on` is a word."""
    document: Json = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended: the code of its first step that failed, or 0, and all that it printed."""

    code: int
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything that jobs meet: the programs with their cluster and Insights, the forge, and the remote repository."""

    programs: Programs
    forge: ForgeStandIn
    server: GitServer
    place: Path

    @property
    def remote(self) -> Path:
        return self.place / "remote.git"

    @property
    def url(self) -> str:
        """Where the remote is, without its `.git`."""
        return f"http://127.0.0.1:{self.server.port}/remote"

    def checkout(self, revision: str, *, login: str = "") -> Path:
        """A fresh work tree of that revision, detached, whose origin wants a login."""
        tree = self.place / "checkout"
        shutil.rmtree(tree, ignore_errors=True)
        git(self.place, "clone", "-q", str(self.remote), str(tree))
        git(tree, "checkout", "-q", "--detach", revision)
        git(tree, "remote", "set-url", "origin", f"{self.url}.git".replace("//", f"//{login}"))
        return tree

    def run(self, script: str, tree: Path, environment: Mapping[str, str]) -> Ended:
        """Run a step's lines as runners do; no token may be shown, nor stay on disk."""
        file = self.place / "script"
        file.write_text(script)
        done = subprocess.run(
            ["sh", "-e", str(file)],
            cwd=tree,
            env={**self._machine(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        keys = re.findall(r"(?:token|client-key-data): (\S+)", self.kubeconfig_text)
        assert keys or not self.kubeconfig_text
        for secret in (TOKEN, SECRET, *keys):
            assert secret not in done.stdout, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        assert list(self._temporary.iterdir()) == []
        assert self.server.seen == []
        return Ended(code=done.returncode, shown=done.stdout)

    @property
    def kubeconfig(self) -> str:
        return self.programs.environment["KUBECONFIG"]

    @property
    def kubeconfig_text(self) -> str:
        """What secrets hold; "" where there is no cluster."""
        return Path(self.kubeconfig).read_text() if "KUBECONFIG" in self.programs.environment else ""

    @property
    def path(self) -> str:
        """Where the programs are."""
        return os.pathsep.join([str(Path(sys.executable).parent), self.programs.environment["PATH"]])

    @property
    def _temporary(self) -> Path:
        place = self.place / "tmp"
        place.mkdir(exist_ok=True)
        return place

    def _machine(self) -> dict[str, str]:
        """The variables that every job finds; what a job needs besides, its CI has to give it."""
        given = ("FAIRWINDS_INSIGHTS_HOST", "FAIRWINDS_TOKEN", "FAIRWINDS_ORG", "FAIRWINDS_CLUSTER", "KUBECONFIG")
        machine = {"PATH": self.path, "TMPDIR": str(self._temporary), "GIT_CONFIG_NOSYSTEM": "1", "FORGE_USER": USER}
        return {**self.programs.without(*given).environment, **machine}

    def insights(self) -> dict[str, str]:
        """The variables of a job that renders."""
        return {name: value for name, value in self.programs.environment.items() if name.startswith("FAIRWINDS_")}


class Pipeline(Protocol):
    """The three steps on one CI."""

    def render(self) -> Ended:
        """On the schedule."""

    def plan(self, request: Request) -> Ended:
        """On a pull request, whose head is `request.head`."""

    def apply(self, commit: str) -> Ended:
        """On the merge, after which main is `commit`."""


# --- a plain shell ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Some other CI: the script, its variables, and a directory that keeps what was planned."""

    world: World
    kept: Path
    impact: str = ""

    def render(self) -> Ended:
        return self._run("render", "main", self.world.insights())

    def plan(self, request: Request) -> Ended:
        own = {"STAGE_REPORTS": str(self.kept), "KUBECONFIG": self.world.kubeconfig, "STAGE_IMPACT": self.impact}
        done = self._run("plan", request.head, own)
        self.world.forge.artifacts.append(Artifact(name="plan", head=request.head, files=files_of(self.kept)))
        return done

    def apply(self, commit: str) -> Ended:
        plan = {"INSIGHTS_PLAN": str(self.kept / "plan.json"), "KUBECONFIG": self.world.kubeconfig}
        return self._run("apply", commit, plan)

    def _run(self, step: str, revision: str, variables: Mapping[str, str]) -> Ended:
        tree = self.world.checkout(revision)
        own = {"PATH": f"{STAGES}:{self.world.path}", "FORGE_TOKEN": SECRET, **variables}
        return self.world.run(f"insights-stage {step} {OUT}", tree, own)


# --- GitHub ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What expressions may name; what is not there is the empty string, as GitHub has it."""

    values: Mapping[str, Json]

    def at(self, path: str) -> Json:
        found: Json = self.values
        for part in path.split("."):
            found = found.get(part, "") if isinstance(found, Mapping) else ""
        return found

    def value(self, expression: str) -> Json:
        """The value of one: names, texts, `!`, `==`, `&&`, `||`, `cancelled()`."""
        tokens = re.findall(r"'[^']*'|\|\||&&|==|!(?!=)|[\w.-]+(?:\(\))?|\(|\)", expression)
        words = {"||": "or", "&&": "and", "==": "==", "!": "not", "cancelled()": "False", "(": "(", ")": ")"}
        python = " ".join(words.get(token, token if token.startswith("'") else f"at({token!r})") for token in tokens)
        assert "".join(tokens) == re.sub(r"\s", "", expression), expression
        return eval(python, {"__builtins__": {}}, {"at": self.at})

    def fill(self, text: str) -> str:
        """The text with every `${{ expression }}` replaced by its value."""
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(self.value(found[1])), text)

    def holds(self, step: Json) -> bool:
        """Whether a step or job is to be run."""
        condition = re.sub(r"^\$\{\{(.*)\}\}$", r"\1", step.get("if", "'always'"))
        return bool(self.value(condition))


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHub:
    """The workflow and the action, with what a caller's secrets are."""

    world: World
    secrets: Mapping[str, str] = field(default_factory=dict)
    impact: str = ""
    branch: str = ""

    def render(self) -> Ended:
        return self._run({"event_name": "schedule", "event": {}}, "main")

    def plan(self, request: Request) -> Ended:
        pull = {"number": request.number, "head": {"sha": request.head, "repo": {"full_name": REPOSITORY}}}
        return self._run({"event_name": "pull_request", "event": {"pull_request": pull}}, request.head)

    def apply(self, commit: str) -> Ended:
        return self._run({"event_name": "push", "event": {}, "sha": commit}, commit)

    def _run(self, github: dict[str, Json], revision: str) -> Ended:
        """Run the jobs that this event starts: there is one."""
        workflow = read(WORKFLOW)
        values = {
            "github": {
                **github,
                "repository": REPOSITORY,
                "token": SECRET,
                "ref": "refs/heads/main",
                "ref_name": "main",
            },
            "job": {"workflow_repository": "someone/runner", "workflow_sha": "0" * 40},
            "inputs": {
                **{name: one.get("default", "") for name, one in workflow["on"]["workflow_call"]["inputs"].items()},
                "directory": OUT,
                "organization": ORGANIZATION,
                "cluster": CLUSTER,
                "impact": self.impact,
                "branch": self.branch,
                "host": self.world.programs.environment["FAIRWINDS_INSIGHTS_HOST"],
            },
            "secrets": {
                "insights-token": TOKEN,
                "plan-kubeconfig": self.world.kubeconfig_text,
                "apply-kubeconfig": self.world.kubeconfig_text,
                "journal-key": "a key of the journal",
                **self.secrets,
            },
        }
        names = Names(values=values)
        (job,) = [job for job in workflow["jobs"].values() if names.holds(job)]
        variables = {name: names.fill(value) for name, value in job.get("env", {}).items()}
        return self._steps(job["steps"], names, self.world.checkout(revision), {**self._runner(github), **variables})

    def _runner(self, github: Mapping[str, Json]) -> dict[str, str]:
        """What the runner itself sets."""
        event = self.world.place / "event.json"
        event.write_text(json.dumps(github["event"]))
        return {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": f"http://127.0.0.1:{self.world.forge.port}",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SERVER_URL": "https://forge.example",
            "GITHUB_RUN_ID": "1",
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_SHA": github.get("sha", ""),
            "GITHUB_STEP_SUMMARY": str(self.world.place / "summary.md"),
        }

    def _steps(self, steps: list[Json], names: Names, tree: Path, variables: Mapping[str, str]) -> Ended:
        code, shown = 0, ""
        for step in steps:
            # Without a condition, a step is run while none has failed.
            if (code and "cancelled()" not in step.get("if", "")) or not names.holds(step):
                continue
            done = self._step(step, names, tree, variables)
            code, shown = code or done.code, shown + done.shown
        return Ended(code=code, shown=shown)

    def _step(self, step: Json, names: Names, tree: Path, variables: Mapping[str, str]) -> Ended:
        given = {name: names.fill(value) for name, value in step.get("with", {}).items()}
        if "run" in step:
            assert "${{" not in step["run"]
            own = {name: names.fill(value) for name, value in step["env"].items()}
            return self.world.run(step["run"], tree, {**variables, **own})
        action = step["uses"].partition("@")[0]
        if action == "actions/checkout":
            if "path" in given:
                (tree / given["path"]).symlink_to(ROOT)
        elif action == "actions/upload-artifact":
            pull = names.at("github.event.pull_request.head.sha")
            files = files_of(tree / given["path"])
            self.world.forge.artifacts.append(Artifact(name=given["name"], head=pull, files=files))
        else:
            place = tree / action
            composite = read(place / "action.yml")
            inputs = {name: names.fill(one.get("default", "")) for name, one in composite["inputs"].items()}
            assert given.keys() <= inputs.keys()
            inside = Names(values={"github": names.at("github"), "inputs": {**inputs, **given}})
            return self._steps(
                composite["runs"]["steps"], inside, tree, {**variables, "GITHUB_ACTION_PATH": str(place)}
            )
        return Ended(code=0, shown="")


# --- GitLab ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLab:
    """The template, included by a project whose settings are these."""

    world: World
    impact: str = ""
    branch: str = ""

    def render(self) -> Ended:
        return self._run({"CI_PIPELINE_SOURCE": "schedule"}, "main", self.world.insights())[0]

    def plan(self, request: Request) -> Ended:
        event = {
            "CI_PIPELINE_SOURCE": "merge_request_event",
            "CI_MERGE_REQUEST_IID": str(request.number),
            "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": PROJECT,
        }
        done, name, job = self._run(event, request.head, {"KUBECONFIG": self.world.kubeconfig})
        assert job["artifacts"]["paths"] == ["$STAGE_REPORTS/"]
        files = files_of(self.world.place / "checkout" / "insights-plan")
        self.world.forge.artifacts.append(Artifact(name=name, head=request.head, files=files))
        return done

    def apply(self, commit: str) -> Ended:
        event = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main", "CI_COMMIT_SHA": commit}
        key = self.world.place / "journal-key"
        key.write_text("a key of the journal")
        return self._run(event, commit, {"KUBECONFIG": self.world.kubeconfig, "INSIGHTS_JOURNAL_KEY": str(key)})[0]

    def _run(self, event: Mapping[str, str], revision: str, own: Mapping[str, str]) -> tuple[Ended, str, Json]:
        template = read(TEMPLATE)
        predefined = {
            "CI": "true",
            "GITLAB_CI": "true",
            "CI_API_V4_URL": f"http://127.0.0.1:{self.world.forge.port}",
            "CI_PROJECT_ID": PROJECT,
            "CI_PROJECT_URL": self.world.url,
            "CI_DEFAULT_BRANCH": "main",
            "CI_JOB_URL": "https://forge.example/job",
            "FORGE_TOKEN": SECRET,
            **event,
        }
        jobs = {name: job for name, job in template.items() if name != "variables" and not name.startswith(".")}
        ((name, job),) = [
            (name, job) for name, job in jobs.items() if any(matches(rule["if"], predefined) for rule in job["rules"])
        ]
        written = {**template["variables"], **job.get("variables", {}), "STAGE_DIRECTORY": OUT}
        if self.impact:
            written["STAGE_IMPACT"] = self.impact
        if self.branch:
            written["STAGE_BRANCH"] = self.branch
        variables = {key: _expanded(value, predefined) for key, value in written.items()}
        path = {"PATH": f"{STAGES}:{self.world.path}"}
        tree = self.world.checkout(revision, login="gitlab-ci-token:may-not-push@")
        done = self.world.run("\n".join(job["script"]), tree, {**path, **predefined, **variables, **own})
        return done, name, job


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ""), text)


def matches(condition: str, variables: Mapping[str, str]) -> bool:
    """Whether all comparisons of a rule of GitLab's hold."""
    sides = (part.split(" == ") for part in condition.split(" && "))
    return all(_side(left, variables) == _side(right, variables) for left, right in sides)


def _side(text: str, variables: Mapping[str, str]) -> str | None:
    return variables.get(text.removeprefix("$")) if text.startswith("$") else text.strip('"')
