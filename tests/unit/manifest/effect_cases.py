"""How tables of cases are written: a field of a policy, its value before and after, and what that does."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final

from renderer.manifest import kinds
from renderer.manifest.effect import Direction, Effect, compare
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import Kind


class _Absent:
    def __repr__(self) -> str:
        return "absent"  # the same in every process: it is part of the names of tests


#: The field is not there.
ABSENT: Final = _Absent()
ON: Final = True
OFF: Final = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`says` is direction and What of each change, worst first; `weakens` whether the guard speaks up."""

    field: str
    before: Json
    after: Json
    says: tuple[str, ...]
    weakens: bool

    def __str__(self) -> str:
        return f"{self.field}: {self.before} to {self.after}"[:100]


def case(field: str, before: Json, after: Json, *says: str, weakens: bool = False) -> Case:
    return Case(field=field, before=before, after=after, says=says, weakens=weakens)


def kind(resource: str) -> Kind:
    found = kinds.of_resource(resource)
    assert found, resource
    return found


def policy(spec: JsonObject, name: str = "policy") -> JsonObject:
    return {"metadata": {"name": name}, "spec": spec}


def put(body: JsonObject, field: str, value: Json) -> JsonObject:
    """A copy of the body with that field, `rules.0.match` or so under spec, set or taken away."""
    changed = copy.deepcopy(body)
    holder: Json = changed["spec"]
    *parents, last = field.split(".")
    for key in parents:
        holder = holder[int(key)] if isinstance(holder, list) else holder.setdefault(key, {})
    if value is ABSENT:
        holder.pop(last, None)
    elif isinstance(holder, list):
        holder[int(last)] = value
    else:
        holder[last] = value
    return changed


def said(effect: Effect) -> tuple[str, ...]:
    return tuple(f"{change.direction.value} {change.what.name}" for change in effect.changes)


def moves(effect: Effect) -> list[Direction]:
    """The directions of all changes but those that move nothing, such as what else is deleted."""
    return [change.direction for change in effect.changes if change.direction is not Direction.NEUTRAL]


def directions(effect: Effect) -> list[str]:
    return sorted(direction.value for direction in moves(effect))


def check(base: JsonObject, its_kind: Kind, one: Case) -> Effect:
    """Compare as the case says, and the change back, whose directions are the opposite ones."""
    before, after = put(base, one.field, one.before), put(base, one.field, one.after)
    effect, back = compare(before, after, its_kind), compare(after, before, its_kind)
    assert said(effect) == one.says
    assert effect.weakens is one.weakens
    assert directions(back) == sorted(direction.opposite.value for direction in moves(effect))
    assert effect.tightens is any(change.direction is Direction.TIGHTENS for change in effect.changes)
    assert effect.tightens is back.loosens
    assert not compare(after, after, its_kind).changes
    return effect
