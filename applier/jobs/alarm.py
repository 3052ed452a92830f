"""Sleeping without waking up in between, until a signal or another thread says that there is something to do."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_DRAINED_BYTES = 4096


class Alarm:
    """A sleep of the main thread that any thread may end, and any signal does. It works as a context manager."""

    def __init__(self) -> None:
        """Nothing sleeps yet."""
        self._lock = threading.Lock()
        self._is_open = False

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Python's own handlers run between two of its steps; only this wakes a select that is under way.
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before)
        with self._lock:  # whoever rings now must not write into a file that has the number next
            self._is_open = False
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> None:
        """Sleep so long, or until somebody rings; a ring before the sleep ends it at once."""
        select.select([self._read], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._read, _DRAINED_BYTES)

    def ring(self) -> None:
        """End the sleep, or the next one."""
        with self._lock, suppress(BlockingIOError):  # it rings already
            if self._is_open:
                os.write(self._write, b"\0")
