"""`plan --impact`: the options, and from their values to what the plan's changes do to what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from renderer.commandline import Duration, option, options

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster
    from applier.impact.model import Impact
    from applier.impact.ports import Source
    from applier.pipeline import Prepared

_CLUSTER: Final = "cluster"
_RUN_SECONDS: Final = 120.0

impact_options = options(
    option(
        "--impact",
        is_flag=False,
        flag_value=_CLUSTER,
        metavar="[=cluster|DIR]",
        help="Say which resources the changes would newly block, report or let through: what runs in the cluster, or "
        "the manifests of a directory. Needs the kyverno CLI. Give it after DIR, or with =.",
    ),
    option(
        "--impact-timeout",
        type=Duration(),
        default="5m",
        show_default=True,
        help="How long --impact may take; what is not evaluated by then is counted.",
    ),
)


def require_usable(impact: str | None, against: str | None) -> None:
    """Raise a usage error where no cluster is asked, but what runs there is to be looked at."""
    if impact == _CLUSTER and against is not None:
        raise click.BadOptionUsage(
            "--impact",
            "--impact looks at what runs in the cluster, and --against asks none: name a directory of "
            "manifests with --impact=DIR.",
        )


def of_plan(prepared: Prepared, cluster: KubernetesCluster | None, settings: dict[str, Any]) -> Impact | None:
    """The impact, None where it was not asked for. Raises Failure where it can't be told at all."""
    if settings["impact"] is None:
        return None
    from applier.impact import versions
    from applier.impact.assess import assess
    from applier.kyverno_cli import KyvernoCli
    from applier.user_cache import directory

    source = _source(str(settings["impact"]), cluster)
    seconds = settings["impact_timeout"]
    cli = KyvernoCli(
        KyvernoCli.find(settings["kyverno"] or ""),
        timeout_seconds=min(_RUN_SECONDS, seconds),
        cache=directory("validation"),
    )
    found = versions.of_plan(prepared.plan, prepared.live.objects, prepared.verdict)
    return assess(found, source, cli, seconds=seconds)


def _source(where: str, cluster: KubernetesCluster | None) -> Source:
    from applier.impact.directory import Manifests
    from applier.impact.live import RunningResources

    running = RunningResources(cluster.connection) if cluster else None
    if where == _CLUSTER and running:
        return running
    return Manifests(Path(where), running.exclusions() if running else None)
