"""The command line of the renderer: arguments, one call, an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from renderer import logs
from renderer.commandline import (
    CONTEXT_SETTINGS,
    account_options,
    config_option,
    examples,
    insights_config,
    insights_options,
    log_options,
    option,
    run,
)
from renderer.deploy.command import DeployCommand
from renderer.errors import ConfigurationError, ExitCode
from renderer.fleet.shards import COUNT_VARIABLE, INDEX_VARIABLE, Shard, parse_shard, shard_of_job
from renderer.git_command import git_options, git_settings, message_text, told

if TYPE_CHECKING:
    from renderer.directory import Changed
    from renderer.publish import Published
    from renderer.render import Source


class ShardType(click.ParamType[Shard]):
    """A part of a fleet, such as 0/4."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """Read the text."""
        try:
            return parse_shard(str(value))
        except ConfigurationError as error:
            self.fail(error.message, param, ctx)


snapshot_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="on-demand-job-runner", message="%(prog)s %(version)s")
def cli() -> None:
    """Write the Kyverno policies that Insights wants on a cluster into a directory, for review and for git."""


@cli.command(
    short_help="Write the policies wanted on a cluster as a snapshot.",
    epilog=examples(
        "insights-renderer render --out policies/prod --organization acme --cluster prod",
        "insights-renderer render --out policies/prod --git --push --branch main",
    ),
)
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
@git_options
@config_option
@log_options
def render(out: Path, allow_empty: bool, log_level: str, **settings: Any) -> int:
    """Fetch the policies wanted on one cluster and write them as a snapshot.

    The directory then holds one file a policy, a kustomization.yaml and a snapshot.lock; files of yours stay.
    A second run with the same answer changes no byte. One broken document, and nothing is written.

    Templates use [[ value ]], [% statement %] and [# comment #]; Kyverno's {{ }} passes through them untouched.

    With --git, what changed becomes a commit of the snapshot alone, and the directory changes with it: all or
    nothing. With --repo, --out is a path from the root of that repository; a URL is cloned for the run, and needs
    --push. Commits are signed if git is so configured. Hooks do not run, nor any program that the repository names.
    """
    from renderer.publish import Target, publish

    logs.configure(sys.stderr, log_level)
    git = git_settings(out, settings)
    text = message_text(settings.pop("message_file"))
    if git is None:
        organization, cluster, sources = _sources(**settings)
        target = Target(directory=out, organization=organization, cluster=cluster, allow_empty=allow_empty)
        _tell(publish(sources, target), out)
        return int(ExitCode.OK)
    from renderer.gitrepo import Repository
    from renderer.render_git import commit_one

    with Repository.open(git) as repository:
        organization, cluster, sources = _sources(**settings)
        target = Target(directory=out, organization=organization, cluster=cluster, allow_empty=allow_empty)
        published, committed = commit_one(repository, sources, target, text=text)
    _tell(published, out)
    click.echo(told(committed))
    return int(ExitCode.OK)


def _tell(published: Published, out: Path) -> None:
    from renderer import snapshot

    changed = published.changed
    _tell_changes(changed)
    click.echo(_summary(len(published.policies), out, changed))
    for path in snapshot.extra_paths(out, set(published.files.contents)):
        logs.get_logger().warning(
            f"{out / path} was not written by the renderer; the applier refuses the snapshot while it is there"
        )


def _tell_changes(changed: Changed) -> None:
    for sign, paths in (("+", changed.added), ("~", changed.changed), ("-", changed.removed)):
        for path in paths:
            click.echo(f"{sign} {path}")


@cli.command(
    short_help="Write the snapshots of many clusters.",
    epilog=examples(
        "insights-renderer fleet --clusters clusters.yaml --out policies",
        "insights-renderer fleet --clusters clusters.yaml --out policies --shard 0/4",
        "insights-renderer fleet --clusters clusters.yaml --out policies --git --push",
    ),
)
@option(
    "--clusters",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="YAML list of clusters, each with organization, cluster, and path below --out.",
)
@option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory that holds the folders of the snapshots.",
)
@option(
    "--shard",
    metavar="I/N",
    type=ShardType(),
    help=f"Take part I (from 0) of N.  [default: {INDEX_VARIABLE}/{COUNT_VARIABLE}, as in an Indexed Job]",
)
@option(
    "--concurrency",
    default=8,
    show_default=True,
    type=click.IntRange(1, 256),
    help="How many clusters to work on at a time.",
)
@option(
    "--processes",
    type=click.IntRange(1, 256),
    help="How many processes write, at most one for each cluster at a time.  [default: one a core]",
)
@option("--allow-empty", is_flag=True, help="Allow that a cluster has no policy any more.")
@option("--organization", metavar="NAME", help="The organization of the clusters for which FILE names none.")
@account_options
@git_options
@option(
    "--branch-per-cluster",
    metavar="PREFIX",
    help="Commit each cluster on a branch of its own: PREFIX and its path, such as policies/acme/prod.",
)
@config_option
@log_options
def fleet(clusters: Path, out: Path, organization: str | None, log_level: str, **settings: Any) -> int:
    """Fetch the policies of many clusters and write a snapshot for each, as `render` does for one.

    FILE lists them; each path is a folder below --out, and no folder lies in another's. The folder of a cluster
    that is not listed any more stays, and is named.

    A cluster that fails keeps the snapshot that it has, and does not stop the others. The exit code is 0 when all
    are done and 32 when only some are; when none is, it is the one that `render` would give, or 32 if they differ.
    After 20 clusters in a row for which Insights could not be reached, it is not asked for the others.

    With --git, all that changes is one commit, or each cluster a commit on a branch of its own.
    """
    from renderer.fleet import command as fleet_command
    from renderer.fleet.file import left_over, read_fleet
    from renderer.fleet.run import failure_table

    logs.configure(sys.stderr, log_level)
    shard = settings.pop("shard") or shard_of_job(os.environ)
    checked = fleet_command.checked(out, log_level=log_level, **settings)
    members = read_fleet(clusters, organization=organization)
    for path in left_over(out, members):
        logs.get_logger().warning(f"{out / path} is of a cluster that {clusters} does not list; it stays as it is")
    tally = fleet_command.work_off([m for m in members if shard.holds(m.organization, m.cluster)], checked)
    for line in failure_table(tally.failures):
        click.echo(line)
    click.echo(f"{tally}.")
    return int(tally.exit_code)


@cli.command(
    cls=DeployCommand,
    short_help="Write the manifests of what runs in the cluster.",
    epilog=examples(
        "insights-renderer deploy --set image=registry.example/run@sha256:… --set organization=acme --set cluster=prod",
        "insights-renderer deploy --set parts=fleet --set image=registry.example/runner@sha256:… --out deploy",
    ),
)
@option(
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a value; the values are below. May be given again; in the variable, separated by spaces.",
)
@option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    variable="INSIGHTS_DEPLOY_OUT",
    help="Directory for the manifests, for kubectl apply -k.  [default: one stream on stdout, for kubectl apply -f -]",
)
@config_option
@log_options
def deploy(out: Path | None, log_level: str, **settings: Any) -> int:
    """Write the Kubernetes manifests of the sync, the runner and the fleet, with no more rights than they need.

    The token is in no manifest: it comes from the Secret that token-secret names. What no value is for is best
    patched by an overlay: a kustomization.yaml of yours whose resources name the directory.
    """
    from renderer.deploy import command, manifests, values

    logs.configure(sys.stderr, log_level)
    files = manifests.render(values.read(settings["set"]))
    if out is None:
        click.echo(command.stream(files), nl=False)
    else:
        _tell_changes(command.write(out, files))
        click.echo(f"{len(files)} files in {out}: kubectl apply -k {out}")
    return int(ExitCode.OK)


@cli.command(
    short_help="Verify that a snapshot is what its lock says.",
    epilog=examples(
        "insights-renderer check policies/prod",
    ),
)
@snapshot_argument
@config_option
@log_options
def check(directory: Path, log_level: str) -> int:
    """Verify that a snapshot is exactly what its snapshot.lock says.

    What is edited, truncated, missing or extra is named, and the exit code is 65.
    """
    from renderer import snapshot

    logs.configure(sys.stderr, log_level)
    found = snapshot.read(directory)
    click.echo(
        f"{_counted(len(found.policies))} for cluster {found.cluster} of {found.organization}, "
        f"as {snapshot.LOCK} says; digest {found.digest}."
    )
    return int(ExitCode.OK)


@cli.command(
    short_help="List the policies of a snapshot.",
    epilog=examples(
        "insights-renderer show policies/prod",
    ),
)
@snapshot_argument
@config_option
@log_options
def show(directory: Path, log_level: str) -> int:
    """List the policies of a snapshot as a table: kind, namespace, name, whether it blocks anything, and its title."""
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
