"""The flags that decide what a plan holds: written into a saved plan, and taken from it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from renderer import logs
from renderer.errors import InputError
from renderer.manifest.jsontypes import Json

_SAID: Final = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


class RecordedFlags:
    """The options that a decorator declares: which they are is said where they are declared, and nowhere else."""

    def __init__(self, declare: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        """Take the decorator that gives a command these options."""
        declared = click.command()(declare(lambda: None)).params
        self._options = {_flag(option): option for option in declared if isinstance(option, click.Option)}

    def record(self, settings: Mapping[str, Any]) -> dict[str, Json]:
        """What these options were set to, by their names on the command line without the dashes."""
        return {flag: _recorded(settings[str(option.name)]) for flag, option in self._options.items()}

    def restore(self, context: click.Context, flags: Mapping[str, Json], *, file: Path) -> dict[str, Any]:
        """The settings that the flags in `file` mean.

        Raises InputError unless the file has each of these flags and no other, and BadOptionUsage when the command
        line has another value: the plan's own flags count. Other values of variables and configuration files are not
        used, and that is logged.
        """
        if flags.keys() != self._options.keys():
            known = [f"it has --{flag}" for flag in sorted(flags.keys() - self._options.keys())]
            missing = [f"it lacks --{flag}" for flag in sorted(self._options.keys() - flags.keys())]
            raise InputError(
                f"--plan: {file} was made by another version of this program: {', '.join(known + missing)}.",
                hint="Use the version that made the plan, or make a new plan with this one.",
            )
        return {
            str(option.name): self._restored(context, flag, option, flags, file)
            for flag, option in self._options.items()
        }

    def _restored(
        self, context: click.Context, flag: str, option: click.Option, flags: Mapping[str, Json], file: Path
    ) -> Any:
        name = str(option.name)
        try:
            value = option.type_cast_value(context, flags[flag])
        except click.BadParameter as error:
            raise InputError(f"--plan: {file} has a bad value for --{flag}: {error.message}") from error
        source, given = context.get_parameter_source(name), context.params[name]
        if given == value or source not in _SAID:
            return value
        if source is ParameterSource.COMMANDLINE:
            raise click.BadOptionUsage(
                f"--{flag}",
                f"--{flag} is {_shown(given)} here, and {_shown(value)} in the plan in {file}. The plan's own flags "
                f"count: leave out --{flag}, or make a new plan with it.",
                context,
            )
        logs.get_logger().warning(
            "A setting is not used: the plan's own flags count",
            flag=f"--{flag}",
            plan=_shown(value),
            here=_shown(given),
        )
        return value


def _recorded(value: Any) -> Json:
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _flag(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--")).removeprefix("--")


def _shown(value: object) -> str:
    if value is None or value == ():
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
