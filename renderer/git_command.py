"""What the commands that commit share: their options, and what is told of a commit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from renderer.commandline import option, options
from renderer.errors import ConfigurationError

if TYPE_CHECKING:
    from renderer.gitrepo import Committed, Settings

git_options = options(
    option("--git", is_flag=True, help="Commit what changes, and nothing else."),
    option("--repo", metavar="PATH|URL", help="The repository.  [default: the one that holds --out]"),
    option("--branch", metavar="NAME", help="The branch.  [default: the one that is checked out]"),
    option("--push", is_flag=True, help="Push the commit to where the branch comes from."),
    option(
        "--message-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File whose text takes the place of the commit's subject and body.",
    ),
    option("--author", metavar="'NAME <MAIL>'", help="Author of the commit.  [default: as git is configured]"),
)


def git_settings(out: Path, settings: dict[str, Any]) -> Settings | None:
    """What `git_options` say, taken out of the settings; None without --git.

    Raises ConfigurationError when another of them is set then: it would do nothing.
    """
    wanted = settings.pop("git")
    where, branch, push, author = (settings.pop(name) for name in ("repo", "branch", "push", "author"))
    if wanted:
        from renderer.gitrepo import Settings

        return Settings(out=out, where=where, branch=branch, push=push, author=author)
    if where or branch or push or author or settings["message_file"]:
        raise ConfigurationError("--repo, --branch, --push, --message-file and --author go with --git.")
    return None


def message_text(file: Path | None) -> str:
    """The text of --message-file; "" without one. Raises ConfigurationError when it can't be read."""
    if file is None:
        return ""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"--message-file: {file} can't be read: {reason}.") from error


def told(committed: Committed) -> str:
    """One line on what became of the commit."""
    if committed.commit is None:
        return f"Nothing to commit on {committed.branch}."
    pushed = f", pushed to {committed.remote}" if committed.remote else ""
    behind = "" if committed.local else "; the work tree has edits in the way, and was left as it is"
    return f"Committed {committed.commit[:12]} on {committed.branch}{pushed}{behind}."
