"""Parts of the cluster die while an apply is at work: what it says is so, and a recovery makes all or nothing of it."""

from __future__ import annotations

from http.client import HTTPException
from itertools import cycle
from pathlib import Path
from typing import Final, Literal, TypeAlias

import pytest

from ci.testbed.controlplane import Part
from tests.faults.bed import Bed, without_status
from tests.faults.matrix import Tally, When, judge_by_its_code
from tests.faults.requests import Point, representatives
from tests.faults.test_kill import fatal, is_committed
from tests.support.cluster import running
from tests.support.proxy import Exchange, Proxy

pytestmark = pytest.mark.timeout(7200)

#: While the run waits for its answer, or only when the run has ended.
Back: TypeAlias = Literal["at once", "afterwards"]
#: Every way in which a part may die, for one request after the other.
_WAYS: Final[tuple[tuple[When, Back], ...]] = (
    ("after", "at once"),
    ("instead", "afterwards"),
    ("after", "afterwards"),
    ("instead", "at once"),
)
#: How long a run waits for each answer, and tries to take back what it wrote.
_PATIENCE_SECONDS: Final = 3.0


def one_death(bed: Bed, tally: Tally, part: str, point: Point, when: When, back: Back, *, committed: bool) -> None:
    """Kill the part there, and start it again; then judge."""
    case = f"{part} killed {when} {point}, back {back}"
    died = False

    def behave(exchange: Exchange) -> None:
        nonlocal died
        if when == "after":
            exchange.forward()
        bed.plane.kill(part)
        died = True
        if back == "at once":
            bring_back(bed, part)
        exchange.reset()

    bed.reset()
    bed.proxy.plan(behave, at=point.nth, matching=point.matching)
    ended = bed.apply(bed.run.with_(patience=_PATIENCE_SECONDS, grace=_PATIENCE_SECONDS))
    if died and back == "afterwards":
        bring_back(bed, part)
    bed.proxy.wait_until_left()
    bed.proxy.clear()
    # What a server that dies makes of its answers is no failure of the proxy.
    bed.proxy.failures[:] = [one for one in bed.proxy.failures if not isinstance(one, (OSError, HTTPException))]
    if not died:
        tally.wrong.append(f"{case}: not reached")
        return
    tally.count(f"{part} killed: {point.kind}")
    judge_by_its_code(bed, tally, case, ended, committed=committed)


def bring_back(bed: Bed, part: str) -> None:
    """Start it again, and with etcd the apiserver: one that lost its store answers only after a minute."""
    bed.plane.restart(part)
    if part == "etcd":
        bed.plane.kill("kube-apiserver")
        bed.plane.restart("kube-apiserver")


def deaths(bed: Bed, tally: Tally, part: str, *, whole: bool) -> None:
    """Let it die at the requests of an apply: at all in every way, or at some in one way after the other."""
    # Without its store the apiserver keeps a run waiting for minutes, and says nothing.
    possible = [(when, back) for when, back in _WAYS if part != "etcd" or back == "at once"]
    found, ways = fatal(bed), cycle(possible)
    for point in found if whole else some(found):
        for when, back in possible if whole else [next(ways)]:
            one_death(bed, tally, part, point, when, back, committed=is_committed(point, when, found))


def some(found: list[Point]) -> list[Point]:
    """The request that makes the journal, a write late in the plan, and the one that closes the journal."""
    kinds = ("journal POST head", "write patch custom", "journal PUT head")
    return [point for point in representatives(found) if point.kind in kinds]


@pytest.mark.parametrize("part", ["etcd", "kube-apiserver"])
def test_a_part_dies_and_all_is_before_or_after(bed: Bed, tally: Tally, part: str, *, whole: bool) -> None:
    deaths(bed, tally, part, whole=whole)
    assert tally.wrong == []


@pytest.mark.kyverno
def test_kyverno_dies_and_all_is_before_or_after(tmp_path: Path, tally: Tally, *, whole: bool) -> None:
    with running(tmp_path / "plane", Part.KYVERNO) as plane, Proxy(plane) as proxy:
        deaths(Bed.made(plane, proxy, tmp_path, kept=without_status), tally, "kyverno-controller", whole=whole)
    assert tally.wrong == []
