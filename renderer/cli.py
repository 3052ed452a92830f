"""The command line of the renderer: arguments, one call, an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from renderer import logs
from renderer.commandline import (
    CONTEXT_SETTINGS,
    config_option,
    insights_config,
    insights_options,
    log_level_option,
    option,
    run,
)
from renderer.errors import ExitCode, Refusal

_MAX_ANSWER_BYTES = 64 * 1024 * 1024


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="on-demand-job-runner", message="%(prog)s %(version)s")
def cli() -> None:
    """Write the Kyverno policies that Insights wants on a cluster into a directory, for review and for git."""


@cli.command()
@option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory to write the snapshot to.",
)
@option(
    "--from",
    "saved",
    metavar="FILE|-",
    help="Read a saved answer instead of asking Insights; - is standard input.",
)
@option("--allow-empty", is_flag=True, help="Allow that the answer holds no policy.")
@insights_options
@config_option
@log_level_option
def render(out: Path, saved: str | None, allow_empty: bool, log_level: str, **insights: Any) -> int:
    r"""Fetch the policies wanted on one cluster and write them as a snapshot.

    The directory then holds one file a policy, a kustomization.yaml and a snapshot.lock; files of yours stay.
    A second run with the same answer changes no byte. One broken document, and nothing is written.

    \b
    Examples:
      insights-renderer render --out policies/prod --organization acme --cluster prod
      insights-renderer render --out policies/prod --from answer.yaml --organization acme --cluster prod
    """
    from renderer import snapshot
    from renderer.render import render as render_policies

    logs.configure(sys.stderr, log_level)
    if saved is None:
        source, organization, cluster = _fetch(insights)
    else:
        source, organization, cluster = _saved(saved, insights)
    policies = render_policies([source])
    if not len(policies) and len(snapshot.own_paths(out)) > len(snapshot.EMPTY) and not allow_empty:
        raise Refusal(
            ExitCode.EMPTY_SET,
            f"The answer holds no policy at all; the snapshot in {out} would lose every one that it has.",
            hint="If that is meant, allow it with --allow-empty (INSIGHTS_ALLOW_EMPTY=true).",
        )
    files = snapshot.render_files(policies, organization=organization, cluster=cluster)
    changed = snapshot.write(out, files)
    for sign, paths in (("+", changed.added), ("~", changed.changed), ("-", changed.removed)):
        for path in paths:
            click.echo(f"{sign} {path}")
    click.echo(_summary(len(policies), out, changed))
    for path in snapshot.extra_paths(out, set(files.contents)):
        logs.get_logger().warning(
            f"{out / path} was not written by the renderer; the applier refuses the snapshot while it is there"
        )
    return 0


def _summary(count: int, out: Path, changed: Any) -> str:
    policies = f"{count} {'policy' if count == 1 else 'policies'} in {out}"
    if not changed:
        return f"{policies}; nothing changed."
    return (
        f"{policies}: {len(changed.added)} files added, {len(changed.changed)} changed, {len(changed.removed)} removed."
    )


def _fetch(insights: dict[str, Any]) -> tuple[Any, str, str]:
    from renderer.insights.policies import fetch_policies
    from renderer.insights.transport import Transport
    from renderer.render import Source

    config = insights_config(**insights)
    with Transport(config) as transport:
        data = fetch_policies(transport, config)
    return Source(name="Insights", data=data), config.organization, config.cluster


def _saved(name: str, insights: dict[str, Any]) -> tuple[Any, str, str]:
    from renderer.errors import ConfigurationError, InputError
    from renderer.render import Source

    organization, cluster = insights["organization"], insights["cluster"]
    for value, setting in (
        (organization, "FAIRWINDS_ORG (--organization)"),
        (cluster, "FAIRWINDS_CLUSTER (--cluster)"),
    ):
        if not value:
            raise ConfigurationError(
                f"{setting} is not set; a snapshot says whose it is.",
                hint="Set it also where a saved answer is read.",
            )
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_ANSWER_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_ANSWER_BYTES + 1)
    except OSError as error:
        raise InputError(f"--from: {name} can't be read: {error.strerror or error}.") from error
    return Source(name="standard input" if name == "-" else name, data=data), organization, cluster


def main() -> None:
    """Run the program and exit with its code."""
    sys.exit(run(cli))
