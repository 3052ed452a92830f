"""Pushing: real remotes of every kind, and races that are lost without losing a snapshot."""

from __future__ import annotations

import base64
import getpass
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from renderer import snapshot
from renderer.errors import ExitCode
from tests.support.git_http import SECRET, GitServer
from tests.support.policies import answer, cluster_policy, exception
from tests.support.repositories import OUT, Rendering, State, bare, begin, commit_file, git, hook, left_over

LOCK = f"{OUT}/{snapshot.LOCK}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return begin(tmp_path / "work")


@pytest.fixture
def remote(repository: Path, tmp_path: Path) -> Path:
    return bare(tmp_path / "remote.git", repository)


def snapshot_at(remote: Path, branch: str, place: Path) -> snapshot.Snapshot:
    """What a fresh clone of that branch holds."""
    git(place.parent, "clone", "-q", "--branch", branch, str(remote), str(place))
    return snapshot.read(place / OUT)


def test_a_push_brings_branch_work_tree_and_remote_to_one_commit(
    rendering: Rendering, repository: Path, remote: Path
) -> None:
    told = rendering.inside(repository).done("--push")
    commit = git(repository, "rev-parse", "HEAD")
    assert git(remote, "rev-parse", "main") == commit
    assert f"pushed to {remote}" in told
    assert git(repository, "status", "-sb", "--porcelain") == "## main...origin/main"


def test_a_commit_that_was_not_pushed_is_pushed_later(rendering: Rendering, repository: Path, remote: Path) -> None:
    here = rendering.inside(repository)
    here.done()
    assert git(remote, "rev-list", "--count", "main") == "1"
    here.done("--push")
    assert git(remote, "rev-parse", "main") == git(repository, "rev-parse", "HEAD")


def test_a_url_is_cloned_for_the_run_and_nothing_of_it_stays(
    rendering: Rendering, repository: Path, remote: Path, tmp_path: Path
) -> None:
    commit_file(repository, "large/one", "x" * 100_000)
    git(repository, "push", "-q")
    git(remote, "config", "uploadpack.allowFilter", "true")
    url = f"file://{remote}"
    rendering.done("--repo", url, "--push")
    rendering.wants(cluster_policy(), exception())
    rendering.done("--repo", url, "--push", "--branch", "other/new")
    assert len(snapshot_at(remote, "main", tmp_path / "a").policies) == 1
    assert len(snapshot_at(remote, "other/new", tmp_path / "b").policies) == 2
    assert git(remote, "rev-list", "--count", "main..other/new") == "1"
    assert (tmp_path / "b" / "large" / "one").exists()
    assert left_over(rendering) == []
    assert "Nothing to commit" in rendering.done("--repo", url, "--push", "--branch", "other/new")
    done = rendering.run("--repo", url)
    assert done.returncode == ExitCode.CONFIGURATION
    assert "--push" in done.stderr


def test_the_first_commit_of_an_empty_remote(rendering: Rendering, tmp_path: Path) -> None:
    remote = bare(tmp_path / "empty.git")
    rendering.done("--repo", f"file://{remote}", "--push", "--branch", "main")
    assert git(remote, "rev-list", "--count", "main") == "1"


