"""Two appliers at once, as from two machines, hold one cluster in turn: judged by the server's audit log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ci.testbed.controlplane import ControlPlane
from tests.support import audit, contest

pytestmark = pytest.mark.cluster

#: The many of them are part of the matrix of faults.
ROUNDS = 10


@pytest.fixture
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster of its own, which writes down what it is asked."""
    with ControlPlane.start(tmp_path_factory.mktemp("audited"), audit=True) as plane:
        yield plane


def test_two_appliers_at_once_are_never_both_inside(audited: ControlPlane, tmp_path: Path) -> None:
    contest.contend(audited, tmp_path, ROUNDS)
    acts = audit.read(audited.audit_log, contest.ACCOUNTS)
    terms = contest.judge(acts, ROUNDS)

    # The judge would have seen it: a write of the other's between two of a holder's, and one after its term.
    first, second = next(pair for pair in pairwise(terms) if pair[0].taken.who != pair[1].taken.who)
    inside = [act for act in acts if act.is_policy and second.saw(act)]
    assert len(inside) >= 3
    foreign = replace(inside[1], who=first.taken.who)
    assert audit.strays([foreign], terms) == [foreign]
    assert audit.intruders([inside[0], foreign, *inside[2:]], second) == [foreign]
    late = replace(inside[-1], received=f"{second.released.received}+")
    assert audit.strays([late], terms) == [late]
