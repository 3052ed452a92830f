"""How plans are shown to people: in colour or not, whole or in short, as wide as their terminal."""

from __future__ import annotations

import json

import click
import pytest

from applier.report import wrap
from renderer.manifest.jsontypes import JsonObject
from renderer.publish import Target, publish
from renderer.render import Source
from tests.support import terminals
from tests.support.policies import answer, cluster_policy, validating_policy
from tests.support.programs import Programs

HEADLINE = "1 to create, 1 unchanged against old"
COLOUR = "\x1b["
PLAN = ("insights-applier", "plan", "new", "--against", "old")
STAYS = validating_policy("stays")


def render(programs: Programs, out: str, *bodies: JsonObject) -> None:
    target = Target(directory=programs.directory / out, organization="acme", cluster="prod")
    publish([Source(name="answer.yaml", data=answer(*bodies).encode())], target)


@pytest.fixture
def review(offline: Programs) -> Programs:
    """Two snapshots, `old` and `new`, that differ by a policy of a kind of which validation warns."""
    render(offline, "old", STAYS)
    render(offline, "new", STAYS, cluster_policy("comes"))
    return offline


def test_the_count_is_first_and_last(review: Programs) -> None:
    lines = review.run(*PLAN, "--no-diff").stdout.splitlines()
    assert (lines[0], lines[-1]) == (HEADLINE, HEADLINE)
    assert "+ create ClusterPolicy/comes" in lines
    assert any(line.startswith("warning [deprecation]") for line in lines)


def test_quiet_leaves_the_count_and_the_exit_code(review: Programs) -> None:
    done = review.run(*PLAN, "--quiet")
    assert (done.stdout, done.stderr, done.returncode) == (f"{HEADLINE}\n", "", 2)


def test_quiet_shows_what_is_wrong(review: Programs) -> None:
    wrong = validating_policy("wrong")
    wrong["spec"]["validationAction"] = ["Deny"]
    render(review, "new", wrong)
    planned = review.run(*PLAN, "-q", "--max-delete", "0")
    assert planned.returncode == 12
    assert planned.stdout.startswith("1 to create, 1 to delete, 0 unchanged against old\nRefused: ")
    assert "error [schema]" in planned.stdout
    validate = ("insights-applier", "validate", "new", "--offline", "--no-validate-policies", "--allow-unchecked")
    full, short = review.run(*validate), review.run(*validate, "-q")
    assert ("Note: " in full.stdout, "Note: " in short.stdout) == (True, False)
    assert short.stdout.startswith("error [schema]")
    assert short.stdout.splitlines()[-1] == full.stdout.splitlines()[-1]
    assert short.returncode == full.returncode == 20


@pytest.mark.parametrize(
    ("variables", "flag", "coloured"),
    [
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", False),
        ({"FORCE_COLOR": "1"}, "never", False),
        ({"NO_COLOR": "1"}, "always", True),
    ],
)
def test_a_pipe_gets_colours_only_if_it_is_told_so(
    review: Programs, variables: dict[str, str], flag: str, coloured: bool
) -> None:
    done = review.with_(**variables).run(*PLAN, "--color", flag)
    assert (COLOUR in done.stdout) is coloured
    wrong = review.with_(**variables).run("insights-applier", "plan", "nowhere", "--color", flag)
    assert (COLOUR in wrong.stderr) is coloured


@pytest.mark.parametrize(
    ("variables", "more", "coloured"),
    [
        ({}, (), True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, (), False),
    ],
)
def test_a_terminal_gets_colours_unless_it_is_told_otherwise(
    review: Programs, variables: dict[str, str], more: tuple[str, ...], coloured: bool
) -> None:
    seen = terminals.run(review.with_(**variables), *PLAN, *more)
    assert seen.returncode == 2
    assert (f"{COLOUR}32m" in seen.terminal) is coloured


def test_a_terminal_gets_lines_that_fit_but_differences_whole(review: Programs) -> None:
    lines = click.unstyle(terminals.run(review, *PLAN, columns=60).terminal).splitlines()
    piped = review.run(*PLAN).stdout.splitlines()
    differences = {line for line in piped if line.startswith("    ")}
    assert differences <= set(lines)
    prose = [line for line in lines if line not in differences]
    # A link is one word.
    assert [line for line in prose if len(line) > 60 and "https://" not in line] == []
    assert " ".join(prose).split() == " ".join(line for line in piped if line not in differences).split()


def test_programs_get_what_no_terminal_breaks(review: Programs) -> None:
    seen = terminals.run(review, *PLAN, "-o", "json", columns=60)
    plan, _ = json.JSONDecoder().raw_decode(seen.terminal)
    assert plan["format"] == "insights-applier/plan"


@pytest.mark.parametrize(
    ("line", "columns", "expected"),
    [
        ("one two three", 20, ["one two three"]),
        ("Note: one two three four five", 20, ["Note: one two three", "  four five"]),
        ("  so far so good so on", 20, ["  so far so good so", "    on"]),
        ("政策 政策 政策 政策 政策 政策", 20, ["政策 政策 政策 政策", "  政策 政策"]),
        ("https://example.com/a/long/link and so on", 20, ["https://example.com/a/long/link", "  and so on"]),
        ("one two three four five", 10, ["one two three four five"]),
        ("", 20, [""]),
    ],
)
def test_a_line_is_broken_between_words(line: str, columns: int, expected: list[str]) -> None:
    assert list(wrap.wrapped(line, columns)) == expected
    coloured = [click.unstyle(part) for part in wrap.wrapped(click.style(line, fg="red", bold=True), columns)]
    assert coloured == expected


def test_only_what_is_seen_has_a_width() -> None:
    assert [wrap.width(text) for text in ("abc", "政策", "e\u0301", click.style("ab", fg="red"), "a\u200bb")] == [
        3,
        4,
        1,
        2,
        2,
    ]
