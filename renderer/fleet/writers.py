"""Processes that turn answers of Insights into snapshots, one cluster at a time each.

Reading and writing YAML holds Python's lock, so threads would share one core. A process works on what it is sent,
answers, and waits; when its pipe closes, since we ended in any way at all, it ends too.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final, Self

from renderer import snapshot
from renderer.commit_message import SnapshotChange
from renderer.errors import ExitCode, Failure, RemoteError, defect
from renderer.publish import Target, publish
from renderer.render import Source

#: How long a write that is under way may take after everything was told to end.
PATIENCE_SECONDS: Final = 10.0

#: What ends a run; blocked in the processes, so that they finish what they write and end when we do.
_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_DETAILS_KEPT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A snapshot is in place: how many policies it has, how many files that changed, and who else's lie there.

    `change` says what that means, where it was asked for; `branch` and `commit` where it was committed alone.
    """

    policies: int
    digest: str
    added: int
    changed: int
    removed: int
    extra: tuple[str, ...]
    change: SnapshotChange | None = None
    branch: str = ""
    commit: str = ""

    @property
    def is_change(self) -> bool:
        """Whether any byte differs from before."""
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Nothing was written: why, and what to do. A value, since it goes from process to process."""

    code: ExitCode
    message: str
    details: tuple[str, ...] = ()
    hint: str = ""

    @classmethod
    def of(cls, failure: Failure) -> Failed:
        """The failure without its traceback, and with no more lines than people read."""
        details, more = failure.details[:_DETAILS_KEPT], len(failure.details) - _DETAILS_KEPT
        if more > 0:
            details = (*details, f"… and {more} more")
        return cls(code=failure.code, message=failure.message, details=details, hint=failure.hint)


def write(data: bytes, target: Target) -> Written | Failed:
    """Write an answer of Insights as a snapshot. Raises nothing: what goes wrong is given."""
    try:
        done = publish([Source(name="Insights", data=data)], target)
        extra = snapshot.extra_paths(target.directory, set(done.files.contents))
    except Failure as failure:
        return Failed.of(failure)
    except Exception as error:  # noqa: BLE001 - a defect in one cluster's work must not end the others'
        return Failed.of(defect(error))
    return Written(
        policies=len(done.policies),
        digest=done.files.digest,
        added=len(done.changed.added),
        changed=len(done.changed.changed),
        removed=len(done.changed.removed),
        extra=tuple(extra[:_DETAILS_KEPT]),
        change=done.change,
    )


def cores() -> int:
    """How many cores this process may use: by its affinity, and by the quota of its container."""
    usable = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = _CPU_QUOTA.read_text().split()
        usable = min(usable, -(-int(quota) // int(period)))
    return max(1, usable)


class Closed(Exception):
    """The writers were told to end: nothing more is written."""


class Writer:
    """One process; it is started when it is first needed, and again after it died."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def write(self, data: bytes, target: Target) -> Written | Failed:
        """Have the process write; a process that dies of it is a failure of this cluster alone."""
        try:
            pipe = self._pipe or self._start()
            pipe.send((data, target))
            answer: Written | Failed = pipe.recv()
        except (EOFError, OSError) as error:
            return Failed.of(self._died(target, error))
        return answer

    def _start(self) -> Connection:
        ours, theirs = get_context("spawn").Pipe()
        with theirs:
            self._process = get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)  # the process inherits it
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._pipe = ours
        return ours

    def _died(self, target: Target, error: Exception) -> Failure:
        self.end(patience_seconds=0)
        status = self._process.exitcode if self._process else None
        how = f"signal {-status}" if status is not None and status < 0 else str(error) or type(error).__name__
        return RemoteError(
            f"The process that wrote {target.directory} ended too early ({how}).",
            hint="Run it again; if it was killed for its memory, allow more, or use fewer --processes.",
        )

    def end(self, *, patience_seconds: float) -> None:
        """Close its pipe, which ends it, and wait; after so long, kill it."""
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        if self._process and self._process.pid is not None:
            self._process.join(patience_seconds)
            if self._process.exitcode is None:
                self.kill()

    def kill(self) -> None:
        """End it now; what it was writing is as before, or as after."""
        if self._process and self._process.pid is not None:
            self._process.kill()
            self._process.join()


class Writers:
    """So many writers, which any number of threads share; as a context manager it ends them."""

    def __init__(self, processes: int) -> None:
        self._all = [Writer() for _ in range(processes)]
        self._free: queue.SimpleQueue[Writer | None] = queue.SimpleQueue()
        for writer in self._all:
            self._free.put(writer)
        # multiprocessing starts it with the first process else, and then unblocks the signals that we block.
        resource_tracker.ensure_running()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def one(self) -> Iterator[Writer]:
        """A writer that is free, as soon as there is one. Raises Closed once `close` was called."""
        writer = self._free.get()
        if writer is None:
            self._free.put(None)  # for whoever else waits
            raise Closed
        try:
            yield writer
        finally:
            self._free.put(writer)

    def close(self) -> None:
        """Let each writer finish what it is writing, but begin nothing; then end it."""
        end = time.monotonic() + PATIENCE_SECONDS
        busy = set(self._all)
        try:
            while busy and (writer := self._free.get(timeout=max(0.0, end - time.monotonic()))):
                writer.end(patience_seconds=max(0.0, end - time.monotonic()))
                busy.discard(writer)
        except queue.Empty:
            pass
        finally:  # also when it is interrupted once more
            for writer in busy:
                writer.kill()
            self._free.put(None)


def _serve(pipe: Connection) -> None:
    """The process: write what is asked, until nobody asks any more."""
    with suppress(EOFError, OSError):
        while True:
            data, target = pipe.recv()
            pipe.send(write(data, target))
