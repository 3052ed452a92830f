"""A process that is frozen by the time that a test goes on: the signal alone is only on its way."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

_SECONDS: Final = 30.0


def freeze(pid: int) -> None:
    """Stop every thread of the process; TimeoutError when one still runs after half a minute.

    Until the last thread has stopped, one that hears an answer would still send its next request.
    """
    os.kill(pid, signal.SIGSTOP)
    waiting, end = threading.Event(), time.monotonic() + _SECONDS
    while not _stopped(pid):
        if time.monotonic() > end:
            raise TimeoutError(f"process {pid} still runs {_SECONDS:.0f} s after SIGSTOP")
        waiting.wait(0.001)


def _stopped(pid: int) -> bool:
    """Whether the state of each of its threads is T: proc_pid_stat(5), field 3. The name in field 2 may hold spaces."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
