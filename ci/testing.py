"""Runs every check and test, the fast ones first, and says loudly what could not run here."""

from __future__ import annotations

import argparse
import fcntl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ci.testbed import browser, toolchain

ROOT = Path(__file__).resolve().parent.parent
_MEASURED = ROOT / ".coverage"
_COVERAGE = (sys.executable, "-m", "coverage")


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

    What was measured earlier counts in where paths or options say what to run: a whole can be made of parts. A run
    waits for the one before it.
    """
    _MEASURED.mkdir(exist_ok=True)
    with (_MEASURED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _measured(options)


def _measured(options: Sequence[str]) -> int:
    if not options:
        subprocess.run((*_COVERAGE, "erase"), cwd=ROOT, check=True)
    stages = [Stage(name="tests", command=_pytest(*options))] if options else STAGES
    measured = [
        replace(stage, command=(*_COVERAGE, "run", *stage.command[1:])) if stage.command[0] == sys.executable else stage
        for stage in stages
    ]
    code = run(measured, complete=True)
    _combine()
    partly = ("--fail-under=0",) if options else ()
    return code or subprocess.run((*_COVERAGE, "report", *partly), cwd=ROOT, check=False).returncode


def _combine() -> None:
    """Add what each process measured to what was measured before; cut off anywhere, neither is lost.

    coverage's own `--append` writes into the earlier data without a journal, and deletes what it has read on the way.
    """
    whole, made = _MEASURED / "data", _MEASURED / "combined"
    # An empty file is that of a process that was killed, or still runs.
    parts = [path for path in sorted(_MEASURED.glob("data.*")) if path.stat().st_size]
    made.unlink(missing_ok=True)
    files = [str(path) for path in (whole, *parts) if path.exists()]
    command = (*_COVERAGE, "combine", "--keep", "--quiet", f"--data-file={made}", *files)
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return
    made.replace(whole)
    for path in parts:
        path.unlink()


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
