"""Cutting off a server that takes too long, also one that drips bytes and never meets a socket's timeout."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import requests.adapters


class LimitedAdapter(requests.adapters.HTTPAdapter):
    """requests' adapter, with connections that limit the time of a whole head."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Give the pool for a request, direct or by a proxy."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _limited(pool.ConnectionCls)
        return pool


class _HeadLimit:
    """A connection whose answer's head must be there, whole, within its timeout.

    A socket's timeout starts anew with each byte, so a server that drips would never meet it.
    """

    timeout: float | None
    sock: socket.socket

    def getresponse(self) -> Any:
        # A descriptor of our own can't be closed, and its number given to another, under the timer's hands.
        with (
            socket.socket(fileno=os.dup(self.sock.fileno())) as twin,
            cut_off(lambda: twin.shutdown(socket.SHUT_RDWR), self.timeout or 0.0),
        ):
            return super().getresponse()  # type: ignore[misc]  # of the connection mixed in


@cache
def _limited(connection: type[Any]) -> type[Any]:
    if issubclass(connection, _HeadLimit):
        return connection
    return type(f"Limited{connection.__name__}", (_HeadLimit, connection), {})


@contextmanager
def cut_off(shutdown: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `shutdown` when the block lasts longer; whatever the block then does, TimeoutError is raised.

    This is what ends a wait for bytes: a connection that is shut down reads as its end.
    """
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError, ValueError, RuntimeError):  # the connection is closed or given back already
            shutdown()

    timer = threading.Timer(max(0.0, seconds), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        timer.join()
    if late.is_set():
        raise TimeoutError
