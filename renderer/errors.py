"""Every error the two programs raise on purpose, and the exit code that each one means.

Failure                      base: a message, what to do next, details
├── UsageError               64  the command names something that is not there
├── ConfigurationError       78  a flag's, variable's or file's value is missing or wrong
├── InputError               65  a document, snapshot, journal or saved plan can't be used
│   ├── DocumentErrors           everything wrong with one answer or directory, together
│   └── SnapshotError            a snapshot is not what its lock says
├── RemoteError              69  Insights or the cluster can't be reached, or answers nonsense
├── NotPermitted             77  Insights or the cluster refuses this account
├── Locked                   75  another run holds the lock
├── Refusal                  11–19  a guard stopped the plan; `code` says which
├── InvalidPolicies          20  validation refused at least one policy
├── ApplyFailed              30, 31, 32  rolled back, rollback incomplete, partly applied
├── NotReported              33  the cluster is done, Insights could not be told
├── JobFailed                34  the Job that was to run has failed
└── Interrupted              130, 143  a signal ended the run; its writes were undone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the programs exit with; sysexits.h where a code of it fits."""

    OK = 0
    DEFECT = 1
    CHANGES = 2
    STALE_PLAN = 10
    EMPTY_SET = 11
    TOO_MANY_DELETIONS = 12
    NOT_OWNED = 13
    WRONG_CLUSTER = 14
    KIND_UNAVAILABLE = 15
    WEAKENS = 16
    NEEDS_REPLACING = 17
    BLOCKS_ITSELF = 18
    TERMINATING = 19
    INVALID_POLICY = 20
    ROLLED_BACK = 30
    ROLLBACK_INCOMPLETE = 31
    PARTLY_APPLIED = 32
    NOT_REPORTED = 33
    JOB_FAILED = 34
    USAGE = 64
    INPUT = 65
    UNAVAILABLE = 69
    LOCKED = 75
    NOT_PERMITTED = 77
    CONFIGURATION = 78
    INTERRUPTED = 130
    TERMINATED = 143


class Failure(Exception):
    """An expected failure: `message` says what happened to what, `hint` what to do, `details` one line each."""

    code = ExitCode.DEFECT

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        lines = [self.message, *(f"  {line}" for line in self.details)]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived; handled as Ctrl-C is, with an exit code of its own."""


def interrupted(error: BaseException | None, before: str = "anything was changed") -> Interrupted:
    """The failure that a signal means, and before what it arrived."""
    if isinstance(error, Terminated):
        return Interrupted(f"Terminated before {before}.", code=ExitCode.TERMINATED)
    return Interrupted(f"Interrupted before {before}.")


def defect(error: BaseException) -> Failure:
    """The failure that an exception means which nobody raised on purpose; it names the place in our code."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"
    return Failure(
        f"This is a defect of the program: {type(error).__name__} in {where}.",
        hint="Run it again with LOG_LEVEL=debug and report what it prints.",
    )


class UsageError(Failure):
    """The command is about something that is not there, which only a look at the policies could tell."""

    code = ExitCode.USAGE


class ConfigurationError(Failure):
    """A setting is missing or wrong."""

    code = ExitCode.CONFIGURATION


class InputError(Failure):
    """Something that was given to read can't be used."""

    code = ExitCode.INPUT


def printable(text: str, *, indent: str = "") -> str:
    """The text as a terminal may show it: what would steer it is escaped, and lines after the first are indented.

    A policy's own words are in many messages; they must not clear the screen, nor look like a line of ours.
    """
    lines = text.split("\n")
    return f"\n{indent}".join("".join(map(_shown, line)) for line in lines)


def _shown(sign: str) -> str:
    return sign if sign.isprintable() else sign.encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One thing wrong in a document: where (1-based; 0 means unknown) and what."""

    source: str
    line: int = 0
    column: int = 0
    document: int = 0
    field: str = ""
    policy: str = ""
    message: str

    def __str__(self) -> str:
        place = ":".join([self.source, *(str(n) for n in (self.line, self.column) if n)])
        document = f" (document {self.document})" if self.document else ""
        subject = " ".join(part for part in (self.policy, self.field) if part)
        return printable(f"{place}{document}: {subject + ': ' if subject else ''}{self.message}", indent="  ")


class DocumentErrors(InputError):
    """Everything that is wrong with one answer, file or directory; nothing of it is used."""

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        self.problems = tuple(sorted(problems))
        count = len(self.problems)
        sources = sorted({problem.source for problem in self.problems})
        named = sources[0] if len(sources) == 1 else f"{len(sources)} files"
        super().__init__(
            f"{named}: {count} {'error' if count == 1 else 'errors'}; nothing was written.",
            details=[str(problem) for problem in self.problems],
            hint=hint or "Correct the documents that are named, then run again.",
        )


class SnapshotError(InputError):
    """A snapshot directory is missing, truncated, edited or holds files that its lock does not list."""


class RemoteError(Failure):
    """A server could not be reached, or its answer makes no sense."""

    code = ExitCode.UNAVAILABLE


class NotPermitted(Failure):
    """A server knows this account and refuses it, or does not know it."""

    code = ExitCode.NOT_PERMITTED


class Locked(Failure):
    """Another run holds the lock."""

    code = ExitCode.LOCKED


class Refusal(Failure):
    """A guard stopped the plan before anything was written."""

    def __init__(self, code: ExitCode, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint, details=details)
        self.code = code


class InvalidPolicies(Failure):
    """Validation refused at least one policy; nothing was written."""

    code = ExitCode.INVALID_POLICY


class ApplyFailed(Failure):
    """An apply failed after its first write; `code` says what became of what was written."""

    def __init__(self, code: ExitCode, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint, details=details)
        self.code = code


class NotReported(Failure):
    """The cluster's outcome stands, but Insights could not be told of it."""

    code = ExitCode.NOT_REPORTED


class JobFailed(Failure):
    """The Job that was to run was made, and failed."""

    code = ExitCode.JOB_FAILED


class Interrupted(Failure):
    """A signal ended the run before it changed anything, or what it changed was undone."""

    def __init__(self, message: str, *, code: ExitCode = ExitCode.INTERRUPTED, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
