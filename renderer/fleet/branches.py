"""Brings the snapshots of a fleet into git: one commit for all of them, or a branch for each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from renderer.commit_message import commit_message
from renderer.errors import Failure
from renderer.fleet.file import Member
from renderer.fleet.run import Folders, Tally
from renderer.fleet.writers import Failed, Writer, Written
from renderer.gitrepo import Committed, Repository

#: Works off the whole fleet, below that directory.
Attempt: TypeAlias = Callable[[Folders], Tally]


def commit_once(
    repository: Repository, members: Sequence[Member], attempt: Attempt, *, allow_empty: bool, text: str
) -> tuple[Tally, Committed]:
    """One commit of all that changes; the clusters that fail are not in it.

    Each time that a push loses its race, everything is asked for and written again, on what was pushed. `text`
    takes the place of the message's own, if it is not "". Raises what `Repository.publish` raises.
    """
    tally = Tally(total=len(members))

    def write(root: Path) -> str | None:
        nonlocal tally
        tally = attempt(Folders(out=root / repository.out, private=root, allow_empty=allow_empty, explain=True))
        return commit_message(tally.changes, text=text) if tally.changes else None

    committed = repository.publish([repository.out / member.path for member in members], write)
    return tally, committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """A branch for each cluster, named by `prefix` and its path, which no other has nor nests in, as git needs it.

    `text` takes the place of the message's own, if it is not "". A repository does one thing at a time.
    """

    repository: Repository
    prefix: str
    allow_empty: bool = False
    text: str = ""
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def write(self, member: Member, data: bytes, writer: Writer) -> Written | Failed:
        """Have the writer write one cluster's snapshot, and commit it on its branch."""
        results: list[Written | Failed] = []

        def write(root: Path) -> str | None:
            folders = Folders(out=root / self.repository.out, private=root, allow_empty=self.allow_empty, explain=True)
            results.append(folders.write(member, data, writer))
            change = None if isinstance(results[-1], Failed) else results[-1].change
            return commit_message([change], text=self.text) if change else None

        with self._turn:
            try:
                repository = self.repository.on(f"{self.prefix}{member.path}")
                committed = repository.publish([repository.out / member.path], write)
            except Failure as failure:
                return Failed.of(failure)
        result = results[-1]
        if isinstance(result, Failed):
            return result
        return replace(result, change=None, branch=committed.branch, commit=committed.commit or "")
