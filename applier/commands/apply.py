"""`apply`: makes the cluster hold the snapshot's policies, all of them or none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from applier.commands import applying, terminal, watching, wiring
from applier.commands.options import (
    cluster_options,
    planning_options,
    snapshot_argument,
    validation_options,
    warnings_option,
    write_options,
)
from renderer import logs
from renderer.commandline import config_option, examples, insights_token, log_options, option

if TYPE_CHECKING:
    from applier.saved_plan import SavedPlan


@click.command(
    short_help="Make the cluster hold the snapshot's policies.",
    epilog=examples(
        "insights-applier apply policies/prod",
        "insights-applier apply policies/prod --dry-run",
        "insights-applier apply policies/prod --plan plan.json",
    ),
)
@snapshot_argument
@option(
    "--plan",
    "plan_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Apply only what this saved plan approves, with its flags; refuse if anything changed since.",
)
@cluster_options
@planning_options
@validation_options
@warnings_option
@write_options
@config_option
@log_options
def apply(directory: Path, dry_run: bool, plan_file: Path | None, log_level: str, **settings: Any) -> int:
    """Make the cluster hold exactly the snapshot's policies: all of them, or it stays as it was.

    Only policies that Insights owns are changed or deleted. Every write is validated and dry-run before the first
    is made; when one fails, those made are undone (exit code 30).

    With --plan the cluster is looked at again, and nothing is written (exit code 10) unless all that would be done is
    what the plan says. The file is never executed: it may have been made long before, and elsewhere.
    """
    from applier import pipeline
    from applier.history.format import Origin
    from applier.recovery import forewarn
    from renderer import snapshot
    from renderer.gitrepo import commit_that_holds

    logs.configure(sys.stderr, log_level)
    terminal.show_progress()
    run = watching.begin("apply", settings["metrics_file"])
    wanted = snapshot.read(directory)
    approved = _approved(plan_file, settings) if plan_file else None
    checks = wiring.checks(settings)
    cluster = wiring.connect(settings)
    allowed, selected = wiring.allowed(settings), wiring.selected(settings)
    if approved:
        # Before the lock is taken: not even a Lease is written to another cluster.
        approved.require_cluster(cluster.identity())

    def prepare() -> pipeline.Prepared:
        prepared = pipeline.prepare(
            cluster,
            wanted.policies,
            allowed=allowed,
            checks=checks,
            prune=settings["prune"],
            selected=selected,
        )
        if approved:
            approved.require_same(cluster.identity(), wanted, prepared.plan)
        return prepared

    journalling = wiring.journalling(settings, cluster, insights_token(None))
    if dry_run:
        forewarn(journalling.store)
        return applying.rehearsed(cluster, prepare(), settings, run)
    origin = Origin(
        command="apply",
        organization=wanted.organization,
        cluster=wanted.cluster,
        commit=commit_that_holds(directory, snapshot.own_paths(directory)) or "",
    )
    keeper = wiring.keeper(settings, cluster, journalling.key, origin, wanted.policies)
    return applying.applied(cluster, prepare, journalling, keeper, settings, run)


def _approved(file: Path, settings: dict[str, Any]) -> SavedPlan:
    """The saved plan, whose flags take the place of those in the settings."""
    from applier import saved_plan
    from applier.saved_plan.recorded_flags import RecordedFlags

    approved = saved_plan.read(file)
    approved.require_appliable()
    settings |= RecordedFlags(planning_options).restore(click.get_current_context(), approved.flags, file=file)
    return approved
