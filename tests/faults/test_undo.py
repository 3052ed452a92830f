"""Whatever fails while a run takes its writes back, or a recovery does: in the end all is as before."""

from __future__ import annotations

import pytest

from tests.faults.bed import Bed
from tests.faults.faults import FAULTS
from tests.faults.matrix import Tally, leave, one_fault_of_a_recovery, one_fault_of_an_undo, undo_points
from tests.faults.requests import representatives

pytestmark = pytest.mark.timeout(7200)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_of_a_rollback_fails_and_all_is_as_before(
    bed: Bed, tally: Tally, fault: str, *, whole: bool
) -> None:
    found = undo_points(bed)
    for point in found if whole else representatives(found):
        one_fault_of_an_undo(bed, tally, point, fault)
    assert tally.wrong == []


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_of_a_recovery_fails_and_the_next_one_finishes_it(
    bed: Bed, tally: Tally, fault: str, *, whole: bool
) -> None:
    found = bed.points("recovery", lambda: bed.recover(bed.run), prepare=lambda: leave(bed))
    for point in found if whole else representatives(found):
        one_fault_of_a_recovery(bed, tally, point, fault)
    assert tally.wrong == []
