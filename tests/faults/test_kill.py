"""Killed at any write, and at any request to its lock or journal: a recovery alone makes it before or after."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from applier.journal.store import DirectoryStore
from applier.transaction.writes import OnFailure
from renderer.errors import ExitCode
from tests.faults import lines
from tests.faults.bed import Bed
from tests.faults.matrix import Tally, When, one_kill, recovered
from tests.faults.requests import Point, representatives
from tests.support.killed_runs import Runs

pytestmark = pytest.mark.timeout(7200)


def fatal(bed: Bed) -> list[Point]:
    """Where it is killed, in the order of a run; a renewal of the Lease may come at any time."""
    found = bed.points_of_apply()
    places = ("write ", "journal ", "lease take", "lease release")
    return [point for point in found if point.kind.startswith(places)]


def once_each(executed: Sequence[int]) -> list[int]:
    """Where in a run each line is executed for the first time, and where for the last."""
    first = {line: number for number, line in reversed(list(enumerate(executed, 1)))}
    last = {line: number for number, line in enumerate(executed, 1)}
    return sorted({*first.values(), *last.values()})


def is_committed(point: Point, when: When, found: Sequence[Point]) -> bool:
    """Whether the head says so by then."""
    kinds = [one.kind for one in found]
    commit, here = kinds.index("journal PUT head"), found.index(point)
    return here > commit or (here == commit and when == "after")


@pytest.mark.parametrize("when", ["instead", "after"])
@pytest.mark.parametrize("mode", OnFailure, ids=lambda mode: mode.value)
def test_killed_anywhere_it_is_before_or_after_when_recovered(
    bed: Bed, tally: Tally, runs: Runs, mode: OnFailure, when: When, *, whole: bool
) -> None:
    found = fatal(bed)
    run = bed.run.with_(mode=mode.value)
    # What is done when something fails does not matter to a run in which nothing does; and after one request, or
    # instead of the next, is the same to the cluster.
    for point in found if whole or (mode is OnFailure.ROLLBACK and when == "after") else representatives(found):
        one_kill(bed, tally, runs, point, when, run=run, committed=is_committed(point, when, found))
    assert tally.wrong == []


def test_killed_at_any_line_that_touches_a_journal_of_files(
    bed: Bed, tally: Tally, runs: Runs, tmp_path: Path, *, whole: bool
) -> None:
    run = bed.run.with_(files=str(tmp_path), directory=str(tmp_path))
    assert runs.run(run) == ExitCode.OK
    executed = lines.counted(tmp_path)
    named = [number for number, line in enumerate(executed, 1) if line == lines.renaming()]
    assert len(named) >= 4  # two chunks at least, and the head twice
    for number in range(1, len(executed) + 1) if whole else once_each(executed):
        case = f"killed before line {executed[number - 1]} of the store of files, the {number}th that is executed"
        bed.reset()
        assert runs.run(run.with_(dies_at=number)) == -signal.SIGKILL
        tally.count(f"kill: line {executed[number - 1]} of the store of files")
        wanted = bed.after if number > named[-1] else bed.before
        recovered(bed, tally, case, wanted, run=run.with_(kubeconfig=str(bed.plane.kubeconfig)))
        assert DirectoryStore(tmp_path).heads() == {}
    assert tally.wrong == []


def test_without_a_journal_a_killed_run_is_half_applied(bed: Bed, runs: Runs) -> None:
    found = [point for point in fatal(bed) if point.kind.startswith("write ")]
    tally = Tally()
    for point in representatives(found):
        one_kill(bed, tally, runs, point, "after", run=bed.run.with_(journalled=False), committed=False)
    assert tally.half_applied == tally.faults - 1, tally.wrong  # the last one is the whole plan
    assert len(tally.wrong) == tally.faults
