"""Real git repositories for tests: made, asked and changed with the git binary, never with our code."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from renderer.manifest.jsontypes import JsonObject
from tests.support.insights import InsightsStandIn
from tests.support.policies import answer, cluster_policy
from tests.support.programs import CLUSTER, Programs

OUT = "policies/prod"
_CLEAN = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Robin",
    "GIT_AUTHOR_EMAIL": "robin@example.com",
    "GIT_COMMITTER_NAME": "Robin",
    "GIT_COMMITTER_EMAIL": "robin@example.com",
    "LC_ALL": "C",
}


def run_git(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run git and give what it answers, whatever that is."""
    return subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={**_CLEAN, "HOME": str(directory), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def git(directory: Path, *arguments: str, **environment: str) -> str:
    """Run git, which must succeed, and give its output."""
    done = run_git(directory, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit_file(directory: Path, name: str, text: str) -> str:
    """Commit one file of somebody's, and give the commit."""
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)
    git(directory, "add", name)
    git(directory, "commit", "-q", "-m", f"Write {name}")
    return git(directory, "rev-parse", "HEAD")


def begin(directory: Path, **settings: str) -> Path:
    """A repository on branch main with one commit, which others can go on from."""
    git(directory.parent, "init", "-q", "-b", "main", str(directory))
    for name, value in settings.items():
        git(directory, "config", name.replace("__", "."), value)
    commit_file(directory, "README.md", "ours\n")
    return directory


def bare(directory: Path, source: Path | None = None) -> Path:
    """A bare repository on branch main; with `source`, it has that one's branches and is its remote origin."""
    git(directory.parent, "init", "-q", "--bare", "-b", "main", str(directory))
    if source:
        git(source, "remote", "add", "origin", str(directory))
        git(source, "push", "-q", "-u", "origin", "main")
    return directory


def hook(repository: Path, name: str, script: str) -> None:
    """Give a repository a hook."""
    hooks = Path(git(repository, "rev-parse", "--path-format=absolute", "--git-path", "hooks"))
    hooks.mkdir(exist_ok=True)
    (hooks / name).write_text(f"#!/bin/sh\n{script}\n")
    (hooks / name).chmod(0o755)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything of a work tree that a failure must leave as it was."""

    head: str
    branches: str
    index: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, repository: Path) -> State:
        """Read it now; a leftover lock or private file would differ too."""
        git_dir = Path(git(repository, "rev-parse", "--absolute-git-dir"))
        return cls(
            head=(git_dir / "HEAD").read_text(),
            branches=git(repository, "for-each-ref", "refs/heads"),
            index=git(repository, "ls-files", "-s"),
            files={
                str(path.relative_to(repository)): path.read_bytes()
                for path in sorted(repository.rglob("*"))
                if path.is_file() and (".git" not in path.parts or path.name.endswith(".lock"))
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """`render --git` into one repository, with what Insights answers."""

    programs: Programs
    insights: InsightsStandIn

    def wants(self, *bodies: JsonObject) -> None:
        """Make these the policies that Insights wants."""
        self.insights.publish(CLUSTER, answer(*bodies))

    def run(self, *options: str, out: str = OUT) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return self.programs.run("insights-renderer", "render", "--git", "--out", out, *options)

    def done(self, *options: str, out: str = OUT) -> str:
        """Run it, which must succeed, and give what it printed."""
        done = self.run(*options, out=out)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def inside(self, directory: Path) -> Rendering:
        """The same, run in that directory."""
        programs = Programs(environment=self.programs.environment, directory=directory)
        return Rendering(programs=programs, insights=self.insights)

    def with_(self, **variables: str) -> Rendering:
        """The same with more variables."""
        return Rendering(programs=self.programs.with_(**variables), insights=self.insights)


@pytest.fixture
def rendering(offline: Programs, insights: InsightsStandIn) -> Rendering:
    """A user with a name in their own git configuration, for whose cluster Insights wants one policy."""
    config = offline.directory / ".gitconfig"
    config.write_text("[user]\n\tname = Robin\n\temail = robin@example.com\n")
    insights.publish(CLUSTER, answer(cluster_policy()))
    return Rendering(
        programs=offline.with_(GIT_CONFIG_NOSYSTEM="1", TMPDIR=str(_private(offline.directory))), insights=insights
    )


def _private(directory: Path) -> Path:
    """A place for temporary files, so that a test sees what is left there."""
    place = directory / "tmp"
    place.mkdir()
    return place


def left_over(rendering: Rendering) -> list[Path]:
    """What a run left among the temporary files."""
    return list(Path(rendering.programs.environment["TMPDIR"]).iterdir())


def has_ended(process: int) -> bool:
    """Whether a process is gone, or only waits for somebody to take note of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# A remote over ssh -------------------------------------------------------------------------------------------


@pytest.fixture
def ssh_command(tmp_path: Path) -> Iterator[str]:
    """A command that does ssh's part for git to this machine: through a real sshd where there is one.

    Where there is none it runs the remote command itself, which leaves out the network and nothing of ours.
    """
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not sshd or not shutil.which("ssh"):
        yield str(_wrapper(tmp_path))
        return
    place = tmp_path / "ssh"
    place.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    port = _free_port()
    (place / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {place}/user.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
    )
    (place / "known").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    server = subprocess.Popen([sshd, "-D", "-e", "-f", str(place / "config")], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        assert any("Server listening" in line for line in server.stderr)
        yield f"ssh -oBatchMode=yes -oPort={port} -oUserKnownHostsFile={place}/known -i {place}/user -F none"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


def _wrapper(directory: Path) -> Path:
    script = directory / "ssh-to-here"
    script.write_text(
        '#!/bin/sh\nfor last; do :; done\nunset GIT_DIR GIT_OBJECT_DIRECTORY GIT_PROTOCOL\nexec sh -c "$last"\n'
    )
    script.chmod(0o755)
    return script


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
