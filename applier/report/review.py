"""What there is to judge, whichever way it is shown: the one thing that every format is made from."""

from __future__ import annotations

from dataclasses import dataclass

from applier.change import Plan
from applier.impact.model import Impact
from applier.report.document import Basis
from applier.report.validation import Validation
from applier.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A plan, what validation said of it, and what it was made from.

    `where` says of what: `on https://…`, `against FILE`. `validation` is what `validate` found; it is None for a plan.
    `impact` is what the plan does to what runs already, None where nobody asked. What a plan does is in `applier.risk`.
    """

    plan: Plan
    verdict: Verdict
    basis: Basis
    where: str
    validation: Validation | None = None
    impact: Impact | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How to show it.

    `diffs` is False where how each policy changes is to be left out. `brief` is True where people want the summary
    and what is wrong, and nothing else. `link` is where all of it can be read, for
    formats that have to cut; "" where nobody knows. `folder` is the snapshot's in its repository, with slashes, for
    formats that name files. `ascii` is True where nothing else can be written.
    """

    diffs: bool = True
    brief: bool = False
    link: str = ""
    folder: str = ""
    ascii: bool = False
