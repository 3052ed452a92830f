"""`run-jobs`: claims on-demand jobs from Insights and runs them; its settings are the chart's."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from applier.commands import watching
from applier.commands.options import cluster_options
from applier.commands.watching import metrics_address_option
from renderer import logs
from renderer.commandline import (
    CONTEXT_SETTINGS,
    Duration,
    examples,
    insights_token,
    is_plain,
    log_options,
    option,
    options,
    read_settings,
)
from renderer.errors import ConfigurationError, ExitCode
from renderer.insights.config import SettingNames, Token, account
from renderer.report_types import REPORT_TYPES, ReportType

if TYPE_CHECKING:
    from applier.cluster.connection import Connection
    from renderer.insights.config import InsightsConfig

#: The chart's names of the runner's settings, which are not the sync's.
NAMES: Final = SettingNames(
    host="HOST (--host)",
    organization="ORGANIZATION (--organization)",
    cluster="CLUSTER (--cluster)",
    token="TOKEN (--token-file)",  # noqa: S106 - the setting's name, not a token
)
#: Of the runner only: elsewhere, so common a name may be anybody's.
TOKEN_VARIABLE: Final = "TOKEN"  # noqa: S105 - the variable's name

#: What the file may set.
_FILE_SETTINGS: Final = (
    "organization",
    "cluster",
    "token",
    "host",
    "max_concurrent_jobs",
    "dev_mode",
    "poll_interval",
    "namespace",
    "log_level",
)
_FILE_TOKEN: Final = "applier.jobs.token"  # noqa: S105 - a key of click's context
_LEAST_POLL_SECONDS: Final = 0.05
_LEAST_LEAD_SECONDS: Final = 60.0
#: A leader that works renews its lead once a turn.
_TURNS_OF_SILENCE: Final = 4
_ONCE_POLL_SECONDS: Final = 2.0


def _load_file(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    """Take the file's settings as defaults; its keys may be written as in `maxConcurrentJobs`."""
    if value is None:
        return
    settings = read_settings(value)
    names = {str(key): re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key)).replace("-", "_").lower() for key in settings}
    unknown = sorted(key for key, name in names.items() if name not in _FILE_SETTINGS)
    if unknown:
        raise ConfigurationError(
            f"--config: {value} has {', '.join(unknown)}, which the runner does not take.",
            hint=f"It takes {', '.join(map(_camel, _FILE_SETTINGS))}.",
        )
    complex_ones = sorted(key for key, setting in settings.items() if not is_plain(setting))
    if complex_ones:
        raise ConfigurationError(f"--config: {value} has something else than one value for {', '.join(complex_ones)}.")
    defaults = {names[str(key)]: setting for key, setting in settings.items() if setting is not None}
    token = defaults.pop("token", None)
    if token:
        ctx.meta[_FILE_TOKEN] = Token.of(str(token), source=f"token in {value}")
    ctx.default_map = defaults


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


runner_options = options(
    option("--host", variable="HOST", metavar="URL", help="Base URL of Insights.  [default: the vendor's]"),
    option("--organization", variable="ORGANIZATION", metavar="NAME", help="The organization, as Insights names it."),
    option("--cluster", variable="CLUSTER", metavar="NAME", help="The cluster, as Insights names it."),
    option(
        "--token-file",
        type=click.Path(path_type=Path),
        help=f"File that holds the token; without it, the variable {TOKEN_VARIABLE} does.",
    ),
    option("--insecure-http", is_flag=True, help="Allow plain http:// to another machine. The token is readable then."),
    option(
        "--poll-interval",
        variable="POLL_INTERVAL",
        type=Duration(),
        default="15s",
        show_default=True,
        help="How often to claim jobs and to look at those that run.",
    ),
    option(
        "--max-concurrent-jobs",
        variable="MAX_CONCURRENT_JOBS",
        type=click.IntRange(1, 1000),
        default=10,
        show_default=True,
        help="How many Jobs may run at once; of one report type it is always one.",
    ),
    option("--dev-mode", variable="DEV_MODE", is_flag=True, help="Log as with --log-level=debug."),
    option(
        "--namespace",
        variable="NAMESPACE",
        metavar="NAME",
        help="Namespace of the CronJobs.  [default: the pod's own]",
    ),
    option(
        "--pod-name",
        variable="POD_NAME",
        metavar="NAME",
        help="How this runner calls itself.  [default: the host name]",
    ),
    option(
        "--lead-timeout",
        type=Duration(),
        help="For how long a runner may be silent before another takes its place.  [default: 4 polls, at least 1m]",
    ),
    option(
        "--job-type",
        metavar="TYPE",
        help="Make one Job of this report type, wait for its end, and exit; ask nothing of Insights.",
    ),
    option(
        "--job-name",
        variable="JOB_NAME",
        metavar="NAME",
        help="With --job-type: what tells this Job from others; the same name makes one Job.  [default: a random one]",
    ),
    metrics_address_option,
    option(
        "--metrics-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="With --job-type: write its metrics to FILE at its end, for a textfile collector.",
    ),
    cluster_options,
    option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_load_file,
        help="YAML file of settings; flags and the environment come first.",
    ),
    log_options,
)


