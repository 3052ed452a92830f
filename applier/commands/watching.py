"""What watches the commands at work: metrics, health and Events, as the options ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from renderer.commandline import option
from renderer.errors import ExitCode, Failure, interrupted

if TYPE_CHECKING:
    from applier.change import Plan
    from applier.cluster.connection import Connection
    from applier.lock import LockSettings
    from applier.run_end import RunEnd, RunObserver
    from applier.telemetry.jobs import WatchedJobs
    from applier.telemetry.metrics import Metrics
    from applier.telemetry.server import Address


class AddressType(click.ParamType["Address"]):
    """An address to listen at."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read the text."""
        from applier.telemetry.server import Address
        from renderer.errors import ConfigurationError

        if isinstance(value, Address):
            return value
        try:
            return Address.of(str(value))
        except ConfigurationError as error:
            self.fail(error.message, param, ctx)


metrics_address_option = option(
    "--metrics-address",
    type=AddressType(),
    metavar="HOST:PORT",
    help="Serve /healthz, /readyz and /metrics there while it stays, at :9090, say.  [default: nowhere]",
)
metrics_file_option = option(
    "--metrics-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the run's metrics to FILE at its end, for the textfile collector of Prometheus' node exporter.",
)


class OneRun:
    """What is known of a run when it ends; `plan` and `end` are set by who carries it out."""

    def __init__(self) -> None:
        """Nothing is known, but when it began."""
        self.plan: Plan | None = None
        self.end: RunEnd | None = None
        self.waited: Callable[[float], None] = lambda _: None
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """For how long it has run."""
        return time.monotonic() - self._started


def begin(command: str, file: Path | None) -> OneRun:
    """The run that the command at hand is, until it ends: see `one_run`."""
    return click.get_current_context().with_resource(one_run(command, file))


@contextmanager
def one_run(command: str, file: Path | None) -> Iterator[OneRun]:
    """Count the run that the block is, however it ends, and write its metrics to the file, if there is one."""
    run = OneRun()
    if file is None:
        yield run
        return
    from applier.run_end import RunEnd

    metrics = _metrics()
    run.waited = metrics.lock_waited
    end = RunEnd(code=ExitCode.DEFECT, seconds=0, summary="")
    try:
        yield run
        end = run.end or RunEnd(code=ExitCode.OK, seconds=run.seconds, summary="")
    except KeyboardInterrupt as error:
        end = RunEnd(code=interrupted(error).code, seconds=run.seconds, summary="", plan=run.plan)
        raise
    except Failure as error:
        end = RunEnd(code=error.code, seconds=run.seconds, summary="", error=error.message, plan=run.plan)
        raise
    finally:
        metrics.run_ended(command, end)
        metrics.write(file)


@contextmanager
def one_job(report_type: str, file: Path | None) -> Iterator[None]:
    """Count the on-demand job that the block is, however it ends; the same for its file."""
    metrics = _metrics() if file else None
    started = time.monotonic()
    outcome = "failed"
    try:
        yield
        outcome = "completed"
    finally:
        if metrics and file:
            metrics.job_ended(report_type, outcome, time.monotonic() - started)
            metrics.write(file)


@contextmanager
def syncs(
    settings: dict[str, Any], connect: Callable[[], Connection], locking: LockSettings, pause: float | None
) -> Iterator[tuple[RunObserver, Callable[[float], None]]]:
    """The observer of syncs, and what is told of waits for the lock; `pause` is the interval, if they are repeated.

    `connect` gives a connection on which Events are created.
    """
    from applier.stop import clock
    from applier.telemetry.health import Health
    from applier.telemetry.runs import WatchedRuns, announcer

    address, file = (settings["metrics_address"] if pause is not None else None), settings["metrics_file"]
    metrics = _metrics() if address or file else None
    longest = locking.wait + locking.hold
    health = Health(clock=clock, within=longest)
    observer = WatchedRuns(
        "sync",
        metrics=metrics,
        health=health,
        announce=announcer(connect, locking.namespace),
        publish=(lambda: metrics.write(file)) if metrics and file else None,
        run_seconds=longest,
        pause_seconds=pause or 0.0,
    )
    with ExitStack() as stack:
        if address and metrics:
            from applier.telemetry.server import serving

            stack.enter_context(serving(address, health, metrics.exposition))
        yield observer, metrics.lock_waited if metrics else (lambda _: None)


@contextmanager
def jobs(
    settings: dict[str, Any], connection: Connection, namespace: str, poll_seconds: float
) -> Iterator[WatchedJobs]:
    """The observer of the runner of on-demand jobs."""
    from applier.stop import clock
    from applier.telemetry.events import EventQueue, Events
    from applier.telemetry.health import Health
    from applier.telemetry.jobs import TURN_SECONDS, WatchedJobs

    address = settings["metrics_address"]
    metrics = _metrics() if address else None
    health = Health(clock=clock, within=poll_seconds + TURN_SECONDS)
    with ExitStack() as stack:
        events = stack.enter_context(EventQueue(Events(connection, namespace)))
        if address and metrics:
            from applier.telemetry.server import serving

            stack.enter_context(serving(address, health, metrics.exposition))
        yield WatchedJobs(health=health, metrics=metrics, announce=events.put, poll_seconds=poll_seconds)


def _metrics() -> Metrics:
    from applier.telemetry.metrics import Metrics

    return Metrics()
