"""A program that takes part in client-go's own leader election, to hold the applier's lock against."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from applier import lock
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.tools import tool

#: As short as client-go takes it: seconds that the Lease is good for, that renewing is tried, and between two tries.
LEASE, DEADLINE, RETRY = 3, 2, 0.4


class Elector:
    """The running program: what it prints are `leading`, `stopped` and `leader NAME`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def says(self, line: str) -> None:
        """Wait until it prints that line; whatever else it prints before is kept in `said`."""
        assert self.process.stdout is not None
        for printed in self.process.stdout:
            self.said.append(printed.strip())
            if self.said[-1] == line:
                return
        raise AssertionError(f"the elector ended without saying {line!r}: {self.said}")

    def release(self) -> None:
        """Have it give the Lease up."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def elector(kubeconfig: Path, identity: str = "incumbent") -> Iterator[Elector]:
    """Let one run; it is killed in the end."""
    command = [
        str(tool("elector")),
        f"--kubeconfig={kubeconfig}",
        f"--namespace={AGENT_NAMESPACE}",
        f"--name={lock.LEASE}",
        f"--identity={identity}",
        f"--lease={LEASE}s",
        f"--deadline={DEADLINE}s",
        f"--retry={RETRY}s",
    ]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:
        try:
            yield Elector(process)
        finally:
            process.kill()
