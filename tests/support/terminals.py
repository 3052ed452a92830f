"""Runs our programs at a real terminal (a pty) of a known width, and tells what it was given."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from dataclasses import dataclass

from tests.support.programs import Programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the terminal was given, what went to standard output where that was a pipe, and the exit code."""

    terminal: str
    piped: str
    returncode: int


def run(programs: Programs, *command: str, columns: int = 80, pipe: bool = False) -> Seen:
    """Run to the end; with `pipe` only standard error is the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    parts: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(ours, parts))
    try:
        process = programs.start(*command, stdout=subprocess.PIPE if pipe else theirs, stderr=theirs)
    finally:
        os.close(theirs)
    reader.start()
    piped, _ = process.communicate()
    reader.join()
    os.close(ours)
    shown = b"".join(parts).decode().replace("\r\n", "\n")
    return Seen(terminal=shown, piped=piped or "", returncode=process.returncode)


def _read_all(terminal: int, parts: list[bytes]) -> None:
    """Read until nobody holds the other side any more, of which Linux tells by an error."""
    try:
        while data := os.read(terminal, 65536):
            parts.append(data)
    except OSError:
        return
