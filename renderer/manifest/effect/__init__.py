"""What a change of a policy does: enforces more or less, matches, excludes, generates, deletes.

Commit texts, guards, the order of writes and every report ask here. Two rules hold throughout: what cannot
be decided (two CEL expressions that differ, say) is `Direction.UNKNOWN`, never harmless; and the change back
has the opposite directions. Give versions that are defaulted alike: most defaults are known here, not all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from renderer.manifest.effect.comparison import changes
from renderer.manifest.effect.covering import UnreadableError, items, mapping, same
from renderer.manifest.effect.facets import Direction, EffectChange, What
from renderer.manifest.effect.units import units
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind

__all__ = ["Direction", "Effect", "EffectChange", "What", "compare", "enforces"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Everything that a change of one policy does, worst first; nothing where only labels change."""

    changes: tuple[EffectChange, ...]
    enforced_before: bool
    enforces_after: bool

    @property
    def tightens(self) -> bool:
        """True when some part certainly tightens; other parts may do the contrary."""
        return any(change.direction is Direction.TIGHTENS for change in self.changes)

    @property
    def loosens(self) -> bool:
        """True when some part certainly loosens."""
        return any(change.direction is Direction.LOOSENS for change in self.changes)

    @property
    def may_loosen(self) -> bool:
        """True unless it is certain that nothing loosens."""
        return any(change.may_loosen for change in self.changes)

    @property
    def weakens(self) -> bool:
        """True when something that denied requests is, or may be, taken away; `--allow-weaken` allows it."""
        return any(change.weakens for change in self.changes)

    @property
    def generates(self) -> bool:
        """True when it starts to generate objects, or to generate more."""
        return any(change.what is What.GENERATES for change in self.changes)

    @property
    def deletes_downstream(self) -> bool:
        """True when it deletes, or may delete, objects that the policy generated."""
        return any(change.what is What.DELETES_DOWNSTREAM for change in self.changes)

    @property
    def deletes(self) -> bool:
        """True when it starts to delete objects, or deletes more or other ones than before."""
        deleting = (What.DELETES, What.DELETES_MORE, What.DELETES_OTHERWISE)
        return any(change.what in deleting for change in self.changes)

    @property
    def worst(self) -> EffectChange | None:
        """The first change, None when there is none."""
        return self.changes[0] if self.changes else None

    @property
    def summary(self) -> str:
        """The worst change as one sentence, and how many there are besides."""
        if self.worst is None:
            return "Nothing changes in what it enforces, matches or does."
        more = len(self.changes) - 1
        besides = f", and {more} more {'change' if more == 1 else 'changes'}" if more else ""
        return f"{self.worst.sentence[0].upper()}{self.worst.sentence[1:]}{besides}."


def enforces(body: JsonObject | None, kind: Kind, *, bindings: Iterable[JsonObject] | None = None) -> bool:
    """Whether this version denies requests that violate it (not: when it cannot be evaluated).

    A ValidatingAdmissionPolicy denies through bindings only: give all that there are, or None where they are
    not known, which counts as bound. What cannot be read counts as enforcing.
    """
    try:
        denies = any(unit.enforcement.denies for unit in units(body, kind))
        if denies and body and kind.name == "ValidatingAdmissionPolicy" and bindings is not None:
            return any(_binds(binding, body) for binding in bindings)
    except UnreadableError:
        return True
    return denies


def _binds(binding: JsonObject, policy: JsonObject) -> bool:
    spec = mapping(binding.get("spec"))
    named = spec.get("policyName") == mapping(policy.get("metadata")).get("name")
    return named and "Deny" in items(spec.get("validationActions"))


def compare(before: JsonObject | None, after: JsonObject | None, kind: Kind) -> Effect:
    """Say what it does to put `after` in the place of `before`, two bodies of one policy; None is no policy.

    Reads spec, and of metadata the annotation that rules autogen. Raises nothing: a body of a shape that the
    API does not know gives one change of unknown direction.
    """
    try:
        found = list(changes(units(before, kind), units(after, kind), removed=after is None))
    except UnreadableError:
        found = []
        if before is None or after is None or not same(before.get("spec"), after.get("spec")):
            found = [_unreadable(enforced=before is not None or kind.name == "PolicyException")]
    return Effect(
        changes=tuple(sorted(found, key=_worst_first)),
        enforced_before=enforces(before, kind),
        enforces_after=enforces(after, kind),
    )


_RANK: Final = {what: rank for rank, what in enumerate(What)}


def _worst_first(change: EffectChange) -> tuple[bool, int, str, str]:
    return not change.weakens, _RANK[change.what], change.path, change.sentence


def _unreadable(*, enforced: bool) -> EffectChange:
    return EffectChange(
        what=What.ENFORCES_OTHERWISE,
        direction=Direction.UNKNOWN,
        enforced=enforced,
        path="spec",
        sentence="the policy has a field of the wrong type, so what changes is unknown",
    )
