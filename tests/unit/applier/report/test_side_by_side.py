"""Which lines stand side by side, which words are marked, and that size has bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.report import side_by_side
from applier.report.side_by_side import Cell, Difference, compare

POLICY = """\
metadata:
  name: one
spec:
  background: true
  rules:
  - name: first
    match:
      any:
      - resources:
          kinds:
          - Pod
          - Job
  - name: second
    validate:
      failureAction: Audit
      message: Set the label team.
""".splitlines()


def changed(line: str, to: str | None) -> list[str]:
    return [one if one != line else to or "" for one in POLICY if one != line or to is not None]


def text(cell: Cell | None) -> str | None:
    return None if cell is None else "".join(piece for piece, _ in cell.pieces)


def marked(cell: Cell | None) -> list[str]:
    return [piece for piece, differs in cell.pieces if differs] if cell else []


def pairs(found: Difference) -> list[tuple[str | None, str | None]]:
    return [(text(row.before), text(row.after)) for hunk in found.hunks for row in hunk.rows if not row.same]


def test_equal_texts_have_no_difference() -> None:
    assert compare(POLICY, POLICY) == Difference(hunks=(), removed=0, added=0)


def test_a_changed_line_has_three_lines_around_it_and_its_words_marked() -> None:
    found = compare(
        POLICY, changed("      message: Set the label team.", "      message: Set the labels team, please.")
    )
    (hunk,) = found.hunks
    assert [row.same for row in hunk.rows] == [True, True, True, False]
    row = hunk.rows[-1]
    assert row.before
    assert row.after
    assert (row.before.number, row.after.number) == (16, 16)
    assert marked(row.before) == ["label"]
    assert marked(row.after) == ["labels", ", please"]
    assert (found.removed, found.added) == (1, 1)


@pytest.mark.parametrize(
    ("line", "to", "place"),
    [
        ("  background: true", "  background: false", "spec"),
        ("          - Job", "          - Deployment", "spec rules first match any [0] resources kinds"),
        ("      failureAction: Audit", "      failureAction: Enforce", "spec rules second validate"),
        ("  - name: second", "  - name: other", "spec rules"),
        ("          - Job", None, "spec rules first match any [0] resources kinds"),
        ("metadata:", "metadatum:", ""),
    ],
)
def test_a_hunk_says_in_which_fields_it_is(line: str, to: str | None, place: str) -> None:
    (hunk,) = compare(POLICY, changed(line, to)).hunks
    assert " ".join(hunk.place) == place


def test_what_is_far_apart_is_in_hunks_of_its_own() -> None:
    after = changed("  name: one", "  name: two")
    after[-1] = "      message: Other."
    assert len(compare(POLICY, after).hunks) == 2


def test_a_line_stands_beside_the_one_that_it_resembles() -> None:
    before = ["a: the quick brown fox", "b: 1"]
    after = ["new: something else entirely", "a: the quick red fox", "b: 1", "c: 2"]
    assert pairs(compare(before, after)) == [
        (None, "new: something else entirely"),
        ("a: the quick brown fox", "a: the quick red fox"),
        (None, "c: 2"),
    ]


def test_lines_that_have_nothing_in_common_stand_side_by_side_unmarked() -> None:
    found = compare(["one: 1", "two: 2"], ["three four five", "six seven", "eight"])
    assert pairs(found) == [("one: 1", "three four five"), ("two: 2", "six seven"), (None, "eight")]
    assert [marked(cell) for row in found.hunks[0].rows for cell in (row.before, row.after)] == [[]] * 6


def test_blanks_between_changed_words_are_marked_with_them() -> None:
    found = compare(["x: one two three"], ["x: four five three"])
    (row,) = found.hunks[0].rows
    assert marked(row.before) == ["one two"]


def test_a_huge_difference_is_cut_and_counted() -> None:
    before = [f"key{number}: {number}" for number in range(5_000)]
    after = [f"key{number}: {number + 1}" for number in range(5_000)]
    found = compare(before, after)
    shown = sum(len(hunk.rows) for hunk in found.hunks)
    assert shown == side_by_side.MOST_ROWS
    assert shown + found.left_out == 5_000
    assert (found.removed, found.added) == (5_000, 5_000)


def test_a_huge_line_is_marked_between_its_common_ends() -> None:
    start = "x: start " * 300
    before, after = (start + " ".join(f"{word}{n}" for n in range(9_000)) + " end" for word in "ab")
    (row,) = compare([before], [after]).hunks[0].rows
    assert text(row.before) == before
    assert row.before
    assert [piece for piece, differs in row.before.pieces if not differs] == [start, " end"]


LINES = st.lists(st.sampled_from(["a:", "  b: 1", "  b: 2", "- c", "", "long line of words", "long lines of words"]))


@given(LINES, LINES)
def test_each_side_is_told_in_order_and_without_loss_of_a_change(before: list[str], after: list[str]) -> None:
    found = compare(before, after)
    rows = [row for hunk in found.hunks for row in hunk.rows]
    for lines, cells in ((before, [row.before for row in rows]), (after, [row.after for row in rows])):
        numbers = [cell.number for cell in cells if cell]
        assert numbers == sorted(set(numbers))
        assert [text(cell) for cell in cells if cell] == [lines[number - 1] for number in numbers]
    assert found.removed == sum(row.before is not None for row in rows if not row.same)
    assert found.added == sum(row.after is not None for row in rows if not row.same)
    assert (not rows) == (before == after)
    for row in rows:
        if row.same:
            assert text(row.before) == text(row.after)
