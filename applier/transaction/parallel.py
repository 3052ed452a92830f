"""Runs the writes of one step at the same time, and ends with them when the user insists."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_parallel(
    function: Callable[[A], B], items: Sequence[A], *, concurrency: int, cut: threading.Event | None = None
) -> list[B]:
    """The function's results in the order of the items; at most so many run at a time.

    A second signal is raised here, in the main thread: it sets `cut`, by which the functions know that they must end,
    and is raised again when those under way have ended. A request that is sent is waited for, for its time limit at
    most: only then is it known that nothing more arrives at the server.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(concurrency, len(items)))) as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            if cut is not None:
                cut.set()
            raise
