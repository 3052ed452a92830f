"""Runs every check and test, the fast ones first, and says loudly what could not run here."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ci.testbed import browser, toolchain

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step: what it is called, what runs, and whether it only prepares what later stages need."""

    name: str
    command: tuple[str, ...]
    prepares: bool = False


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", *arguments)


TOOLS = Stage(name="tools", command=(str(ROOT / "ci/tools"), *toolchain.NAMES), prepares=True)
STAGES = (
    Stage(name="check", command=(str(ROOT / "ci/check"),)),
    Stage(name="fast tests", command=_pytest("-n", "auto", "tests/unit", "tests/property")),
    TOOLS,
    Stage(name="tests on a real control plane", command=_pytest("-n", "2", "--dist", "loadfile", "tests/e2e")),
    Stage(name="browser", command=(str(ROOT / "ci/tools"), browser.NAME), prepares=True),
    Stage(name="tests in a real browser", command=_pytest("-n", "2", "tests/browser")),
)


def faults(*options: str) -> Stage:
    """The matrix of faults: at one request of each class, or with `--whole-matrix` at all of them."""
    return Stage(name="faults", command=_pytest("-n", "2", "--dist", "worksteal", *options, "tests/faults"))


def coverage(options: Sequence[str]) -> int:
    """Run those tests with each branch measured, or all but the matrix of faults; say which were never taken.

    What was measured earlier counts in where paths or options say what to run: a whole can be made of parts.
    """
    tool = (sys.executable, "-m", "coverage")
    if not options:
        subprocess.run((*tool, "erase"), cwd=ROOT, check=True)
    stages = [Stage(name="tests", command=_pytest(*options))] if options else STAGES
    measured = [
        replace(stage, command=(*tool, "run", *stage.command[1:])) if stage.command[0] == sys.executable else stage
        for stage in stages
    ]
    (ROOT / ".coverage").mkdir(exist_ok=True)
    code = run(measured, complete=True)
    subprocess.run((*tool, "combine", "--append", "--quiet"), cwd=ROOT, check=False)
    partly = ("--fail-under=0",) if options else ()
    return code or subprocess.run((*tool, "report", *partly), cwd=ROOT, check=False).returncode


def run(stages: Sequence[Stage], *, complete: bool) -> int:
    """Run the stages in order, up to the first that fails, and give the exit code.

    When what a stage needs can't be made here, the stages after it are named as not run; that is a failure only
    when `complete`.
    """
    for number, stage in enumerate(stages):
        print(f"\n=== {stage.name}: {_shown(stage.command)}", flush=True)
        started = time.monotonic()
        code = subprocess.run(stage.command, cwd=ROOT, check=False).returncode
        print(f"=== {stage.name}: exit {code} after {time.monotonic() - started:.0f} s", flush=True)
        if code in (130, -2):
            return 130
        if code and stage.prepares:
            missing = ", ".join(later.name for later in stages[number + 1 :])
            print(f"\n!!! NOT RUN HERE: {missing}, because the {stage.name} could not be made (see above).", flush=True)
            return code if complete else 0
        if code:
            print(f"\n!!! FAILED: {stage.name}", flush=True)
            return code
    print("\nEverything ran.", flush=True)
    return 0


def _shown(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="ci/test",
        description="Run the checks and the tests, the fast ones first.",
        epilog="Paths and pytest's own options run just those tests: ci/test tests/unit -k yaml",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="run the matrix of faults too, and fail when something can't run here, instead of naming it",
    )
    parser.add_argument(
        "--faults",
        nargs="?",
        const="classes",
        choices=("classes", "all"),
        help="run only the matrix of faults: apply fails at one request of each class (minutes), or at every request "
        "(an evening)",
    )
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="measure the branches that tests take, in every process; with paths, add to what was measured before",
    )
    arguments, rest = parser.parse_known_args()
    if arguments.coverage:
        return coverage(rest)
    if rest:
        return subprocess.run(_pytest(*rest), cwd=ROOT, check=False).returncode
    if arguments.faults:
        whole = ["--whole-matrix"] if arguments.faults == "all" else []
        return run((TOOLS, faults(*whole)), complete=True)
    return run((*STAGES, faults()) if arguments.all else STAGES, complete=arguments.all)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
