"""Reads what `kyverno apply` prints; all that is known of its text is here (seen with 1.19.1).

The CLI says which files it dropped only in its log (`-v=3`), mostly without their names. So every file
argument is followed by a sentinel, a path that does not exist: its complaint about the sentinel ends the
complaints about the file before it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from renderer.manifest.jsontypes import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the CLI says of a policy that it knows by its name only."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one run said; files are known by their number.

    `visited` are the files whose sentinel was reached, `dropped` those that were not loaded, with the reason,
    `announced` those that were named as loaded (deprecated kinds are), `rules` is how many rules were loaded
    in all (None: not said). `skipped` failed Kyverno's own checks, `compile_error` is the first policy whose
    CEL does not compile, which ends the run. `other_error` ended the run without naming a policy; `crash` is
    the first line of a Go panic or fatal error. `finished` says that the closing summary was printed.
    """

    visited: frozenset[int] = frozenset()
    dropped: Mapping[int, str]
    announced: frozenset[int] = frozenset()
    rules: int | None = None
    skipped: tuple[Refusal, ...] = ()
    compile_error: Refusal | None = None
    other_error: str = ""
    crash: str = ""
    finished: bool = False

    @property
    def makes_sense(self) -> bool:
        """Whether it is known how the run ended, and it had come to the policies before it failed."""
        named = self.finished or bool(self.crash) or self.compile_error is not None
        return named or bool(self.other_error and self.visited)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the CLI's report: what a policy said of the probe."""

    policy: str
    outcome: str
    message: str

    @property
    def compile_error(self) -> str:
        """What does not compile, or "" when all that this row depends on did."""
        found = _NOT_COMPILED.match(self.message) if self.outcome == "error" else None
        return self.message[found.end() :] if found else ""


def file_name(number: int) -> str:
    """Name the file of that number, in the directory that the CLI runs in."""
    return f"p{number}.yaml"


def sentinel(number: int) -> str:
    """Name the path that follows that file on the command line; it must not exist."""
    return f"::{number}"


_VERSION: Final = re.compile(r"^Version: v?(\S+)$", re.MULTILINE)
_VISITED: Final = re.compile(r"skipping invalid YAML file .*\bpath=::(\d+)\b")
_DROPPED: Final = ("skipping invalid YAML file", "Non-fatal parsing error")
_ERROR_VALUE: Final = re.compile(r'\berror=("(?:[^"\\]|\\.)*"|\S+)')
_ANNOUNCED: Final = re.compile(r"^Warning: p(\d+)\.yaml: ", re.MULTILINE)
_RULES: Final = re.compile(r"^Applying (\d+) policy rule\(s\) to ", re.MULTILINE)
_FINISHED: Final = re.compile(r"^pass: \d+, fail: \d+, warn: \d+, error: \d+, skip: \d+ *$", re.MULTILINE)
_REFUSED: Final = re.compile(r"^(?:Policies Skipped|Invalid Policies):\n(.*?)\n-{70}$", re.MULTILINE | re.DOTALL)
_FATAL: Final = re.compile(r"^Error: (.*)\Z", re.MULTILINE | re.DOTALL)
_ON_PROBE: Final = re.compile(r"failed to apply [\w ]+ on resource \S+ \((.*)\)\Z", re.DOTALL)
_COMPILE: Final = re.compile(r"failed to compile policy (\S+) \((.*)\)\Z", re.DOTALL)
_CRASH: Final = re.compile(r"^(?:panic|fatal error|runtime): .*$", re.MULTILINE)
_OUT_OF_MEMORY: Final = re.compile(
    r"^(?:fatal error: .*(?:out of memory|cannot allocate memory|failed to reserve)|runtime: out of memory)",
    re.MULTILINE,
)
_REPORT: Final = re.compile(r'\{"kind":"(?:Cluster|Policy)?Report"')
_NOT_COMPILED: Final = re.compile(r"(?:failed to compile policy|(?:\w+ )*compilation (?:error|failed)): ")
_UNKNOWN_KIND: Final = re.compile(r"policy type not supported|failed to retrieve validator: ")
# What stands before the first error of a policy's CEL, and says nothing.
_PREAMBLE: Final = re.compile(r"^<nil>: Internal error: [\w ]+ compiler [\d.]+ error: failed to compile policy, ")
_WRAPPING: Final = re.compile(
    r"failed to (?:load file p\d+\.yaml: failed to parse document|parse document|validate resource) "
    r"\((?:\w+\.[\w.]+ \"[^\"]*\" is invalid: )?(.*)\)",
    re.DOTALL,
)
_FIELD: Final = re.compile(r"(?<![\w.])(?:spec|metadata)(?:\.[A-Za-z]\w*|\[\d+\])+")
_FIELD_PART: Final = re.compile(r"\[(\d+)\]|([A-Za-z]\w*)")
# The CLI repeats the whole rule that it refuses.
_WHOLE_VALUE: Final = re.compile(r"(Invalid value: )(\{.*\}|\[.*\]): ", re.DOTALL)
# Printed in another order each time.
_CHOICES: Final = re.compile(r"(?<=valid values: \[)[^\]]*")
_MESSAGE_LIMIT: Final = 600
_CRASH_LIMIT: Final = 150


