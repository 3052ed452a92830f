"""`history`: lists the sets of policies that were put in place."""

from __future__ import annotations

import sys
from typing import Any

import click

from applier.commands import terminal, wiring
from applier.commands.options import cluster_options, journal_options, lock_namespace_option, token_option
from renderer import logs
from renderer.commandline import config_option, examples, insights_token, log_options, option
from renderer.errors import ExitCode


@click.command(
    short_help="List the sets of policies that were put in place.",
    epilog=examples(
        "insights-applier history",
        "insights-applier history -o json | jq '.revisions[] | select(.live)'",
    ),
)
@option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or as one JSON document.",
)
@cluster_options
@token_option
@journal_options
@lock_namespace_option
@config_option
@log_options
def history(output: str, log_level: str, **settings: Any) -> int:
    """List the revisions that are kept, the latest first, and say whether the cluster still holds that one.

    `apply` and `sync` keep one whenever they put another set of policies in place than before. Nothing is changed.
    """
    from applier import history_command
    from applier.report import history as report

    logs.configure(sys.stderr, log_level)
    cluster = wiring.connect(settings)
    key = wiring.key(settings, insights_token(settings["token_file"]))
    found = history_command.listing(cluster, cluster, wiring.kept(settings, cluster, key))
    terminal.echo([terminal.json_text(report.document(found))] if output == "json" else report.lines(found))
    return int(ExitCode.OK)
