"""A fleet in a real git repository: one commit for all that changes, or a branch for each cluster."""

from __future__ import annotations

import itertools
import subprocess
import threading
from pathlib import Path

import pytest

from renderer.errors import ExitCode
from tests.support.fleet import NAMES, SOON_SECONDS, Fleet, at_request, tree
from tests.support.insights import Fault, Request
from tests.support.policies import answer, cluster_policy
from tests.support.programs import ORGANIZATION

FEW = NAMES[:6]


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(fleet: Fleet) -> Path:
    """The fleet's directory is in a repository with one commit, and in the file are a few clusters."""
    fleet.out.mkdir()
    git(fleet.out, "init", "--quiet", "--initial-branch", "main")
    git(fleet.out, "config", "user.name", "Robin")
    git(fleet.out, "config", "user.email", "robin@example.com")
    (fleet.out / "README").write_text("ours\n")
    git(fleet.out, "add", "README")
    git(fleet.out, "commit", "--quiet", "--message", "Begin")
    fleet.write_list(*FEW)
    return fleet.out


def test_all_clusters_are_one_commit_and_the_failed_are_not_in_it(fleet: Fleet, repository: Path) -> None:
    fleet.insights.publish(FEW[0], "kind: [")
    (repository / "notes").write_text("not yet committed\n")
    done = fleet.run("--git")
    assert done.returncode == ExitCode.PARTLY_APPLIED, done.stderr
    assert git(repository, "rev-list", "--count", "main") == "2"
    changed = {line.split("/")[1] for line in git(repository, "show", "--name-only", "--format=", "main").splitlines()}
    assert changed == set(FEW[1:])
    message = git(repository, "log", "-1", "--format=%B", "main")
    assert message.splitlines()[0] == "Update policies of 5 clusters: 10 added"
    assert message.count("Insights-Cluster: ") == 5
    assert f"Committed {git(repository, 'rev-parse', 'main')[:12]} on main." in done.stdout
    assert git(repository, "status", "--porcelain") == "?? notes"
    assert fleet.names_at(FEW[1]) == [f"of-{FEW[1]}", "require-owner"]


def test_without_a_change_there_is_no_commit(fleet: Fleet, repository: Path) -> None:
    assert fleet.run("--git").returncode == 0
    first = git(repository, "rev-parse", "main")
    done = fleet.run("--git")
    assert done.returncode == 0, done.stderr
    assert "Nothing to commit on main." in done.stdout
    fleet.insights.publish(FEW[0], answer(cluster_policy(f"of-{FEW[0]}", message="Other.")))
    assert fleet.run("--git").returncode == 0
    assert git(repository, "rev-list", f"{first}..main") == git(repository, "rev-parse", "main")
    assert git(repository, "log", "-1", "--format=%s") == f"Update policies of acme/{FEW[0]}: 1 changed, 1 removed"


def test_each_cluster_has_a_branch_of_its_own(fleet: Fleet, repository: Path) -> None:
    fleet.insights.publish(FEW[0], "kind: [")
    begin = git(repository, "rev-parse", "main")
    done = fleet.run("--git", "--branch-per-cluster", "policies/")
    assert done.returncode == ExitCode.PARTLY_APPLIED, done.stderr
    branches = git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/policies").splitlines()
    assert branches == [f"policies/{ORGANIZATION}/{name}" for name in FEW[1:]]
    for name, branch in zip(FEW[1:], branches, strict=True):
        assert git(repository, "rev-parse", f"{branch}^") == begin
        paths = git(repository, "show", "--name-only", "--format=", branch).splitlines()
        assert {"/".join(path.split("/")[:2]) for path in paths} == {f"{ORGANIZATION}/{name}"}
    assert git(repository, "rev-parse", "main") == begin
    assert git(repository, "status", "--porcelain") == ""
    again = fleet.run("--git", "--branch-per-cluster", "policies/")
    assert "5 of 6 clusters done (0 changed, 5 as they were), 1 failed." in again.stdout
    assert "/tmp/" not in done.stdout.replace(str(fleet.programs.directory), "")


def test_a_signal_commits_nothing(fleet: Fleet, repository: Path) -> None:
    before = tree(repository)
    at_request(fleet, 3, lambda: fleet.insights.fail(Fault.STALL, times=len(FEW)))
    program = fleet.start("--git", "--concurrency", "1")
    assert program.stderr is not None
    program.stderr.readline()  # the first cluster is written
    program.terminate()
    _, stderr = program.communicate(timeout=SOON_SECONDS)
    assert program.returncode == ExitCode.TERMINATED, stderr
    assert "Nothing was committed." in stderr
    assert {path: data for path, data in tree(repository).items() if ".git/" not in path} == {
        path: data for path, data in before.items() if ".git/" not in path
    }
    assert git(repository, "rev-list", "--count", "--all") == "1"


def test_two_shards_that_push_to_one_branch_at_once_both_arrive(fleet: Fleet, repository: Path) -> None:
    remote = fleet.programs.directory / "remote.git"
    git(repository, "clone", "--quiet", "--bare", str(repository), str(remote))
    # Each has written its first cluster before either goes on, so they are on the same tip.
    both = threading.Barrier(2, timeout=SOON_SECONDS)
    first_two = itertools.count()

    def wait_for_the_other(_request: Request) -> None:
        if next(first_two) < 2:
            both.wait()

    fleet.insights._on_request = wait_for_the_other
    where = ("--git", "--repo", remote.as_uri(), "--push", "--author", "Robin <robin@example.com>")
    pair = [fleet.start("--concurrency", "1", "--shard", f"{index}/2", *where) for index in range(2)]
    for program in pair:
        stdout, stderr = program.communicate(timeout=60)
        assert program.returncode == 0, stderr
        assert "pushed to" in stdout
    held = git(remote, "ls-tree", "-d", "--name-only", "main:out/acme").splitlines()
    assert held == list(FEW)
    assert git(remote, "rev-list", "--count", "main") == "3"
    assert sorted(path.name for path in repository.iterdir()) == [".git", "README"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--push"],
        ["--branch", "main"],
        ["--branch-per-cluster", "x/"],
        ["--git", "--branch", "main", "--branch-per-cluster", "x/"],
        ["--git", "--message-file", "none"],
    ],
)
def test_options_that_do_not_go_together_are_refused(fleet: Fleet, arguments: list[str]) -> None:
    done = fleet.run(*arguments)
    assert done.returncode == ExitCode.CONFIGURATION
    assert "Error: --" in done.stderr
    assert not fleet.asked()
