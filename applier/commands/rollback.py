"""`rollback`: puts an earlier set of policies back in place."""

from __future__ import annotations

import sys
from typing import Any

import click

from applier.commands import applying, terminal, watching, wiring
from applier.commands.options import (
    cluster_options,
    planning_options,
    token_option,
    validation_options,
    warnings_option,
    write_options,
)
from renderer import logs
from renderer.commandline import config_option, examples, insights_token, log_options, option
from renderer.errors import ExitCode


@click.command(
    short_help="Put an earlier set of policies back in place.",
    epilog=examples(
        "insights-applier rollback --dry-run",
        "insights-applier rollback",
        "insights-applier rollback --to 3",
    ),
)
@option(
    "--to",
    type=click.IntRange(1),
    metavar="N",
    variable="INSIGHTS_ROLLBACK_TO",
    help="The revision, as `history` numbers them.  [default: the one before the latest]",
)
@option("--trust-history", is_flag=True, help="Put back a revision that can't be verified, too.")
@cluster_options
@planning_options
@validation_options
@warnings_option
@write_options
@token_option
@config_option
@log_options
def rollback(to: int | None, trust_history: bool, dry_run: bool, log_level: str, **settings: Any) -> int:
    """Make the cluster hold the policies of an earlier revision: all of them, or it stays as it was.

    It is an apply like any other: locked, validated, guarded, taken back when a write fails, and kept as a new
    revision. The snapshot and Insights stay as they are: the next apply or sync brings their set back.

    Exit codes are those of apply; 65 means that there is no such revision, or that it can't be used or verified.
    """
    from applier import history_command, pipeline
    from applier.recovery import forewarn

    logs.configure(sys.stderr, log_level)
    terminal.show_progress()
    run = watching.begin("rollback", settings["metrics_file"])
    checks = wiring.checks(settings)
    cluster = wiring.connect(settings)
    allowed, selected = wiring.allowed(settings), wiring.selected(settings)
    journalling = wiring.journalling(settings, cluster, insights_token(settings["token_file"]))
    kept = wiring.kept(settings, cluster, journalling.key)
    chosen = history_command.choose(cluster, cluster, kept, to=to, trust=trust_history)

    def prepare() -> pipeline.Prepared:
        return pipeline.prepare(
            cluster,
            chosen.policies,
            allowed=allowed,
            checks=checks,
            prune=settings["prune"],
            selected=selected,
        )

    terminal.echo(chosen.lines)
    if dry_run:
        forewarn(journalling.store)
        return applying.rehearsed(cluster, prepare(), settings, run)
    keeper = wiring.keeper(settings, cluster, journalling.key, chosen.origin, chosen.policies)
    code = applying.applied(cluster, prepare, journalling, keeper, settings, run)
    if code == ExitCode.OK:
        click.echo("The next apply of a snapshot brings the snapshot's policies back, and the next sync Insights'.")
    return code
