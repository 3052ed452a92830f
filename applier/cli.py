"""The command line of the applier: arguments, one call, an exit code; the one place that wires the parts together."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from renderer import logs
from renderer.commandline import (
    CONTEXT_SETTINGS,
    Duration,
    config_option,
    insights_config,
    insights_options,
    log_level_option,
    option,
    options,
    run,
)
from renderer.errors import ExitCode

if TYPE_CHECKING:
    from applier.cluster import KubernetesCluster
    from applier.guards import Allowed
    from applier.pipeline import LockSettings
    from applier.ports import Validator

SYNC_JOB: Final = "kyverno-policy-sync"

cluster_options = options(
    option(
        "--kubeconfig",
        metavar="FILE",
        help="Kubeconfig; without it KUBECONFIG, ~/.kube/config or the pod's own account.",
    ),
    option("--context", metavar="NAME", help="Context of the kubeconfig."),
)
guard_options = options(
    option("--allow-empty", is_flag=True, help="Allow that no policy is wanted, which deletes every owned one."),
    option("--adopt", is_flag=True, help="Take over policies of the same identity that Insights does not own."),
    option("--max-delete", metavar="N|P%", help="Allow that many deletions.  [default: 5 or 25%, whichever is more]"),
)
validation_options = options(
    option(
        "--validate-policies/--no-validate-policies",
        default=True,
        show_default=True,
        help="Validate with the kyverno CLI; the server's own checks always run.",
    ),
    option("--kyverno", metavar="FILE", help="The kyverno CLI.  [default: kyverno on PATH]"),
)
write_options = options(
    option("--dry-run", is_flag=True, help="Say what would be done; take no lock and write nothing."),
    option(
        "--lock-namespace", metavar="NAME", help="Namespace of the Lease.  [default: the pod's own, or insights-agent]"
    ),
    option(
        "--lock-file",
        type=click.Path(path_type=Path),
        help="File lock of this machine.  [default: /tmp/kyverno-policy-sync.lock]",
    ),
    option("--lock-wait", type=Duration(), default="30s", show_default=True, help="How long to wait for another run."),
    option(
        "--lock-timeout", type=Duration(), default="30m", show_default=True, help="How long this run may take at most."
    ),
    option("--delete-timeout", type=Duration(), default="30s", show_default=True, help="How long a deletion may take."),
)
snapshot_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="on-demand-job-runner", message="%(prog)s %(version)s")
def cli() -> None:
    """Bring a snapshot of Kyverno policies to a cluster: all of it, or none of it."""


@cli.command(short_help="Show what apply would change.")
@snapshot_argument
@option("--exit-zero", is_flag=True, help="Exit with 0 also when there are changes.")
@option("--diff/--no-diff", default=True, show_default=True, help="Show how each policy changes.")
@cluster_options
@guard_options
@config_option
@log_level_option
def plan(directory: Path, exit_zero: bool, diff: bool, log_level: str, **settings: Any) -> int:
    """Show what `apply DIR` would change on the cluster, and change nothing.

    It needs rights to read only. Exit codes: 0 nothing to change, 2 changes, 20 the server refuses a policy,
    11 to 19 a guard refuses the plan.

    \b
    Examples:
      insights-applier plan policies/prod
      insights-applier plan policies/prod --context prod --no-diff
    """
    from applier import pipeline
    from applier.report import text
    from renderer import snapshot

    logs.configure(sys.stderr, log_level)
    wanted = snapshot.read(directory)
    cluster = _connect(settings)
    prepared = pipeline.prepare(cluster, wanted.policies, allowed=_allowed(settings), writes=False)
    _echo(text.plan_lines(prepared.plan, server=cluster.server, diffs=diff))
    _echo(text.verdict_lines(prepared.verdict))
    if prepared.plan.refusals:
        return int(prepared.plan.refusals[0].code)
    if prepared.verdict.errors:
        return int(ExitCode.INVALID_POLICY)
    return int(ExitCode.CHANGES) if prepared.plan.effective and not exit_zero else int(ExitCode.OK)


@cli.command(short_help="Check a snapshot's policies.")
@snapshot_argument
@cluster_options
@validation_options
@config_option
@log_level_option
def validate(directory: Path, log_level: str, **settings: Any) -> int:
    """Check every policy of a snapshot with the kyverno CLI and with the cluster, and change nothing.

    All errors are shown in one pass. Exit codes: 0 all are valid, 20 at least one is not.

    \b
    Example:
      insights-applier validate policies/prod
    """
    from applier import pipeline
    from applier.guards import Allowed
    from applier.report import text
    from applier.verdict import Verdict
    from renderer import snapshot

    logs.configure(sys.stderr, log_level)
    wanted = snapshot.read(directory)
    validator = _validator(settings)
    cluster = _connect(settings)
    # Whom a policy belongs to and how many would go is the plan's business.
    prepared = pipeline.prepare(
        cluster, wanted.policies, allowed=Allowed(adopt=True, empty=True), writes=False, prune=False
    )
    verdicts = [prepared.verdict]
    if validator is not None:
        verdicts.append(validator.validate(list(wanted.policies)))
    verdict = Verdict.together(verdicts)
    _echo(text.verdict_lines(verdict))
    for refusal in prepared.plan.refusals:
        _echo(text.refusal_lines(refusal))
    invalid = {finding.policy for finding in verdict.errors}
    unchecked = pipeline.unchecked(wanted.policies, prepared.plan, verdict, by_cli=validator is not None)
    for identity in sorted(unchecked - invalid):
        click.echo(f"unchecked {identity}: neither the kyverno CLI nor the server could judge it")
    invalid |= unchecked
    skipped = "" if validator else " The kyverno CLI was not asked (VALIDATE_POLICIES=false)."
    click.echo(f"{len(wanted.policies) - len(invalid)} of {len(wanted.policies)} policies are valid.{skipped}")
    if invalid:
        return int(ExitCode.INVALID_POLICY)
    return int(prepared.plan.refusals[0].code) if prepared.plan.refusals else int(ExitCode.OK)


@cli.command(short_help="Make the cluster hold the snapshot's policies.")
@snapshot_argument
@cluster_options
@guard_options
@validation_options
@write_options
@config_option
@log_level_option
def apply(directory: Path, dry_run: bool, log_level: str, **settings: Any) -> int:
    """Make the cluster hold exactly the snapshot's policies: all of them, or it stays as it was.

    Only policies that Insights owns are changed or deleted. Every write is validated and dry-run before the first
    is made; when one fails, those made are undone (exit code 30).

    \b
    Examples:
      insights-applier apply policies/prod
      insights-applier apply policies/prod --dry-run
    """
    from applier import pipeline, summary
    from applier.report import text
    from renderer import snapshot

    logs.configure(sys.stderr, log_level)
    started = time.monotonic()
    wanted = snapshot.read(directory)
    validator = _validator(settings)
    cluster = _connect(settings)
    allowed = _allowed(settings)

    def prepare() -> pipeline.Prepared:
        return pipeline.prepare(cluster, wanted.policies, allowed=allowed, validator=validator)

    if dry_run:
        prepared = prepare()
        _echo(text.plan_lines(prepared.plan, server=cluster.server, diffs=False))
        pipeline.require_allowed(prepared)
        click.echo(_readable(summary.of_dry_run(prepared.plan, seconds=time.monotonic() - started)))
        return int(ExitCode.OK)
    outcome = pipeline.apply(
        cluster, cluster, prepare, locking=_locking(settings), delete_timeout=settings["delete_timeout"]
    )
    _echo(text.outcome_lines(outcome))
    line = summary.of_outcome(outcome, seconds=time.monotonic() - started)
    click.echo(_readable(line))
    return int(outcome.code)


@cli.command(short_help="Fetch from Insights and apply, as one process.")
@insights_options
@cluster_options
@guard_options
@validation_options
@write_options
@option("--watch", is_flag=True, help="Stay, and sync again after each interval.")
@option("--sync-interval", type=Duration(), default="15m", show_default=True, help="The interval of --watch.")
@option("--job-type", type=click.Choice([SYNC_JOB]), default=SYNC_JOB, show_default=True, help="The job that this is.")
@config_option
@log_level_option
def sync(watch: bool, sync_interval: float, job_type: str, log_level: str, **settings: Any) -> int:  # noqa: ARG001 - its choice is the check
    """Fetch the policies from Insights and apply them, as one process and without a file: for use in the cluster.

    Ends with one line that sums up what was applied, updated, removed and failed, and reports each to Insights.

    \b
    Examples:
      insights-applier sync --organization acme --cluster prod --token-file /run/token
      DRY_RUN=true insights-applier sync
    """
    from applier.sync import SyncSettings, sync_once, watch_interval

    logs.configure(sys.stdout, log_level)
    config = insights_config(
        **{key: settings[key] for key in ("host", "organization", "cluster", "token_file", "insecure_http")}
    )
    once = SyncSettings(
        insights=config,
        connect=lambda: _connect(settings),
        validator=_validator(settings),
        allowed=_allowed(settings),
        locking=_locking(settings),
        delete_timeout=settings["delete_timeout"],
        dry_run=settings["dry_run"],
        show=lambda line: click.echo(_shown(line)),
    )
    if watch:
        return int(watch_interval(once, sync_interval))
    return int(sync_once(once))


def _connect(settings: dict[str, Any]) -> KubernetesCluster:
    from applier.cluster import KubernetesCluster
    from applier.connection import Connection

    return KubernetesCluster(Connection.open(kubeconfig=settings["kubeconfig"], context=settings["context"]))


def _allowed(settings: dict[str, Any]) -> Allowed:
    from applier.guards import Allowed, MaxDelete

    return Allowed(
        empty=settings["allow_empty"], adopt=settings["adopt"], max_delete=MaxDelete.of(settings["max_delete"])
    )


def _locking(settings: dict[str, Any]) -> LockSettings:
    from applier import lock
    from applier.connection import SERVICE_ACCOUNT
    from applier.pipeline import LockSettings

    namespace = settings["lock_namespace"]
    if not namespace:
        try:
            namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
        except OSError:
            namespace = lock.DEFAULT_NAMESPACE
    return LockSettings(
        namespace=namespace,
        wait=settings["lock_wait"],
        hold=settings["lock_timeout"],
        file=settings["lock_file"] or lock.FILE,
    )


def _validator(settings: dict[str, Any]) -> Validator | None:
    if not settings["validate_policies"]:
        return None
    from applier.kyverno_cli import KyvernoCli

    return KyvernoCli(KyvernoCli.find(settings["kyverno"] or ""))


def _echo(lines: Any) -> None:
    colour = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        click.echo(line, color=colour)


def _shown(line: dict[str, Any]) -> str:
    import json

    return _readable(line) if sys.stdout.isatty() else json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _readable(line: dict[str, Any]) -> str:
    text = f"{line['msg']} in {line['duration']}: {line['summary']}"
    return text if line["success"] else f"{text}\n{line.get('error', '')}"


def main() -> None:
    """Run the program and exit with its code."""
    sys.exit(run(cli))
