"""What the API server says beside its answers, in `Warning` headers, for whoever listens.

A listener hears what is said to the calls of its own thread. What nobody listens to is logged. Each text is told
to the log once only, and not at all when somebody has heard it before.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from renderer import logs

log = logs.get_logger()

# https://www.rfc-editor.org/rfc/rfc7234#section-5.5, as kube-apiserver writes it: 299 - "text".
_WARNING: Final = re.compile(r'\b\d{3} \S+ "((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\(.)")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]")
_LIMIT: Final = 1000

_listener: ContextVar[list[str] | None] = ContextVar("_listener", default=None)


class Warnings:
    """The warnings of one server; threads may share it."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def take(self, headers: Iterable[str]) -> None:
        """Tell what these `Warning` headers say to the listener, or log it."""
        heard = _listener.get()
        for text in texts(headers):
            with self._lock:
                is_new = text not in self._told
                self._told.add(text)
            if heard is not None:
                heard.append(text)
            elif is_new:
                log.warning("The server warns", text=text)


@contextmanager
def listen() -> Iterator[list[str]]:
    """Collect what the server says to the calls of this thread inside the block."""
    heard: list[str] = []
    token = _listener.set(heard)
    try:
        yield heard
    finally:
        _listener.reset(token)


def texts(headers: Iterable[str]) -> Iterator[str]:
    """The texts in `Warning` headers; one header may hold several."""
    for header in headers:
        for found in _WARNING.findall(header):
            yield _UNPRINTABLE.sub(" ", _ESCAPE.sub(r"\1", found))[:_LIMIT]
