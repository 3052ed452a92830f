"""What both programs' command lines share: options, where their values come from, and one boundary to exit codes."""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO, TypeVar

import click
from click.core import ParameterSource

from renderer import logs
from renderer.durations import parse_duration
from renderer.errors import ConfigurationError, ExitCode, Failure, Terminated, defect, interrupted, printable
from renderer.insights.config import (
    TOKEN_VARIABLE,
    USUAL_NAMES,
    Account,
    InsightsConfig,
    SettingNames,
    Token,
    account,
    read_token,
)
from renderer.status_line import STATUS

if TYPE_CHECKING:
    from renderer.manifest.jsontypes import JsonObject

F = TypeVar("F", bound=Callable[..., Any])

#: Variables whose names SPEC and the chart fix; every other is INSIGHTS_ and the flag in capitals.
_FIXED_VARIABLES: Final[Mapping[str, str]] = {
    "--host": "FAIRWINDS_INSIGHTS_HOST",
    "--organization": "FAIRWINDS_ORG",
    "--cluster": "FAIRWINDS_CLUSTER",
    "--dry-run": "DRY_RUN",
    "--validate-policies": "VALIDATE_POLICIES",
    "--sync-interval": "SYNC_INTERVAL",
    "--lock-timeout": "LOCK_TIMEOUT",
    "--log-level": "LOG_LEVEL",
    "--job-type": "JOB_TYPE",
    "--on-failure": "ON_FAILURE",
}

CONTEXT_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Duration(click.ParamType[float]):
    """A duration such as 30m, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text; a default that is a number already stays."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value), setting=repr(value))
        except ConfigurationError as error:
            self.fail(error.message, param, ctx)


def option(*names: str, variable: str = "", **settings: Any) -> Callable[[F], F]:
    """Declare an option that reads its environment variable too, and says so in --help.

    `variable` names another than the usual one, where two commands' flags of one name mean different things.
    """
    flag = next(name for name in names if name.startswith("--")).partition("/")[0]
    usual = _FIXED_VARIABLES.get(flag, "INSIGHTS_" + flag.removeprefix("--").replace("-", "_").upper())
    decorate: Callable[[F], F] = click.option(*names, envvar=variable or usual, show_envvar=True, **settings)
    return decorate


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of --help."""
    return lambda function: reduce(lambda inner, decorate: decorate(inner), reversed(decorators), function)


def examples(*lines: str) -> str:
    """The end of a command's --help: how it is typed, a line each, whatever the width."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def _load_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    settings = read_settings(value)
    accepted = {param.name: param for param in ctx.command.params if isinstance(param, click.Option)}
    accepted.pop("config", None)
    names = {str(key): str(key).replace("-", "_") for key in settings}
    unknown = sorted(key for key, name in names.items() if name not in accepted)
    if unknown:
        raise ConfigurationError(
            f"--config: {value} has {', '.join(unknown)}, which this command does not take.",
            hint="It takes " + ", ".join(sorted(name.replace("_", "-") for name in accepted if name)) + ".",
        )
    values = {names[str(key)]: setting for key, setting in settings.items()}
    for name, setting in values.items():
        several = accepted[name].multiple
        if not all(is_plain(item) for item in (setting if several and isinstance(setting, list) else [setting])):
            takes = "one value, or a list of values" if several else "one value"
            raise ConfigurationError(
                f"--config: {value} has something else for {name.replace('_', '-')}, which takes {takes}."
            )
    ctx.default_map = {
        name: [setting] if accepted[name].multiple and is_plain(setting) and setting is not None else setting
        for name, setting in values.items()
    }


def read_settings(path: Path) -> JsonObject:
    """The file that --config names: one YAML map of settings. Raises ConfigurationError and InputError."""
    from renderer.manifest import yamlio

    try:
        documents = yamlio.load(path.read_bytes(), source=str(path))
    except OSError as error:
        raise ConfigurationError(f"--config: {path} can't be read: {error.strerror or error}.") from error
    settings = documents[0].value if documents else {}
    if len(documents) > 1 or not isinstance(settings, dict):
        raise ConfigurationError(f"--config: {path} is not one YAML map of settings.")
    return settings


def is_plain(setting: object) -> bool:
    """Whether a command line or a variable could hold it; None means what was left empty."""
    return setting is None or isinstance(setting, (str, bool, int, float))


config_option = option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    help="YAML file of settings; flags and the environment come first.",
)


@dataclass(slots=True)
class Shown:
    """How this run is shown; the object of click's contexts. `colours` of None means: where a terminal is."""

    colours: bool | None


def _choose_colours(ctx: click.Context, _param: click.Parameter, value: str) -> None:
    if value == "auto":
        return
    ctx.color = value == "always"
    if isinstance(ctx.obj, Shown):
        ctx.obj.colours = ctx.color


log_options = options(
    option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=_choose_colours,
        help="When to use colours. auto: on a terminal; the variables NO_COLOR and FORCE_COLOR turn them off and on.",
    ),
    option(
        "--log-level",
        type=click.Choice(logs.LEVELS, case_sensitive=False),
        default="info",
        show_default=True,
        help="How much to log.",
    ),
)

