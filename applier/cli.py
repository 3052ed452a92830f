"""The command line of the applier: its commands, and the boundary from errors to exit codes."""

from __future__ import annotations

import sys

import click

from applier.commands.apply import apply
from applier.commands.history import history
from applier.commands.plan import plan
from applier.commands.recover import recover
from applier.commands.rollback import rollback
from applier.commands.run_jobs import run_jobs
from applier.commands.sync import sync
from applier.commands.validate import validate
from renderer.commandline import CONTEXT_SETTINGS, run


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(package_name="on-demand-job-runner", message="%(prog)s %(version)s")
def cli() -> None:
    """Bring a snapshot of Kyverno policies to a cluster: all of it, or none of it."""


for _command in (apply, history, plan, recover, rollback, run_jobs, sync, validate):
    cli.add_command(_command)


def main() -> None:
    """Run the program and exit with its code."""
    sys.exit(run(cli))
