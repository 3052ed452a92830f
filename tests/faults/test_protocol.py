"""Every state that two disturbed runs can leave, one after the other, comes to rest as all or nothing."""

from __future__ import annotations

import pytest

from tests.support.model import Search


@pytest.mark.timeout(900)
def test_every_state_that_two_disturbed_runs_can_leave_comes_to_rest() -> None:
    found = Search().explore(2)
    assert (found.runs > 6000, len(found.seen) > 500, found.late > 0) == (True, True, True)
    print(f"{found.runs} runs, {len(found.seen)} states, {found.late} with one write that came late")
