"""Pure: on-demand jobs as Insights gives them, and their statuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

JobStatus: TypeAlias = Literal["running", "completed", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that is ours now; `options` become environment variables."""

    id: int
    report_type: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableJob:
    """A claimed job that makes no sense; it is ours all the same, so it must be reported as failed."""

    id: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Everything that one claim brought. What is in no list was not claimed.

    `nameless` holds a problem for each job without an id that it could be reported by.
    """

    jobs: tuple[ClaimedJob, ...] = ()
    unreadable: tuple[UnreadableJob, ...] = ()
    nameless: tuple[str, ...] = ()
