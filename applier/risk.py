"""Pure: what there is to weigh in a plan, said plainly, the worst first; every report takes it from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from applier.change import Action, Change, Plan
from renderer.manifest import effect
from renderer.manifest.effect import Direction, Effect, EffectChange, What
from renderer.manifest.identity import Identity


class Level(Enum):
    """How much a change asks to be looked at, the worst first; the values are for programs, and stay."""

    WEAKENS = "weakens"
    DELETES = "deletes"
    DENIES = "denies"
    OTHER = "other"
    NONE = "none"

    @property
    def title(self) -> str:
        """A word or two for people."""
        return _TITLES[self]

    @property
    def warns(self) -> bool:
        """Whether somebody should look at it before it is applied."""
        return self in (Level.WEAKENS, Level.DELETES, Level.DENIES)

    @property
    def meaning(self) -> str:
        """What such a change does, as the rest of a sentence."""
        return _MEANINGS[self]


_TITLES: Final = {
    Level.WEAKENS: "Weakens",
    Level.DELETES: "Deletes",
    Level.DENIES: "Denies more",
    Level.OTHER: "Changes",
    Level.NONE: "No effect",
}
_MEANINGS: Final = {
    Level.WEAKENS: "takes away, or may take away, what denies requests today",
    Level.DELETES: "deletes the policy, resources, or what the policy generated",
    Level.DENIES: "may deny requests that pass today",
    Level.OTHER: "changes what it reports, mutates or generates",
    Level.NONE: "changes labels, annotations or texts only",
}
#: As what one policy does, and what several do.
_COUNTED: Final = {
    Level.WEAKENS: ("weakens", "weaken"),
    Level.DELETES: ("deletes", "delete"),
    Level.DENIES: ("denies more", "deny more"),
}
_RANK: Final = {level: rank for rank, level in enumerate(Level)}
_DELETES: Final = (What.DELETES, What.DELETES_MORE, What.DELETES_OTHERWISE, What.DELETES_DOWNSTREAM)
#: More of these is denied only by a policy that denies.
_REACHES_FURTHER: Final = (What.MATCHES_MORE, What.EXCLUDES_LESS, What.ENFORCES_MORE, What.FAILS_CLOSED)
#: What the action itself does, besides what the content of the policy does.
_OF_ACTIONS: Final = {
    Action.DELETE: ("policy-deleted", Level.DELETES, "the policy is deleted"),
    Action.REPLACE: (
        "policy-replaced",
        Level.DELETES,
        "the policy is deleted and created anew; meanwhile nothing does what it does",
    ),
    Action.ADOPT: (
        "policy-adopted",
        Level.OTHER,
        "the policy is somebody else's: Insights takes it over, and overwrites what it says",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One thing that a change does. `code` says what to programs, and stays; `sentence` to people, without full stop.

    `weakens` is True where `apply` needs --allow-weaken for it; `path` is the field, "" where it is no single one.
    """

    policy: Identity
    code: str
    level: Level
    sentence: str
    path: str = ""
    weakens: bool = False

    @property
    def text(self) -> str:
        """The sentence with its capital and its full stop."""
        return f"{self.sentence[0].upper()}{self.sentence[1:]}."


def code(what: What) -> str:
    """The code of one thing that a policy does: `no-longer-enforces`."""
    return what.name.lower().replace("_", "-")


def of_change(change: Change, plan: Plan) -> list[Risk]:
    """Everything that this change of the plan does, the worst first; nothing for what stays as it is."""
    if change.action is Action.UNCHANGED:
        return []
    does = effect.compare(change.before, change.after, change.identity.kind)
    in_force = plan.weakening is None or change.identity in plan.weakening
    found = [*_of_the_action(change), *(_of_the_content(change, one, does, in_force=in_force) for one in does.changes)]
    return sorted(found, key=lambda risk: _RANK[risk.level])


def of_plan(plan: Plan) -> list[Risk]:
    """Everything that the plan's changes do, the refused ones' too: by level, then by policy."""
    found = [risk for change in shown(plan) for risk in of_change(change, plan)]
    return sorted(found, key=lambda risk: _RANK[risk.level])


def shown(plan: Plan) -> Iterator[Change]:
    """The changes that reports show, the worst first; what a guard refuses is last, since it does not happen."""
    for group in (plan.effective, plan.of(Action.REFUSED)):
        yield from sorted(group, key=lambda change: _RANK[level(of_change(change, plan))])


def counts(plan: Plan) -> str:
    """`1 weakens, 2 deny more`: how many policies there are of each level that warns; "" where there is none."""
    found = Counter(level(of_change(change, plan)) for change in shown(plan))
    return ", ".join(f"{found[one]} {_COUNTED[one][found[one] > 1]}" for one in Level if one.warns and found[one])


def level(risks: Iterable[Risk]) -> Level:
    """The worst of their levels."""
    return min((risk.level for risk in risks), key=_RANK.__getitem__, default=Level.NONE)


def _of_the_action(change: Change) -> Iterator[Risk]:
    if change.action in _OF_ACTIONS:
        its_code, its_level, sentence = _OF_ACTIONS[change.action]
        yield Risk(policy=change.identity, code=its_code, level=its_level, sentence=sentence)


def _of_the_content(change: Change, one: EffectChange, does: Effect, *, in_force: bool) -> Risk:
    return Risk(
        policy=change.identity,
        code=code(one.what),
        level=_level(one, does, in_force=in_force),
        sentence=one.sentence,
        path=one.path,
        weakens=one.weakens and in_force,
    )


def _level(one: EffectChange, does: Effect, *, in_force: bool) -> Level:
    if one.weakens and in_force:
        return Level.WEAKENS
    if one.what in _DELETES:
        return Level.DELETES
    if one.what is What.PRESENTATION:
        return Level.NONE
    reaches = one.enforced or (does.enforces_after and one.what in _REACHES_FURTHER)
    if one.what is What.ENFORCES or (reaches and one.direction is Direction.TIGHTENS):
        return Level.DENIES
    return Level.OTHER
