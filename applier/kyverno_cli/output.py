"""Reads what `kyverno apply` prints; all that is known of its text is here (seen with 1.19.1).

The CLI says which files it dropped only in its log (`-v=3`), mostly without their names. So every file
argument is followed by a sentinel, a path that does not exist: its complaint about the sentinel ends the
complaints about the file before it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from renderer.manifest.jsontypes import Json, JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the CLI says of a policy that it knows by its name only; either is "" when it is not sure."""

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
    """One row of the CLI's report: what a policy, or a rule of it, said of an object, which `uid` tells from others."""

    policy: str
    outcome: str
    message: str
    resource: str = ""
    rule: str = ""
    uid: str = ""

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
_RELEASE: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.\d+(?:[-+].*)?\Z")
_SEEN: Final = (1, 19)
_NEXT: Final = (2, 0)
_VISITED: Final = re.compile(r'> skipping invalid YAML file error="stat ::(\d{1,9}): ')
_DROPPED: Final = ("skipping invalid YAML file", "Non-fatal parsing error")
_ERROR_VALUE: Final = re.compile(r'\berror=("(?:[^"\\]|\\.)*"|\S+)')
_ESCAPE: Final = re.compile(r"\\(x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|.)")
_ESCAPED: Final = {**dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)), '"': '"', "\\": "\\"}
_SURROGATES: Final = range(0xD800, 0xE000)
_ANNOUNCED: Final = re.compile(r"^Warning: p(\d{1,9})\.yaml: ", re.MULTILINE)
_RULES: Final = re.compile(r"^Applying (\d{1,9}) policy rule\(s\) to ", re.MULTILINE)
_INVALID: Final = "> policy validation error error="
# Which of the two lists a reason is in.
_OF_ELEMENTS: Final = "variable 'element.name'"
_FINISHED: Final = re.compile(r"^pass: \d+, fail: \d+, warn: \d+, error: \d+, skip: \d+ *$", re.MULTILINE)
_LIST: Final = re.compile(r"^(?:Policies Skipped|Invalid Policies):$", re.MULTILINE)
_DIVIDER: Final = "-" * 70
_FATAL: Final = re.compile(r"^Error: (.*)\Z", re.MULTILINE | re.DOTALL)
_ON_PROBE: Final = re.compile(r"failed to apply [\w ]+ on resource \S+ \((.*)\)\Z", re.DOTALL)
_COMPILE: Final = re.compile(r"failed to compile policy (\S+) \((.*)\)\Z", re.DOTALL)
_CRASH: Final = re.compile(r"^(?:panic|fatal error|runtime): .*$", re.MULTILINE)
_OUT_OF_MEMORY: Final = re.compile(
    r"^(?:fatal error: .*(?:out of memory|cannot allocate memory|failed to reserve)|runtime: out of memory)",
    re.MULTILINE,
)
_REPORT: Final = re.compile(r'\{"kind":"(?:Cluster|Policy)?Report"')
# Each beginning of a report that comes to nothing costs as much as what follows it is deep.
_MOST_BROKEN: Final = 1000
_NOT_COMPILED: Final = re.compile(r"(?:failed to compile policy|(?:\w+ )*compilation (?:error|failed)): ")
_UNKNOWN_KIND: Final = re.compile(r"policy type not supported|failed to retrieve validator: ")
# What stands before the first error of a policy's CEL, and says nothing.
_PREAMBLE: Final = re.compile(r"^<nil>: Internal error: [\w ]+ compiler [\d.]+ error: failed to compile policy, ")
_WRAPPING: Final = re.compile(
    r"failed to (?:load file p\d+\.yaml: failed to parse document|parse document|validate resource) "
    r"\((?:\w+\.[\w.]+ \"[^\"]*\" is invalid: )?"
)
_FIELD: Final = re.compile(r"(?<![\w.])(?:spec|metadata)(?:\.[A-Za-z]\w*|\[\d+\])+")
_FIELD_PART: Final = re.compile(r"\[([0-9]{1,9})\]|([A-Za-z]\w*)")
_VALUE: Final = "Invalid value: "
# Printed in another order each time.
_CHOICES: Final = re.compile(r"(?<=valid values: \[)[^\]]*")
_MESSAGE_LIMIT: Final = 600
_CRASH_LIMIT: Final = 150


def version(stdout: str) -> str:
    """Find the version that `kyverno version` prints, without its `v`; "" when it prints none."""
    found = _VERSION.search(stdout)
    return found[1] if found else ""


def is_seen(version: str) -> bool:
    """Whether it was seen what that version prints."""
    return _release(version) == _SEEN


def is_readable(version: str) -> bool:
    """Whether what it prints can be made out: by 1.19 and, with care, by those after it.

    A policy of which a newer one does not say what 1.19 says is not judged, never passed. Before 1.19, refusals
    had no reasons, and policies.kyverno.io/v1 was unknown.
    """
    return _SEEN <= _release(version) < _NEXT