@click.command(
    "run-jobs",
    context_settings=CONTEXT_SETTINGS,
    short_help="Run the on-demand jobs of Insights.",
    epilog=examples(
        "insights-applier run-jobs --organization acme --cluster prod --token-file /run/token",
        "insights-applier run-jobs --job-type trivy --namespace insights-agent",
    ),
)
@runner_options
def run_jobs(log_level: str, dev_mode: bool, job_type: str | None, **settings: Any) -> int:
    """Claim on-demand jobs from Insights, run each as a Job made from the CronJob of its report type, and report it.

    It stays until SIGTERM. Jobs that run then go on, and the next runner takes them up. Of two runners in one
    namespace one works. It needs rights in its own namespace only: get cronjobs; get and create jobs; get, create and
    update configmaps. With list and watch on jobs it asks less often, and with list on pods and events it can say why
    a Job failed.
    """
    logs.configure(sys.stdout, "debug" if dev_mode else log_level)
    if job_type:
        return int(_run_once(_report_type(job_type), settings))
    poll = settings["poll_interval"]
    if poll < _LEAST_POLL_SECONDS:
        raise ConfigurationError(
            "POLL_INTERVAL (--poll-interval): jobs can't be polled all the time; it takes 15s, say."
        )
    lead = settings["lead_timeout"]
    if lead is None:
        lead = max(_LEAST_LEAD_SECONDS, _TURNS_OF_SILENCE * poll)
    elif lead < 2 * poll:
        raise ConfigurationError(
            "INSIGHTS_LEAD_TIMEOUT (--lead-timeout): a runner that works is silent for as long as POLL_INTERVAL; "
            "it takes at least twice that."
        )
    return int(_serve(_insights(settings), lead, settings))


def _serve(config: InsightsConfig, lead_seconds: float, settings: dict[str, Any]) -> ExitCode:
    """Run until a signal arrives."""
    from applier.jobs.alarm import Alarm
    from applier.jobs.insights import InsightsJobs
    from applier.jobs.kubernetes import KubernetesJobs
    from applier.jobs.runner import Runner, RunnerSettings
    from applier.jobs.store import RecordStore
    from applier.stop import Stop, on_signals

    clock, alarm = SystemClock(), Alarm()
    connection, namespace = _connection(settings), _namespace(settings["namespace"])
    api = KubernetesJobs(connection, namespace, ring=alarm.ring)
    name = settings["pod_name"] or socket.gethostname()
    store = RecordStore(
        api,
        identity=f"{name}_{logs.run_id()}_{secrets.token_hex(2)}",
        organization=config.organization,
        cluster=config.cluster,
        clock=clock,
        lead_seconds=lead_seconds,
    )
    stop = Stop()
    poll = settings["poll_interval"]
    with (
        InsightsJobs(config) as insights,
        alarm,
        on_signals(stop),
        watching.jobs(settings, connection, namespace, poll) as observer,
    ):
        runner = Runner(
            RunnerSettings(
                organization=config.organization,
                cluster=config.cluster,
                most=settings["max_concurrent_jobs"],
                poll_seconds=poll,
            ),
            api=api,
            insights=insights,
            store=store,
            clock=clock,
            observer=observer,
        )
        runner.run(stopped=stop.is_set, wait=alarm.wait)
    return ExitCode.OK


def _run_once(report_type: ReportType, settings: dict[str, Any]) -> ExitCode:
    from applier.jobs.kubernetes import KubernetesJobs
    from applier.jobs.once import key_of, run_once

    key = key_of(settings["job_name"] or "") or secrets.token_hex(4)
    with watching.one_job(report_type.name, settings["metrics_file"]):
        return run_once(
            KubernetesJobs(_connection(settings), _namespace(settings["namespace"])),
            report_type,
            key=key,
            clock=SystemClock(),
            wait=time.sleep,
            poll_seconds=min(_ONCE_POLL_SECONDS, settings["poll_interval"]),
        )


def _report_type(name: str) -> ReportType:
    if name not in REPORT_TYPES:
        raise ConfigurationError(
            f"JOB_TYPE (--job-type): {name!r} is no report type.", hint=f"It takes {', '.join(sorted(REPORT_TYPES))}."
        )
    return REPORT_TYPES[name]


def _insights(settings: dict[str, Any]) -> InsightsConfig:
    token = insights_token(settings["token_file"], variable=TOKEN_VARIABLE, names=NAMES)
    known = account(
        host=settings["host"],
        token=token or click.get_current_context().meta.get(_FILE_TOKEN),
        insecure_http=settings["insecure_http"],
        names=NAMES,
    )
    return known.on(settings["organization"], settings["cluster"])


def _connection(settings: dict[str, Any]) -> Connection:
    from applier.cluster.connection import Connection

    # It is read by now, and a credential plugin of the kubeconfig would get it.
    os.environ.pop(TOKEN_VARIABLE, None)
    return Connection.open(kubeconfig=settings["kubeconfig"], context=settings["context"])


def _namespace(named: str | None) -> str:
    """The namespace of the CronJobs. Raises ConfigurationError where nobody says which."""
    from applier.cluster.connection import pod_namespace

    if found := named or pod_namespace():
        return found
    raise ConfigurationError(
        "NAMESPACE (--namespace) is not set, and this is not a pod, which has one.",
        hint="Name the namespace of the CronJobs.",
    )


class SystemClock:
    """`ports.Clock` of the system."""

    def monotonic(self) -> float:
        """See `ports.Clock`."""
        from applier.stop import clock

        return clock()

    def now(self) -> float:
        """See `ports.Clock`."""
        return time.time()
