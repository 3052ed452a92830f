"""The pages for people hold what they say: quoted messages, links, commands, flags, variables and rights."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import click
import pytest

from applier.cli import cli as applier
from applier.report.formats import FORMATS
from renderer.cli import cli as renderer
from renderer.errors import ExitCode

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md")])
PROGRAMS: Final[dict[str, click.Group]] = {"insights-renderer": renderer, "insights-applier": applier}
_MESSAGE: Final = re.compile(r"(?m)^\| `([^`]+)` \|")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"(?m)^#+ (.*)$")
_COMMAND: Final = re.compile(r"(?m)\b(insights-renderer|insights-applier) ([a-z][a-z-]+)((?: [^\s`|;)]+)*)")


@cache
def spoken() -> tuple[str, ...]:
    """Every text of the sources, with … where a value goes."""
    found = []
    for file in sorted(path for top in ("renderer", "applier") for path in (ROOT / top).rglob("*.py")):
        found += [_text(node) for node in ast.walk(ast.parse(file.read_text())) if _is_text(node)]
    return tuple(found)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def is_said(message: str) -> bool:
    """Whether one text of the sources has all of its parts, in their order."""
    parts = [part.strip() for part in message.split("…") if part.strip()]
    pattern = re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
    return any(pattern.search(text) for text in spoken())


def messages() -> list[str]:
    return _MESSAGE.findall((ROOT / ".github/TROUBLESHOOTING.md").read_text())


@pytest.mark.parametrize("message", messages())
def test_the_program_says_what_is_quoted(message: str) -> None:
    assert is_said(message.replace("FAIRWINDS_TOKEN (--token-file) is", "… is")), message


def test_what_is_quoted_is_looked_for_in_earnest() -> None:
    assert len(messages()) > 30
    assert not is_said("Insights wants no cat at all; applying that would delete …")
    assert not is_said("… was made for another snapshot; nothing was written.")


def anchors(page: Path) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(page.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def used(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for program, command, rest in _COMMAND.findall(text):
        yield program, command, re.findall(r"(?<!\S)(--[a-z-]+)", rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_flag_exists(page: Path) -> None:
    for program, name, flags in used(page.read_text()):
        group = PROGRAMS[program]
        command = group.get_command(click.Context(group), name)
        assert command is not None, f"{program} {name}"
        known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        assert set(flags) <= known | {"--help"}, f"{program} {name}"


def listed(title: str) -> set[str]:
    """What is marked as code, or is a number, in the first column of the README's tables under that heading."""
    _, _, after = (ROOT / "README.md").read_text().partition(f"\n## {title}\n")
    section = after.partition("\n## ")[0]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    return {word for cell in cells for word in re.findall(r"`([^`]+)`|(\d+)", cell) for word in word if word}


def test_every_exit_code_is_in_the_readme() -> None:
    assert listed("Exit codes") == {str(int(code)) for code in ExitCode}


def test_every_command_is_in_the_readme() -> None:
    commands = {f"{program} {name}" for program, group in PROGRAMS.items() for name in group.commands}
    assert {" ".join(entry.split()[:2]) for entry in listed("Commands")} == commands | {"on-demand-job-runner"}


def variables() -> Iterator[tuple[str, list[str]]]:
    """Each variable that an option reads, with the option's flags."""
    for group in PROGRAMS.values():
        for command in group.commands.values():
            for param in command.params:
                for variable in [param.envvar] if isinstance(param.envvar, str) else param.envvar or ():
                    yield variable, [*param.opts, *param.secondary_opts]


def test_every_variable_is_in_the_readme_or_follows_its_rule() -> None:
    named = listed("Environment")
    for variable, flags in variables():
        ruled = {"INSIGHTS_" + flag.removeprefix("--").replace("-", "_").upper() for flag in flags}
        assert variable in named | ruled, flags
    # The token's are read in renderer/insights/config.py, and a shard by the number of shards.
    assert named - {variable for variable, _ in variables()} == {"FAIRWINDS_TOKEN", "TOKEN", "INSIGHTS_SHARDS"}


def test_every_format_is_in_the_readme() -> None:
    assert listed("Formats") == set(FORMATS)
