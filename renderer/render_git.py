"""Brings the snapshot of one cluster into git."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renderer.commit_message import commit_message
from renderer.gitrepo import Committed, Repository
from renderer.publish import Published, Target, publish
from renderer.render import Source


def commit_one(
    repository: Repository, sources: Sequence[Source], target: Target, *, text: str
) -> tuple[Published, Committed]:
    """Commit what the sources change in the snapshot; written again each time that a push loses its race.

    `target.directory` is the command's --out. `text` takes the place of the message's own, if it is not "". Raises
    what `publish` and `Repository.publish` raise.
    """
    results: list[Published] = []

    def write(root: Path) -> str | None:
        here = replace(target, directory=root / repository.out, explain=True)
        results.append(publish(sources, here))
        change = results[-1].change
        return commit_message([change], text=text) if change else None

    committed = repository.publish([repository.out], write)
    return results[-1], committed
