"""What can go wrong with git: one clear error, its exit code, and everything as it was."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from renderer.errors import ExitCode
from tests.support.policies import cluster_policy, exception
from tests.support.repositories import (
    OUT,
    Rendering,
    State,
    bare,
    begin,
    commit_file,
    git,
    has_ended,
    hook,
    left_over,
    run_git,
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return begin(tmp_path / "work")


@pytest.fixture
def remote(repository: Path, tmp_path: Path) -> Path:
    return bare(tmp_path / "remote.git", repository)


def check(done: subprocess.CompletedProcess[str], code: ExitCode, *said: str) -> None:
    assert done.returncode == code, done.stderr
    for words in said:
        assert words in done.stderr
    assert done.stderr.count("Error:") == 1


@pytest.mark.parametrize("scheme", ["ssh", "https", "file", "git"])
def test_a_remote_that_cannot_be_reached(rendering: Rendering, repository: Path, scheme: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        place = (
            "/nowhere"
            if scheme == "file"
            else f"nobody@127.0.0.1:{port}/x"
            if scheme == "ssh"
            else f"127.0.0.1:{port}/x"
        )
        url = f"{scheme}://{place}"
        git(repository, "remote", "add", "origin", url)
        before = State.of(repository)
        here = rendering.inside(repository)
        check(here.run("--push"), ExitCode.UNAVAILABLE, url)
        check(here.run("--push", "--repo", url), ExitCode.UNAVAILABLE, url)
        assert State.of(repository) == before
        assert left_over(rendering) == []


def test_a_hook_of_the_remote_that_refuses_is_quoted(rendering: Rendering, repository: Path, remote: Path) -> None:
    hook(remote, "pre-receive", 'echo "main is protected: open a pull request" >&2; exit 1')
    before, tip = State.of(repository), git(remote, "rev-parse", "main")
    check(
        rendering.inside(repository).run("--push"),
        ExitCode.NOT_PERMITTED,
        "pre-receive hook declined",
        "main is protected: open a pull request",
        "--branch",
    )
    assert (State.of(repository), git(remote, "rev-parse", "main")) == (before, tip)


def test_a_branch_that_is_checked_out_at_the_remote_is_refused(rendering: Rendering, tmp_path: Path) -> None:
    begin(tmp_path / "theirs")
    before = State.of(tmp_path / "theirs")
    done = rendering.run("--push", "--repo", f"file://{tmp_path / 'theirs'}")
    check(done, ExitCode.NOT_PERMITTED, "branch is currently checked out")
    assert State.of(tmp_path / "theirs") == before


def test_a_lock_of_another_git(rendering: Rendering, repository: Path, remote: Path) -> None:
    before, tip = State.of(repository), git(remote, "rev-parse", "main")
    lock = repository / ".git" / "index.lock"
    lock.touch()
    here = rendering.inside(repository)
    check(here.run(), ExitCode.LOCKED, str(lock))
    check(here.run("--push"), ExitCode.LOCKED, str(lock))
    assert lock.exists()
    lock.unlink()
    lock = repository / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    check(here.run(), ExitCode.LOCKED, str(lock))
    lock.unlink()
    assert (State.of(repository), git(remote, "rev-parse", "main")) == (before, tip)


def test_a_merge_in_progress(rendering: Rendering, repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "side")
    commit_file(repository, "README.md", "one\n")
    git(repository, "checkout", "-q", "main")
    commit_file(repository, "README.md", "two\n")
    assert run_git(repository, "merge", "side").returncode == 1
    before = State.of(repository)
    check(rendering.inside(repository).run(), ExitCode.INPUT, "merge is in progress", "git merge --abort")
    assert State.of(repository) == before


def test_places_and_names_that_cannot_be(rendering: Rendering, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    check(rendering.inside(tmp_path / "plain").run(), ExitCode.CONFIGURATION, "is in no git repository", "--repo")
    here = rendering.inside(repository)
    check(here.run("--repo", str(repository), out=str(tmp_path / "plain")), ExitCode.CONFIGURATION, "not inside")
    check(here.run("--repo", str(repository), out="../plain"), ExitCode.CONFIGURATION, "not inside")
    check(here.run("--repo", str(repository), out=".git/x"), ExitCode.CONFIGURATION, ".git/x")
    check(here.run("--repo", "missing"), ExitCode.CONFIGURATION, "missing")
    check(here.run(out="README.md/x"), ExitCode.CONFIGURATION, "README.md is a file")
    for name in ("-f", "a..b", "a b", "@{-1}", "x.lock", "refs/heads/"):
        check(here.run(f"--branch={name}"), ExitCode.CONFIGURATION, "--branch", name)
    check(here.run("--push"), ExitCode.CONFIGURATION, "git remote add")
    check(here.run("--message-file", "missing"), ExitCode.CONFIGURATION, "--message-file")
    begin(repository / "nested")
    check(here.run("--repo", str(repository), out="nested/x"), ExitCode.CONFIGURATION, "another repository")
    (repository / "link").symlink_to(tmp_path / "plain")
    check(here.run("--repo", str(repository), out="link/x"), ExitCode.CONFIGURATION, "not inside")
    assert git(repository, "rev-list", "--all", "--count") == "1"
    assert list((tmp_path / "plain").iterdir()) == []


def test_without_git(rendering: Rendering, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = rendering.inside(repository).with_(PATH=str(tmp_path / "empty")).run()
    check(done, ExitCode.CONFIGURATION, "git is not there", "PATH")


def test_policies_that_are_refused_are_not_committed(rendering: Rendering, repository: Path) -> None:
    here = rendering.inside(repository)
    here.done()
    before = State.of(repository)
    here.insights.publish("prod", "")
    check(here.run(), ExitCode.EMPTY_SET, f"snapshot in {OUT} would lose", "--allow-empty")
    here.insights.publish("prod", "kind: [")
    assert here.run().returncode == ExitCode.INPUT
    assert State.of(repository) == before


@pytest.mark.parametrize("files", [0, 3000])
def test_a_disk_that_is_full_in_mid_commit(rendering: Rendering, repository: Path, files: int) -> None:
    """The limit of a file's size stands for the disk. It meets our own files first, or with many files git's index."""
    for number in range(files):
        (repository / f"a-file-with-a-name-that-fills-the-index-{number:040}").touch()
    if files:
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", "Many")
    before = State.of(repository)
    blocks = 100 if files else 0
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'ulimit -f {blocks}; exec "$@"',
            "-",
            sys.executable,
            "-m",
            "renderer",
            "render",
            "--git",
            "--out",
            OUT,
        ],
        cwd=repository,
        env=rendering.programs.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    check(done, ExitCode.CONFIGURATION)
    assert State.of(repository) == before
    assert git(repository, "status", "--porcelain") == ""
    assert left_over(rendering) == []
    rendering.inside(repository).done()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_pushing(
    rendering: Rendering, repository: Path, remote: Path, tmp_path: Path, number: int, code: int
) -> None:
    reached = tmp_path / "reached"
    os.mkfifo(reached)
    hook(remote, "pre-receive", f"echo $$ >{reached}\nexec sleep 1000")
    before, tip = State.of(repository), git(remote, "rev-parse", "main")
    command = ("insights-renderer", "render", "--git", "--push", "--out", OUT)
    with rendering.inside(repository).programs.start(*command) as process:
        hook_process = int(reached.read_text())
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "may have taken commit" in said
    assert (State.of(repository), git(remote, "rev-parse", "main")) == (before, tip)
    assert left_over(rendering) == []
    # Nothing of ours goes on: the hook is of our process group, since this remote is on this machine.
    assert has_ended(hook_process)
    (remote / "hooks" / "pre-receive").unlink()
    rendering.inside(repository).done("--push")


@pytest.mark.parametrize("push", [False, True])
def test_a_work_tree_that_cannot_be_written(rendering: Rendering, repository: Path, remote: Path, push: bool) -> None:
    here = rendering.inside(repository)
    here.done()
    # A file of the user's is where a folder has to be, which shows only when the files are written.
    obstacle = repository / OUT / "policyexceptions.policies.kyverno.io"
    obstacle.write_text("mine\n")
    before = State.of(repository)
    here.wants(cluster_policy("other"), exception())
    done = here.run(*["--push"] * push)
    if push:
        assert done.returncode == 0, done.stderr
        assert "left as it is" in done.stdout
        assert git(remote, "rev-list", "--count", "main") == "3"
    else:
        check(done, ExitCode.CONFIGURATION, obstacle.name)
    assert State.of(repository) == before
