"""What --help ends with, and what a shell completes, in both programs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from applier import cli as applier
from renderer import cli as renderer

PROGRAMS = {"insights-applier": applier.cli, "insights-renderer": renderer.cli}
COMMANDS = [(program, name) for program, cli in PROGRAMS.items() for name in cli.commands]


def shown(program: str, name: str) -> list[str]:
    """The examples at the end of --help, on a narrow terminal."""
    done = CliRunner().invoke(PROGRAMS[program], [name, "--help"], prog_name=program, terminal_width=40)
    assert done.exit_code == 0
    _, found, examples = done.output.partition("\n  Examples:\n")
    assert found, done.output
    return [line.strip() for line in examples.splitlines()]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_help_ends_with_examples_that_can_be_typed(program: str, name: str) -> None:
    examples = shown(program, name)
    assert 1 <= len(examples) <= 3
    for example in examples:
        typed = re.sub(r"^[A-Z_]+=\S+ ", "", example)
        words = shlex.split(typed.partition(" | ")[0])
        assert words[:2] == [program, name], example
        # Raises for an option that there is not, and for a value that it does not take.
        PROGRAMS[program].commands[name].make_context(name, words[2:])


def completed(program: str, *words: str, variable: str = "COMPLETE", shell: str = "bash_complete") -> str:
    """What the program says to a shell that asks it."""
    asked = f"_{program.upper().replace('-', '_')}_{variable}"
    done = subprocess.run(
        [Path(sys.executable).parent / program],
        env={
            "PATH": os.defpath,
            asked: shell,
            "COMP_WORDS": shlex.join([program, *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_takes_what_it_is_given_to_source(program: str) -> None:
    source = completed(program, shell="bash_source")
    checked = subprocess.run(
        ["bash", "-c", f"{source}\ncomplete -p {program}"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert program in checked.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("insights-applier", "va"), ["plain,validate"]),
        (("insights-applier", "plan", "--agai"), ["plain,--against"]),
        (("insights-applier", "plan", "-o", "ma"), ["plain,markdown"]),
        (("insights-applier", "apply", "--on-failure", ""), ["plain,rollback", "plain,continue", "plain,stop"]),
        (("insights-applier", "plan", "pol"), ["file,pol"]),
    ],
)
def test_commands_options_and_choices_are_completed(words: tuple[str, ...], expected: list[str]) -> None:
    assert completed(*words).splitlines() == expected


def test_an_option_that_there_is_not_is_no_example() -> None:
    with pytest.raises(click.UsageError):
        PROGRAMS["insights-applier"].commands["plan"].make_context("plan", ["policies/prod", "--no-such-option"])
