"""Evaluates many policies on many objects with the kyverno CLI, and says which rule said what of which object."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from applier.kyverno_cli import output
from applier.kyverno_cli.files import write
from applier.kyverno_cli.output import Reading, Result
from applier.kyverno_cli.process import KyvernoProcess, private_directory
from renderer.errors import InvalidPolicies
from renderer.manifest.jsontypes import JsonObject

#: Halving a run down to what it fails on takes about twelve; more of them would be many failures.
_MOST_RUNS: Final = 60
_NAME: Final = re.compile(r"(?:.*/)?p(\d+)\Z")


class OutOfTimeError(Exception):
    """There is no time left for another run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One row, of the policy of that number."""

    number: int
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Policies, by number, that could not be evaluated on so many objects."""

    number: int
    objects: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """Runs the CLI on policies whose names are `p` and their number, and objects whose uid tells them apart.

    `exceptions` are those of each policy. `seconds_left` says how long runs may still take in all; one may take at
    most what the process allows.
    """

    process: KyvernoProcess
    seconds_left: Callable[[], float]

    def evaluate(
        self,
        policies: Mapping[int, JsonObject],
        exceptions: Mapping[int, Sequence[JsonObject]],
        objects: Sequence[JsonObject],
        namespaces: Sequence[JsonObject],
    ) -> tuple[list[Said], list[Failed]]:
        """What each policy says of each object; nothing of what it does not match.

        What makes a run fail is narrowed down, so that the rest is evaluated. Raises OutOfTimeError.
        """
        said: list[Said] = []
        failed: list[Failed] = []
        work: deque[tuple[list[int], Sequence[JsonObject]]] = deque([(list(policies), objects)])
        for _ in range(_MOST_RUNS):
            if not work:
                return said, failed
            numbers, some = work.popleft()
            results, refused, reason = self._run(
                [policies[number] for number in numbers],
                [body for number in numbers for body in exceptions[number]],
                some,
                namespaces,
            )
            if not reason and not refused:
                said += (
                    Said(number=number, result=row) for row in results if (number := _number(row.policy)) in policies
                )
                continue
            failed += (
                Failed(number=number, objects=len(some), reason=why)
                for number, why in refused.items()
                if number in numbers
            )
            rest = [number for number in numbers if number not in refused]
            if len(rest) < len(numbers):
                work.appendleft((rest, some)) if rest else None
            elif len(rest) == len(some) == 1:
                failed.append(Failed(number=rest[0], objects=1, reason=reason))
            else:
                work.extendleft(_halves(rest, some))
        for numbers, some in work:
            failed += (
                Failed(number=number, objects=len(some), reason="the kyverno CLI failed too often")
                for number in numbers
            )
        return said, failed

    def _run(
        self,
        policies: Iterable[JsonObject],
        exceptions: Sequence[JsonObject],
        objects: Sequence[JsonObject],
        namespaces: Sequence[JsonObject],
    ) -> tuple[Sequence[Result], Mapping[int, str], str]:
        """The rows; or else the policies that the CLI refuses, or why it failed if it does not say of which."""
        left = self.seconds_left()
        if left <= 0:
            raise OutOfTimeError
        process = replace(self.process, timeout_seconds=min(self.process.timeout_seconds, left))
        try:
            with private_directory() as directory:
                arguments = ["apply"]
                for number, body in enumerate(policies):
                    write(directory / output.file_name(number), body)
                    arguments.append(output.file_name(number))
                write(directory / "objects.yaml", *objects)
                write(directory / "values.yaml", _values(namespaces))
                arguments += ["--resource=objects.yaml", "--values-file=values.yaml"]
                if exceptions:
                    write(directory / "exceptions.yaml", *exceptions)
                    arguments.append("--exception=exceptions.yaml")
                arguments += ["--policy-report", "--output-format=json", "--remove-color"]
                printed = process.run(arguments, directory)
        except InvalidPolicies as error:
            if self.seconds_left() <= 0:
                raise OutOfTimeError from error
            return (), {}, error.message.partition(";")[0]
        reading = output.read(printed.stdout, printed.stderr)
        refused = _refused(reading)
        return output.results(printed.stdout), refused, "" if refused else _failure(reading)


def _values(namespaces: Sequence[JsonObject]) -> JsonObject:
    return {
        "apiVersion": "cli.kyverno.io/v1alpha1",
        "kind": "Values",
        "metadata": {"name": "values"},
        "namespaces": list(namespaces),
    }


def _refused(reading: Reading) -> dict[int, str]:
    """The policies that the CLI names, with its reasons."""
    refusals = [*reading.skipped, *([reading.compile_error] if reading.compile_error else [])]
    return {
        number: f"the kyverno CLI says: {output.explain(refusal.reason)[1]}"
        for refusal in refusals
        if (number := _number(refusal.name)) >= 0
    }


def _failure(reading: Reading) -> str:
    if reading.crash:
        return f"the kyverno CLI crashes on it ({reading.crash})"
    if reading.other_error or reading.skipped:
        return f"the kyverno CLI stopped with: {output.explain(reading.other_error)[1] or 'an invalid policy'}"
    return ""


def _number(name: str) -> int:
    """The number of the policy of that name, -1 for none of ours."""
    found = _NAME.match(name)
    return int(found[1]) if found else -1


def _halves(
    numbers: list[int], objects: Sequence[JsonObject]
) -> tuple[tuple[list[int], Sequence[JsonObject]], tuple[list[int], Sequence[JsonObject]]]:
    """Halve the policies, since mostly one of them is at fault; of one policy, the objects."""
    if len(numbers) > 1:
        middle = len(numbers) // 2
        return (numbers[:middle], objects), (numbers[middle:], objects)
    middle = len(objects) // 2
    return (numbers, objects[:middle]), (numbers, objects[middle:])
