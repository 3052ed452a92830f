"""The change model: what a plan holds, plan prints, apply executes and every report shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from renderer.errors import ExitCode
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject


class Action(Enum):
    """What happens to one policy; nothing else can."""

    CREATE = "create"
    UPDATE = "update"
    ADOPT = "adopt"
    #: Deleted and created anew, because the server forbids to change it in place.
    REPLACE = "replace"
    DELETE = "delete"
    UNCHANGED = "unchanged"
    #: Wanted, and not to be written: a guard refuses it.
    REFUSED = "refused"


class Rehearsed(Enum):
    """Whether the server was asked, by a dry run, what a write would give."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOT_ASKED = "not asked"
    #: There was no server: the plan compares what was saved.
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One policy's way from what is live to what is wanted.

    `before` is the live object as the server gave it, `after` the content that it would store; `patch` leads
    from the one to the other (RFC 6902; empty for creates and deletes). Where no server was asked, `after` is what
    its schemas say; without one it lacks the server's defaults.
    A refused change shows what would have happened, as far as it is known. `reason` says what stands against it, or
    against changing in place what is replaced.
    """

    identity: Identity
    action: Action
    before: JsonObject | None = None
    after: JsonObject | None = None
    patch: tuple[JsonObject, ...] = ()
    policy: Policy | None = None
    drifted_by: tuple[str, ...] = ()
    reason: str = ""
    rehearsed: Rehearsed = Rehearsed.ACCEPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A guard's refusal: which (by its exit code), of what, and how to allow it."""

    code: ExitCode
    message: str
    hint: str
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every policy that is wanted or owned, in the order of identities, and what the guards refuse.

    `weakening` are those whose change takes, or may take, away what denies requests now; None where that is not known.
    """

    changes: tuple[Change, ...]
    refusals: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    weakening: frozenset[Identity] | None = None

    @property
    def effective(self) -> tuple[Change, ...]:
        """The changes that change something."""
        return tuple(change for change in self.changes if change.action not in (Action.UNCHANGED, Action.REFUSED))

    def of(self, *actions: Action) -> tuple[Change, ...]:
        """The changes with one of these actions."""
        return tuple(change for change in self.changes if change.action in actions)
