"""Whenever somebody edits a policy while a run is at work, the edit is never lost, nor is all else half applied."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from applier import diff
from applier.cluster import policies
from applier.transaction.writes import OnFailure
from renderer.manifest.jsontypes import JsonObject
from tests.faults.bed import Bed
from tests.faults.edits import Edit, Moment
from tests.faults.matrix import Tally, one_edit
from tests.faults.requests import Point, representatives

pytestmark = pytest.mark.timeout(7200)

MOMENTS: tuple[Moment, ...] = ("before", "after", "unanswered")


def since_it_was_read(bed: Bed) -> list[Point]:
    """The points of a run from its first dry run on: what is edited before that, it knows of."""
    found = bed.points_of_apply()
    first = next(place for place, point in enumerate(found) if point.kind.startswith("dry-run "))
    return [point for point in found[first:] if not point.kind.startswith(("lease ", "cluster identity"))]


def chosen(found: list[Point], name: str) -> list[Point]:
    """All requests that are for the policy itself, and one of each class of those around them."""
    own = [point for point in found if point.identity == Edit(name, moment="before").identity]
    around = [point for point in representatives(found) if point.kind.startswith(("write ", "read ", "journal P"))]
    return list(dict.fromkeys([*own, *around]))


@pytest.mark.parametrize("mode", OnFailure, ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("changed", False),
        ("withdrawn", False),
        ("new", False),
        ("labelled", False),
        ("changed", True),
        ("labelled", True),
    ],
)
def test_an_edit_at_any_request_stands(
    bed: Bed, tally: Tally, name: str, mode: OnFailure, *, label: bool, whole: bool
) -> None:
    found = since_it_was_read(bed)
    edited = Edit(name, moment="before").identity
    last = max(place for place, point in enumerate(found) if point.kind.startswith("write "))
    for number, point in enumerate(found if whole else chosen(found, name)):
        reached = found.index(point) < last  # also by a run whose last change is refused
        # By turns, so that each moment meets each stage over all policies and modes.
        for moment in MOMENTS if whole or point.identity == edited else (MOMENTS[number % 2],):
            for undone in (False, True) if whole else (number % 2 == 1,):
                edit = Edit(name, moment=moment, label=label)
                one_edit(bed, tally, point, edit, mode=mode, undone=undone and reached)
    assert tally.wrong == []


def without_preconditions(_: JsonObject, operations: list[JsonObject]) -> list[JsonObject]:
    return list(operations)


def unconditional(options: Callable[..., JsonObject]) -> Callable[..., JsonObject]:
    def delete_options(**asked: object) -> JsonObject:
        return {**options(**asked), "preconditions": {}}

    return delete_options


@pytest.mark.parametrize("name", ["changed", "withdrawn"])
def test_without_preconditions_edits_are_lost(bed: Bed, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    edited = Edit(name, moment="before").identity
    own = [p for p in since_it_was_read(bed) if p.identity == edited and p.kind.startswith("write ")]
    assert len(own) == 1
    monkeypatch.setattr(diff, "guarded", without_preconditions)
    monkeypatch.setattr(policies, "delete_options", unconditional(policies.delete_options))
    tally = Tally()
    for point in own:
        one_edit(bed, tally, point, Edit(name, moment="before"), mode=OnFailure.ROLLBACK, undone=False)
    assert tally.lost_edits == tally.faults == 1
