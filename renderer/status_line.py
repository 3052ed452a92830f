"""The line of a terminal that says how far long work has come; whatever else is printed takes its place.

There is one, as there is one log: `turn_on` names the terminal. Until then, and in pipes, nothing is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO, TypeVar

T = TypeVar("T")

#: Back to the start of the line, and delete to its end (ECMA-48: CR, EL).
CLEAR: Final = "\r\x1b[K"


class StatusLine:
    """One line, rewritten at each step. Threads may share it."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._shown = self._drawing = False
        self._lock = threading.RLock()
        self._begins_line = True

    def turn_on(self, stream: TextIO, environment: Mapping[str, str]) -> None:
        """Show it there, unless that is no terminal, or one that can't rewrite a line, or this is a CI job."""
        seen = stream.isatty() and environment.get("TERM") != "dumb" and not environment.get("CI")
        self._stream = stream if seen else None

    def turn_off(self) -> None:
        """Take it away, and show it no more."""
        with self._lock:
            self._clear()
            self._stream = None

    def show(self, text: str) -> None:
        """Say that now; nothing is said in the middle of somebody else's line."""
        with self._lock:
            if self._begins_line:
                self._draw(f"{CLEAR}{text}")
                self._shown = True

    @contextmanager
    def saying(self, text: str) -> Iterator[None]:
        """Say it as long as the work lasts."""
        self.show(text)
        try:
            yield
        finally:
            with self._lock:
                self._clear()

    def counting(self, results: Iterable[T], text: str, total: int, *, before: int = 0) -> Iterator[T]:
        """The same results, and say of each that it is there; `before` were there already."""
        with self.saying(f"{text} {before}/{total}"):
            for number, result in enumerate(results, before + 1):
                self.show(f"{text} {number}/{total}")
                yield result

    @contextmanager
    def giving_way(self, text: str) -> Iterator[None]:
        """For who writes the text to the same terminal: the line is taken away before."""
        with self._lock:
            if self._drawing:
                yield
                return
            self._clear()
            yield
            self._begins_line = text.endswith("\n") if text else self._begins_line

    def _clear(self) -> None:
        if self._shown:
            self._draw(CLEAR)
        self._shown = False

    def _draw(self, text: str) -> None:
        if self._stream is None:
            return
        self._drawing = True
        try:
            self._stream.write(text)
            self._stream.flush()
        finally:
            self._drawing = False


STATUS: Final = StatusLine()
