"""Whatever fails at whichever request of an apply: it ends as it should, in every mode, and says so."""

from __future__ import annotations

import pytest

from applier.transaction.writes import OnFailure
from tests.faults.bed import Bed
from tests.faults.faults import FAULTS
from tests.faults.matrix import Tally, one_fault, order
from tests.faults.policies import CHANGES, KINDS
from tests.faults.requests import Point, representatives

#: What is asked before the mode can matter.
_FIRST = ("lease ", "discovery ", "list ", "schema", "cluster identity", "journal list heads", "journal list chunks")


def sample(found: list[Point], mode: OnFailure) -> list[Point]:
    """One request of each class, in the other modes of those by which a run can be one of them."""
    chosen = representatives(found)
    return chosen if mode is OnFailure.ROLLBACK else [one for one in chosen if not one.kind.startswith(_FIRST)]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", OnFailure, ids=lambda mode: mode.value)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_fails_and_the_run_ends_as_it_should(
    bed: Bed, tally: Tally, fault: str, mode: OnFailure, *, whole: bool
) -> None:
    found = bed.points_of_apply()
    written = order(found)
    assert len(written) == CHANGES
    assert len({identity.kind for identity in written}) == KINDS
    for point in found if whole else sample(found, mode):
        one_fault(bed, tally, point, fault, mode, written)
    assert tally.wrong == []
