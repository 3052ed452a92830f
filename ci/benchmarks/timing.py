"""Times commands as whole processes, taking turns, so that whatever else the machine does falls on each alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from renderer.errors import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, and in which environment. `accept` are the exit codes that say that it did its work.

    `before` is done before each run, and its time is not taken.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    accept: tuple[int, ...] = (0,)
    before: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of wall clock of a whole process, one figure a run."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.seconds)


def take_turns(commands: Sequence[Command], *, runs: int) -> dict[str, Timing]:
    """Run each command once a round, in so many rounds; the timings by name.

    Raises Failure when a command does not end as it should.
    """
    seconds: dict[str, list[float]] = {command.name: [] for command in commands}
    for _ in range(runs):
        for command in commands:
            command.before()
            seconds[command.name].append(_run(command))
    return {name: Timing(name=name, seconds=tuple(taken)) for name, taken in seconds.items()}


def once(command: Command) -> Timing:
    """The timing of one run."""
    return take_turns([command], runs=1)[command.name]


def _run(command: Command) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        command.arguments,
        env=dict(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode not in command.accept:
        program = Path(command.arguments[0]).name
        raise Failure(f"{command.name}: {program} exited with {done.returncode}: {done.stdout[-600:]}")
    return seconds
