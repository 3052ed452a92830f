"""Processes: starting one that outlives us, knowing it again, and ending it and no other."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Every process carries this in its environment, so that it is found even when nobody wrote down its PID.
MARK: Final = "TESTBED_ID"

_PROC: Final = Path("/proc")
_TCP_LISTEN: Final = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, known by more than its PID, which the kernel gives to another one later.

    `started` is the time of its fork in clock ticks since the machine came up (proc_pid_stat(5), field 22).
    """

    name: str
    pid: int
    started: int
    executable: str


def stat_fields(stat: str) -> tuple[str, int]:
    """The state letter and the start time in ticks of a /proc/PID/stat line, whose name may hold anything."""
    fields = stat[stat.rindex(")") + 1 :].split()
    return fields[0], int(fields[19])


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        return stat_fields((_PROC / str(pid) / "stat").read_text())
    except (OSError, ValueError):
        return None


def _executable(pid: int) -> str:
    """The file that `pid` runs, also when it was replaced since; empty when that can't be known."""
    try:
        return (_PROC / str(pid) / "exe").readlink().as_posix().removesuffix(" (deleted)")
    except OSError:
        return ""


def is_running(process: Process) -> bool:
    """True when that very process still runs: same PID, same start, same binary, and not a zombie."""
    stat = _stat(process.pid)
    return (
        stat is not None
        and stat[0] not in "ZX"
        and stat[1] == process.started
        and _executable(process.pid) == process.executable
    )


def spawn(
    name: str, command: Sequence[str], *, log: Path, mark: str, environment: Mapping[str, str]
) -> tuple[Process, subprocess.Popen[bytes]]:
    """Start `command` in a session of its own, out of reach of the terminal's Ctrl-C; `log` gets its output.

    Raises OSError when it can't be executed at all.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, MARK: mark},
            start_new_session=True,
        )
    stat = _stat(child.pid)  # ours until it is waited for, even when it has exited already
    executable = str(Path(command[0]).resolve())
    return Process(name=name, pid=child.pid, started=stat[1] if stat else 0, executable=executable), child


def send(process: Process, number: signal.Signals, *, wait_s: float) -> bool:
    """Send a signal to that very process and wait for its end; True when it is gone.

    A PID file descriptor is opened before the process is recognised, so the signal can't reach another one
    that was given the PID in between.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_running(process):
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))
    finally:
        os.close(descriptor)


def end(process: Process, *, grace_s: float) -> None:
    """End that very process: SIGTERM, and SIGKILL for one that is still there after `grace_s`."""
    if not send(process, signal.SIGTERM, wait_s=grace_s):
        send(process, signal.SIGKILL, wait_s=10)


def marked(mark: str) -> Iterator[Process]:
    """Every process of this user that was started with `mark`, whether its PID was written down or not."""
    wanted = f"{MARK}={mark}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        try:
            found = wanted in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        stat, executable = _stat(pid), _executable(pid)
        if found and stat and executable:
            yield Process(name=Path(executable).name, pid=pid, started=stat[1], executable=executable)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a second Ctrl-C wait until the cleaning up after the first is done; for a short time only."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listening_inodes(table: str, port: int) -> frozenset[str]:
    """The socket inodes that listen on `port`, from the text of a /proc/PID/net/tcp table."""
    rows = (line.split() for line in table.splitlines()[1:])
    return frozenset(row[9] for row in rows if row[3] == _TCP_LISTEN and int(row[1].rpartition(":")[2], 16) == port)


def listens(process: Process, port: int) -> bool:
    """True when `port` is answered by that very process, and not by a stranger who took it first."""
    home = _PROC / str(process.pid)
    try:
        inodes = frozenset[str]().union(
            *(listening_inodes((home / "net" / table).read_text(), port) for table in ("tcp", "tcp6"))
        )
        sockets = set(_descriptors(home)) if inodes else set()
    except OSError:
        return False
    return any(f"socket:[{inode}]" in sockets for inode in inodes) and is_running(process)


def _descriptors(home: Path) -> Iterator[str]:
    """What the open files of a process are; those that it closes meanwhile are left out."""
    for entry in (home / "fd").iterdir():
        with contextlib.suppress(OSError):
            yield str(entry.readlink())
