"""Writes the snapshots of many clusters: asks for several at a time, and one's failure stops no other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from renderer.commit_message import PolicyChange, SnapshotChange
from renderer.errors import ExitCode, Failure, defect
from renderer.fleet.file import Member
from renderer.fleet.writers import Closed, Failed, Writer, Writers, Written
from renderer.insights.config import Account
from renderer.insights.policies import fetch_policies
from renderer.insights.transport import Transport
from renderer.publish import Target

#: After so many clusters in a row for which Insights could not be reached, it is down, and not asked for more.
UNREACHED_LIMIT: Final = 20

_STEP_SECONDS: Final = 0.1
_DETAILS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one cluster."""

    member: Member
    result: Written | Failed


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the clusters so far: numbers, the failures themselves, and the changes that were asked for."""

    total: int
    changed: int = 0
    unchanged: int = 0
    policies: int = 0
    failures: list[tuple[Member, Failed]] = field(default_factory=list)
    changes: list[SnapshotChange] = field(default_factory=list)
    _known: dict[PolicyChange, PolicyChange] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count one cluster more."""
        if isinstance(outcome.result, Failed):
            self.failures.append((outcome.member, outcome.result))
            return
        self.policies += outcome.result.policies
        if outcome.result.change:
            self.changes.append(self._shared(outcome.result.change))
        if outcome.result.is_change:
            self.changed += 1
        else:
            self.unchanged += 1

    def _shared(self, change: SnapshotChange) -> SnapshotChange:
        """The same with its parts in common with the others': a policy changes alike on most clusters."""
        parts = tuple(self._known.setdefault(policy, policy) for policy in change.policies)
        return replace(change, policies=parts)

    @property
    def done(self) -> int:
        """How many clusters have the snapshot that they should have."""
        return self.changed + self.unchanged

    @property
    def exit_code(self) -> ExitCode:
        """0 when all are done; the failures' own code when none is done and all failed alike; else 32."""
        if not self.failures:
            return ExitCode.OK
        codes = {failed.code for _, failed in self.failures}
        return codes.pop() if not self.done and len(codes) == 1 else ExitCode.PARTLY_APPLIED

    def __str__(self) -> str:
        return (
            f"{self.done} of {self.total} clusters done ({self.changed} changed, {self.unchanged} as they were), "
            f"{len(self.failures)} failed"
        )


def failure_table(failures: Sequence[tuple[Member, Failed]]) -> Iterator[str]:
    """The failures in the order of their clusters: which cluster, what happened, what to do. Nothing for none."""
    if not failures:
        return
    rows = sorted(((str(member), failed) for member, failed in failures), key=lambda row: row[0])
    names = max(len("CLUSTER"), *(len(name) for name, _ in rows))
    yield f"{'CLUSTER'.ljust(names)}  WHAT HAPPENED, AND WHAT TO DO"
    for name, failed in rows:
        yield f"{name.ljust(names)}  {failed.message}"
        shown, more = failed.details[:_DETAILS_SHOWN], len(failed.details) - _DETAILS_SHOWN
        lines = [*shown, *([f"… and {more} more, which the log has"] if more > 0 else []), failed.hint]
        yield from (f"{' ' * names}  {line}" for line in lines if line)


class Destination(Protocol):
    """Where the snapshots go. Threads share it."""

    def write(self, member: Member, data: bytes, writer: Writer) -> Written | Failed:
        """Have the writer write the answer for one cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """A directory with a folder for each cluster. `explain` has each result say what it means.

    Where `out` is in a private copy, `private` is the root of that, which no message shows.
    """

    out: Path
    private: Path | None = None
    allow_empty: bool = False
    explain: bool = False

    def write(self, member: Member, data: bytes, writer: Writer) -> Written | Failed:
        """Have the writer write it, if no link leads elsewhere on the way."""
        directory = Path(os.path.realpath(self.out)) / member.path
        if Path(os.path.realpath(directory)) != directory:
            return Failed(
                code=ExitCode.CONFIGURATION,
                message=f"{self._shown(str(directory))} leads elsewhere by a symbolic link; nothing is written "
                "through it.",
                hint="Replace the link by a folder, or name another path.",
            )
        target = Target(
            directory=directory,
            organization=member.organization,
            cluster=member.cluster,
            allow_empty=self.allow_empty,
            explain=self.explain,
        )
        result = writer.write(data, target)
        return replace(result, message=self._shown(result.message)) if isinstance(result, Failed) else result

    def _shown(self, message: str) -> str:
        return message.replace(f"{os.path.realpath(self.private)}/", "") if self.private else message


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What to do: for which clusters, to which place, with how many requests and processes at a time."""

    members: Sequence[Member]
    destination: Destination
    concurrency: int
    processes: int


