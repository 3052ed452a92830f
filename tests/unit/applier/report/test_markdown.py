"""A comment on a pull request: it fits, the most important first, and no policy's words leave their place in it."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.report import markdown
from applier.report.review import Context, Review
from tests.support import reviews

LINKED = Context(link="https://ci.example/runs/1")


def length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def test_the_first_line_is_the_same_for_the_same_cluster_and_command(
    planned: Review, validated: Review, tmp_path: Path
) -> None:
    other = reviews.a_plan(tmp_path, reviews.rule("other", "Audit"), held=[])
    first = [markdown.write(each, LINKED).splitlines()[0] for each in (planned, other, validated)]
    assert first[0] == first[1] == "<!-- insights-applier plan acme/prod -->"
    assert first[2] == "<!-- insights-applier validate acme/prod -->"


def test_a_name_can_not_end_the_marker(planned: Review) -> None:
    snapshot = replace(planned.basis.snapshot, cluster="--><script>")
    review = replace(planned, basis=replace(planned.basis, snapshot=snapshot))
    text = markdown.write(review, LINKED)
    assert text.splitlines()[0].index("-->") == len(text.splitlines()[0]) - 3
    assert "<script>" not in text.partition("#### ")[0]


def test_many_changes_fit_and_the_worst_are_there(tmp_path: Path) -> None:
    held = [reviews.owned(reviews.rule(f"policy-{number:03}", "Audit"), number) for number in range(400)]
    held.append(reviews.owned(reviews.rule("zz-weakened", "Enforce"), 1000))
    wanted = [reviews.rule(f"policy-{number:03}", "Audit", message="漢" * 300) for number in range(400)]
    review = reviews.a_plan(tmp_path, *wanted, reviews.rule("zz-weakened", "Audit"), held=held)
    text = markdown.write(review, LINKED)
    assert length(text) <= markdown.LIMIT
    assert length(text) > markdown.LIMIT * 0.9
    assert text.index("zz-weakened") < text.index("policy-000")
    assert text.rstrip().endswith("See [the whole report](https://ci.example/runs/1).")
    assert text.count("<details>") == text.count("</details>")
    assert "See `insights-applier plan`" in markdown.write(review, Context())


def test_of_tens_of_thousands_of_resources_the_most_are_shown_and_the_others_counted(planned: Review) -> None:
    text = markdown.write(reviews.with_many(planned), LINKED)
    assert length(text) <= markdown.LIMIT
    assert "30000 newly blocked" in text
    table = rows(text)
    assert table[0].startswith("| ns-6 |"), "the namespace with the most is first"
    assert f"And {3_000 - len(table)} more rows." in text
    assert text.index("newly blocked</summary>") < text.index("Weakens")
    assert "🔴 − delete" in text, "there is room for the changes"


def rows(text: str) -> list[str]:
    """The rows of the tables of an impact."""
    return [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| Namespace |", "| --- |"))
    ]


def test_no_name_leaves_its_cell(impacted: Review) -> None:
    text = markdown.write(impacted, LINKED)
    found = rows(text)
    assert len(found) == 5
    for row in found:
        assert re.sub(r"\\.", "", row).count("|") == 5, row
    outside = re.sub(r"(?ms)^(`{3,})diff\n.*?^\1$", "", text)
    assert "<script>" not in outside
    assert outside.count("<details>") == outside.count("</details>")


def test_a_long_change_is_cut_and_counted(tmp_path: Path) -> None:
    body = reviews.rule("long", "Enforce", *(f"Kind{number}" for number in range(5_000)))
    text = markdown.write(reviews.a_plan(tmp_path, body, held=[]), LINKED)
    assert length(text) <= markdown.LIMIT
    assert re.search(r"^… \d+ more lines$", text, re.MULTILINE)


def test_the_words_of_a_policy_stay_in_their_fence(planned: Review) -> None:
    text = markdown.write(planned, LINKED)
    outside = re.sub(r"(?ms)^(`{3,})diff\n.*?^\1$", "", text)
    assert "<script>" in text
    assert "<script>" not in outside
    assert "@acme" not in outside


@pytest.mark.parametrize("words", ["@acme/all", "#1", "GH-1", "https://e.example", "www.e.example", "<b>", "[a](b)"])
def test_words_call_nobody_and_lead_nowhere(words: str) -> None:
    shown = markdown.words(f"see {words} now")
    assert words not in shown
    assert markdown.words(shown) != shown


@given(st.text())
def test_whatever_is_said_stays_one_line_of_words(text: str) -> None:
    shown = markdown.words(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[`*_\[\]|~]", shown.replace("\\\\", ""))
    assert "<" not in shown
    assert not re.search("[@#](?!\u200b).", html.unescape(shown))


@given(st.text(alphabet="`a\n", max_size=30))
def test_code_ends_where_it_should(text: str) -> None:
    fenced = markdown.fenced(text, "diff")
    opening, *inside, closing = fenced.split("\n")
    assert opening == f"{closing}diff"
    assert all(closing not in line for line in inside)
    span = markdown.code(text)
    ticks = re.match(r"`+", span)
    assert ticks
    assert re.findall(r"`+", span).count(ticks.group()) == 2
