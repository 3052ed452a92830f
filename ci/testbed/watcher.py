"""Ends a cluster when the process that started it has died, however it died."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from ci.testbed import paths
from ci.testbed.directory import ClusterDirectory
from renderer.errors import Failure


class Watcher:
    """A small process beside ours that reads a pipe: the kernel closes it when we die, and it then cleans up.

    The kernel's own parent-death signal is no use here: it comes already when the starting thread ends.
    """

    def __init__(self, directory: ClusterDirectory, mark: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "ci.testbed.watcher", str(directory.path), mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
        )

    def dismiss(self) -> None:
        """Let the watcher go without cleaning up."""
        self._child.kill()
        self._child.wait()
        if self._child.stdin:
            self._child.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss()


def main(arguments: list[str]) -> None:
    """Wait for the end of standard input, then end the cluster in the directory if it has that mark still."""
    path, mark = arguments
    while os.read(sys.stdin.fileno(), 4096):
        pass
    directory = ClusterDirectory(Path(path))
    with contextlib.suppress(Failure), directory.locked():
        state = directory.read()
        if state and state.mark == mark:
            directory.end()
            directory.remove(keep_logs=True)


if __name__ == "__main__":
    main(sys.argv[1:])