@pytest.mark.parametrize("style", ["url", "host:path"])
def test_over_ssh(
    rendering: Rendering, repository: Path, remote: Path, ssh_command: str, tmp_path: Path, style: str
) -> None:
    account = f"{getpass.getuser()}@127.0.0.1"
    where = f"ssh://{account}{remote}" if style == "url" else f"{account}:{remote}"
    config = tmp_path / ".gitconfig"
    config.write_text(config.read_text() + f'[core]\n\tsshCommand = "{ssh_command}"\n')
    rendering.done("--repo", where, "--push")
    assert git(remote, "rev-list", "--count", "main") == "2"
    git(repository, "remote", "set-url", "origin", where)
    rendering.wants(cluster_policy("other"))
    rendering.inside(repository).done("--push")
    assert git(remote, "rev-parse", "main") == git(repository, "rev-parse", "HEAD")
    assert git(remote, "rev-list", "--count", "main") == "3"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """A real git daemon that serves the test's directory, and takes pushes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (
        "--export-all",
        "--enable=receive-pack",
        f"--base-path={tmp_path}",
        "--verbose",
        "--log-destination=stderr",
    )
    with subprocess.Popen(
        ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", *options], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "Ready to rumble" in process.stderr.readline()
        try:
            yield f"git://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_over_a_git_daemon(rendering: Rendering, remote: Path, daemon: str, tmp_path: Path) -> None:
    rendering.done("--repo", f"{daemon}/{remote.name}", "--push")
    assert len(snapshot_at(remote, "main", tmp_path / "clone").policies) == 1
    done = rendering.run("--repo", f"{daemon}/missing.git", "--push")
    assert done.returncode == ExitCode.NOT_PERMITTED, done.stderr  # "access denied or repository not exported"


def test_on_a_detached_head_as_in_ci(rendering: Rendering, repository: Path, remote: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{remote}", "ci")
    ci = tmp_path / "ci"
    git(ci, "checkout", "-q", "--detach")
    git(ci, "branch", "-q", "-D", "main")
    before = State.of(ci)
    done = rendering.inside(ci).run("--push")
    assert done.returncode == ExitCode.CONFIGURATION
    assert "--branch" in done.stderr
    assert State.of(ci) == before
    commit_file(repository, "later", "someone was here\n")
    git(repository, "push", "-q")
    rendering.inside(ci).done("--push", "--branch", "main")
    assert git(remote, "rev-list", "--count", "main") == "3"
    assert git(ci, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")
    assert snapshot.read(ci / OUT).digest
    assert git(ci, "status", "--porcelain") == ""


def test_in_a_shallow_clone(rendering: Rendering, repository: Path, remote: Path, tmp_path: Path) -> None:
    commit_file(repository, "second", "2\n")
    git(repository, "push", "-q")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{remote}", "shallow")
    rendering.inside(tmp_path / "shallow").done("--push")
    assert git(remote, "rev-list", "--count", "main") == "3"
    git(remote, "fsck", "--strict")


# Races ---------------------------------------------------------------------------------------------------------


def test_a_push_that_loses_the_race_is_rendered_again_on_the_new_tip(
    rendering: Rendering, repository: Path, remote: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", str(remote), "mate")
    commit_file(tmp_path / "mate", "theirs", "1\n")
    git(tmp_path / "mate", "push", "-q")
    (repository / "README.md").write_text("not yet committed\n")
    rendering.inside(repository).done("--push")
    assert git(remote, "log", "--format=%s", "--reverse", "main").splitlines() == [
        "Write README.md",
        "Write theirs",
        "Add ClusterPolicy/require-team to acme/prod",
    ]
    assert git(repository, "rev-parse", "HEAD") == git(remote, "rev-parse", "main")
    assert git(repository, "status", "--porcelain").split() == ["M", "README.md"]


def test_edits_in_the_way_of_what_others_pushed_stay(
    rendering: Rendering, repository: Path, remote: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", str(remote), "mate")
    commit_file(tmp_path / "mate", "README.md", "theirs\n")
    git(tmp_path / "mate", "push", "-q")
    (repository / "README.md").write_text("mine\n")
    before = State.of(repository)
    told = rendering.inside(repository).done("--push")
    assert "left as it is" in told
    assert State.of(repository) == before
    assert git(remote, "rev-list", "--count", "main") == "3"


def test_a_local_branch_that_went_its_own_way_is_not_forced_on_anybody(
    rendering: Rendering, repository: Path, remote: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", str(remote), "mate")
    commit_file(tmp_path / "mate", "theirs", "1\n")
    git(tmp_path / "mate", "push", "-q")
    commit_file(repository, "ours", "1\n")
    before, tip = State.of(repository), git(remote, "rev-parse", "main")
    done = rendering.inside(repository).run("--push")
    assert done.returncode == ExitCode.INPUT
    assert "git pull --rebase" in done.stderr
    assert (State.of(repository), git(remote, "rev-parse", "main")) == (before, tip)


def test_a_race_that_is_always_lost_ends(rendering: Rendering, remote: Path) -> None:
    # The hook plays the others: before each push is taken, the branch moves once more.
    hook(
        remote,
        "pre-receive",
        "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\n"
        'next=$(git -c user.name=o -c user.email=o commit-tree -p main -m other "main^{tree}")\n'
        "git update-ref refs/heads/main $next\n",
    )
    done = rendering.run("--repo", f"file://{remote}", "--push")
    assert done.returncode == ExitCode.LOCKED, done.stderr
    assert "5 times" in done.stderr
    assert git(remote, "rev-list", "--count", "main") == "6"
    assert left_over(rendering) == []


def test_two_renderers_at_once_lose_no_snapshot(rendering: Rendering, remote: Path, tmp_path: Path) -> None:
    rounds = 8
    failures: list[str] = []

    def renders(name: str) -> None:
        for number in range(rounds):
            policies = tmp_path / f"{name}-{number}"
            policies.mkdir()
            (policies / "policy.yaml").write_text(policy_text(f"{name}-{number}"))
            command = ("insights-renderer", "render", "--git", "--push", "--repo", f"file://{remote}")
            options = ("--out", f"policies/{name}", "--local-only", "--local", str(policies))
            done = rendering.programs.run(*command, *options)
            if done.returncode:
                failures.append(done.stderr)

    threads = [threading.Thread(target=renders, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert git(remote, "rev-list", "--count", "main") == str(1 + 2 * rounds)
    assert git(remote, "rev-list", "--count", "--merges", "main") == "0"
    for name in ("a", "b"):
        subjects = git(remote, "log", "--reverse", "--format=%b", "main", "--", f"policies/{name}")
        added = [line for line in subjects.splitlines() if line.startswith(f"- ClusterPolicy/{name}-")]
        for number in range(rounds):
            assert any(f"{name}-{number}:" in line for line in added)


def policy_text(name: str) -> str:
    return answer(cluster_policy(name))


# Credentials -----------------------------------------------------------------------------------------------------


def test_a_password_in_a_url_serves_and_is_shown_nowhere(
    rendering: Rendering, repository: Path, remote: Path, server: GitServer
) -> None:
    url = f"http://robin:{SECRET}@127.0.0.1:{server.port}/remote.git"
    told = rendering.with_(INSIGHTS_REPO=url).done("--push")
    assert SECRET not in told
    assert git(remote, "rev-list", "--count", "main") == "2"

    git(repository, "remote", "set-url", "origin", url)
    rendering.wants(cluster_policy("other"))
    done = rendering.inside(repository).run("--push")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert git(remote, "rev-parse", "main") == git(repository, "rev-parse", "HEAD")
    assert SECRET not in git(repository, "reflog", "--all")
    assert server.seen == []


def test_a_token_that_ci_keeps_in_the_repository_serves(
    rendering: Rendering, repository: Path, remote: Path, server: GitServer
) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    header = base64.b64encode(f"robin:{SECRET}".encode()).decode()
    git(repository, "remote", "set-url", "origin", f"{url}remote.git")
    git(repository, "config", f"http.{url}.extraHeader", f"AUTHORIZATION: basic {header}")
    rendering.inside(repository).done("--push")
    assert git(remote, "rev-parse", "main") == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("login", ["", f"robin:wrong-{SECRET}@"])
def test_refused_credentials(rendering: Rendering, repository: Path, server: GitServer, login: str) -> None:
    git(repository, "remote", "add", "origin", f"http://{login}127.0.0.1:{server.port}/remote.git")
    before = State.of(repository)
    for options in (("--push",), ("--push", "--repo", f"http://{login}127.0.0.1:{server.port}/remote.git")):
        done = rendering.inside(repository).run(*options)
        assert done.returncode == ExitCode.NOT_PERMITTED, done.stderr
        assert SECRET not in done.stderr
        assert f"127.0.0.1:{server.port}" in done.stderr
    assert State.of(repository) == before
