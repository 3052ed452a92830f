"""A repository that others made: whatever it names as a program does not run, wherever it points nothing is written."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from renderer.errors import ExitCode
from tests.support.policies import cluster_policy
from tests.support.repositories import OUT, Rendering, State, bare, begin, commit_file, git, run_git

HOOKS = """
    pre-commit prepare-commit-msg commit-msg post-commit pre-push reference-transaction post-index-change
    post-checkout post-merge pre-auto-gc post-rewrite pre-rebase fsmonitor-watchman update post-update
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that leaves a mark when it runs."""
    path = tmp_path / "trap"
    path.write_text(f'#!/bin/sh\necho "$0 $@" >>{tmp_path}/marks\ncat\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def hostile(tmp_path: Path, trap: Path) -> Path:
    """A repository whose files and settings name that program wherever git takes one."""
    repository = begin(tmp_path / "hostile")
    (repository / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "-q", "-m", "Attributes")
    (repository / "hooks").mkdir()
    for place in (repository / "hooks", repository / ".git" / "hooks"):
        for name in HOOKS.split():
            (place / name).write_bytes(trap.read_bytes())
            (place / name).chmod(stat.S_IRWXU)
    for name, value in {
        "core.hooksPath": str(repository / "hooks"),
        "core.fsmonitor": str(trap),
        "core.sshCommand": str(trap),
        "core.editor": str(trap),
        "core.pager": str(trap),
        "core.askPass": str(trap),
        "core.gitProxy": str(trap),
        "core.alternateRefsCommand": str(trap),
        "credential.helper": str(trap),
        "diff.external": str(trap),
        "diff.evil.command": str(trap),
        "diff.evil.textconv": str(trap),
        "filter.evil.clean": str(trap),
        "filter.evil.smudge": str(trap),
        "filter.evil.required": "true",
        "merge.evil.driver": str(trap),
        "commit.gpgSign": "true",
        "gpg.program": str(trap),
        "gpg.ssh.program": str(trap),
        "gpg.ssh.defaultKeyCommand": str(trap),
        "uploadpack.packObjectsHook": str(trap),
        "protocol.allow": "always",
        "protocol.ext.allow": "always",
        "gc.auto": "1",
    }.items():
        git(repository, "config", name, value)
    # An index older than the files: git looks into each of them, through filters, whenever it writes it anew.
    os.utime(repository / ".git" / "index", (1, 1))
    return repository


def marks(trap: Path) -> str:
    path = trap.parent / "marks"
    return path.read_text() if path.exists() else ""


def test_the_trap_is_sprung_by_an_ordinary_git(hostile: Path, trap: Path) -> None:
    run_git(hostile, "status")
    assert str(trap) in marks(trap)


def test_committing_runs_nothing(rendering: Rendering, hostile: Path, trap: Path) -> None:
    git(hostile, "config", "commit.gpgSign", "false")
    here = rendering.inside(hostile)
    here.done()
    here.wants(cluster_policy("other"))
    here.done()
    here.done("--branch", "elsewhere")
    assert marks(trap) == ""
    assert git(hostile, "rev-list", "--count", "main") == "4"
    # The bytes in git are those of the snapshot, as no filter touched them.
    (blob,) = [
        line.split()[2]
        for line in git(hostile, "ls-tree", "-r", "main").splitlines()
        if line.endswith(f"{OUT}/snapshot.lock")
    ]
    assert git(hostile, "cat-file", "blob", blob) == (hostile / OUT / "snapshot.lock").read_text().strip()


def test_signing_does_not_run_a_program_of_the_repository(rendering: Rendering, hostile: Path, trap: Path) -> None:
    before = State.of(hostile)
    (trap.parent / "marks").unlink(missing_ok=True)
    done = rendering.inside(hostile).run()
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    assert "could not be signed" in done.stderr
    assert marks(trap) == ""
    assert State.of(hostile).branches == before.branches


def test_pushing_and_following_others_runs_nothing(
    rendering: Rendering, hostile: Path, trap: Path, tmp_path: Path, ssh_command: str
) -> None:
    git(hostile, "config", "commit.gpgSign", "false")
    git(hostile, "config", "--unset", "core.hooksPath")
    plain = begin(tmp_path / "plain")
    remote = bare(tmp_path / "remote.git")
    git(plain, "push", "-q", str(remote), f"{git(plain, 'rev-parse', 'HEAD')}:refs/heads/unused")
    git(hostile, "-c", "core.hooksPath=/dev/null", "push", "-q", str(remote), "main")
    git(tmp_path, "clone", "-q", str(remote), "mate")
    commit_file(tmp_path / "mate", "theirs", "1\n")
    git(tmp_path / "mate", "push", "-q")
    (tmp_path / "marks").unlink(missing_ok=True)
    git(hostile, "remote", "add", "origin", f"ssh://127.0.0.1{remote}")
    git(hostile, "config", "remote.origin.uploadpack", str(trap))
    git(hostile, "config", "remote.origin.receivepack", str(trap))
    told = rendering.inside(hostile).with_(GIT_SSH_COMMAND=ssh_command).done("--push")
    assert marks(trap) == ""
    assert git(remote, "rev-list", "--count", "main") == "4"
    # Its own filters would have to run for the work tree to follow.
    assert "left as it is" in told


@pytest.mark.parametrize("url", ["ext::{trap} x", "fd::3", "ssh://-oProxyCommand={trap}/x", "--upload-pack={trap}"])
def test_urls_that_run_something_are_refused(rendering: Rendering, tmp_path: Path, trap: Path, url: str) -> None:
    where = url.format(trap=trap)
    done = rendering.run("--push", f"--repo={where}")
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    repository = begin(tmp_path / "work")
    git(repository, "config", "remote.origin.url", where)
    git(repository, "config", "protocol.ext.allow", "always")
    before = State.of(repository)
    done = rendering.inside(repository).run("--push")
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    assert marks(trap) == ""
    assert State.of(repository) == before


def test_a_remote_helper_of_the_repository_is_not_used(rendering: Rendering, tmp_path: Path, trap: Path) -> None:
    repository = begin(tmp_path / "work")
    remote = bare(tmp_path / "remote.git", repository)
    git(repository, "config", "remote.origin.vcs", "ext")
    git(repository, "config", f"url.ext::{trap} .insteadOf", str(remote))
    done = rendering.inside(repository).run("--push")
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    assert "protocol" in done.stderr
    assert marks(trap) == ""


def test_a_work_tree_elsewhere_is_not_followed(rendering: Rendering, tmp_path: Path) -> None:
    repository = begin(tmp_path / "work")
    (tmp_path / "elsewhere").mkdir()
    git(repository, "config", "core.worktree", str(tmp_path / "elsewhere"))
    done = rendering.run("--repo", str(repository))
    assert done.returncode == ExitCode.CONFIGURATION
    assert "that is not followed" in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_tree_that_leads_out_of_the_repository_is_not_written(rendering: Rendering, tmp_path: Path) -> None:
    repository = begin(tmp_path / "work")
    blob = git(repository, "rev-parse", "HEAD:README.md")
    link = _object(repository, "blob", "/tmp")
    for entries in ({OUT: ("120000", link)}, {"policies": ("120000", link)}, {"policies": ("100644", blob)}):
        tree = _tree(repository, entries)
        remote = _remote_with(tmp_path, repository, tree)
        done = rendering.run("--push", "--repo", f"file://{remote}")
        assert done.returncode == ExitCode.CONFIGURATION, done.stderr
        assert "--out" in done.stderr
    evil = _tree_object(repository, {"..": ("40000", _tree_object(repository, {"planted": ("100644", blob)}))})
    remote = _remote_with(tmp_path, repository, _tree_object(repository, {"policies": ("40000", evil)}))
    done = rendering.run("--push", "--repo", f"file://{remote}", out="policies")
    assert done.returncode == ExitCode.INPUT, done.stderr
    assert "no repository may have" in done.stderr
    assert not list(tmp_path.rglob("planted"))


def _object(repository: Path, kind: str, text: str) -> str:
    done = subprocess.run(
        ["git", "hash-object", "-t", kind, "-w", "--literally", "--stdin"],
        cwd=repository,
        input=text.encode("latin-1"),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def _tree_object(repository: Path, entries: dict[str, tuple[str, str]]) -> str:
    text = "".join(f"{mode} {name}\0{bytes.fromhex(blob).decode('latin-1')}" for name, (mode, blob) in entries.items())
    return _object(repository, "tree", text)


def _tree(repository: Path, entries: dict[str, tuple[str, str]]) -> str:
    index = {"GIT_INDEX_FILE": str(repository / ".git" / "other-index")}
    git(repository, "read-tree", "--empty", **index)
    for name, (mode, blob) in entries.items():
        git(repository, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", **index)
    return git(repository, "write-tree", **index)


def _remote_with(tmp_path: Path, repository: Path, tree: str) -> Path:
    remote = tmp_path / f"remote-{tree}.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    commit = git(repository, "commit-tree", "-m", "Evil", tree)
    git(repository, "push", "-q", str(remote), f"{commit}:refs/heads/main")
    return remote
