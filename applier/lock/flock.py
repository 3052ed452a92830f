"""The file lock: it keeps two runs of one machine apart before either asks the cluster. The Lease decides.

The kernel holds it (flock) and frees it when its process ends, however it ends. So nothing is judged by what the
file says, nor by whether it exists: a leftover locks nobody out, and a PID in it may be another process's by now.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from renderer import logs
from renderer.errors import Locked

#: How a file begins that may be written into: any other's content is somebody's, whatever brought it there.
_MARK: Final = b"insights-applier "
_NOTE_BYTES: Final = 500
#: Neither through a link nor into a FIFO that nobody reads.
_OPEN: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

log = logs.get_logger()


@contextmanager
def file_lock(
    path: Path, *, identity: str, until: float, poll: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Hold the file, and note in it who does so since when.

    Another process's lock is waited for up to the moment `until` of `clock`, looking every `poll` seconds; then
    Locked is raised, which names the holder. Where there can be no such lock (a read-only or full disk, something
    else at that path, a file system without locks), the Lease has to suffice.
    """
    handle = _acquired(path, until=until, poll=poll, clock=clock)
    if handle is None:
        yield
        return
    try:
        _note(handle, f"{identity}, pid {os.getpid()} on {socket.gethostname()} since {_now()}")
        yield
    finally:
        # Emptied, not removed: a file that is removed while another opens it locks nobody out.
        _note(handle, "")
        os.close(handle)


def _acquired(path: Path, *, until: float, poll: float, clock: Callable[[], float]) -> int | None:
    """The open file, locked; None where there can be no lock."""
    told = False
    while True:
        try:
            handle = _opened(path)
        except OSError as error:
            log.info("No file lock; the Lease decides alone", file=str(path), reason=error.strerror)
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, handle):
                return handle
            os.close(handle)  # removed before it was locked, so that the next run would lock another
            continue
        except BlockingIOError:
            holder = _noted(handle)
            os.close(handle)
        except OSError as error:
            os.close(handle)
            log.info("No file lock; the Lease decides alone", file=str(path), reason=error.strerror)
            return None
        left = until - clock()
        if left <= 0:
            raise Locked(
                f"Another run on this machine holds {path}: {holder}.",
                hint="Wait until it has ended, or wait longer with --lock-wait. The file itself need not be removed.",
            )
        if not told:
            log.info("Waiting for the lock", file=str(path), holder=holder, seconds=round(left, 1))
            told = True
        time.sleep(min(poll, left))


def _opened(path: Path) -> int:
    """Open the file, made if need be; another account's is locked without being written. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o644)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        handle = os.open(path, os.O_RDONLY | _OPEN)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file")
    return handle


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except OSError:
        return False


def _noted(handle: int) -> str:
    """Who holds it, by its own note; the file may be anybody's, so only plain text is passed on."""
    try:
        text = os.pread(handle, _NOTE_BYTES, 0)
    except OSError:
        text = b""
    if not text.startswith(_MARK):
        return "a run that left no note"
    line = text.removeprefix(_MARK).split(b"\n")[0].decode(errors="replace")
    return re.sub(r"[^\x20-\x7e]", "?", line)


def _note(handle: int, text: str) -> None:
    """Note the holder, or nobody; the lock holds all the same where that can't be done."""
    try:
        if os.pread(handle, len(_MARK), 0) not in (b"", _MARK):
            return
        os.ftruncate(handle, 0)
        if text:
            os.pwrite(handle, _MARK + f"{text}\n".encode(), 0)
    except OSError as error:
        log.debug("The holder could not be noted in the lock file", reason=error.strerror)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
