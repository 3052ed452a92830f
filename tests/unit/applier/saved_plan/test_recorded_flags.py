"""Which flags a saved plan records, and what becomes of other values when it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from applier.commands.options import planning_options
from applier.saved_plan.recorded_flags import RecordedFlags
from renderer.commandline import option, options
from renderer.errors import InputError
from renderer.manifest.jsontypes import Json

SOME = options(
    option("--adopt", is_flag=True),
    option("--max-delete"),
    option("--prune", type=bool, default=True),
    option("--only", multiple=True),
)
FILE = Path("plan.json")
NONE_GIVEN: Mapping[str, Json] = {"adopt": False, "max-delete": None, "prune": True, "only": []}


def restored(
    arguments: Sequence[str], flags: Mapping[str, Json], monkeypatch: pytest.MonkeyPatch, **variables: str
) -> dict[str, Any]:
    """The settings of a command with these arguments, when the plan was made with these flags."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found: dict[str, Any] = {}

    @click.command()
    @SOME
    def command(**settings: Any) -> None:
        found.update(settings | RecordedFlags(SOME).restore(click.get_current_context(), flags, file=FILE))

    command.main(list(arguments), standalone_mode=False)
    return found


def test_what_was_recorded_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"adopt": True, "max_delete": "5%", "prune": False, "only": ("A/b", "A/c")}
    flags = RecordedFlags(SOME).record({**settings, "context": "x"})
    assert flags == {"adopt": True, "max-delete": "5%", "prune": False, "only": ["A/b", "A/c"]}
    assert restored([], flags, monkeypatch) == settings
    same = ["--adopt", "--max-delete", "5%", "--prune", "false", "--only", "A/b", "--only", "A/c"]
    assert restored(same, flags, monkeypatch) == settings


def test_what_was_not_given_comes_back_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    assert restored([], NONE_GIVEN, monkeypatch) == {"adopt": False, "max_delete": None, "prune": True, "only": ()}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--adopt"], "--adopt is true here, and false in the plan in plan.json"),
        (["--max-delete", "4"], "--max-delete is 4 here, and 3 in the plan in plan.json"),
        (["--prune", "true"], "--prune is true here, and false in the plan in plan.json"),
        (["--only", "A/b"], "--only is A/b here, and not set in the plan in plan.json"),
    ],
)
def test_the_command_line_must_not_contradict(arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.BadOptionUsage, match=told):
        restored(arguments, {**NONE_GIVEN, "max-delete": "3", "prune": False}, monkeypatch)


def test_a_variable_that_contradicts_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = restored(
        [], {**NONE_GIVEN, "max-delete": "3"}, monkeypatch, INSIGHTS_MAX_DELETE="90%", INSIGHTS_ADOPT="true"
    )
    assert found == {"adopt": False, "max_delete": "3", "prune": True, "only": ()}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({**NONE_GIVEN, "conquer": True}, "it has --conquer"),
        ({"adopt": False}, "it lacks --max-delete, it lacks --only, it lacks --prune"),
        ({**NONE_GIVEN, "prune": "perhaps"}, "bad value for --prune"),
        ({**NONE_GIVEN, "only": 3}, "bad value for --only"),
    ],
)
def test_flags_that_this_program_has_not_are_an_input_error(
    flags: Mapping[str, Json], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=told):
        restored([], flags, monkeypatch)


def test_what_decides_a_plan_is_recorded_and_comes_back() -> None:
    command = click.Command("plan", params=click.command()(planning_options(lambda **_: None)).params)
    given = ["--adopt", "--only", "ClusterPolicy/*", "--only", "Policy/a/b", "--prune", "false"]
    context = command.make_context("plan", given)
    flags = RecordedFlags(planning_options).record(context.params)
    assert {flag: value for flag, value in flags.items() if value not in (False, None, [])} == {
        "adopt": True,
        "only": ["ClusterPolicy/*", "Policy/a/b"],
    }
    assert flags["prune"] is False
    assert RecordedFlags(planning_options).restore(context, flags, file=FILE) == context.params
