"""A server without manners: its script says what becomes of a connection, once a request's head is read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class RawServer:
    """Listens on loopback; `heads` are the requests' heads, `port` the port. Ends with every connection."""

    def __init__(self, script: Callable[[socket.socket, threading.Event], None], *, speaks_first: bool = False) -> None:
        self._speaks_first = speaks_first
        self.heads: list[bytes] = []
        self._script = script
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._threads.append(threading.Thread(target=self._accept))
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._stopping.is_set():
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while not self._speaks_first and b"\r\n\r\n" not in head:
                block = connection.recv(4096)
                if not block:
                    return
                head += block
            self.heads.append(head)
            self._script(connection, self._stopping)


def saying(answer: bytes, *, speaks_first: bool = False) -> RawServer:
    """Answer each request with these bytes, then hang up."""
    return RawServer(lambda connection, _: connection.sendall(answer), speaks_first=speaks_first)


def dripping(start: bytes, drop: bytes) -> RawServer:
    """Send `start`, then a drop every few milliseconds, for as long as anybody listens."""

    def script(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(start)
        while not stopping.wait(0.01):
            connection.sendall(drop)

    return RawServer(script)
