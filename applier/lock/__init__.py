"""One applier at a time: a file lock on this machine, then the Lease on the cluster, which decides."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from applier.lock.elector import Durations, Held, LeaseName, lease
from applier.lock.flock import file_lock
from applier.ports import Access
from applier.stop import Stop
from renderer import logs

if TYPE_CHECKING:
    from applier.ports import Leases

FILE: Final = Path("/tmp/kyverno-policy-sync.lock")  # noqa: S108 - the name that the incumbent uses
LEASE: Final = "kyverno-policy-sync-lock"
DEFAULT_NAMESPACE: Final = "insights-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockSettings:
    """Where the lock is kept, how long to wait for it, and how long to hold it at most (seconds).

    `waited` is told how many seconds it took to get the lock, or to give up.
    """

    namespace: str
    wait: float
    hold: float
    file: Path = FILE
    durations: Durations = field(default_factory=Durations)
    waited: Callable[[float], None] = field(default=lambda _: None, compare=False)

    @property
    def uses(self) -> tuple[Access, ...]:
        """What keeping the lock asks for after it was taken: a Lease that can't be renewed is soon another's."""
        return (
            Access(group="coordination.k8s.io", plural="leases", verb="update", namespace=self.namespace, name=LEASE),
        )


@contextmanager
def locked(leases: Leases, settings: LockSettings, stop: Stop) -> Iterator[Held]:
    """Hold both locks; `stop` is told when the work must stop for their sake.

    `settings.wait` bounds the waiting for the two of them together. Raises Locked, ConfigurationError and NotPermitted
    as `lease` and `file_lock` do.
    """
    identity = holder_identity()
    began = stop.clock()
    until = began + settings.wait
    durations = settings.durations
    with ExitStack() as locks:
        try:
            locks.enter_context(
                file_lock(settings.file, identity=identity, until=until, poll=durations.poll, clock=stop.clock)
            )
            held = locks.enter_context(
                lease(
                    leases,
                    LeaseName(namespace=settings.namespace, name=LEASE),
                    identity=identity,
                    until=until,
                    hold=settings.hold,
                    stop=stop,
                    durations=durations,
                )
            )
        finally:
            settings.waited(stop.clock() - began)
        yield held


def holder_identity() -> str:
    """Who we are in the Lease: host, process, the run as the log names it, and something that no other holder has."""
    return f"{socket.gethostname()}_{os.getpid()}_{logs.run_id()}_{secrets.token_hex(2)}"