def version(stdout: str) -> str:
    """Find the version that `kyverno version` prints, without its `v`; "" when it prints none."""
    found = _VERSION.search(stdout)
    return found[1] if found else ""


def read(stdout: str, stderr: str) -> Reading:
    """Read what one run without `--policy-report` said."""
    visited, dropped = _loading(stderr)
    error = _error(stderr)
    compile_error = _COMPILE.match(error)
    rules = _RULES.search(stdout)
    crash = _CRASH.search(stderr)
    return Reading(
        visited=visited,
        dropped=dropped,
        announced=frozenset(int(number) for number in _ANNOUNCED.findall(stdout)),
        rules=int(rules[1]) if rules else None,
        skipped=tuple(refusal for part in _REFUSED.findall(stdout) for refusal in _refusals(part)),
        compile_error=Refusal(name=compile_error[1], reason=compile_error[2]) if compile_error else None,
        other_error="" if compile_error else error,
        crash=crash[0][:_CRASH_LIMIT] if crash else "",
        finished=_FINISHED.search(stdout) is not None,
    )


def results(stdout: str) -> tuple[Result, ...]:
    """Find the rows of all reports in what a run with `--policy-report --output-format json` printed.

    Other text may stand before a report on the same line.
    """
    decoder = json.JSONDecoder()
    rows: list[Result] = []
    position = 0
    while found := _REPORT.search(stdout, position):
        try:
            report, position = decoder.raw_decode(stdout, found.start())
        except ValueError:
            position = found.end()
            continue
        rows.extend(_rows(report))
    return tuple(rows)


def out_of_memory(stderr: str) -> bool:
    """Whether the Go runtime gave up for want of memory."""
    return _OUT_OF_MEMORY.search(stderr) is not None


def unknown_kind(reason: str) -> bool:
    """Whether a file was dropped because the CLI does not know its kind in that version."""
    return _UNKNOWN_KIND.search(reason) is not None


def explain(reason: str) -> tuple[tuple[str | int, ...], str]:
    """Split the CLI's words into the first field that they name, () if none, and what they say of it."""
    wrapped = _WRAPPING.search(reason)
    text = (wrapped[1] if wrapped else reason).strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].strip()
    text = _PREAMBLE.sub("", text)
    found = _FIELD.search(text)
    if found and text.startswith(f"{found[0]}: "):
        text = text[found.end() + 2 :]
    text = _WHOLE_VALUE.sub(r"\1", text)
    text = _CHOICES.sub(lambda choices: " ".join(sorted(choices[0].split(" "))), text)
    lines = [line.strip() for line in text.splitlines() if not line.startswith(" | ")]
    text = "; ".join(filter(None, lines))
    if len(text) > _MESSAGE_LIMIT:
        text = f"{text[:_MESSAGE_LIMIT]} …"
    return _path(found[0]) if found else (), text


def _loading(stderr: str) -> tuple[frozenset[int], dict[int, str]]:
    visited: set[int] = set()
    dropped: dict[int, str] = {}
    complaints: list[str] = []
    for line in stderr.splitlines():
        if passed := _VISITED.search(line):
            number = int(passed[1])
            visited.add(number)
            if complaints:
                dropped[number] = "; ".join(complaints)
                complaints = []
        elif any(text in line for text in _DROPPED):
            complaints.append(_error_value(line))
    return frozenset(visited), dropped


def _error(stderr: str) -> str:
    """Find the error that ended the run, the last thing that is printed; "" when it ran to its end."""
    found = _FATAL.search(stderr)
    if found is None:
        return ""
    error = found[1].strip()
    wrapped = _ON_PROBE.match(error)
    return wrapped[1] if wrapped else error


def _error_value(line: str) -> str:
    found = _ERROR_VALUE.search(line)
    if found is None:
        return line
    if not found[1].startswith('"'):
        return found[1]
    # Go's quoting; Python reads all of its escapes.
    return str(ast.literal_eval(found[1]))


def _refusals(part: str) -> Iterator[Refusal]:
    """`1. NAME: reason`, `2. …`; a reason may go on over lines, so the next number opens the next entry."""
    entries: list[str] = []
    for line in part.split("\n"):
        opening = f"{len(entries) + 1}. "
        if line.startswith(opening):
            entries.append(line.removeprefix(opening))
        elif entries:
            entries[-1] += f"\n{line}"
    for entry in entries:
        name, _, reason = entry.partition(": ")
        yield Refusal(name=name, reason=reason or "refused without a reason")


def _rows(report: JsonObject) -> Iterator[Result]:
    for row in report.get("results", []):
        yield Result(
            policy=str(row.get("policy", "")),
            outcome=str(row.get("result", "")),
            message=str(row.get("message", "")),
        )


def _path(field: str) -> tuple[str | int, ...]:
    return tuple(int(index) if index else name for index, name in _FIELD_PART.findall(field))
