"""`recover`: takes back what a run that died had written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from applier.commands import terminal, wiring
from applier.commands.options import cluster_options, journal_options, lock_options, pace_options
from renderer import logs
from renderer.commandline import config_option, examples, insights_token, log_options, option


@click.command(
    short_help="Take back what a run that died had written.",
    epilog=examples(
        "insights-applier recover --show",
        "insights-applier recover",
        "insights-applier recover --roll-forward",
    ),
)
@option("--show", is_flag=True, help="Show the journals and what of them is on the cluster; change nothing.")
@option("--roll-forward", is_flag=True, help="Make the rest of what the latest dead run began, instead.")
@option("--trust-journal", is_flag=True, help="Act on a journal that can't be verified, too.")
@cluster_options
@option("--token-file", type=click.Path(path_type=Path), help="File that holds the token which signed the journal.")
@journal_options
@lock_options
@pace_options
@config_option
@log_options
def recover(show: bool, roll_forward: bool, trust_journal: bool, log_level: str, **settings: Any) -> int:
    """Finish what a run began that died before it was over: take back what it wrote, or make the rest of it.

    The next apply or sync does the same before it plans. What somebody else changed since is left alone and told.
    Exit codes: 0 nothing to recover, or recovered; 31 not all of it, and the journal stays if trying again can help;
    65 the journal can't be used or verified; 75 another run is at work.
    """
    from applier import recover_command

    logs.configure(sys.stderr, log_level)
    cluster = wiring.connect(settings)
    wanted = recover_command.RecoverSettings(
        locking=wiring.locking(settings),
        journalling=wiring.journalling(settings, cluster, insights_token(settings["token_file"])),
        writing=wiring.writing({**settings, "on_failure": "rollback"}),
        echo=terminal.echo,
        ask=click.confirm if sys.stdin and sys.stdin.isatty() else None,
        trust=trust_journal,
        forward=roll_forward,
    )
    return int((recover_command.show if show else recover_command.recover)(cluster, cluster, wanted))
