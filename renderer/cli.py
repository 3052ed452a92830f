"""The command line of the renderer: arguments, one call, an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from renderer.errors import ConfigurationError, ExitCode, Refusal

if TYPE_CHECKING:
    from renderer.directory import Changed
    from renderer.render import Source

snapshot_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="on-demand-job-runner", message="%(prog)s %(version)s")
def cli() -> None:
    """Write the Kyverno policies that Insights wants on a cluster into a directory, for review and for git."""


@cli.command(short_help="Write the policies wanted on a cluster as a snapshot.")
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
@option(
    "--local",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Add the policies of a directory: YAML, and templates that end in .yaml.j2. May be given again.",
)
@option("--values", type=click.Path(path_type=Path), help="YAML file of values for the templates.")
@option("--local-only", is_flag=True, help="Take the policies from --local alone; ask nobody.")
@option("--allow-empty", is_flag=True, help="Allow that there is no policy.")
@insights_options
@config_option
@log_level_option
def render(out: Path, allow_empty: bool, log_level: str, **settings: Any) -> int:
    """Fetch the policies wanted on one cluster and write them as a snapshot.

    The directory then holds one file a policy, a kustomization.yaml and a snapshot.lock; files of yours stay.
    A second run with the same answer changes no byte. One broken document, and nothing is written.

    Templates use [[ value ]], [% statement %] and [# comment #]; Kyverno's {{ }} passes through them untouched.

    \b
    Examples:
      insights-renderer render --out policies/prod --organization acme --cluster prod
      insights-renderer render --out policies/prod --from answer.yaml --organization acme --cluster prod
      insights-renderer render --out policies/prod --local baseline --values prod.yaml
    """
    from renderer import snapshot
    from renderer.render import render as render_policies

    logs.configure(sys.stderr, log_level)
    organization, cluster, sources = _sources(**settings)
    policies = render_policies(sources)
    if not len(policies) and len(snapshot.own_paths(out)) > len(snapshot.EMPTY) and not allow_empty:
        raise Refusal(
            ExitCode.EMPTY_SET,
            f"There is no policy at all; the snapshot in {out} would lose every one that it has.",
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
    return int(ExitCode.OK)


@cli.command(short_help="Verify that a snapshot is what its lock says.")
@snapshot_argument
@config_option
@log_level_option
def check(directory: Path, log_level: str) -> int:
    """Verify that a snapshot is exactly what its snapshot.lock says.

    What is edited, truncated, missing or extra is named, and the exit code is 65.

    \b
    Example:
      insights-renderer check policies/prod
    """
    from renderer import snapshot

    logs.configure(sys.stderr, log_level)
    found = snapshot.read(directory)
    click.echo(
        f"{_counted(len(found.policies))} for cluster {found.cluster} of {found.organization}, "
        f"as {snapshot.LOCK} says; digest {found.digest}."
    )
    return int(ExitCode.OK)


@cli.command(short_help="List the policies of a snapshot.")
@snapshot_argument
@config_option
@log_level_option
def show(directory: Path, log_level: str) -> int:
    """List the policies of a snapshot as a table: kind, namespace, name, whether it blocks anything, and its title.

    \b
    Example:
      insights-renderer show policies/prod
    """
    from renderer import listing, snapshot

    logs.configure(sys.stderr, log_level)
    found = snapshot.read(directory)
    for line in listing.table(found.policies):
        click.echo(line)
    click.echo(f"{_counted(len(found.policies))} for cluster {found.cluster} of {found.organization}.")
    return int(ExitCode.OK)


def _sources(
    *, saved: str | None, local: tuple[Path, ...], values: Path | None, local_only: bool, **insights: Any
) -> tuple[str, str, list[Source]]:
    """Organization, cluster, and every source in the order that they were named."""
    from renderer import answer
    from renderer.local import Local, read_sources, read_values

    if local_only and (saved or not local):
        raise ConfigurationError(
            "--local-only takes the policies from --local, which is missing, or --from is set too."
        )
    sources: list[Source] = []
    if saved is not None:
        sources.append(answer.saved(saved))
    elif not local_only:
        config = insights_config(**insights)
        insights |= {"organization": config.organization, "cluster": config.cluster}
        sources.append(answer.fetched(config))
    templates = read_values(values)
    for directory in local:
        sources += read_sources(Local(directory=directory, values=templates))
    return _named(insights, "organization", "FAIRWINDS_ORG"), _named(insights, "cluster", "FAIRWINDS_CLUSTER"), sources


def _named(insights: dict[str, Any], name: str, variable: str) -> str:
    value = insights[name]
    if not value:
        raise ConfigurationError(
            f"{variable} (--{name}) is not set; a snapshot says whose it is.",
            hint="Set it also where Insights is not asked.",
        )
    return str(value)


def _counted(count: int) -> str:
    return f"{count} {'policy' if count == 1 else 'policies'}"


def _summary(count: int, out: Path, changed: Changed) -> str:
    policies = f"{_counted(count)} in {out}"
    if not changed:
        return f"{policies}; nothing changed."
    return (
        f"{policies}: {len(changed.added)} files added, {len(changed.changed)} changed, {len(changed.removed)} removed."
    )


def main() -> None:
    """Run the program and exit with its code."""
    sys.exit(run(cli))
