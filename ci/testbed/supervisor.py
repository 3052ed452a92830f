"""Starts the processes of one cluster, waits until each answers, and can kill or restart one."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ci.testbed import ports, processes
from ci.testbed.directory import ClusterDirectory, State
from ci.testbed.processes import Process
from renderer.errors import RemoteError

_POLL_S: Final = 0.025
_PORT_ATTEMPTS: Final = 5
_PORT_TAKEN: Final = "address already in use"
#: A log's line may hold a whole policy; an error shows its beginning.
_LINE: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One program of the control plane: how it is run on which ports, and how long it may take to answer.

    `arguments` gets as many free ports as `ports` says; its first port is the one that must answer.
    """

    name: str
    arguments: Callable[[Sequence[int]], Sequence[str]]
    ports: int
    timeout_s: float
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Running:
    """A component's process as it is now: it is another one after a restart."""

    component: Component
    ports: tuple[int, ...]
    process: Process
    child: subprocess.Popen[bytes]


class Supervisor:
    """The processes of the cluster in `directory`, which must be claimed and locked while any is started."""

    def __init__(self, directory: ClusterDirectory, state: State, binaries: Path) -> None:
        self._directory = directory
        self._binaries = binaries
        self._running: dict[str, Running] = {}
        self.state = state

    def update(self, state: State) -> None:
        """Remember `state`, first on disk."""
        self._directory.write(state)
        self.state = state

    def spawn(self, component: Component) -> Running:
        """Start `component`; its PID is on disk before this returns. `wait` says when it answers."""
        chosen = ports.free(component.ports)
        process, child = self._launch(component, chosen)
        running = Running(component=component, ports=chosen, process=process, child=child)
        self._running[component.name] = running
        return running

    def _launch(self, component: Component, chosen: Sequence[int]) -> tuple[Process, subprocess.Popen[bytes]]:
        binary = self._binaries / component.name
        try:
            process, child = processes.spawn(
                component.name,
                [str(binary), *component.arguments(chosen)],
                log=self._directory.log(component.name),
                mark=self.state.mark,
                environment=component.environment,
            )
        except OSError as error:
            raise missing(component.name, binary) from error
        others = tuple(other for other in self.state.processes if other.name != component.name)
        self.update(replace(self.state, processes=(*others, process)))
        return process, child

    def _relaunch(self, running: Running) -> None:
        running.process, running.child = self._launch(running.component, running.ports)

    def wait(self, running: Running, ready: Callable[[], bool]) -> None:
        """Return when `ready` is true and the first port is answered by our own process.

        A port that was lost to another program is replaced by a new one, up to five times. Raises
        RemoteError with the log's last lines when the process ends or is not ready in its time.
        """
        component = running.component
        deadline = time.monotonic() + component.timeout_s
        attempts = 1
        while not (processes.listens(running.process, running.ports[0]) and ready()):
            if running.child.poll() is not None:
                if attempts == _PORT_ATTEMPTS or not self._lost_its_port(component.name):
                    raise self._failed(component.name, f"ended with exit code {running.child.returncode}")
                attempts += 1
                self._directory.log(component.name).unlink()
                running.ports = ports.free(component.ports)
                self._relaunch(running)
            if time.monotonic() > deadline:
                raise self._failed(component.name, f"does not answer after {component.timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def _lost_its_port(self, name: str) -> bool:
        return _PORT_TAKEN in self._directory.log(name).read_text(errors="replace")

    def _failed(self, name: str, what: str) -> RemoteError:
        log = self._directory.log(name)
        return RemoteError(
            f"{name} {what}.",
            details=[line[:_LINE] for line in log.read_text(errors="replace").splitlines()[-8:]],
            hint=f"Its whole log is {log}.",
        )

    def kill(self, name: str) -> None:
        """SIGKILL one component and return when it is gone; KeyError when it was never started."""
        running = self._running[name]
        processes.send(running.process, signal.SIGKILL, wait_s=10)
        running.child.wait()

    def restart(self, name: str, ready: Callable[[], bool]) -> None:
        """Start a component that was killed again, on the same ports and data."""
        running = self._running[name]
        self._relaunch(running)
        self.wait(running, ready)

    def end(self, name: str, *, grace_s: float) -> None:
        """End one component in an orderly way."""
        running = self._running.pop(name)
        processes.end(running.process, grace_s=grace_s)
        running.child.wait()

    def reap(self) -> None:
        """Let the kernel forget the children that have ended."""
        for running in self._running.values():
            running.child.wait()
        self._running.clear()


def missing(name: str, binary: Path) -> RemoteError:
    """The error for a binary that is not there or can't be run."""
    return RemoteError(f"{name} is not built ({binary}).", hint="Run `ci/tools` first.")