def read(stdout: str, stderr: str) -> Reading:
    """Read what one run without `--policy-report` said."""
    visited, dropped = _loading(stderr)
    error = _error(stderr)
    compile_error = _COMPILE.match(error)
    rules = _RULES.search(stdout)
    # What is printed afterwards may hold any text of a policy.
    loading = stdout[: rules.start()] if rules else stdout
    crash = _CRASH.search(stderr)
    return Reading(
        visited=visited,
        dropped=dropped,
        announced=frozenset(int(number) for number in _ANNOUNCED.findall(loading)),
        rules=int(rules[1]) if rules else None,
        skipped=_refusals(stdout, stderr),
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
    position = broken = 0
    while broken < _MOST_BROKEN and (found := _REPORT.search(stdout, position)):
        try:
            report, position = decoder.raw_decode(stdout, found.start())
        except (ValueError, RecursionError):
            position = found.end()
            broken += 1
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
    end = reason.rfind(")")
    text = (reason[wrapped.end() : end] if wrapped and end >= wrapped.end() else reason).strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].strip()
    text = _PREAMBLE.sub("", text)
    found = _FIELD.search(text)
    if found and text.startswith(f"{found[0]}: "):
        text = text[found.end() + 2 :]
    text = _without_whole_values(text)
    text = _CHOICES.sub(lambda choices: " ".join(sorted(choices[0].split(" "))), text)
    lines = [line.strip() for line in text.splitlines() if not line.startswith(" | ")]
    text = "; ".join(filter(None, lines))
    if len(text) > _MESSAGE_LIMIT:
        text = f"{text[:_MESSAGE_LIMIT]} …"
    return path(found[0]) if found else (), text


def _without_whole_values(text: str) -> str:
    """Leave out the whole rule that the CLI repeats when it refuses it."""
    for opening, closing in (("{", "}: "), ("[", "]: ")):
        start, end = text.find(f"{_VALUE}{opening}"), text.rfind(closing)
        if 0 <= start < end:
            text = text[: start + len(_VALUE)] + text[end + len(closing) :]
    return text


def path(field: str) -> tuple[str | int, ...]:
    """Split `spec.rules[0].name` into its parts."""
    return tuple(int(index) if index else name for index, name in _FIELD_PART.findall(field))


def _release(version: str) -> tuple[int, int]:
    found = _RELEASE.match(version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


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
    quoted = found[1]
    if len(quoted) < 2 or not (quoted.startswith('"') and quoted.endswith('"')):
        return quoted
    return _ESCAPE.sub(_unescaped, quoted[1:-1])


def _unescaped(escape: re.Match[str]) -> str:
    """What one of Go's escapes stands for (strconv.Quote); what is none stays as it is."""
    sign, digits = escape[1], escape[2] or escape[3] or escape[4]
    if digits:
        number = int(digits, 16)
        return chr(number) if number <= sys.maxunicode and number not in _SURROGATES else escape[0]
    return _ESCAPED.get(sign, escape[0])


def _refusals(stdout: str, stderr: str) -> tuple[Refusal, ...]:
    """What Kyverno's own checks refuse: the reasons stand in the log, the names with the same reasons in two lists.

    A reason and what else is printed may hold any text of a policy, the ends of a list and whole lists too. So names
    count only where the lists, made of the reasons as they have to be, are found exactly once.
    """
    reasons = [_error_value(line) for line in stderr.splitlines() if _INVALID in line]
    if not reasons:
        return (Refusal(name="", reason=""),) if _LIST.search(stdout) else ()
    lists = {
        "Policies Skipped:": [reason for reason in reasons if not reason.startswith(_OF_ELEMENTS)],
        "Invalid Policies:": [reason for reason in reasons if reason.startswith(_OF_ELEMENTS)],
    }
    expected = "".join(_list_pattern(title, within) for title, within in lists.items() if within)
    found = list(re.finditer(f"(?=^{expected})", stdout, re.MULTILINE))
    names = found[0].groups() if len(found) == 1 else [""] * len(reasons)
    ordered = [reason for within in lists.values() for reason in within]
    return tuple(Refusal(name=name, reason=reason) for name, reason in zip(names, ordered, strict=True))


def _list_pattern(title: str, reasons: Sequence[str]) -> str:
    """The pattern of one list of refused policies, with their names as its groups."""
    entries = [rf"{n}\. (\S+){re.escape(f': {reason}' if reason else '')}\n" for n, reason in enumerate(reasons, 1)]
    return f"{_DIVIDER}\n{title}\n{''.join(entries)}{_DIVIDER}\n"


def _rows(report: JsonObject) -> Iterator[Result]:
    rows = report.get("results")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            named = _first(row.get("resources"))
            yield Result(
                policy=_words(row, "policy"),
                outcome=_words(row, "result"),
                message=_words(row, "message"),
                resource="/".join(filter(None, (_words(named, key) for key in ("kind", "namespace", "name")))),
                rule=_words(row, "rule"),
                uid=_words(named, "uid"),
            )


def _first(items: Json) -> JsonObject:
    """The object that a row is about."""
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}


def _words(row: JsonObject, key: str) -> str:
    """The text of a field, "" for none; a half of a surrogate pair in it could not be shown."""
    return str(row.get(key) or "").encode(errors="replace").decode()
