"""What the image runs, with no arguments: the environment says whether it is the sync, one Job, or the runner."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from renderer.commandline import run
from renderer.errors import ConfigurationError
from renderer.report_types import POLICY_SYNC, REPORT_TYPES

#: Variables that the chart sets for one of the two programs only; HOST is too common a name to go by.
_SYNC_VARIABLES: Final = ("FAIRWINDS_ORG", "FAIRWINDS_CLUSTER", "FAIRWINDS_TOKEN", "FAIRWINDS_INSIGHTS_HOST")
_RUNNER_VARIABLES: Final = ("ORGANIZATION", "CLUSTER", "TOKEN")
_CONFIG_DIRECTORIES: Final = (Path(), Path("/etc/kyverno-policy-sync"))
_CONFIG_NAME: Final = "config.yaml"


def chosen(environ: Mapping[str, str], config: Path | None) -> Sequence[str]:
    """The command of insights-applier that this environment means; `config` is the runner's file, if there is one.

    Raises ConfigurationError when it means both or neither, or a report type that is not known.
    """
    job_type = environ.get("JOB_TYPE", "")
    if job_type == POLICY_SYNC:
        return ("sync",)
    if job_type and job_type not in REPORT_TYPES:
        raise ConfigurationError(
            f"JOB_TYPE: {job_type!r} is no report type.", hint=f"It takes {', '.join(sorted(REPORT_TYPES))}."
        )
    file = ("--config", str(config)) if config else ()
    if job_type:
        return ("run-jobs", *file)
    for_sync = [name for name in _SYNC_VARIABLES if environ.get(name)]
    for_runner = [name for name in _RUNNER_VARIABLES if environ.get(name)] + [str(config) for _ in file[:1]]
    if for_sync and for_runner:
        raise ConfigurationError(
            f"It is not clear what to run: {', '.join(for_sync)} {_is(for_sync)} for {POLICY_SYNC}, and "
            f"{', '.join(for_runner)} {_is(for_runner)} for the runner of on-demand jobs.",
            hint=f"Set JOB_TYPE={POLICY_SYNC} for one sync, or take away what is the sync's.",
        )
    if for_sync:
        return ("sync",)
    if for_runner:
        return ("run-jobs", *file)
    raise ConfigurationError(
        f"Nothing says what to run: neither {', '.join(_SYNC_VARIABLES[:3])} for {POLICY_SYNC}, nor "
        f"{', '.join(_RUNNER_VARIABLES)} or a {_CONFIG_NAME} for the runner of on-demand jobs, nor JOB_TYPE.",
        hint="See `on-demand-job-runner --help`.",
    )


def config_file(environ: Mapping[str, str], directories: Sequence[Path] = _CONFIG_DIRECTORIES) -> Path | None:
    """The runner's file that is there; None when the environment names another one."""
    if environ.get("INSIGHTS_CONFIG"):
        return None
    return next((path for path in (directory / _CONFIG_NAME for directory in directories) if path.is_file()), None)


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


@click.command(
    "on-demand-job-runner",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="on-demand-job-runner", message="%(prog)s %(version)s")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(flags: tuple[str, ...]) -> int:
    """Run what the environment means, as the image does.

    \b
    JOB_TYPE=kyverno-policy-sync                       one sync: insights-applier sync
    FAIRWINDS_ORG, FAIRWINDS_CLUSTER, FAIRWINDS_TOKEN  the same
    JOB_TYPE=trivy, or another report type             one Job from that type's CronJob
    ORGANIZATION, CLUSTER, TOKEN, or a config.yaml     the runner: insights-applier run-jobs

    The config.yaml is looked for in the working directory and in /etc/kyverno-policy-sync. FLAGS are those of the
    command that is meant; `insights-applier sync --help` and `insights-applier run-jobs --help` tell them.
    """
    from applier.cli import cli

    arguments = [*chosen(os.environ, config_file(os.environ)), *flags]
    return int(cli.main(args=arguments, prog_name="insights-applier", standalone_mode=False) or 0)


def main() -> None:
    """Run the program and exit with its code."""
    sys.exit(run(command))


if __name__ == "__main__":
    main()
