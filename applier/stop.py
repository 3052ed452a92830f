"""Why the work must stop: one flag that signals, a lost lease and a run's time limit all set."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from renderer.errors import ExitCode

# A wrapper may pass one signal on twice; a person who insists takes longer.
_SAME_SIGNAL_SECONDS: Final = 1.0


class Stop:
    """Set once; the first reason stands. No new write starts when it is set, and what was written is undone."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._until: float | None = None
        self.reason = ""
        self.code = ExitCode.ROLLED_BACK
        self.signalled = False

    def set(self, reason: str, code: ExitCode = ExitCode.ROLLED_BACK) -> None:
        """Ask the work to stop; `code` is what the run then exits with."""
        if not self._event.is_set():
            self.reason, self.code = reason, code
            self._event.set()

    def work_until(self, moment: float) -> None:
        """Allow work up to that moment of the monotonic clock; each renewal of the lease moves it on."""
        self._until = moment

    def is_set(self) -> bool:
        """Whether the work must stop."""
        if self._until is not None and time.monotonic() > self._until:
            self.set("the Lease could not be renewed in time")
        return self._event.is_set()


@contextmanager
def on_signals(stop: Stop) -> Iterator[None]:
    """Within the block the first SIGINT, SIGTERM or SIGHUP sets `stop` instead of ending the process.

    A second one, a second or more later, ends it, in the middle of the undo if need be: the user insists.
    """
    first: list[float] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] >= _SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        first.append(time.monotonic())
        stop.signalled = True
        if number == signal.SIGINT:
            stop.set("it was interrupted", ExitCode.INTERRUPTED)
        else:
            stop.set(f"{signal.Signals(number).name} arrived", ExitCode.TERMINATED)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
