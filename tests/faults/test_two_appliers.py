"""200 turns of two appliers at once, as from two machines: judged by the server's audit log."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.testbed.controlplane import ControlPlane
from tests.support import audit, contest

ROUNDS = 100


@pytest.mark.timeout(900)
def test_200_turns_of_two_appliers_never_meet(tmp_path: Path) -> None:
    with ControlPlane.start(tmp_path / "audited", audit=True) as plane:
        contest.contend(plane, tmp_path, ROUNDS)
        contest.judge(audit.read(plane.audit_log, contest.ACCOUNTS), ROUNDS)
