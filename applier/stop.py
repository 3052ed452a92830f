"""Whether the work may go on: one value that signals, a run's time limit and the Lease all have their say in."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from renderer.errors import ExitCode, Terminated

# A wrapper may pass one signal on twice; a person who insists takes longer.
_SAME_SIGNAL_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A machine that sleeps does not keep its Lease meanwhile; the usual monotonic clock would sleep with it.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds that only go forward, also while the machine sleeps (where the system has such a clock)."""
    return time.clock_gettime(_CLOCK)


class Stop:
    """Says three things to who writes. Any thread, and a signal handler, may set it.

    `is_set`: no new change starts, and what was written is undone; that stays so, with the first reason.
    `may_write`: a request that writes may start now, an undo too: the Lease is ours for longer than a write takes.
    When it is not, it may be again: the Lease is renewed as soon as the server answers, if nobody took it meanwhile.
    `lost`: somebody took it. Nothing may be written any more, nor undone: what is there may be theirs.
    """

    def __init__(self, *, clock: Callable[[], float] = clock) -> None:
        self.clock = clock
        self.signalled = False
        self.lost = False
        # Appending is one step, also for a signal handler that runs in the midst of it.
        self._reasons: list[tuple[str, ExitCode, float]] = []
        self._until: float | None = None

    @property
    def reason(self) -> str:
        """Why the work must stop; "" while it need not."""
        return self._reasons[0][0] if self._reasons else ""

    @property
    def code(self) -> ExitCode:
        """What the run exits with, once all is undone."""
        return self._reasons[0][1] if self._reasons else ExitCode.ROLLED_BACK

    @property
    def since(self) -> float | None:
        """When the work was asked to stop, on the monotonic clock."""
        return self._reasons[0][2] if self._reasons else None

    def set(self, reason: str, code: ExitCode = ExitCode.ROLLED_BACK) -> None:
        """Ask the work to stop; `code` is what the run then exits with."""
        self._reasons.append((reason, code, time.monotonic()))

    def work_until(self, moment: float) -> None:
        """Allow writing up to that moment of `clock`; each renewal of the Lease moves it on."""
        self._until = moment

    def lose(self, reason: str) -> None:
        """Another run took the lock: not even what was written may be taken back any more."""
        self.set(reason)
        self.lost = True

    def is_set(self) -> bool:
        """Whether the work must stop."""
        if not self._reasons and not self.may_write():
            self.set("the Lease could not be renewed in time")
        return bool(self._reasons)

    def may_write(self) -> bool:
        """Whether a request that writes may start now; an undo asks this where the work asks `is_set`."""
        return not self.lost and (self._until is None or self.clock() < self._until)

    def sleep_until(self, moment: float) -> bool:
        """Sleep until that moment of `clock`; False when the work must stop before."""
        while not self.is_set():
            left = moment - self.clock()
            if left <= 0:
                return True
            time.sleep(min(left, _POLL_SECONDS))
        return False


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, inside `on_signals`, a signal interrupts at once: for a question to a person."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
