"""The lines that touch a journal of files, counted while they are executed, and a death at one of them."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from applier.journal.store import DirectoryStore

_EXECUTED: Final = "lines"
_WRITERS: Final = tuple(
    function.__code__ for function in (DirectoryStore._write, DirectoryStore._remove, DirectoryStore._sync)
)


def count(directory: Path, *, kill_at: int) -> None:
    """Note each line that this thread executes of them, and die before that one, counted from 1; with 0 it lives."""
    seen: list[int] = []
    note = directory / _EXECUTED
    note.unlink(missing_ok=True)

    def line(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "line":
            seen.append(frame.f_lineno)
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if not kill_at:
                note.write_text(" ".join(map(str, seen)))
        return line

    sys.settrace(lambda frame, *_: line if frame.f_code in _WRITERS else None)


def counted(directory: Path) -> list[int]:
    """The numbers of the lines that a run executed which lived."""
    return list(map(int, (directory / _EXECUTED).read_text().split()))


def renaming() -> int:
    """The number of the line by which a file gets its name."""
    source, first = inspect.getsourcelines(DirectoryStore._write)
    return next(number for number, text in enumerate(source, first) if ".rename(" in text)
