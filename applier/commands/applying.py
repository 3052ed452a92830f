"""What `apply` and `rollback` share: write a plan or rehearse it, and show what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from applier.commands import terminal, wiring
from applier.commands.watching import OneRun
from renderer.errors import ExitCode

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster
    from applier.history.revisions import Keeper
    from applier.pipeline import Prepared
    from applier.recovery import Journalling


def rehearsed(cluster: KubernetesCluster, prepared: Prepared, settings: dict[str, Any], run: OneRun) -> int:
    """Show what an apply would do; the exit code."""
    from applier import pipeline, summary
    from applier.report import text
    from applier.run_end import RunEnd

    terminal.tell(text.overview_lines(prepared.plan, where=f"on {cluster.server}"))
    terminal.tell(text.warning_lines(prepared.verdict))
    refused = pipeline.left_out(prepared, wiring.writing(settings).on_failure)
    line = summary.of_dry_run(prepared.plan, failed=refused, seconds=run.seconds)
    click.echo(terminal.readable(line if settings["validate_policies"] else summary.without_cli(line)))
    code = ExitCode.PARTLY_APPLIED if refused else ExitCode.OK
    run.end = RunEnd(code=code, seconds=run.seconds, summary=line["summary"], plan=prepared.plan, dry_run=True)
    return int(code)


def applied(
    cluster: KubernetesCluster,
    prepare: Callable[[], Prepared],
    journalling: Journalling,
    keeper: Keeper,
    settings: dict[str, Any],
    run: OneRun,
) -> int:
    """Write all of it or none of it and show what became of it; the exit code."""
    from applier import pipeline, summary
    from applier.report.outcome import outcome_lines
    from applier.run_end import RunEnd

    def noted() -> Prepared:
        prepared = prepare()
        run.plan = prepared.plan
        return prepared

    outcome = pipeline.apply(
        cluster,
        cluster,
        noted,
        locking=replace(wiring.locking(settings), waited=run.waited),
        writing=wiring.writing(settings),
        journalling=journalling,
        afterwards=keeper.keep,
    )
    terminal.tell(outcome_lines(outcome))
    line = summary.of_outcome(outcome, seconds=run.seconds)
    click.echo(terminal.readable(line if settings["validate_policies"] else summary.without_cli(line)))
    run.end = RunEnd(
        code=outcome.code,
        seconds=run.seconds,
        summary=line["summary"],
        error=line.get("error", ""),
        plan=run.plan,
        standing=outcome.standing,
    )
    return int(outcome.code)