account_options = options(
    option("--host", metavar="URL", help="Base URL of Insights.  [default: https://insights.fairwinds.com]"),
    option(
        "--token-file",
        type=click.Path(path_type=Path),
        help=f"File that holds the token; without it, the variable {TOKEN_VARIABLE} does.",
    ),
    option(
        "--insecure-http",
        is_flag=True,
        help="Allow plain http:// to another machine. The token is readable then.",
    ),
)

insights_options = options(
    option("--organization", metavar="NAME", help="The organization, as Insights names it."),
    option("--cluster", metavar="NAME", help="The cluster, as Insights names it."),
    account_options,
)


def insights_config(
    *,
    host: str | None,
    organization: str | None,
    cluster: str | None,
    token_file: Path | None,
    insecure_http: bool,
) -> InsightsConfig:
    """The checked settings of Insights, from the values of `insights_options`. Raises ConfigurationError."""
    return insights_account(host=host, token_file=token_file, insecure_http=insecure_http).on(organization, cluster)


def insights_account(*, host: str | None, token_file: Path | None, insecure_http: bool) -> Account:
    """The same without a cluster, from the values of `account_options`. Raises ConfigurationError."""
    return account(host=host, token=insights_token(token_file), insecure_http=insecure_http)


def insights_token(
    token_file: Path | None, *, variable: str = TOKEN_VARIABLE, names: SettingNames = USUAL_NAMES
) -> Token | None:
    """The token of Insights, or None where nobody gave one; `token_file` is the value of --token-file.

    The flag comes first, then the variable, then a file that the environment or the config file names.
    """
    source = click.get_current_context().get_parameter_source("token_file")
    text = os.environ.get(variable)
    if token_file and (source is ParameterSource.COMMANDLINE or not text):
        return read_token(token_file)
    return Token.of(text, source=names.token) if text else None


class Output:
    """A text stream that never interrupts the work: when nobody reads it any more, the rest is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or drop what can't be written; the first error is kept in `error`."""
        if self.error is None:
            try:
                with STATUS.giving_way(text):
                    self._stream.write(text)
            except (OSError, ValueError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush, with the same patience."""
        if self.error is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def isatty(self) -> bool:
        """Whether people are reading."""
        return self.error is None and self._stream.isatty()

    @property
    def encoding(self) -> str:
        """The encoding of the stream below."""
        return self._stream.encoding

    @property
    def buffer(self) -> BinaryIO:
        """The bytes of the stream below, for click, which hands them to shells that ask for completion."""
        return self._stream.buffer

    def _fail(self, error: OSError | ValueError) -> None:
        self.error = error if isinstance(error, OSError) else OSError(str(error))
        # What is still buffered would be tried once more when Python ends, and would end in a traceback.
        with open(os.devnull, "wb") as null:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(null.fileno(), self._stream.fileno())


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code: the one place where errors become messages and codes.

    Nothing but a defect of ours shows a traceback, and that only with LOG_LEVEL=debug.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # memory holds tokens, so that no crash may write it to a disk
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    stdout, stderr = _open(sys.stdout), _open(sys.stderr)
    sys.stdout, sys.stderr = stdout, stderr
    code = _run(command, list(sys.argv[1:] if arguments is None else arguments))
    STATUS.turn_off()
    stdout.flush()
    if stdout.error is not None and not isinstance(stdout.error, BrokenPipeError):
        reason = stdout.error.strerror or stdout.error
        _say(f"Standard output can't be written: {reason}. What was done stands; what was to be shown is lost.")
        code = code or int(ExitCode.CONFIGURATION)
    stderr.flush()
    return code


def _open(stream: TextIO | None) -> Output:
    """The stream, or nowhere when it was closed before we began; what it can't encode is escaped, not lost."""
    if stream is None:
        # Kept open as long as the process: it stands for a standard stream.
        return Output(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Output(stream)


def _terminated(_signal: int, _frame: object) -> None:
    raise Terminated


def _run(command: click.Command, arguments: list[str]) -> int:
    failure: Failure
    shown = Shown(colours=_colours(os.environ))
    try:
        return int(command.main(args=arguments, standalone_mode=False, color=shown.colours, obj=shown) or 0)
    except click.Abort as error:  # how click passes an interruption on
        failure = interrupted(error.__cause__, "the run was over")
    except KeyboardInterrupt as error:
        failure = interrupted(error, "the run was over")
    except click.ClickException as error:
        return _usage_error(error, shown)
    except Failure as error:
        failure = error
    except Exception as error:
        if os.environ.get("LOG_LEVEL", "").lower() == "debug":
            raise
        failure = defect(error)
    _say(str(failure), shown.colours)
    return int(failure.code)


def _colours(environment: Mapping[str, str]) -> bool | None:
    """What NO_COLOR (no-color.org) and FORCE_COLOR say when they are not empty; NO_COLOR wins."""
    if environment.get("NO_COLOR"):
        return False
    return True if environment.get("FORCE_COLOR") else None


def _usage_error(error: click.ClickException, shown: Shown) -> int:
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    source = context.get_parameter_source(parameter.name) if context and parameter and parameter.name else None
    message = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(message, err=True)
    else:
        _say(message, shown.colours)
        if context:
            click.echo(f"See `{context.command_path} --help`.", err=True)
    configured = source in (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
    return int(ExitCode.CONFIGURATION if configured else ExitCode.USAGE)


def _say(message: str, colours: bool | None = None) -> None:
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {printable(message)}", err=True, color=colours)
