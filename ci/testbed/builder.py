"""Builds a tool once for every clone, however many ask at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from ci.testbed import golang
from ci.testbed.toolchain import Tool
from renderer.errors import Failure, RemoteError

_TAIL = 12


def build(tool: Tool, *, started: Callable[[], None], waiting: Callable[[], None]) -> bool:
    """Put the binary into the cache; True when it was built now, False when it was there already.

    `started` is called when a build begins, `waiting` when another process is building the same. Raises
    RemoteError with the compiler's last lines. Ctrl-C ends the compiler and leaves no half-written binary.
    """
    target = tool.cached
    with _locked(target.parent, waiting):
        if target.exists():
            return False
        started()
        go = golang.find()
        for leftover in target.parent.glob("*.part"):
            leftover.unlink()
        log = target.parent / "build.log"
        part = target.with_name(f"{os.getpid()}.part")  # a compiler that outlived a killed run has its own
        try:
            command = tool.build_command(go.command, part)
            code = _run(command, tool.module.location, go.variables(), log)
            if code != 0:
                raise failed(tool, log.read_text(errors="replace"), log, code)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return True


@contextlib.contextmanager
def _locked(directory: Path, waiting: Callable[[], None]) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise RemoteError(
            f"{directory}: the cache can't be written ({error.strerror}).",
            hint="Make room or permit it, or set XDG_CACHE_HOME to another directory.",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], directory: Path, environment: dict[str, str], log: Path) -> int:
    """Run the compiler with its output in `log`; however we are stopped, it and its children end too."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


def failed(tool: Tool, output: str, log: Path, code: int) -> Failure:
    """What went wrong with a build, from what the compiler printed, and what to do about it."""
    lowered = output.lower()
    if "no space left on device" in lowered:
        hint = "The disk is full: Go needs about 10 GB for all tools. Make room, or move GOCACHE, GOMODCACHE."
    elif any(word in lowered for word in ("dial tcp", "no such host", "i/o timeout", "connection refused")):
        hint = "The Go modules can't be fetched: check the network and `go env GOPROXY`, then run again."
    elif code < 0:
        hint = "The compiler was killed, perhaps for want of memory: linking needs up to 3 GB."
    else:
        hint = "Run `ci/tools` again; if it fails the same way, the log says more."
    return RemoteError(
        f"{tool.name} {tool.version} could not be built (`go build` ended with {code}).",
        details=[*output.splitlines()[-_TAIL:], f"whole log: {log}"],
        hint=hint,
    )
