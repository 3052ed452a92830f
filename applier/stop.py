"""Why the work must stop: one flag that signals, a lost lease and a run's time limit all set."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from renderer.errors import ExitCode


class Stop:
    """Set once; the first reason stands. No new write starts when it is set, and what was written is undone."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""
        self.code = ExitCode.ROLLED_BACK

    def set(self, reason: str, code: ExitCode = ExitCode.ROLLED_BACK) -> None:
        """Ask the work to stop; `code` is what the run then exits with."""
        if not self._event.is_set():
            self.reason, self.code = reason, code
            self._event.set()

    def is_set(self) -> bool:
        """Whether the work must stop."""
        return self._event.is_set()


@contextmanager
def on_signals(stop: Stop) -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM sets `stop` instead of ending the process.

    A second one ends it, in the middle of the undo if need be: the user insists.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        if number == signal.SIGTERM:
            stop.set("SIGTERM arrived", ExitCode.TERMINATED)
        else:
            stop.set("it was interrupted", ExitCode.INTERRUPTED)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
