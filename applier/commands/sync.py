"""`sync`: fetches from Insights and applies, as one process."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from applier.commands import terminal, watching, wiring
from applier.commands.options import (
    cluster_options,
    guard_options,
    validation_options,
    warnings_option,
    write_options,
)
from applier.commands.watching import metrics_address_option
from renderer import logs
from renderer.commandline import (
    Duration,
    config_option,
    examples,
    insights_config,
    insights_options,
    log_options,
    option,
)
from renderer.report_types import POLICY_SYNC

if TYPE_CHECKING:
    from applier.cluster.connection import Connection
    from applier.cluster.policies import KubernetesCluster


@click.command(
    short_help="Fetch from Insights and apply, as one process.",
    epilog=examples(
        "insights-applier sync --organization acme --cluster prod --token-file /run/token",
        "DRY_RUN=true insights-applier sync",
    ),
)
@insights_options
@cluster_options
@guard_options
@validation_options
@warnings_option
@write_options
@option("--watch", is_flag=True, help="Stay, and sync again after each interval.")
@metrics_address_option
@option("--sync-interval", type=Duration(), default="15m", show_default=True, help="The interval of --watch.")
@option(
    "--job-type", type=click.Choice([POLICY_SYNC]), default=POLICY_SYNC, show_default=True, help="The job that this is."
)
@config_option
@log_options
def sync(watch: bool, sync_interval: float, job_type: str, log_level: str, **settings: Any) -> int:  # noqa: ARG001 - its choice is the check
    """Fetch the policies from Insights and apply them, as one process and without a file: for use in the cluster.

    Ends with one line that sums up what was applied, updated, removed and failed, and reports each to Insights.
    """
    from applier.history.format import Origin
    from applier.sync import SyncSettings, sync_once, watch_interval

    logs.configure(sys.stdout, log_level)
    config = insights_config(
        **{key: settings[key] for key in ("host", "organization", "cluster", "token_file", "insecure_http")}
    )
    locking = wiring.locking(settings)
    pause = sync_interval if watch else None
    connected: list[KubernetesCluster] = []

    def connect() -> KubernetesCluster:
        connected[:] = [wiring.connect(settings)]
        return connected[0]

    def connection() -> Connection:
        return (connected[0] if connected else connect()).connection

    with watching.syncs(settings, connection, locking, pause) as (observer, waited):
        once = SyncSettings(
            insights=config,
            connect=connect,
            checks=wiring.checks(settings),
            allowed=wiring.allowed(settings),
            locking=replace(locking, waited=waited),
            writing=wiring.writing(settings),
            journalling=lambda cluster: wiring.journalling(settings, cluster, config.token, supersede=True),
            keeper=lambda cluster, key, policies: wiring.keeper(
                settings,
                cluster,
                key,
                Origin(command="sync", organization=config.organization, cluster=config.cluster),
                policies,
            ),
            dry_run=settings["dry_run"],
            observer=observer,
            show=lambda line: click.echo(terminal.line_text(line)),
        )
        if watch:
            return int(watch_interval(once, sync_interval))
        return int(sync_once(once))