def run(work: Work, account: Account, report: Callable[[Outcome], None]) -> None:
    """Write every snapshot, and report what became of each cluster; one report at a time, in any order.

    A signal, raised as KeyboardInterrupt, ends it soon: what is being written is finished, the rest keeps the
    snapshots that it has. After that nothing is reported. Raises ConfigurationError for settings that no cluster
    could do with.
    """
    threads = max(1, min(work.concurrency, len(work.members)))
    with (
        Transport(account, connections=threads) as transport,
        Writers(min(work.processes, threads)) as writers,
    ):
        _Run(work, account, transport, writers, report).to_the_end(threads)


class _Run:
    def __init__(
        self,
        work: Work,
        account: Account,
        transport: Transport,
        writers: Writers,
        report: Callable[[Outcome], None],
    ) -> None:
        self._work = work
        self._account = account
        self._transport = transport
        self._writers = writers
        self._report = report
        self._waiting = iter(work.members)
        self._lock = threading.Lock()
        self._stopped = False
        self._unreached = 0
        self._defect: Exception | None = None

    def to_the_end(self, count: int) -> None:
        # Daemons: an answer that is waited for must not hold up the end of the program.
        threads = [threading.Thread(target=self._work_off, name="fleet", daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                # In short steps: a signal that reaches another thread does not wake this one, which handles it.
                while thread.is_alive():
                    thread.join(_STEP_SECONDS)
        finally:
            with self._lock:
                self._stopped = True
        if self._defect:
            raise self._defect

    def _work_off(self) -> None:
        try:
            while (member := self._next()) is not None:
                self._one(member)
        except Closed:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's own would be lost; it is raised where it is waited for
            self._defect = error
            self._stopped = True

    def _next(self) -> Member | None:
        with self._lock:
            return None if self._stopped else next(self._waiting, None)

    def _one(self, member: Member) -> None:
        fetched = self._fetch(member)
        if isinstance(fetched, Failed):
            with self._lock:
                if not self._stopped:
                    self._report(Outcome(member=member, result=fetched))
            return
        with self._writers.one() as writer:
            result = self._write(member, fetched, writer)
            # Within the writer's turn: the writers are closed only after all that was written is reported.
            with self._lock:
                self._report(Outcome(member=member, result=result))

    def _fetch(self, member: Member) -> bytes | Failed:
        if self._unreached >= UNREACHED_LIMIT:
            return Failed(
                code=ExitCode.UNAVAILABLE,
                message=f"Not asked for: Insights could not be reached for {UNREACHED_LIMIT} clusters in a row.",
                hint="Run it again when Insights can be reached.",
            )
        fetched = self._ask(member)
        with self._lock:
            down = isinstance(fetched, Failed) and fetched.code is ExitCode.UNAVAILABLE
            self._unreached = self._unreached + 1 if down else 0
        return fetched

    def _ask(self, member: Member) -> bytes | Failed:
        try:
            return fetch_policies(self._transport, self._account.on(member.organization, member.cluster))
        except Failure as failure:
            return Failed.of(failure)
        except Exception as error:  # noqa: BLE001 - a defect in one cluster's work must not end the others'
            return Failed.of(defect(error))

    def _write(self, member: Member, data: bytes, writer: Writer) -> Written | Failed:
        try:
            return self._work.destination.write(member, data, writer)
        except Exception as error:  # noqa: BLE001 - the same
            return Failed.of(defect(error))
