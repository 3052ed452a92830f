"""`plan`: shows what apply would change, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from applier.commands import impact, reporting, wiring
from applier.commands.options import (
    cluster_options,
    kyverno_option,
    lock_namespace_option,
    planning_options,
    snapshot_argument,
    warnings_option,
)
from applier.commands.reporting import report_options
from renderer.commandline import config_option, examples, log_options, option
from renderer.errors import ExitCode

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster
    from applier.pipeline import Prepared
    from applier.report.document import Basis
    from renderer.manifest.policyset import PolicySet


@click.command(
    short_help="Show what apply would change.",
    epilog=examples(
        "insights-applier plan policies/prod",
        "insights-applier plan policies/prod --impact",
        "insights-applier plan policies/prod --against git:origin/main",
    ),
)
@snapshot_argument
@option(
    "--against",
    metavar="DIR|git:REV|FILE|-",
    help="Compare with another snapshot, a git revision of this one, or a saved kubectl get -o yaml|json; ask no "
    "cluster.",
)
@option("--exit-zero", is_flag=True, help="Exit with 0 also when there are changes.")
@option("--diff/--no-diff", default=True, show_default=True, help="Show how each policy changes.")
@option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    variable="INSIGHTS_PLAN_OUT",
    help="Save the plan there too, as JSON, for `apply DIR --plan FILE`.",
)
@report_options
@impact.impact_options
@cluster_options
@planning_options
@warnings_option
@lock_namespace_option
@kyverno_option
@config_option
@log_options
def plan(directory: Path, against: str | None, exit_zero: bool, **settings: Any) -> int:
    """Show what `apply DIR` would change on the cluster, and change nothing.

    It needs rights to read only. With --against it needs no cluster at all: it compares with another snapshot, a git
    revision of this one, or what `kubectl get KIND,KIND… -A -o yaml` printed.

    Exit codes, in every format: 0 nothing to change, 2 changes, 20 the server refuses a policy, 11 to 19 a guard
    refuses the plan.
    """
    from applier import whole_file
    from applier.report import document
    from applier.report.review import Review
    from renderer import snapshot

    reporting.begin(settings)
    out: Path | None = settings["out"]
    if out and against is not None:
        raise click.BadOptionUsage("--out", "--out saves what can be applied, and --against makes no such plan.")
    if out and whole_file.is_inside(out, directory):
        raise click.BadOptionUsage("--out", f"--out: {out} is in the snapshot, which holds its own files only.")
    reporting.check(settings, directory, out)
    impact.require_usable(settings["impact"], against)
    wanted = snapshot.read(directory)
    cluster = None
    if against is None:
        cluster = wiring.connect(settings)
        prepared, where = _planned(cluster, wanted.policies, settings), f"on {cluster.server}"
    else:
        prepared, where = _compared(wanted.policies, directory, against, settings)
    found = impact.of_plan(prepared, cluster, settings)
    basis = document.Basis(server=cluster.server if cluster else None, snapshot=wanted)
    if out or reporting.tell_basis(settings):
        prepared, basis = _told(cluster, prepared, basis, directory, settings)
    if out:
        from applier import saved_plan

        saved_plan.write(out, document.document(prepared.plan, prepared.verdict, basis, found))
    reporting.deliver(
        Review(plan=prepared.plan, verdict=prepared.verdict, basis=basis, where=where, impact=found),
        directory,
        settings,
    )
    if prepared.plan.refusals:
        return int(prepared.plan.refusals[0].code)
    if prepared.verdict.errors:
        return int(ExitCode.INVALID_POLICY)
    return int(ExitCode.CHANGES) if prepared.plan.effective and not exit_zero else int(ExitCode.OK)


def _planned(cluster: KubernetesCluster, wanted: PolicySet, settings: dict[str, Any]) -> Prepared:
    """The plan for the cluster."""
    from applier import pipeline

    return pipeline.prepare(
        cluster,
        wanted,
        allowed=wiring.allowed(settings),
        writes=False,
        prune=settings["prune"],
        selected=wiring.selected(settings),
        checks=pipeline.Checks(
            self_block=wiring.self_block(settings, wiring.found_cli(settings)),
            warnings_as_errors=settings["warnings_as_errors"],
        ),
    )


def _compared(wanted: PolicySet, directory: Path, other: str, settings: dict[str, Any]) -> tuple[Prepared, str]:
    """The same with no cluster: the plan for what was saved."""
    from applier import against, pipeline

    selected = wiring.selected(settings)
    saved = against.read(other, directory, list(selected.of(wanted)))
    prepared = pipeline.compare(
        saved,
        wanted,
        allowed=wiring.allowed(settings),
        prune=settings["prune"],
        selected=selected,
        notes=saved.notes,
        checks=pipeline.Checks(warnings_as_errors=settings["warnings_as_errors"]),
    )
    return prepared, f"against {against.called(other)}"


def _told(
    cluster: KubernetesCluster | None, prepared: Prepared, basis: Basis, directory: Path, settings: dict[str, Any]
) -> tuple[Prepared, Basis]:
    """The basis with what has to be asked for; where nothing tells the cluster, the plan gets a note."""
    from applier import saved_plan
    from applier.saved_plan.recorded_flags import RecordedFlags
    from renderer import snapshot
    from renderer.gitrepo import commit_that_holds

    identity = cluster.identity() if cluster else {}
    if cluster:
        prepared = replace(prepared, plan=saved_plan.noting(prepared.plan, identity))
    return prepared, replace(
        basis,
        identity=identity,
        commit=commit_that_holds(directory, snapshot.own_paths(directory)),
        flags=RecordedFlags(planning_options).record(settings),
    )
