"""The work of the `fleet` command: where the snapshots go, shown while they are written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from renderer.commandline import insights_account
from renderer.errors import ConfigurationError, ExitCode, Interrupted, interrupted
from renderer.fleet import progress
from renderer.fleet.file import Member
from renderer.fleet.run import Destination, Folders, Tally, Work, run
from renderer.fleet.writers import cores
from renderer.git_command import git_settings, message_text, told
from renderer.insights.config import Account

if TYPE_CHECKING:
    from renderer.gitrepo import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command, checked. `git` None means into folders only, `prefix` None one commit."""

    out: Path
    account: Account
    git: Settings | None
    prefix: str | None
    text: str
    allow_empty: bool
    concurrency: int
    processes: int
    log_level: str


def checked(
    out: Path,
    *,
    branch_per_cluster: str | None,
    allow_empty: bool,
    concurrency: int,
    processes: int | None,
    log_level: str,
    **settings: Any,
) -> Options:
    """Check what the command line gave. Raises ConfigurationError."""
    git = git_settings(out, settings)
    if branch_per_cluster is not None and (git is None or git.branch):
        raise ConfigurationError("--branch-per-cluster goes with --git, and without --branch.")
    text = message_text(settings.pop("message_file"))
    return Options(
        out=out,
        account=insights_account(**settings),
        git=git,
        prefix=branch_per_cluster,
        text=text,
        allow_empty=allow_empty,
        concurrency=concurrency,
        processes=processes or cores(),
        log_level=log_level,
    )


def work_off(members: Sequence[Member], options: Options) -> Tally:
    """Bring every cluster's snapshot to where it goes. Raises Interrupted, and what git can't do."""
    if options.git is None:
        return _attempt(members, Folders(out=options.out, allow_empty=options.allow_empty), options)
    from renderer.fleet.branches import Branches, commit_once
    from renderer.gitrepo import Repository

    with Repository.open(options.git) as repository:
        if options.prefix is not None:
            branches = Branches(
                repository=repository, prefix=options.prefix, allow_empty=options.allow_empty, text=options.text
            )
            return _attempt(members, branches, options)
        tally, committed = commit_once(
            repository,
            members,
            lambda folders: _attempt(members, folders, options),
            allow_empty=options.allow_empty,
            text=options.text,
        )
    click.echo(told(committed))
    return tally


def _attempt(members: Sequence[Member], destination: Destination, options: Options) -> Tally:
    """Write all of them, and show how far it is. Raises Interrupted that says how many were done."""
    tally = Tally(total=len(members))
    work = Work(members=members, destination=destination, concurrency=options.concurrency, processes=options.processes)
    try:
        with progress.shown(tally, sys.stderr, options.log_level) as report:
            run(work, options.account, report)
    except KeyboardInterrupt as error:
        failure = interrupted(error)
        what = "Terminated" if failure.code is ExitCode.TERMINATED else "Interrupted"
        kept = (
            "Nothing was committed."
            if options.git and options.prefix is None
            else "The other clusters keep the snapshots that they have. Run it again for the rest."
        )
        raise Interrupted(f"{what}: {tally}.", code=failure.code, hint=kept) from error
    return tally
