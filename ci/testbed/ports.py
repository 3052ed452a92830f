"""Free ports on the loopback."""

from __future__ import annotations

import contextlib
import socket


def free(count: int) -> tuple[int, ...]:
    """Different ports that nobody listens on now; another process may still take one before it is used."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)
