"""The words for what a change of a policy does, and the shape of a field that has a meaning here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from renderer.manifest.effect.covering import Covers
from renderer.manifest.jsontypes import Json


class Direction(Enum):
    """Whether a change gives the policy more say (it denies, reports, mutates, deletes more) or less."""

    TIGHTENS = "tightens"
    LOOSENS = "loosens"
    NEUTRAL = "neutral"
    UNKNOWN = "unknown"

    @property
    def opposite(self) -> Direction:
        """The direction of the change back."""
        swapped = {Direction.TIGHTENS: Direction.LOOSENS, Direction.LOOSENS: Direction.TIGHTENS}
        return swapped.get(self, self)


class What(Enum):
    """What a change does, worst first; the order of this list is the order of every report."""

    NO_LONGER_ENFORCES = "no longer enforces"
    ENFORCES_LESS = "enforces less"
    EXCEPTION_ADDED = "exception added"
    EXCEPTION_WIDENED = "exception widened"
    FAILS_OPEN = "lets requests pass when it cannot be evaluated"
    MATCHES_LESS = "matches less"
    EXCLUDES_MORE = "excludes more"
    ENFORCES_OTHERWISE = "enforces otherwise, direction unknown"
    MATCHES_OTHERWISE = "matches otherwise, direction unknown"
    EXCLUDES_OTHERWISE = "excludes otherwise, direction unknown"
    EXCEPTION_CHANGED = "exception changed, direction unknown"
    SHARED_DATA_CHANGED = "data that policies read changed, direction unknown"
    DELETES_DOWNSTREAM = "deletes what it generated"
    DELETES = "starts deleting"
    DELETES_MORE = "deletes more"
    DELETES_OTHERWISE = "deletes otherwise, direction unknown"
    ENFORCES = "starts enforcing"
    ENFORCES_MORE = "enforces more"
    FAILS_CLOSED = "denies requests when it cannot be evaluated"
    MATCHES_MORE = "matches more"
    EXCLUDES_LESS = "excludes less"
    EXCEPTION_REMOVED = "exception removed"
    EXCEPTION_NARROWED = "exception narrowed"
    NO_LONGER_MUTATES = "no longer mutates"
    MUTATES = "starts mutating"
    MUTATES_OTHERWISE = "mutates otherwise, direction unknown"
    NO_LONGER_GENERATES = "no longer generates"
    GENERATES = "starts generating"
    GENERATES_OTHERWISE = "generates otherwise, direction unknown"
    NO_LONGER_DELETES = "no longer deletes"
    DELETES_LESS = "deletes less"
    REPORTS_LESS = "reports less"
    REPORTS_MORE = "reports more"
    PRESENTATION = "presentation only"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectChange:
    """One thing that a change does.

    `enforced` says whether what it touches denied requests before (for exceptions and shared data: may have).
    `path` is the field, of the new version where it has it; `sentence` is plain English without a full stop.
    """

    what: What
    direction: Direction
    enforced: bool
    path: str
    sentence: str

    @property
    def may_loosen(self) -> bool:
        """True unless it certainly takes nothing away."""
        return self.direction in (Direction.LOOSENS, Direction.UNKNOWN)

    @property
    def weakens(self) -> bool:
        """True when it takes, or may take, something away from what denied requests."""
        return self.enforced and self.may_loosen


Phrase: TypeAlias = tuple[What, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One field (or a few that mean something together) and what it is to have more of it.

    `path` is inside the rule; with `together`, the value is a map of its only key and of those beside it.
    `more`, `less` and `otherwise` say it, as predicates of "the policy"; `sense` is the direction of more.
    `denies` is False for what plays no part in denying requests.
    """

    path: tuple[str, ...]
    covers: Covers
    more: Phrase
    less: Phrase
    otherwise: Phrase
    sense: Direction = Direction.TIGHTENS
    default: Json = None
    together: tuple[str, ...] = ()
    denies: bool = True


def facet(  # noqa: PLR0913 - one row of a table
    path: str,
    covers: Covers,
    what: tuple[What, What, What],
    says: tuple[str, str, str],
    sense: Direction = Direction.TIGHTENS,
    *,
    default: Json = None,
    together: tuple[str, ...] = (),
    denies: bool = True,
) -> Facet:
    """Make one row of a table: the path with dots, and what and how to say more, less and otherwise."""
    more, less, otherwise = zip(what, says, strict=True)
    return Facet(
        path=tuple(path.split(".")),
        covers=covers,
        more=more,
        less=less,
        otherwise=otherwise,
        sense=sense,
        default=default,
        together=together,
        denies=denies,
    )
