"""How a run of `sync`, `apply` or `rollback` ended: what is told to whoever counts runs, or announces them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from applier.change import Plan
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The end of one run.

    `plan` is None where the run did not come to one; `standing` are the changes that were made and stand. `summary`
    is its sentence, `error` what went wrong, "" else. A dry run stands for nothing.
    """

    code: ExitCode
    seconds: float
    summary: str
    error: str = ""
    plan: Plan | None = None
    standing: AbstractSet[Identity] = frozenset()
    dry_run: bool = False


class RunObserver(Protocol):
    """Somebody who is told of runs, and has no say in them. No method may raise."""

    def began(self) -> None:
        """A run begins."""
        ...

    def ended(self, end: RunEnd) -> None:
        """It has ended."""
        ...
