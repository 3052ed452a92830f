"""Frozen for longer than its Lease is good: what another run does meanwhile is what stands."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.bed import Bed, Ended
from tests.faults.matrix import Tally, When, judge_by_its_code, recovered
from tests.faults.requests import Point, representatives
from tests.faults.runs import VIGILANT_SECONDS
from tests.faults.test_kill import fatal, is_committed
from tests.support.freezing import freeze
from tests.support.killed_runs import Runs
from tests.support.proxy import call

pytestmark = pytest.mark.timeout(7200)


def one_freeze(bed: Bed, tally: Tally, runs: Runs, point: Point, when: When, *, taken: bool, committed: bool) -> None:
    """Freeze an apply there until its Lease is over, or until a recovery has `taken` it, and let it go on."""
    case = f"frozen {when} {point}, its Lease {'taken' if taken else 'over'}"
    run = bed.run.with_(vigilant=True)
    frozen = threading.Event()

    def stop(_: object) -> None:
        freeze(int(run.pid_file.read_text()))
        frozen.set()

    bed.reset()
    bed.proxy.plan(call(stop, when=when), at=point.nth, matching=point.matching)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runs.run, run)
        future.add_done_callback(lambda _: frozen.set())
        frozen.wait()
        if future.done():
            tally.wrong.append(f"{case}: not reached")
            return
        if taken:
            recovered(bed, tally, f"{case}, still frozen", bed.after if committed else bed.before)
        else:
            threading.Event().wait(2 * VIGILANT_SECONDS)
        os.kill(int(run.pid_file.read_text()), signal.SIGCONT)
        ended = Ended(code=future.result())
    bed.proxy.clear()
    tally.count(f"frozen: {point.kind}")
    judge_by_its_code(bed, tally, case, ended, committed=committed)


@pytest.mark.parametrize("when", ["instead", "after"])
def test_frozen_until_another_run_has_the_lock_it_writes_no_more(
    bed: Bed, tally: Tally, runs: Runs, when: When, *, whole: bool
) -> None:
    found = fatal(bed)
    for point in found if whole else representatives(found):
        one_freeze(bed, tally, runs, point, when, taken=True, committed=is_committed(point, when, found))
    assert tally.wrong == []


def test_frozen_until_its_lease_is_over_it_takes_back_what_it_wrote(
    bed: Bed, tally: Tally, runs: Runs, *, whole: bool
) -> None:
    found = fatal(bed)
    for point in found if whole else representatives(found):
        one_freeze(bed, tally, runs, point, "after", taken=False, committed=is_committed(point, "after", found))
    assert tally.wrong == []
