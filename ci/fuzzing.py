"""Fuzzes every reader of what others wrote, with real policies and the kyverno CLI's real words to start from.

Beside what `tests/property/test_fuzz.py` asks, no input may take long, nor longer by more than its size, nor much
memory. An input that fails is made small and printed, and its seed kept in `.hypothesis`, so that the next run
begins with it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import itertools
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from applier.kyverno_cli import KyvernoCli
from applier.kyverno_cli.process import KyvernoProcess, Printed
from ci.testbed import corpus, toolchain
from tests.support import bad_policies, fuzzing
from tests.support.fuzzing import SEEDS, Seeds, Target

ROOT: Final = Path(__file__).resolve().parent.parent
#: Of processor time, for one input of at most 20 kB.
_SECONDS_EACH: Final = 10
_MEMORY_BYTES: Final = 3 * 1024**3
_EXAMPLES: Final = 1000
_FEW: Final = 100
#: A unit is repeated to these sizes; what takes more than so many times as long for eight times the size has grown
#: with more than the size. Less than so many seconds tell nothing.
_SIZES: Final = (25_000, 200_000)
_GROWTH: Final = 30
_SECONDS_THAT_TELL: Final = 0.3


class Slow(AssertionError):
    """An input took too long."""


def real_seeds() -> Seeds:
    """The seeds of the tests, Kyverno's own policies, and what its CLI prints of good and of bad ones."""
    files = [path.read_bytes() for path in corpus.files(toolchain.kyverno_source())]
    small = [data for data in files if b"apiVersion" in data and len(data) < 10_000]
    printed = list(_printed(ROOT / ".toolchain" / "bin" / "kyverno"))
    return Seeds(policies=[*SEEDS.policies, *small], printed=[*SEEDS.printed, *printed])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorder(KyvernoProcess):
    heard: list[Printed]

    def run(self, arguments: Sequence[str], directory: Path) -> Printed:
        printed = KyvernoProcess.run(self, arguments, directory)
        self.heard.append(printed)
        return printed


def _printed(kyverno: Path) -> Iterator[tuple[str, str]]:
    cli = KyvernoCli(kyverno, batch=20)
    heard: list[Printed] = []
    cli.process = _Recorder(path=kyverno, timeout_seconds=120, heard=heard)
    cli.validate(list(bad_policies.all_bad()))
    return ((one.stdout, one.stderr) for one in heard)


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise Slow where the block takes more processor time; where nothing can be raised, end the process."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise Slow(f"one input took more than {seconds:g} seconds")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    faulthandler.dump_traceback_later(30 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def by_chance(target: Target, examples: int) -> None:
    """Show the reader so many inputs; raises what it does wrong, with the input in the exception's notes."""

    @given(target.inputs)
    @_settings(examples)
    def check(data: Any) -> None:
        with bounded(_SECONDS_EACH):
            target.check(data)

    check()


def by_size(target: Target, examples: int) -> None:
    """Show the reader inputs of two sizes each; raises Slow where the larger takes longer than its size explains."""
    part = st.lists(st.sampled_from(target.pieces), max_size=3).map(b"".join)

    @given(part, part.filter(bool), part)
    @_settings(examples)
    def check(before: bytes, unit: bytes, after: bytes) -> None:
        def seconds(size: int) -> float:
            data = target.grown(before + unit * (size // len(unit)) + after)
            started = time.process_time()
            with bounded(_SECONDS_EACH):
                target.check(data)
            return time.process_time() - started

        small, large = _SIZES
        if not (seconds(large) > _SECONDS_THAT_TELL and seconds(large) > _GROWTH * seconds(small)):
            return
        # One measurement may hold what is not the reader's, such as a machine that is busy.
        took = min(seconds(large) for _ in range(3))
        if took > _SECONDS_THAT_TELL and took > _GROWTH * min(seconds(small) for _ in range(3)):
            raise Slow(f"eight times the size took {took:.1f} seconds, more than {_GROWTH} times as long")

    check()


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=DirectoryBasedExampleDatabase(str(ROOT / ".hypothesis" / "fuzz")),
        suppress_health_check=list(HealthCheck),
    )


def fuzz(targets: Sequence[Target], minutes: float) -> int:
    """Take turns with the readers until the time is over, and give 1 as soon as one did something wrong, else 0."""
    ends = time.monotonic() + 60 * minutes
    shown: dict[str, int] = dict.fromkeys((target.name for target in targets), 0)
    for target in itertools.cycle(targets):
        if time.monotonic() > ends:
            break
        try:
            by_chance(target, _EXAMPLES)
            if target.pieces:
                by_size(target, _FEW)
        except Exception:  # noqa: BLE001 (whatever a reader raises is what is looked for)
            traceback.print_exc()
            print(f"\n!!! {target.name}: the input above fails. Keep it as a test, and mend the reader.", flush=True)
            return 1
        shown[target.name] += _EXAMPLES + (_FEW if target.pieces else 0)
    print("; ".join(f"{name}: {count} inputs" for name, count in shown.items()) + "; nothing found", flush=True)
    return 0


def main() -> int:
    """Read the arguments and run."""
    names = [target.name for target in fuzzing.targets()]
    parser = argparse.ArgumentParser(prog="ci/fuzz", description="Fuzz the readers of what others wrote.")
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="how long (10)")
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"some of {', '.join(names)} (all)")
    arguments = parser.parse_args()
    if unknown := set(arguments.target) - set(names):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    seeds = real_seeds()
    print(f"{len(seeds.policies)} files of policies, {len(seeds.printed)} outputs of the kyverno CLI", flush=True)
    # What is kept for good must not be looked through again while a reader's time is taken.
    gc.collect()
    gc.freeze()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    chosen = [one for one in fuzzing.targets(seeds) if not arguments.target or one.name in arguments.target]
    return fuzz(chosen, arguments.minutes)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
