"""One run at a time holds the file, whatever lies at its path; and what lies there stays whole."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from applier.lock import flock
from renderer.errors import Locked

HOLDER = """
import sys
from pathlib import Path
from applier.lock.flock import file_lock
with file_lock(Path(sys.argv[1]), identity="host_1", until=0, poll=0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def held(path: Path, *, until: float = 0) -> Iterator[None]:
    with flock.file_lock(path, identity="host_2", until=until, poll=0.01):
        yield


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the file until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def excludes(path: Path) -> bool:
    """Whether it is held: a second run does not get in."""
    try:
        with held(path):
            return False
    except Locked:
        return True


def test_it_names_its_holder_and_is_free_when_that_is_killed(path: Path) -> None:
    with holder(path) as other:
        with pytest.raises(Locked, match=rf"{path}: host_1, pid {other.pid} on \S+ since 20\S+Z\."):
            held(path).__enter__()
        other.kill()
        other.wait()
        with held(path):
            assert f"host_2, pid {os.getpid()} on " in path.read_text()
    assert path.read_text() == ""


def test_it_is_waited_for(path: Path, mocker: MockerFixture) -> None:
    with holder(path) as other:
        assert other.stdin is not None
        slept = mocker.patch("applier.lock.flock.time.sleep", side_effect=lambda _: other.communicate())
        with held(path, until=float("inf")):
            slept.assert_called_once()


def test_what_it_says_holds_nobody_up_not_even_with_a_living_pid(path: Path) -> None:
    path.write_text(f"insights-applier host_9, pid {os.getppid()} on here since 2001-01-01T00:00:00Z\n")
    with held(path):
        assert excludes(path)
        assert "host_2" in path.read_text()


def test_one_that_is_removed_while_held_lets_another_in_and_the_lease_decides(path: Path) -> None:
    with holder(path):
        assert excludes(path)
        path.unlink()
        with held(path):
            assert excludes(path)


def test_one_that_is_removed_before_it_is_locked_is_not_locked(path: Path, mocker: MockerFixture) -> None:
    flock = fcntl.flock

    def slow(handle: int, how: int) -> None:
        mocker.stopall()
        path.unlink()
        flock(handle, how)

    mocker.patch("applier.lock.flock.fcntl.flock", slow)
    with held(path):
        assert excludes(path)


def test_a_file_of_somebody_else_is_locked_and_stays_whole(path: Path) -> None:
    path.write_text("apiVersion: v1\n")
    with held(path), pytest.raises(Locked, match="a run that left no note"):
        held(path).__enter__()
    assert path.read_text() == "apiVersion: v1\n"


def test_a_note_cannot_write_to_the_terminal(path: Path) -> None:
    with holder(path):
        path.write_bytes(b"insights-applier \x1b[2J\xff" + b"x" * 1000)
        with pytest.raises(Locked, match=r": \?\[2J\?x+\."):
            held(path).__enter__()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    path.symlink_to(target)
    with held(path):
        assert not excludes(target)
        assert not excludes(path)
    path.unlink()
    path.symlink_to(tmp_path / "missing")
    with held(path):
        assert not (tmp_path / "missing").exists()


def test_what_is_no_file_is_left_alone(path: Path) -> None:
    path.mkdir()
    with held(path):
        assert not excludes(path)
    path.rmdir()
    os.mkfifo(path)
    with held(path):  # nobody else has it open
        assert not excludes(path)


def test_where_no_file_can_be_made_the_lease_has_to_suffice(tmp_path: Path) -> None:
    with held(tmp_path / "missing" / "lock"):
        pass


#: Locks `lock` in the working directory, having lost the right to write it, or any room to write.
ELSEWISE = """
import os, resource, sys
from pathlib import Path
from applier.lock.flock import file_lock
from renderer import logs
logs.configure(sys.stderr, "info")
path = Path("lock")
if sys.argv[1] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
elif os.geteuid() == 0:
    os.seteuid(65534)
try:
    os.write(os.open(path, os.O_WRONLY), b"x")
except OSError:
    print("not writable", flush=True)
with file_lock(path, identity="host_3", until=0, poll=0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("why", ["full", "forbidden"])
def test_one_that_cannot_be_written_is_locked_all_the_same(path: Path, why: str) -> None:
    path.touch()
    path.chmod(0o444)
    path.parent.chmod(0o755)
    command = [sys.executable, "-c", ELSEWISE, why]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=path.parent, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "not writable\n"
        assert process.stdout.readline() == "held\n"
        path.chmod(0o644)
        with pytest.raises(Locked, match="a run that left no note"):
            held(path).__enter__()
        process.communicate()
    assert process.returncode == 0
    assert path.read_text() == ""


def test_a_read_only_disk_still_tells_who_holds_what_lies_there(path: Path, mocker: MockerFixture) -> None:
    real = os.open

    def read_only(name: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(name, flags, mode)

    path.touch()
    mocker.patch("applier.lock.flock.os.open", read_only)
    with held(path):
        assert excludes(path)
    path.unlink()
    with held(path):
        assert not excludes(path)


def test_a_file_system_without_locks_has_none(path: Path, mocker: MockerFixture) -> None:
    mocker.patch("applier.lock.flock.fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available"))
    with held(path):
        assert not excludes(path)
