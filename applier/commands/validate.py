"""`validate`: checks every policy of a snapshot, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from applier.commands import reporting, wiring
from applier.commands.options import cluster_options, snapshot_argument, validation_options, warnings_option
from applier.commands.reporting import report_options
from renderer.commandline import config_option, examples, log_options, option

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster
    from applier.pipeline import Checks, Prepared
    from renderer.manifest.policyset import PolicySet


@click.command(
    short_help="Check a snapshot's policies.",
    epilog=examples(
        "insights-applier validate policies/prod",
        "insights-applier validate policies/prod --schema-cache schemas",
        "insights-applier validate policies/prod -o json | jq '.findings[] | select(.severity == \"error\")'",
    ),
)
@snapshot_argument
@option("--offline", is_flag=True, help="Ask no cluster: use the schemas in --schema-cache, or else those shipped.")
@option(
    "--schema-cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keep the cluster's schemas in DIR; with --offline, use those that are kept there.",
)
@option("--allow-unchecked", is_flag=True, help="Let policies pass that nobody could judge.")
@report_options
@cluster_options
@validation_options
@warnings_option
@config_option
@log_options
def validate(directory: Path, **settings: Any) -> int:
    """Check every policy of a snapshot with the kyverno CLI and with the cluster, and change nothing.

    With --offline no cluster is needed: policies are checked by the schemas of one version of Kyverno that are shipped,
    or by those of your own cluster, which an earlier run with --schema-cache DIR kept in DIR. What only a server could
    judge is then unchecked, and fails unless --allow-unchecked.

    All errors are shown in one pass. Exit codes: 0 all are valid, 20 at least one is not.
    """
    from applier import pipeline
    from applier.report.document import Basis
    from applier.report.review import Review
    from applier.report.validation import Validation
    from renderer import snapshot

    reporting.begin(settings)
    reporting.check(settings, directory)
    wanted = snapshot.read(directory)
    checks = replace(wiring.checks(settings), unchanged=True)
    cluster = None if settings["offline"] else wiring.connect(settings)
    prepared = _judged(cluster, wanted.policies, checks, settings)
    by_cli = checks.validator is not None
    found = Validation(
        policies=tuple(policy.identity for policy in wanted.policies),
        verdict=prepared.verdict,
        unchecked=frozenset(pipeline.unchecked(wanted.policies, prepared.plan, prepared.verdict, by_cli=by_cli)),
        refusals=prepared.plan.refusals,
        notes=prepared.plan.notes,
        by_cli=by_cli,
        allow_unchecked=settings["allow_unchecked"],
    )
    review = Review(
        plan=prepared.plan,
        verdict=prepared.verdict,
        basis=Basis(server=cluster.server if cluster else None, snapshot=wanted),
        where=f"on {cluster.server}" if cluster else "with no cluster",
        validation=found,
    )
    reporting.deliver(review, directory, settings)
    return int(found.code)


def _judged(cluster: KubernetesCluster | None, wanted: PolicySet, checks: Checks, settings: dict[str, Any]) -> Prepared:
    """What the cluster says of the policies, or what the schemas say when it is not to be asked."""
    from applier import offline_schemas, pipeline
    from applier.against import Saved
    from applier.guards.refusals import Allowed

    # Whom a policy belongs to, how many would go and what would be loosened is the plan's business.
    allowed = Allowed(adopt=True, empty=True, weaken=True, replace=True)
    kept: Path | None = settings["schema_cache"]
    if cluster is None:
        schemas = Saved.nothing(offline_schemas.read(kept) if kept else offline_schemas.load())
        return pipeline.compare(schemas, wanted, allowed=allowed, checks=checks, prune=False, notes=schemas.notes)
    if kept:
        offline_schemas.write(kept, offline_schemas.published(cluster))
    return pipeline.prepare(cluster, wanted, allowed=allowed, checks=checks, writes=False, prune=False)
